//! Loads and stores.

use crate::support::{Case, each, lanes};

/// Stores a value in every space and loads it back with sign or zero extension.
fn round_trip(store: &str, load: &str, register: &str, to_word: &str) -> Vec<(String, Vec<u32>)> {
    let spaces = [
        ("global", "mad.wide.u32 %rd1, %t, 16, %a1;"),
        ("shared", "shl.b32 %r9, %t, 4; mov.u32 %r8, sm; add.u32 %r8, %r8, %r9; cvt.u64.u32 %rd1, %r8;"),
        ("local", "mov.u64 %rd1, lo;"),
        ("generic", "mov.u64 %rd1, lo; cvta.local.u64 %rd1, %rd1;"),
        (
            "generic",
            "shl.b32 %r9, %t, 4; mov.u32 %r8, sm; add.u32 %r8, %r8, %r9; cvt.u64.u32 %rd1, %r8; cvta.shared.u64 %rd1, %rd1;",
        ),
        ("generic", "mad.wide.u32 %rd1, %t, 16, %a1; cvta.global.u64 %rd1, %rd1;"),
    ];
    let run = |(space, address): &(&str, &str)| {
        let dot = if *space == "generic" { String::new() } else { format!(".{space}") };
        let body = format!(
            ".shared .align 16 .b8 sm[512]; .local .align 16 .b8 lo[16];\n{address}\n\
             mul.lo.u32 %r1, %t, 0x11223345; cvt.u64.u32 %rd5, %r1; mul.lo.u64 %rd5, %rd5, 0x100000081;\n\
             st{dot}.{store} [%rd1], %rd5;\nld{dot}.{load} {register}, [%rd1];\n{to_word}\nst.global.u32 [%o], %r2;"
        );
        (format!("{space} {address}"), Case::new(&body).zeros(128).zeros(512).output(0))
    };
    spaces.iter().map(run).collect()
}

fn stored(t: u32) -> u64 {
    u64::from(t.wrapping_mul(0x1122_3345)).wrapping_mul(0x1_0000_0081)
}

#[test]
fn bytes_in_every_space_with_both_signs() {
    for (what, found) in round_trip("u8", "u8", "%r2", "") {
        assert_eq!(found, each(|t| stored(t) as u8 as u32), "{what}");
    }
    for (what, found) in round_trip("b8", "s8", "%r2", "") {
        assert_eq!(found, each(|t| stored(t) as i8 as i32 as u32), "{what}");
    }
}

#[test]
fn halves_in_every_space_with_both_signs() {
    for (what, found) in round_trip("u16", "u16", "%r2", "") {
        assert_eq!(found, each(|t| stored(t) as u16 as u32), "{what}");
    }
    for (what, found) in round_trip("b16", "s16", "%r2", "") {
        assert_eq!(found, each(|t| stored(t) as i16 as i32 as u32), "{what}");
    }
}

#[test]
fn words_in_every_space_widened_with_both_signs() {
    let high = "shr.u64 %rd6, %rd6, 32; cvt.u32.u64 %r2, %rd6;";
    for (what, found) in round_trip("u32", "u32", "%rd6", high) {
        assert_eq!(found, each(|_| 0), "{what}");
    }
    for (what, found) in round_trip("b32", "s32", "%rd6", high) {
        assert_eq!(found, each(|t| if (stored(t) as i32) < 0 { u32::MAX } else { 0 }), "{what}");
    }
}

#[test]
fn double_words_in_every_space() {
    for (what, found) in round_trip("u64", "b64", "%rd6", "xor.b64 %rd6, %rd6, %rd5; cvt.u32.u64 %r2, %rd6;")
    {
        assert_eq!(found, each(|_| 0), "{what}");
    }
}

/// A load into a register wider than the type extends to the register's width, not beyond it (PTX ISA,
/// "Operand Size Exceeding Instruction-Type Size").
#[test]
fn a_signed_byte_in_a_half_register_is_sign_extended_to_16_bits() {
    let body = ".shared .align 4 .b8 sm[128];\nmov.u32 %r1, sm; add.u32 %r1, %r1, %t; st.shared.u8 [%r1], 0x80;\n\
        ld.shared.s8 %h1, [%r1];\n";
    let cases = [
        ("cvt.u32.u16 %r2, %h1;", 0xFF80),
        ("cvt.s32.s16 %r2, %h1;", 0xFFFF_FF80),
        ("mov.b32 %r2, {%h1, 0};", 0xFF80),
        ("shr.u16 %h2, %h1, 4; cvt.u32.u16 %r2, %h2;", 0xFF8),
        ("mov.u16 %h2, %h1; cvt.u32.u16 %r2, %h2;", 0xFF80),
        ("setp.eq.u16 %p1, %h1, 0xFF80; selp.u32 %r2, 1, 0, %p1;", 1),
        ("setp.eq.s16 %p1, %h1, -128; selp.u32 %r2, 1, 0, %p1;", 1),
        ("mul.wide.u16 %r2, %h1, 2;", 0x1FF00),
        ("not.b16 %h2, %h1; mov.b32 %r2, {%h2, 0};", 0x7F),
        ("selp.b16 %h2, %h1, 0, -1; cvt.u32.u16 %r2, %h2;", 0xFF80),
        ("cvt.u64.u16 %rd1, %h1; cvt.u32.u64 %r2, %rd1;", 0xFF80),
    ];
    for (rest, expected) in cases {
        assert_eq!(lanes(&format!("{body}{rest}\nst.global.u32 [%o], %r2;")), each(|_| expected), "{rest}");
    }
}

#[test]
fn vectors_of_two_four_and_eight() {
    let words: Vec<u32> = (0..256).map(|i| i * 3 + 1).collect();
    let cases = [
        ("v2.u32 {%r1, %r2}", 8, 1),
        ("v4.u32 {%r1, %r2, %r3, %r4}", 16, 1),
        ("v4.u32 {_, %r2, _, %r4}", 16, 1),
        ("v4.f32 {%r1, %r2, _, _}", 16, 1),
        ("v8.b32 {_, %r2, _, _, _, _, _, %r9}", 32, 1),
    ];
    for (load, bytes, word) in cases {
        let (ty, registers) = load.split_once(' ').expect("two parts");
        for space in
            ["", ".global", ".global.nc.L1::no_allocate.L2::128B", ".volatile.global", ".relaxed.gpu.global"]
        {
            let body = format!(
                "mad.wide.u32 %rd1, %t, {bytes}, %a1;\nld{space}.{ty} {registers}, [%rd1];\nst.global.u32 [%o], %r2;"
            );
            let found = Case::new(&body).zeros(128).words(&words).output(0);
            assert_eq!(found, each(|t| words[(t * bytes / 4 + word) as usize]), "{load} {space}");
        }
    }
}

#[test]
fn vectors_of_narrow_elements() {
    let bytes: Vec<u32> = (0..64).map(|i: u32| i.wrapping_mul(0x9E37_79B9)).collect();
    let body = "mad.wide.u32 %rd1, %t, 4, %a1;\nld.global.v4.s8 {%r1, %r2, %r3, %r4}, [%rd1];\n\
        add.u32 %r1, %r1, %r2; add.u32 %r1, %r1, %r3; add.u32 %r1, %r1, %r4;\nst.global.u32 [%o], %r1;";
    let expected = each(|t| {
        bytes[t as usize].to_le_bytes().iter().fold(0u32, |sum, &b| sum.wrapping_add(b as i8 as u32))
    });
    assert_eq!(Case::new(body).zeros(128).words(&bytes).output(0), expected);
    let body = "mad.wide.u32 %rd1, %t, 4, %a1;\nld.global.v2.u16 {%h1, %h2}, [%rd1];\nst.global.v2.u16 [%o], {%h2, %h1};";
    assert_eq!(
        Case::new(body).zeros(128).words(&bytes).output(0),
        each(|t| bytes[t as usize].rotate_left(16))
    );
}

#[test]
fn vector_stores_to_shared_and_local_memory() {
    let body = ".shared .align 16 .b8 sm[512]; .local .align 16 .b8 lo[32];\n\
        shl.b32 %r1, %t, 4; mov.u32 %r2, sm; add.u32 %r1, %r1, %r2;\n\
        st.shared.v4.u32 [%r1], {%t, 7, 0, 1};\nld.shared.v2.u32 {%r3, %r4}, [%r1];\n\
        st.local.v2.u64 [lo+16], {5, 6};\nld.local.u32 %r5, [lo+24];\n\
        add.u32 %r3, %r3, %r4; add.u32 %r3, %r3, %r5;\nst.global.u32 [%o], %r3;";
    assert_eq!(lanes(body), each(|t| t + 13));
}

#[test]
fn double_words_of_128_bits() {
    let body = ".shared .align 16 .b8 sm[512];\nshl.b32 %r1, %t, 4; mov.u32 %r2, sm; add.u32 %r1, %r1, %r2;\n\
        mov.b64 %rd1, {%t, 2}; mov.b64 %rd2, {3, 4}; mov.b128 %q1, {%rd1, %rd2};\n\
        st.shared.b128 [%r1], %q1;\nld.shared.b128 %q2, [%r1];\nmov.b128 {%rd3, %rd4}, %q2;\n\
        cvt.u32.u64 %r3, %rd3; shr.u64 %rd4, %rd4, 32; cvt.u32.u64 %r4, %rd4; add.u32 %r3, %r3, %r4;\n\
        st.global.u32 [%o], %r3;";
    assert_eq!(lanes(body), each(|t| t + 4));
}

#[test]
fn constants_and_parameters() {
    let body = "mul.wide.u32 %rd2, %t, 2; mov.u64 %rd1, table; add.u64 %rd1, %rd1, %rd2;\n\
        ld.const.s16 %r1, [%rd1];\nld.param.u8 %r2, [extra+3];\nmov.b64 %rd3, extra; ld.param.u16 %r3, [%rd3+4];\n\
        cvta.param.u64 %rd4, %rd3; ld.u8 %r4, [%rd4+6];\n\
        add.u32 %r1, %r1, %r2; add.u32 %r1, %r1, %r3; add.u32 %r1, %r1, %r4;\nst.global.u32 [%o], %r1;";
    let values: Vec<String> = (0..32).map(|i| (i * 100 - 1600).to_string()).collect();
    let table = format!(".const .align 2 .b16 table[32] = {{{}}};", values.join(", "));
    let mut case = Case::new(body).outside(&table).zeros(128);
    case.extra = vec![1, 2, 3, 200, 0x34, 0x12, 9, 0];
    assert_eq!(case.output(0), each(|t| (t as i32 * 100 - 1600 + 200 + 0x1234 + 9) as u32));
}

#[test]
fn addresses_without_a_register_and_with_negative_offsets() {
    let body = ".shared .align 4 .b32 sm[40];\nmov.u32 %r1, sm; mad.lo.u32 %r1, %t, 4, %r1; st.shared.u32 [%r1+32], %t;\n\
        bar.warp.sync -1;\nadd.u32 %r1, %r1, 64;\nld.shared.u32 %r2, [%r1+-32];\nld.shared.u32 %r3, [sm+32];\n\
        add.u32 %r2, %r2, %r3; st.global.u32 [%o], %r2;";
    assert_eq!(lanes(body), each(|t| t));
}

#[test]
fn guarded_accesses_touch_nothing() {
    let body = "setp.lt.u32 %p1, %t, 3;\nmov.u64 %rd1, 0;\nmov.u32 %r1, 5;\n@%p1 ld.global.u32 %r1, [%a1];\n\
        setp.gt.u32 %p2, %t, 40;\n@%p2 ld.global.u32 %r1, [%rd1];\n@%p2 st.global.u32 [%rd1], %r1;\n\
        @%p2 atom.global.add.u32 %r1, [%rd1], 1;\n@!%p1 st.global.u32 [%o], %r1;";
    assert_eq!(Case::new(body).zeros(128).words(&[77]).output(0), each(|t| if t < 3 { 0 } else { 5 }));
}

#[test]
fn a_prefetch_changes_nothing() {
    let body =
        "prefetch.global.L2 [%a0]; prefetchu.L1 [%a0]; discard.global.L2 [%a1], 128;\nst.global.u32 [%o], 1;";
    assert_eq!(Case::new(body).zeros(128).zeros(128).output(0), each(|_| 1));
}
