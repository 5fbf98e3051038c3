//! CUDA, as far as it is no other backend: how it is reached, what it refuses, and what becomes of errors.
//! The operations themselves are tested in `tests/ops.rs`.

use deepguard::ErrorKind;
use deepguard::cuda::Cuda;

#[allow(dead_code)] // its main asks for a device
#[path = "../examples/aggregator.rs"]
mod aggregator;
#[path = "common/emulator.rs"]
mod emulator;
#[allow(dead_code)] // its main asks for a device
#[path = "../examples/linear.rs"]
mod linear;
#[path = "common/places.rs"]
mod places;
mod kernels {
    pub mod attention;
    pub mod device;
    pub mod errors;
    pub mod products;
    pub mod views;
}

/// What `examples/aggregator.rs` prints, on slices of cudarc.
#[test]
fn cuda_runs_the_example_of_the_aggregator() {
    let shape = deepguard::ops::aggregate::TapShape { taps: 4, rows: 3, hidden_size: 896 };
    let weights = aggregator::layer_weights(emulator::cuda(), shape).expect("weights");
    // The same on a stream of the program's own.
    let context = emulator::cuda().stream().context();
    let own = Cuda::on_stream_with_ptx(context.new_stream().expect("a stream")).expect("a device");
    assert_eq!(aggregator::layer_weights(&own, shape).expect("weights"), weights);
    assert_eq!(Cuda::on_stream(context.default_stream()).err().expect("an error").kind(), ErrorKind::Usage);
    for row in weights.chunks(shape.taps) {
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6 && row.iter().all(|w| *w > 0.0), "{row:?}");
    }
    // The query is the first row of the first layer.
    assert!(weights[0] > weights[1], "{weights:?}");
}

/// What `examples/linear.rs` prints.
#[test]
fn cuda_runs_the_example_of_a_linear_layer() {
    let wave = |i: usize| half::bf16::from_f32((i as f32 * 0.37).sin()).to_f32();
    let found = linear::layer(&emulator::own_cuda(), 3).expect("a layer");
    for (at, found) in found.iter().enumerate() {
        let (row, column) = (at / 4, at % 4);
        let expected: f32 = (0..64).map(|k| wave(row * 64 + k) * wave(column * 96 + 16 + k)).sum();
        assert!((found - expected).abs() <= expected.abs() / 100.0 + 0.02, "[{at}]: {found}, not {expected}");
    }
}

/// All of this once more.
#[test]
fn on_an_a100() {
    emulator::again_on_an_a100("cuda");
}
