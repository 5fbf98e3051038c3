//! What adapters do alone.

use deepguard::cuda::Cuda;
use deepguard::ops::gemm::{Gemm, LoraDown};

use super::counting::{count, global_bytes, uncounted, within};
use super::memory::{buffer, random};

const RANK: usize = 16;

/// x is read once for each adapter, and lora_A by each block of 32 rows of x: through the caches, which do not count here.
#[test]
fn first_factors() {
    if uncounted() {
        return;
    }
    let (rows, width) = (1024, 896);
    for (adapters, limit) in [(1, 1.5), (2, 2.9), (3, 4.2)] {
        let [down] = count(["lora_down_2"], |cuda: &Cuda| {
            let x = random(cuda, rows * width, 1.0);
            let a = random(cuda, adapters * RANK * width, 1.0);
            let mut xa = buffer(cuda, adapters * rows * RANK);
            let ranges = (0..adapters).map(|i| i * rows * RANK..(i + 1) * rows * RANK);
            let outputs = xa.view_mut().ranges(ranges);
            let adapters = outputs.into_iter().enumerate().map(|(i, xa)| LoraDown {
                xa,
                a: a.slice(i * RANK * width..(i + 1) * RANK * width),
                dropout: None,
            });
            cuda.lora_down(adapters.collect(), x.view(), RANK, 2.0);
        });
        let of_adapters = adapters * (2 * RANK * width + 2 * rows * RANK);
        let once = 2 * rows * width + of_adapters;
        let what = format!("lora_down of {adapters}: global memory");
        within(&what, global_bytes(&down), once, limit);
    }
}
