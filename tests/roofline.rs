//! Predicted times of training steps, by kernel. **Nothing here was measured on a GPU.**
//!
//! A step of real widths and lengths is taken on the emulator, which runs some blocks of each launch and counts what they
//! do. What machine code makes of it is read from the cubins, and what a machine can do comes from
//! `roofline/machine.toml`, some of it fitted to public kernels with published times (`roofline/calibration.toml`).
//!
//! What it cannot tell: less than some 5 %, requests that the L2 cache merges, and power, which it knows only as one share
//! of the tensor cores' peak.

#[path = "roofline/calibration.rs"]
mod calibration;
#[path = "common/emulator.rs"]
mod emulator;
#[path = "roofline/launch.rs"]
mod launch;
#[path = "roofline/machine.rs"]
mod machine;
#[path = "roofline/sass.rs"]
mod sass;
#[path = "budgets/sven_lengths.rs"]
mod sven_lengths;
#[path = "roofline/table.rs"]
mod table;
#[path = "roofline/workload.rs"]
mod workload;

use calibration::Product;
use machine::Machine;
use table::Table;
use workload::Model;

/// How far a prediction may be from what was published, per cent.
const TOLERANCE: f64 = 12.0;

/// The fit: published kernels within 12 %, and none ahead of one that was faster by more.
#[test]
fn published_products_are_predicted() {
    let machine = Machine::new("h100");
    let found: Vec<(String, f64, f64)> = Product::all()
        .into_iter()
        .map(|product| (product.name.clone(), product.predict(&machine), product.tflops))
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

/// Layers that are emulated: those with taps, and then one without.
const TAPPED: usize = 4;

fn step(machine: &Machine, model: &Model, cached: bool) -> Table {
    let table = |layers: usize| Table::of(machine, &model.training(layers, cached));
    let fewer = table(TAPPED);
    table(TAPPED + 1).with_layers(TAPPED + 1, &fewer, model.layers)
}

/// A token of `samples` sequences.
fn token(machine: &Machine, model: &Model, samples: usize) -> Table {
    const LAYERS: usize = 2;
    let table = |layers: usize| {
        let [fewer, more] = model.decoding(layers, samples).map(|launches| Table::of(machine, &launches));
        more.without(&fewer)
    };
    table(LAYERS).with_layers(LAYERS, &table(LAYERS - 1), model.layers)
}

fn print(what: &str, table: &Table) {
    println!("== {what}");
    for ((kernel, blocks, mflops), row) in &table.0 {
        println!("{kernel:28} {blocks:6} {mflops:6} {:6.0} {:9.3} ms  {:7.1} us {}", row.launches, row.us / 1e3, row.us / row.launches, row.bound);
    }
    println!("sum {:.1} ms, {} launches", table.us() / 1e3, table.launches());
}

#[test]
fn explore() {
    let machine = Machine::new("h100");
    let model = [workload::QWEN_7B, workload::QWEN_HALF_B].into_iter().nth(usize::from(std::env::var("HALF").is_ok())).unwrap();
    let started = std::time::Instant::now();
    for n in [1, 16, 100] {
        let table = token(&machine, &model, n);
        print(&format!("decode {n} {:?}", started.elapsed()), &table);
    }
    let started = std::time::Instant::now();
    print("train", &step(&machine, &model, true));
    println!("{:?}", started.elapsed());
}
