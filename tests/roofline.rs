//! Predicted times of training steps and decoded tokens, by kernel. **Nothing here was measured on a GPU.**
//!
//! Steps of real widths and lengths are taken on the emulator, which runs some blocks of each launch and
//! counts what they do. What machine code makes of it is read from the cubins. What a machine can do comes
//! from `roofline/machine.toml`, some of it fitted to public kernels with published times
//! (`roofline/calibration.toml`).
//!
//! What it cannot tell: less than some 5 %, requests that the L2 cache merges, power, which it knows only as
//! one share of the tensor cores' peak, and the host.

#[path = "roofline/calibration.rs"]
mod calibration;
#[path = "roofline/designs.rs"]
mod designs;
#[path = "common/disassembly.rs"]
mod disassembly;
#[path = "common/emulator.rs"]
mod emulator;
#[path = "roofline/launch.rs"]
mod launch;
#[path = "roofline/launches.rs"]
mod launches;
#[path = "roofline/machine.rs"]
mod machine;
#[allow(dead_code)] // the benches need the rest
#[path = "../benches/common/random_model.rs"]
mod random_model;
#[path = "roofline/ratchet.rs"]
mod ratchet;
#[path = "roofline/sass.rs"]
mod sass;
#[path = "roofline/table.rs"]
mod table;
#[allow(dead_code)] // the benches need the rest
#[path = "../benches/common/workload.rs"]
mod workload;

use std::sync::{Mutex, PoisonError};

use calibration::Published;
use cuda_emulator::client::Launched;
use deepguard::ops::attention::{Heads, Segment};
use emulator::{again_on_an_a100, long_again_on_an_a100, on_a_gpu, skipped};
use launches::{Launches, Model};
use machine::Machine;
use ratchet::Predicted;
use table::Table;
use workload::{QWEN_7B, QWEN_HALF_B};

/// Rates of attention's forward pass of a 7B model that predictions have to reach on an H100, in TFLOP/s of
/// the keys that are seen: at SVEN's lengths, and with a sequence of 8192 tokens.
const ATTENTION: [f64; 2] = [300.0, 550.0];

/// How far a prediction may be from what was published, per cent.
const TOLERANCE: f64 = 12.0;

/// Designs of public kernels are predicted within 12 %, and none ahead of one that was faster by more.
#[test]
fn published_times_are_predicted() {
    if on_a_gpu() {
        return skipped("the emulator counts");
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let machine = Machine::emulated();
    let found: Vec<(Published, f64)> = Published::of(machine.name)
        .into_iter()
        .map(|published| {
            let predicted = published.predict(&machine);
            (published, predicted)
        })
        .collect();
    for (published, predicted) in &found {
        let (name, us) = (&published.name, published.us());
        let off = 100.0 * (predicted / us - 1.0);
        println!("{name}: predicted {predicted:.0} us, published {us:.0} us, {off:+.1} %");
    }
    for (published, predicted) in &found {
        let off = 100.0 * (predicted / published.us() - 1.0);
        assert!(off.abs() <= TOLERANCE, "{}: {off:+.1} %", published.name);
        for (other, of_other) in &found {
            let slower =
                other.kind() == published.kind() && other.us() > published.us() * (1.0 + TOLERANCE / 100.0);
            assert!(!slower || of_other > predicted, "{} is faster than {}", published.name, other.name);
        }
    }
    again_on_an_a100("published_times_are_predicted");
}

/// The kernels that repeat public designs compute what these do.
#[test]
fn designs_of_public_kernels_are_right() {
    if on_a_gpu() {
        return skipped("they are for predictions");
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    calibration::check_results();
}

/// Layers that are emulated: those with taps, and then one without.
const TAPPED: usize = 4;
/// Sequences that are decoded together.
const SEQUENCES: [usize; 3] = [1, 16, 100];

/// Predictions of a model's steps and tokens, on each of `machines`.
fn predict(machines: &[Machine], model: &Model) -> Vec<Predicted> {
    // First, as launches that are alike are counted once, and a model's own have logits that are all equal.
    let choosing = SEQUENCES.map(|sequences| model.choosing(sequences));
    let [fewer, more] = [TAPPED, TAPPED + 1].map(|layers| model.launches(layers, SEQUENCES));
    let (config, lengths) = (model.config(), workload::lengths());
    let layers = config.num_hidden_layers;
    let mut all = Vec::new();
    for machine in machines {
        let table = |launches: &Launches| Table::of(machine, launches);
        let mut add = |work: String, table: Table, result: String| {
            all.push(Predicted { machine: machine.name, model: model.name, work, table, result });
        };
        for (known, work) in ["step", "step of the first epoch"].into_iter().enumerate() {
            let [fewer, more] = [&fewer, &more].map(|of| table(&of.steps[known]));
            let step = more.with_layers(TAPPED + 1, &fewer, layers);
            let tflops = workload::needed(&config, &lengths, known == 0) / step.us() / 1e6;
            let share = 100.0 * tflops / machine.peak_tflops;
            add(work.to_owned(), step, format!("{share:.1} % MFU"));
        }
        for (i, sequences) in SEQUENCES.into_iter().enumerate() {
            let [fewer, more] = [&fewer, &more].map(|of| {
                let [before, after] = &of.tokens[i];
                table(after).without(&table(before))
            });
            let token = more.with_layers(TAPPED + 1, &fewer, layers);
            let token = token.with_kernel("sample", table(&choosing[i]));
            let result = format!("{:.0} tokens/s", sequences as f64 / token.us() * 1e6);
            add(format!("token of {sequences}"), token, result);
        }
    }
    all
}

/// Sampled execution is of a whole process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Blocks of a sample count like all of them, where they do the same, and launches that are alike are counted
/// as one that ran.
#[test]
fn a_sample_counts_like_the_whole() {
    if on_a_gpu() {
        return skipped("the emulator counts");
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let [whole, some] = [u64::MAX, 3].map(|blocks| launches::additions(64 * 1024, blocks));
    let [(_, whole), (_, again)] = whole.as_slice() else { panic!("{whole:?}") };
    let [(name, first), (_, second)] = some.as_slice() else { panic!("{some:?}") };
    assert_eq!((name.as_str(), first), ("add_rows", second));
    assert_eq!(whole, again);
    let ran = first.counters.blocks;
    assert!(ran == 3 && whole.counters.blocks == whole.blocks && first.blocks == whole.blocks, "{first:?}");
    let scaled = |counted: u64| counted * whole.blocks / ran;
    let counters = |of: &Launched| (of.counters.global_load_sectors, of.counters.warp_instructions());
    let (loads, instructions) = counters(first);
    assert_eq!((scaled(loads), scaled(instructions)), counters(whole));
}

/// Packed functions with the suffixes of others, and a long sequence.
#[test]
#[ignore = "half a minute: make test-long"]
fn attention_keeps_tensor_cores_busy() {
    if on_a_gpu() {
        return skipped("the emulator counts");
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let machine = Machine::new("h100");
    let heads = Heads { query: 28, key_value: 4, dim: 128 };
    let (secure, suffixes) = workload::segments(&workload::lengths());
    let long = Segment { start: 0, len: 8192, prefix_start: 0, prefix_len: 0 };
    let works = [("SVEN's lengths", [secure, suffixes].concat(), 3), ("8192 tokens", vec![long], 1)];
    for ((what, segments, blocks), least) in works.into_iter().zip(ATTENTION) {
        let seen = |s: &Segment| {
            let [len, before] = [s.len, s.prefix_len].map(f64::from);
            len * before + len * (len + 1.0) / 2.0
        };
        let flops = 4.0 * heads.q_width() as f64 * segments.iter().map(seen).sum::<f64>();
        let us = Table::of(&machine, &launches::attention(&segments, heads, blocks)).us();
        let rate = flops / us / 1e6;
        println!("predicted, not measured: attention, {what}: {us:.0} us, {rate:.0} TFLOP/s");
        assert!(rate >= least, "{what}: {rate:.0} TFLOP/s, expected {least}");
    }
}

#[test]
fn steps_and_tokens_of_7b() {
    if on_a_gpu() {
        return skipped("the emulator counts");
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    ratchet::check(&predict(&Machine::like_emulated(), &Model::new(QWEN_7B)));
}

#[test]
#[ignore = "minutes: make test-long"]
fn steps_and_tokens_of_half_b() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    ratchet::check(&predict(&Machine::like_emulated(), &Model::new(QWEN_HALF_B)));
}

#[test]
#[ignore = "minutes: make test-long"]
fn steps_and_tokens_of_an_a100() {
    long_again_on_an_a100("steps_and_tokens_of_7b");
    long_again_on_an_a100("steps_and_tokens_of_half_b");
}
