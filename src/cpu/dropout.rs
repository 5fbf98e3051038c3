//! Dropout of a row, as `DropoutKey` in `ops/philox.rs` defines it, several Philox blocks at a time.

use multiversion::multiversion;

use super::Cpu;
use crate::ops::philox::{DROPOUT_GROUP, philox};
use crate::ops::{Dropout, DropoutKey};

/// Philox blocks computed side by side: they fill a 256-bit register.
const BLOCKS: usize = 8;
/// Elements that [`BLOCKS`] Philox blocks decide on.
const STRIDE: usize = BLOCKS * DROPOUT_GROUP;

/// The 16-bit random numbers of columns `STRIDE · block ..`.
#[inline(always)]
fn random_bits(key: DropoutKey, row_key: u32, block: usize) -> [u16; STRIDE] {
    let mut words = [[0u32; 4]; BLOCKS];
    for (i, words) in words.iter_mut().enumerate() {
        *words = philox(key.seed, [row_key, (block * BLOCKS + i) as u32, key.site, key.step]);
    }
    // Little-endian: the low half of a word comes first, as in `DropoutKey::keep`.
    bytemuck::cast(words)
}

/// `row ← mask · row / P(kept)`.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2+fma"))]
pub fn dropout_row(row: &mut [f32], key: DropoutKey, row_key: u32) {
    let scale = key.scale();
    for (block, elements) in row.chunks_mut(STRIDE).enumerate() {
        let bits = random_bits(key, row_key, block);
        for (x, bits) in elements.iter_mut().zip(bits) {
            *x = if u32::from(bits) >= key.threshold { *x * scale } else { 0.0 };
        }
    }
}

/// The dropout of row `i`, or nothing.
pub fn apply_dropout(row: &mut [f32], i: usize, dropout: Option<Dropout<'_, Cpu>>) {
    if let Some(d) = dropout {
        dropout_row(row, d.key, d.row_keys.as_slice()[i]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_those_of_the_definition() {
        let key = DropoutKey::new(0.25, 77, 5, 3).unwrap();
        for width in [1, 8, 63, 64, 65, 576] {
            let mut row = vec![1.0f32; width];
            dropout_row(&mut row, key, 1234);
            for (column, &x) in row.iter().enumerate() {
                let kept = key.keep(1234, (column / DROPOUT_GROUP) as u32)[column % DROPOUT_GROUP];
                assert_eq!(x, if kept { key.scale() } else { 0.0 }, "column {column} of {width}");
            }
        }
    }
}
