//! Runs the fused aggregator on slices of cudarc: how much each layer counts for each token.
//!
//! ```sh
//! cargo run --release --example aggregator
//! ```

use std::error::Error;

use deepguard::cuda::Cuda;
use deepguard::ops::Device;
use deepguard::ops::aggregate::{Aggregate, TapShape};
use half::bf16;

fn main() -> Result<(), Box<dyn Error>> {
    let cuda = Cuda::new(0)?;
    let shape = TapShape { taps: 4, rows: 3, hidden_size: 896 };
    for (row, weights) in layer_weights(&cuda, shape)?.chunks(shape.taps).enumerate() {
        println!("token {row}: {weights:.3?}");
    }
    Ok(())
}

/// Weights `[rows, taps]` of hidden states that a program has on the device, here waves of several lengths.
pub fn layer_weights(cuda: &Cuda, shape: TapShape) -> Result<Vec<f32>, Box<dyn Error>> {
    let TapShape { taps, rows, hidden_size } = shape;
    let wave = |len: usize, step: f32| (0..len).map(|i| bf16::from_f32((i as f32 * step).sin())).collect();
    let states: Vec<bf16> = wave(taps * rows * hidden_size, 0.37);
    let queries: Vec<bf16> = wave(rows * hidden_size, 0.37);

    let stream = cuda.stream();
    let (taps_slice, u) = (stream.clone_htod(&states)?, stream.clone_htod(&queries)?);
    let mut context = stream.alloc_zeros::<bf16>(rows * hidden_size)?;
    let mut weights = stream.alloc_zeros::<f32>(rows * taps)?;

    // Views order what cudarc does with the slices; they are there until the operation has been called.
    let (taps_view, u_view) = (cuda.view(&taps_slice)?, cuda.view(&u)?);
    let (mut context_view, mut weights_view) = (cuda.view_mut(&mut context)?, cuda.view_mut(&mut weights)?);
    cuda.aggregate(context_view.get(), weights_view.get(), taps_view.get(), u_view.get(), shape);
    drop((context_view, weights_view));
    cuda.finish()?;
    Ok(stream.clone_dtoh(&weights)?)
}
