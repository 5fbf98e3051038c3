//! LoRA beside its linear layer.

use deepguard::cuda::Cuda;
use deepguard::cuda::tile::SKINNY_DOWN_LINES;
use deepguard::ops::linear::{Linear, LoraDown};

use super::counting::{count, global_bytes, uncounted, within};
use super::memory::{buffer, random};

const RANK: usize = 16;
/// Most bytes of global memory, as a part of what blocks need.
const GLOBAL: f64 = 1.25;

/// Each block of rows reads a lora_A, which the second-level cache holds. Of many rows, x is read once for
/// all adapters; of few, which are too few blocks otherwise, once for each. `once` bounds what is moved as
/// parts of everything once.
#[test]
fn lora_down() {
    if uncounted() {
        return;
    }
    let width = 896;
    let many = [(4800, 1, 1.55), (4800, 2, 2.05), (4800, 3, 2.5)];
    let few = [(1024, 1, 1.5), (1024, 2, 2.9), (1024, 3, 4.2), (20, 3, 1.7)];
    for (rows, adapters, once) in many.into_iter().chain(few) {
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
        let (blocks_of_rows, blocks) = (rows.div_ceil(SKINNY_DOWN_LINES), down.blocks as usize);
        let reads = if rows > 1024 { 1 } else { adapters };
        assert_eq!(blocks, blocks_of_rows * reads, "blocks of {adapters} with {rows} rows");
        let (of_x, of_a, of_xa) = (2 * rows * width, 2 * RANK * width, 2 * rows * RANK);
        let what = format!("lora_down of {adapters}, {rows} rows: global memory");
        let found = global_bytes(&down);
        let needed = reads * of_x + adapters * (blocks_of_rows * of_a + of_xa);
        within(&what, found, needed, GLOBAL);
        within(&format!("{what}, everything once"), found, of_x + adapters * (of_a + of_xa), once);
    }
}
