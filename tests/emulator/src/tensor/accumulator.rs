//! The matrices C and D: eight by eight tiles in register rows, and how sums begin and end.

use crate::tensor::element::{Number, Word, f16_to_f32, f32_to_f16};
use cuda_emulator_alu::row::Row;
use std::marker::PhantomData;

/// Eight rows of eight columns. Columns are kept in the order of [`column`].
pub(super) type Tile<T> = [[T; 8]; 8];

/// The column that a tile keeps in position `slot`: even columns first, then odd ones. A lane holds two
/// neighbouring columns in two registers, so that in this order four lanes of one register are four
/// neighbours.
#[inline(always)]
pub(super) const fn column(slot: usize) -> usize {
    2 * (slot % 4) + slot / 4
}

/// A type of the matrices C and D.
pub(super) trait Accumulator: 'static {
    /// What is summed in.
    type Number: Number;
    /// 32-bit rows that hold a tile.
    const ROWS: usize;

    /// The tile that sums start from.
    fn start(c: &[Row]) -> Tile<Self::Number>;

    /// Writes the tile of sums to `d`; `c` is what was passed to [`Self::start`].
    fn finish(tile: &Tile<Self::Number>, c: &[Row], d: &mut [Row]);
}

/// `f32`, started from C, with canonical NaN.
pub(super) struct Single;

impl Accumulator for Single {
    type Number = f32;
    const ROWS: usize = 2;

    #[inline(always)]
    fn start(c: &[Row]) -> Tile<f32> {
        let mut tile = [[0.0; 8]; 8];
        for (r, row) in tile.iter_mut().enumerate() {
            for (slot, x) in row.iter_mut().enumerate() {
                *x = f32::from_bits(c[slot / 4].0[4 * r + slot % 4]);
            }
        }
        tile
    }

    #[inline(always)]
    fn finish(tile: &Tile<f32>, _c: &[Row], d: &mut [Row]) {
        for (r, row) in tile.iter().enumerate() {
            for (slot, &x) in row.iter().enumerate() {
                d[slot / 4].0[4 * r + slot % 4] = if x.is_nan() { 0x7fff_ffff } else { x.to_bits() };
            }
        }
    }
}

/// `f16`: summed in `f32` and rounded once, at the end.
pub(super) struct Half;

impl Accumulator for Half {
    type Number = f32;
    const ROWS: usize = 1;

    #[inline(always)]
    fn start(c: &[Row]) -> Tile<f32> {
        let mut tile = [[0.0; 8]; 8];
        for (r, row) in tile.iter_mut().enumerate() {
            for (slot, x) in row.iter_mut().enumerate() {
                *x = f16_to_f32(c[0].0[4 * r + slot % 4] >> (16 * (slot / 4)) & 0xffff);
            }
        }
        tile
    }

    #[inline(always)]
    fn finish(tile: &Tile<f32>, _c: &[Row], d: &mut [Row]) {
        for (r, row) in tile.iter().enumerate() {
            for t in 0..4 {
                d[0].0[4 * r + t] = f32_to_f16(row[t]) | f32_to_f16(row[4 + t]) << 16;
            }
        }
    }
}

/// `f64`, started from C, with canonical NaN.
pub(super) struct Double;

impl Accumulator for Double {
    type Number = f64;
    const ROWS: usize = 4;

    #[inline(always)]
    fn start(c: &[Row]) -> Tile<f64> {
        let mut tile = [[0.0; 8]; 8];
        for (r, row) in tile.iter_mut().enumerate() {
            for (slot, x) in row.iter_mut().enumerate() {
                *x = f64::from_bits(u64::read(c, slot / 4, 4 * r + slot % 4));
            }
        }
        tile
    }

    #[inline(always)]
    fn finish(tile: &Tile<f64>, _c: &[Row], d: &mut [Row]) {
        for (r, row) in tile.iter().enumerate() {
            for (slot, &x) in row.iter().enumerate() {
                let bits = if x.is_nan() { 0xfff8_0000_0000_0000 } else { x.to_bits() };
                let (register, lane) = (slot / 4, 4 * r + slot % 4);
                let pair = &mut d[2 * register + lane / 16].0;
                pair[2 * (lane % 16)] = bits as u32;
                pair[2 * (lane % 16) + 1] = (bits >> 32) as u32;
            }
        }
    }
}

/// How a sum of integers that does not fit ends.
pub(super) trait Overflow: 'static {
    /// `c + sum`.
    fn add(c: i32, sum: i32) -> i32;
}

/// Keeps the low 32 bits.
pub(super) struct Wrap;

impl Overflow for Wrap {
    #[inline(always)]
    fn add(c: i32, sum: i32) -> i32 {
        c.wrapping_add(sum)
    }
}

/// `.satfinite`: clamps.
pub(super) struct Clamp;

impl Overflow for Clamp {
    #[inline(always)]
    fn add(c: i32, sum: i32) -> i32 {
        c.saturating_add(sum)
    }
}

/// `s32`. Products are summed in `f32`, which holds every sum of up to 256 products of eight bits exactly,
/// and C is added last: only that addition can overflow.
pub(super) struct Integer<O>(PhantomData<O>);

impl<O: Overflow> Accumulator for Integer<O> {
    type Number = f32;
    const ROWS: usize = 2;

    #[inline(always)]
    fn start(_c: &[Row]) -> Tile<f32> {
        [[0.0; 8]; 8]
    }

    #[inline(always)]
    fn finish(tile: &Tile<f32>, c: &[Row], d: &mut [Row]) {
        for (r, row) in tile.iter().enumerate() {
            for (slot, &sum) in row.iter().enumerate() {
                let (register, lane) = (slot / 4, 4 * r + slot % 4);
                d[register].0[lane] = O::add(c[register].0[lane] as i32, sum as i32) as u32;
            }
        }
    }
}
