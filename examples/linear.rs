//! A linear layer whose weight and input a program has on the device already, here as slices of cudarc on a stream of its
//! own: `y = x Wᵀ`.
//!
//! ```sh
//! cargo run --release --example linear
//! ```

use std::error::Error;

use deepguard::cuda::Cuda;
use deepguard::cuda::cudarc::driver::CudaContext;
use deepguard::ops::Device;
use deepguard::ops::linear::{Linear, Write};
use deepguard::ops::matrix::Matrix;
use half::bf16;

fn main() -> Result<(), Box<dyn Error>> {
    let context = CudaContext::new(0)?;
    let cuda = Cuda::on_stream(context.new_stream()?)?;
    println!("{:.3?}", layer(&cuda, 3)?);
    Ok(())
}

/// `[rows, 4]` of waves times the middle of a matrix.
pub fn layer(cuda: &Cuda, rows: usize) -> Result<Vec<f32>, Box<dyn Error>> {
    const IN: usize = 64;
    const OUT: usize = 4;
    /// Columns of the matrix that the weight is a part of. Its rows have to start on multiples of 16 bytes.
    const STRIDE: usize = 96;

    // A stream beside that of the operations: views see to the order, and nobody waits.
    let stream = cuda.stream().context().new_stream()?;
    let wave = |len: usize| (0..len).map(|i| bf16::from_f32((i as f32 * 0.37).sin())).collect::<Vec<_>>();
    let matrix = stream.clone_htod(&wave(OUT * STRIDE))?;
    let input = stream.clone_htod(&wave(rows * IN))?;
    let mut output = stream.alloc_zeros::<bf16>(rows * OUT)?;
    {
        let middle = matrix.slice(16..);
        let (w, x, mut y) = (cuda.view(&middle)?, cuda.view(&input)?, cuda.view_mut(&mut output)?);
        let weight = cuda.weight(Matrix::strided(w.get(), OUT, IN, STRIDE))?;
        cuda.linear(y.get(), x.get(), &weight, None, &[], Write::Overwrite);
    } // from here on the stream may use the slices again
    let y = stream.clone_dtoh(&output)?;
    cuda.finish()?; // what operations have refused, or what has failed
    Ok(y.into_iter().map(bf16::to_f32).collect())
}
