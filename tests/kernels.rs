//! CUDA, as far as it is no other backend: how it is reached, what it refuses, and what becomes of errors. The
//! operations themselves are tested in `tests/ops.rs`.

use deepguard::ErrorKind;
use deepguard::cuda::Cuda;

#[allow(dead_code)] // its main asks for a device
#[path = "../examples/aggregator.rs"]
mod aggregator;
#[path = "common/emulator.rs"]
mod emulator;
mod kernels {
    pub mod attention;
    pub mod device;
    pub mod errors;
    pub mod products;
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

/// All of this once more.
#[test]
fn on_an_a100() {
    emulator::again_on_an_a100("cuda");
}
