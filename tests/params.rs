//! The mirrors of the structs that kernels take by value: whatever changes in a C++ declaration changes in
//! Rust.

#[path = "../build/params.rs"]
mod params;

use std::collections::HashMap;

fn generate(text: &str) -> Result<String, String> {
    let constants = HashMap::from([("TERMS".to_owned(), 7)]);
    params::generate(&[("x.h".to_owned(), text.to_owned())], &constants)
}

/// Lines of fields, without `pub`.
fn fields(text: &str) -> Vec<String> {
    let rust = generate(text).expect("a mirror");
    rust.lines().filter_map(|line| Some(line.trim().strip_prefix("pub ")?.to_owned())).collect()
}

#[test]
fn fields_keep_names_order_and_types() {
    let text = "
        struct KERNEL_PARAMETER Term {
            const bf16* xa;  // [rows; rank]
            unsigned* arrivals;
            int rows, columns;
            unsigned long long seed;
            unsigned group_reciprocal;
            float scale;

            __device__ __forceinline__ int width() const { return rows * columns; }
            __device__ __forceinline__ int find(int tile) const {
                while (tile > 0) {
                    tile--;
                }
                return tile;
            }
        };

        // Not a parameter.
        struct Local { int a; };

        struct KERNEL_PARAMETER Terms {
            Term term[TERMS];
            CUtensorMap maps[2];
            int count;
            int padding[15];
        };";
    // 7 terms of 40 bytes end at a multiple of 8, not of 64, where a tensor map has to start.
    let problem = generate(text).expect_err("padding before a tensor map");
    assert_eq!(problem, "kernels/x.h: struct Terms: padding before maps: make it a field");
    let text = text.replace("int padding[15]", "int padding").replace("CUtensorMap maps[2]", "Term* more");
    let expected = [
        "struct Term {",
        "xa: DevicePointer,",
        "arrivals: DevicePointer,",
        "rows: i32,",
        "columns: i32,",
        "seed: u64,",
        "group_reciprocal: u32,",
        "scale: f32,",
        "struct Terms {",
        "term: [Term; TERMS],",
        "more: DevicePointer,",
        "count: i32,",
        "padding: i32,",
    ];
    assert_eq!(fields(&text), expected);
}

#[test]
fn swapped_fields_of_one_size_are_swapped_in_rust() {
    let order = |text| fields(text)[1..].to_vec();
    let before = order("struct KERNEL_PARAMETER A { int rows; int column; float alpha; };");
    let after = order("struct KERNEL_PARAMETER A { int column; int rows; float alpha; };");
    assert_eq!(before, ["rows: i32,", "column: i32,", "alpha: f32,"]);
    assert_eq!(after, ["column: i32,", "rows: i32,", "alpha: f32,"]);
    let retyped = order("struct KERNEL_PARAMETER A { int rows; float column; float alpha; };");
    assert_eq!(retyped[1], "column: f32,");
}

#[test]
fn what_has_no_mirror_is_refused_by_name() {
    for (text, problem) in [
        ("struct KERNEL_PARAMETER A { int a; float* b; };", "struct A: padding before b: make it a field"),
        ("struct KERNEL_PARAMETER A { float* b; int a; };", "struct A: padding at the end: make it a field"),
        ("struct KERNEL_PARAMETER A { size_t a; };", "struct A: a: a type that has no mirror: size_t"),
        ("struct KERNEL_PARAMETER A { B b; };", "struct A: b: a type that has no mirror: B"),
        (
            "struct KERNEL_PARAMETER A { int a[N]; };",
            "struct A: a: expected a length that is a number or of tile.h, found N",
        ),
        ("struct KERNEL_PARAMETER A { int a;", "struct A has no end"),
        ("struct KERNEL_PARAMETER A { ; };", "struct A: ``: expected a type and names"),
    ] {
        assert_eq!(generate(text).expect_err(text), format!("kernels/x.h: {problem}"), "{text}");
    }
}
