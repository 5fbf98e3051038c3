//! `mma.sync`: a warp multiplies matrices in its registers.
//!
//! The order of summation, which hardware leaves open: `D[m][n]` starts as `C[m][n]` and takes one fused
//! multiply-add in `f32` for each `k`, in ascending order. Products are exact. An `f16` accumulator is
//! widened first and rounded once, at the end; `f64` is summed in `f64`. Subnormals are kept. A result that
//! is not a number is `0x7fffffff` (`f16`: `0x7fff`, `f64`: `0xfff8000000000000`).

use crate::tensor::accumulator::{Accumulator, Clamp, Double, Half, Integer, Overflow, Single, Wrap};
use crate::tensor::element::{Bf16, E4m3, E5m2, Element, F16, F64, S8, Tf32, U8};
use crate::tensor::fragment::{multiply_add, unpack_a, unpack_b};
use crate::tensor::simd::{Task, dispatch};
use cuda_emulator_alu::row::Row;
use std::marker::PhantomData;

/// `D = A · B + C`, each as the rows that [`MmaOp`] counts. A 64-bit register is two rows seen as `[u64;
/// 32]`.
pub type MmaFn = fn(d: &mut [Row], a: &[Row], b: &[Row], c: &[Row]);

/// An `mma` instruction, decoded.
#[derive(Clone, Copy, Debug)]
pub struct MmaOp {
    /// 32-bit rows of A.
    pub a: usize,
    /// 32-bit rows of B.
    pub b: usize,
    /// 32-bit rows of C.
    pub c: usize,
    /// 32-bit rows of D.
    pub d: usize,
    /// Bits of one register of A and B: 32, or 64 for `f64`.
    pub operand_bits: u32,
    /// Bits of one register of C and D: 32, or 64 for `f64`.
    pub accumulator_bits: u32,
    /// Operations of the whole warp, a multiply-add being two.
    pub flops: u64,
    /// Computes it.
    pub run: MmaFn,
}

/// The operation that the modifiers after `mma` name, or `None` where there is none or it is not supported:
/// `m8n8k4` of `f16`, sub-byte integers, bits, sparse and block-scaled matrices are not.
pub fn lookup(modifiers: &[&str]) -> Option<MmaOp> {
    let ["sync", "aligned", shape, "row", "col", rest @ ..] = modifiers else { return None };
    let (satfinite, types) = match rest {
        ["satfinite", types @ ..] => (true, types),
        types => (false, types),
    };
    let [d, a, b, c] = types else { return None };
    if d != c || satfinite && *d != "s32" {
        return None;
    }
    match (*d, *a, *b) {
        ("f32", "bf16", "bf16") => sixteen_bit::<Bf16, Single>(shape),
        ("f32", "f16", "f16") => sixteen_bit::<F16, Single>(shape),
        ("f16", "f16", "f16") => sixteen_bit::<F16, Half>(shape),
        ("f32", "tf32", "tf32") => tf32(shape),
        ("f64", "f64", "f64") => double(shape),
        ("s32", ..) if satfinite => integer::<Clamp>(shape, a, b),
        ("s32", ..) => integer::<Wrap>(shape, a, b),
        ("f32", ..) => eight_bit_float::<Single>(shape, a, b),
        ("f16", ..) => eight_bit_float::<Half>(shape, a, b),
        _ => None,
    }
}

fn sixteen_bit<E: Element<Number = f32>, C: Accumulator<Number = f32>>(shape: &str) -> Option<MmaOp> {
    match shape {
        "m16n8k8" => Some(op::<E, E, C, 16, 8>()),
        "m16n8k16" => Some(op::<E, E, C, 16, 16>()),
        _ => None,
    }
}

fn tf32(shape: &str) -> Option<MmaOp> {
    match shape {
        "m16n8k4" => Some(op::<Tf32, Tf32, Single, 16, 4>()),
        "m16n8k8" => Some(op::<Tf32, Tf32, Single, 16, 8>()),
        _ => None,
    }
}

fn double(shape: &str) -> Option<MmaOp> {
    match shape {
        "m8n8k4" => Some(op::<F64, F64, Double, 8, 4>()),
        "m16n8k4" => Some(op::<F64, F64, Double, 16, 4>()),
        "m16n8k8" => Some(op::<F64, F64, Double, 16, 8>()),
        "m16n8k16" => Some(op::<F64, F64, Double, 16, 16>()),
        _ => None,
    }
}

fn integer<O: Overflow>(shape: &str, a: &str, b: &str) -> Option<MmaOp> {
    fn shaped<A: Element<Number = f32>, B: Element<Number = f32>, O: Overflow>(shape: &str) -> Option<MmaOp> {
        match shape {
            "m8n8k16" => Some(op::<A, B, Integer<O>, 8, 16>()),
            "m16n8k16" => Some(op::<A, B, Integer<O>, 16, 16>()),
            "m16n8k32" => Some(op::<A, B, Integer<O>, 16, 32>()),
            _ => None,
        }
    }
    match (a, b) {
        ("s8", "s8") => shaped::<S8, S8, O>(shape),
        ("s8", "u8") => shaped::<S8, U8, O>(shape),
        ("u8", "s8") => shaped::<U8, S8, O>(shape),
        ("u8", "u8") => shaped::<U8, U8, O>(shape),
        _ => None,
    }
}

fn eight_bit_float<C: Accumulator<Number = f32>>(shape: &str, a: &str, b: &str) -> Option<MmaOp> {
    fn shaped<A, B, C>(shape: &str) -> Option<MmaOp>
    where
        A: Element<Number = f32>,
        B: Element<Number = f32>,
        C: Accumulator<Number = f32>,
    {
        match shape {
            "m16n8k16" => Some(op::<A, B, C, 16, 16>()),
            "m16n8k32" => Some(op::<A, B, C, 16, 32>()),
            _ => None,
        }
    }
    match (a, b) {
        ("e4m3", "e4m3") => shaped::<E4m3, E4m3, C>(shape),
        ("e4m3", "e5m2") => shaped::<E4m3, E5m2, C>(shape),
        ("e5m2", "e4m3") => shaped::<E5m2, E4m3, C>(shape),
        ("e5m2", "e5m2") => shaped::<E5m2, E5m2, C>(shape),
        _ => None,
    }
}

fn op<A, B, C, const M: usize, const K: usize>() -> MmaOp
where
    A: Element<Number = C::Number>,
    B: Element<Number = C::Number>,
    C: Accumulator,
{
    let word_rows = size_of::<A::Word>() / size_of::<u32>();
    let b = K / (4 * A::PER_WORD) * word_rows;
    MmaOp {
        a: b * (M / 8),
        b,
        c: C::ROWS * (M / 8),
        d: C::ROWS * (M / 8),
        operand_bits: 32 * word_rows as u32,
        accumulator_bits: 32 * word_rows as u32,
        flops: 2 * (M * 8 * K) as u64,
        run: |d, a, b, c| dispatch(Mma::<A, B, C, M, K> { d, a, b, c, types: PhantomData }),
    }
}

struct Mma<'a, A, B, C, const M: usize, const K: usize> {
    d: &'a mut [Row],
    a: &'a [Row],
    b: &'a [Row],
    c: &'a [Row],
    types: PhantomData<(A, B, C)>,
}

impl<A, B, C, const M: usize, const K: usize> Task for Mma<'_, A, B, C, M, K>
where
    A: Element<Number = C::Number>,
    B: Element<Number = C::Number>,
    C: Accumulator,
{
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let a = unpack_a::<A, M, K>(self.a);
        let b = unpack_b::<B, K>(self.b);
        let (blocks, _) = a.as_chunks::<8>();
        let sums = self.d.chunks_exact_mut(C::ROWS).zip(self.c.chunks_exact(C::ROWS));
        for (a, (d, c)) in blocks.iter().zip(sums) {
            let mut tile = C::start(c);
            multiply_add(&mut tile, a, &b);
            C::finish(&tile, c, d);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cuda_emulator_alu::row::LANES;

    /// Rows of bit patterns without order, infinities and NaN among them.
    fn noise<const N: usize>(seed: u32) -> [Row; N] {
        let mut state = seed;
        std::array::from_fn(|_| {
            Row(std::array::from_fn::<u32, LANES, _>(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state ^ state >> 15
            }))
        })
    }

    #[test]
    fn every_processor_gives_the_same_bits() {
        for seed in 0..64 {
            let (a, b, c) = (noise::<4>(seed), noise::<2>(seed + 100), noise::<4>(seed + 200));
            let [mut plain, mut fast] = [[Row::ZERO; 4]; 2];
            Mma::<Bf16, Bf16, Single, 16, 16> { d: &mut plain, a: &a, b: &b, c: &c, types: PhantomData }
                .run();
            dispatch(Mma::<Bf16, Bf16, Single, 16, 16> {
                d: &mut fast,
                a: &a,
                b: &b,
                c: &c,
                types: PhantomData,
            });
            assert_eq!(plain, fast);
            Mma::<E4m3, E5m2, Half, 16, 32> { d: &mut plain, a: &a, b: &b, c: &c, types: PhantomData }.run();
            dispatch(Mma::<E4m3, E5m2, Half, 16, 32> {
                d: &mut fast,
                a: &a,
                b: &b,
                c: &c,
                types: PhantomData,
            });
            assert_eq!(plain, fast);
        }
    }
}
