//! Predicted times of the products of a 7B training step on an H100. **Nothing here was measured on a GPU.**
//! What a block does is counted on the emulator, and what a machine can do comes from
//! `roofline/machine.toml`, some of it fitted to public kernels with published times
//! (`roofline/calibration.toml`).
//!
//! What it cannot tell: less than some 5 %, requests that the L2 cache merges, and power, which it knows only
//! as one share of the tensor cores' peak.

#[allow(dead_code)] // the budgets need the rest
#[path = "budgets/counting.rs"]
mod counting;
#[path = "common/emulator.rs"]
mod emulator;
#[path = "roofline/machine.rs"]
mod machine;
#[allow(dead_code)] // the budgets need the rest
#[path = "budgets/memory.rs"]
mod memory;
#[path = "roofline/product.rs"]
mod product;

use machine::Machine;
use product::{Product, Work};

/// How far a prediction may be from what was published, per cent.
const TOLERANCE: f64 = 12.0;

/// The public kernels, with their published TFLOP/s.
fn calibration() -> Vec<(String, Product, f64)> {
    #[derive(serde::Deserialize)]
    struct File {
        product: Vec<Entry>,
    }
    #[derive(serde::Deserialize)]
    struct Entry {
        name: String,
        tile: [usize; 2],
        l2_bytes: f64,
        persistent: bool,
        tflops: f64,
    }
    let file: File = toml::from_str(include_str!("roofline/calibration.toml")).expect("calibration.toml");
    let product = |entry: Entry| {
        let Entry { name, tile, l2_bytes, persistent, tflops } = entry;
        let stage = Work::of_tile(tile, l2_bytes);
        (name, Product { shape: [4096, 4096, 4096], tile, stage, persistent }, tflops)
    };
    file.product.into_iter().map(product).collect()
}

/// The fit: published kernels within 12 %, and none ahead of one that was faster by more.
#[test]
fn published_products_are_predicted() {
    let machine = Machine::h100();
    let found: Vec<(String, f64, f64)> = calibration()
        .into_iter()
        .map(|(name, product, published)| (name, product.predict(&machine).tflops, published))
        .collect();
    for (name, predicted, published) in &found {
        let off = 100.0 * (predicted / published - 1.0);
        println!("{name}: predicted {predicted:.0}, published {published:.0} TFLOP/s, {off:+.1} %");
        assert!(off.abs() <= TOLERANCE, "{name}: {off:+.1} %");
    }
    for (a, of_a, published_a) in &found {
        for (b, of_b, published_b) in &found {
            let clearly_faster = published_a > &(published_b * (1.0 + TOLERANCE / 100.0));
            assert!(!clearly_faster || of_a > of_b, "{a} is faster than {b}");
        }
    }
}

/// Rows of a step of 16 pairs of SVEN: of secure functions, and of the vulnerable ones' suffixes.
const SECURE: usize = 6912;
const ROWS: usize = SECURE + 3136;
/// Qwen2.5-7B.
const HIDDEN: usize = 3584;
const WIDE: usize = 18_944;
const QKV: usize = 4608;
const VOCAB: usize = 152_064;
const LAYERS: usize = 28;
/// Rows of a chunk of logits.
const CHUNK: usize = 1024;

/// What the products of a step compute: name, kernel, shape, and how often.
fn products_of_a_step() -> Vec<(&'static str, &'static str, [usize; 3], usize)> {
    let chunks = SECURE.div_ceil(CHUNK);
    vec![
        ("gate and up", "gemm_nt_gated_sm90", [ROWS, 2 * WIDE, HIDDEN], LAYERS),
        ("gate and up, dX", "gemm_nn_sm90", [SECURE, HIDDEN, 2 * WIDE], LAYERS),
        ("down", "gemm_nt_sm90", [ROWS, HIDDEN, WIDE], LAYERS),
        ("down, dX", "gemm_nn_sm90", [SECURE, WIDE, HIDDEN], LAYERS),
        ("qkv", "gemm_nt_sm90", [ROWS, QKV, HIDDEN], LAYERS),
        ("qkv, dX", "gemm_nn_sm90", [SECURE, HIDDEN, QKV], LAYERS - 1),
        ("o", "gemm_nt_sm90", [ROWS, HIDDEN, HIDDEN], LAYERS),
        ("o, dX", "gemm_nn_sm90", [SECURE, HIDDEN, HIDDEN], LAYERS),
        ("head, twice", "gemm_nt_sm90", [CHUNK, VOCAB, HIDDEN], 2 * chunks),
        ("head, dX", "gemm_nn_sm90", [CHUNK, HIDDEN, VOCAB], chunks),
    ]
}

/// The committed table: a prediction that gets worse by more than 3 % has to change it.
const TABLE: &str = include_str!("roofline/predicted.csv");
const SLACK: f64 = 1.03;

/// The committed milliseconds of a product.
fn committed(name: &str) -> f64 {
    let line = TABLE.lines().find(|line| line.starts_with(&format!("{name};"))).expect(name);
    line.split(';').nth(2).and_then(|ms| ms.parse().ok()).expect("milliseconds in predicted.csv")
}

#[test]
fn products_of_a_7b_step() {
    if counting::uncounted() {
        return;
    }
    let machine = Machine::h100();
    let (mut table, mut sum, mut flops) = (String::from("product;kernel;ms;TFLOP/s;bound\n"), 0.0, 0.0);
    for (name, kernel, shape, times) in products_of_a_step() {
        let product = Product::counted(kernel, shape);
        let found = product.predict(&machine);
        let ms = times as f64 * found.us / 1e3;
        table += &format!("{name};{kernel};{ms:.1};{:.0};{}\n", found.tflops, found.bound);
        sum += ms;
        flops += times as f64 * product.flops();
    }
    let tflops = flops / sum / 1e9;
    table += &format!("sum;;{sum:.1};{tflops:.0};\n");
    println!("predicted, not measured:\n{table}");
    for line in table.lines().skip(1) {
        let mut fields = line.split(';');
        let (name, ms) = (fields.next().expect("a name"), fields.nth(1).expect("milliseconds"));
        let (ms, before) = (ms.parse::<f64>().expect("a number"), committed(name));
        assert!(ms <= before * SLACK, "{name}: {ms} ms predicted, {before} in predicted.csv:\n{table}");
        assert!(ms * SLACK >= before, "{name}: better than {before}, {ms} ms: write it down:\n{table}");
    }
}
