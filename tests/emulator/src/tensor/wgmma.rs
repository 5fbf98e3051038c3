//! `wgmma.mma_async`: four warps multiply a matrix of 64 rows with one in shared memory.
//!
//! A warp computes 16 rows on its own. Numerics and order of summation are those of [`crate::tensor::mma`]:
//! `D` takes one fused multiply-add for each `k`, in ascending order, starting from its old value or from
//! zero.

use crate::tensor::accumulator::{Accumulator, Clamp, Half, Integer, Overflow, Single, Wrap};
use crate::tensor::descriptor::{CHUNK, Major, MatrixDescriptor};
use crate::tensor::element::{Bf16, E4m3, E5m2, Element, F16, Number, S8, Tf32, U8};
use crate::tensor::fragment::{multiply_add, unpack_a, unpack_b};
use crate::tensor::matrix::{MatrixRow, fragment, transpose};
use crate::tensor::simd::{Task, dispatch};
use cuda_emulator_alu::row::Row;
use std::marker::PhantomData;

/// Rows of 32 bits that hold a warp's part of A where it is in registers.
pub const A_ROWS: usize = 4;

/// Blocks of eight rows that a warp computes.
const BLOCKS: u32 = 2;

/// Where A comes from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// This warp's part, as [`A_ROWS`] rows.
    Registers(&'a [Row]),
    /// All of it, in shared memory.
    Shared(MatrixDescriptor),
}

/// What the immediates at the end of the instruction say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Immediates {
    /// A is multiplied by minus one.
    pub negate_a: bool,
    /// B is multiplied by minus one.
    pub negate_b: bool,
    /// How A lies in shared memory.
    pub a_major: Major,
    /// How B lies in shared memory.
    pub b_major: Major,
}

/// Operands of the instruction other than D.
#[derive(Clone, Copy, Debug)]
pub struct Operands<'a> {
    /// A.
    pub a: Source<'a>,
    /// B.
    pub b: MatrixDescriptor,
    /// Whether the old D is added.
    pub scale_d: bool,
    /// The immediates.
    pub immediates: Immediates,
}

/// A chunk outside shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfShared {
    /// Its shared address.
    pub offset: u32,
}

type WgmmaFn = fn(operands: &Operands, warp: u32, shared: &[u8], d: &mut [Row]) -> Result<(), OutOfShared>;

/// A `wgmma.mma_async` instruction, decoded.
#[derive(Clone, Copy, Debug)]
pub struct WgmmaOp {
    /// Columns of B and D.
    pub n: u32,
    /// 32-bit rows of D, in a warp.
    pub d: usize,
    /// Operations of one warp, a multiply-add being two.
    pub flops: u64,
    /// Whether elements have 16 bits, so that matrices may lie along M or N.
    pub transposable: bool,
    /// Whether A and B may be negated: not if they are integers.
    pub negatable: bool,
    run: WgmmaFn,
}

impl WgmmaOp {
    /// Understands the immediates that follow the `scale-d` predicate.
    pub fn immediates(&self, a_in_registers: bool, values: &[i64]) -> Result<Immediates, String> {
        let scales = if self.negatable { 2 } else { 0 };
        let transpositions = match (self.transposable, a_in_registers) {
            (false, _) => 0,
            (true, true) => 1,
            (true, false) => 2,
        };
        let expected = scales + transpositions;
        if values.len() != expected {
            return Err(format!("wgmma takes {expected} immediates here, not {}", values.len()));
        }
        let (scales, transpositions) = values.split_at(scales);
        let negate = |i: usize| match scales.get(i) {
            None | Some(1) => Ok(false),
            Some(-1) => Ok(true),
            Some(other) => Err(format!("wgmma scales A and B by 1 or -1, not {other}")),
        };
        // A register operand has no transposition; then the only one is that of B.
        let major = |from_end: usize| match transpositions.iter().rev().nth(from_end) {
            None | Some(0) => Ok(Major::K),
            Some(1) => Ok(Major::Mn),
            Some(other) => Err(format!("wgmma transposition is 0 or 1, not {other}")),
        };
        Ok(Immediates { negate_a: negate(0)?, negate_b: negate(1)?, a_major: major(1)?, b_major: major(0)? })
    }

    /// Addresses of the chunks of A that warp `warp` reads where A is in shared memory.
    pub fn a_chunks(&self, a: MatrixDescriptor, major: Major, warp: u32) -> impl Iterator<Item = u32> {
        chunks(a, major, BLOCKS * warp..BLOCKS * (warp + 1))
    }

    /// Addresses of the chunks of B that every warp reads.
    pub fn b_chunks(&self, b: MatrixDescriptor, major: Major) -> impl Iterator<Item = u32> {
        chunks(b, major, 0..self.n / 8)
    }

    /// Computes the rows of warp `warp` (0 to 3) of the warp group; `d` holds [`Self::d`] rows, before and
    /// after. `shared` is the block's shared memory from address 0. Where a chunk lies outside, `d` is partly
    /// written.
    pub fn run(
        &self,
        operands: &Operands,
        warp: u32,
        shared: &[u8],
        d: &mut [Row],
    ) -> Result<(), OutOfShared> {
        (self.run)(operands, warp, shared, d)
    }
}

fn chunks(matrix: MatrixDescriptor, major: Major, blocks: std::ops::Range<u32>) -> impl Iterator<Item = u32> {
    let places = blocks.flat_map(|block| (0..16).map(move |i| (block, i)));
    places.map(move |(block, i)| matrix.chunk(major, block, i / 8, i % 8))
}

/// The operation that the modifiers after `wgmma` name, or `None` where there is none or it is not supported:
/// sparse matrices and bits are not.
pub fn lookup(modifiers: &[&str]) -> Option<WgmmaOp> {
    let ["mma_async", "sync", "aligned", shape, rest @ ..] = modifiers else { return None };
    let (satfinite, types) = match rest {
        ["satfinite", types @ ..] => (true, types),
        types => (false, types),
    };
    let [d, a, b] = types else { return None };
    let (n, k) = shape.strip_prefix("m64n")?.split_once('k')?;
    let (n, k): (u32, u32) = (n.parse().ok()?, k.parse().ok()?);
    if !(8..=256).contains(&n) || n % 8 != 0 || satfinite && *d != "s32" {
        return None;
    }
    match (*d, *a, *b, k) {
        ("f32", "bf16", "bf16", 16) => Some(op::<Bf16, Bf16, Single, 16>(n)),
        ("f32", "f16", "f16", 16) => Some(op::<F16, F16, Single, 16>(n)),
        ("f16", "f16", "f16", 16) => Some(op::<F16, F16, Half, 16>(n)),
        ("f32", "tf32", "tf32", 8) => Some(op::<Tf32, Tf32, Single, 8>(n)),
        ("f32", _, _, 32) => eight_bit_float::<Single>(n, a, b),
        ("f16", _, _, 32) => eight_bit_float::<Half>(n, a, b),
        // Integers have fewer shapes: multiples of 16, and two small ones.
        ("s32", ..) if n % 16 != 0 && n != 8 && n != 24 => None,
        ("s32", _, _, 32) if satfinite => integer::<Clamp>(n, a, b),
        ("s32", _, _, 32) => integer::<Wrap>(n, a, b),
        _ => None,
    }
}

fn eight_bit_float<C: Accumulator<Number = f32>>(n: u32, a: &str, b: &str) -> Option<WgmmaOp> {
    match (a, b) {
        ("e4m3", "e4m3") => Some(op::<E4m3, E4m3, C, 32>(n)),
        ("e4m3", "e5m2") => Some(op::<E4m3, E5m2, C, 32>(n)),
        ("e5m2", "e4m3") => Some(op::<E5m2, E4m3, C, 32>(n)),
        ("e5m2", "e5m2") => Some(op::<E5m2, E5m2, C, 32>(n)),
        _ => None,
    }
}

fn integer<O: Overflow>(n: u32, a: &str, b: &str) -> Option<WgmmaOp> {
    let op = match (a, b) {
        ("s8", "s8") => op::<S8, S8, Integer<O>, 32>(n),
        ("s8", "u8") => op::<S8, U8, Integer<O>, 32>(n),
        ("u8", "s8") => op::<U8, S8, Integer<O>, 32>(n),
        ("u8", "u8") => op::<U8, U8, Integer<O>, 32>(n),
        _ => return None,
    };
    Some(WgmmaOp { negatable: false, ..op })
}

fn op<A, B, C, const K: usize>(n: u32) -> WgmmaOp
where
    A: Element<Word = u32, Number = f32>,
    B: Element<Word = u32, Number = f32>,
    C: Accumulator<Number = f32>,
{
    WgmmaOp {
        n,
        d: C::ROWS * (BLOCKS * n / 8) as usize,
        flops: 2 * 16 * u64::from(n) * K as u64,
        transposable: A::PER_WORD == 2,
        negatable: true,
        run: |operands, warp, shared, d| {
            dispatch(Wgmma::<A, B, C, K> { operands, warp, shared, d, types: PhantomData })
        },
    }
}

struct Wgmma<'a, A, B, C, const K: usize> {
    operands: &'a Operands<'a>,
    warp: u32,
    shared: &'a [u8],
    d: &'a mut [Row],
    types: PhantomData<(A, B, C)>,
}

impl<A, B, C, const K: usize> Task for Wgmma<'_, A, B, C, K>
where
    A: Element<Word = u32, Number = f32>,
    B: Element<Word = u32, Number = f32>,
    C: Accumulator<Number = f32>,
{
    type Output = Result<(), OutOfShared>;

    #[inline(always)]
    fn run(self) -> Self::Output {
        let Operands { a, b, scale_d, immediates } = self.operands;
        let a = match a {
            Source::Registers(rows) => unpack_a::<A, 16, K>(rows),
            Source::Shared(matrix) => {
                unpack_a::<A, 16, K>(&load_a(matrix, immediates.a_major, self.warp, self.shared)?)
            }
        };
        let a = if immediates.negate_a != immediates.negate_b {
            a.map(|row| row.map(Number::negated))
        } else {
            a
        };
        let (row_blocks, _) = a.as_chunks::<8>();
        for (block, columns) in self.d.chunks_exact_mut(C::ROWS * BLOCKS as usize).enumerate() {
            let b = unpack_b::<B, K>(&load_block(b, immediates.b_major, block as u32, self.shared)?);
            for (a, d) in row_blocks.iter().zip(columns.chunks_exact_mut(C::ROWS)) {
                let mut c = [Row::ZERO; 2];
                if *scale_d {
                    c[..C::ROWS].copy_from_slice(d);
                }
                let mut tile = C::start(&c);
                multiply_add(&mut tile, a, &b);
                C::finish(&tile, &c, d);
            }
        }
        Ok(())
    }
}

/// The registers that hold a warp's part of A, in the order of a fragment.
#[inline(always)]
fn load_a(
    matrix: &MatrixDescriptor,
    major: Major,
    warp: u32,
    shared: &[u8],
) -> Result<[Row; A_ROWS], OutOfShared> {
    let [k0, k1] = load_block(matrix, major, BLOCKS * warp, shared)?;
    let [lower_k0, lower_k1] = load_block(matrix, major, BLOCKS * warp + 1, shared)?;
    Ok([k0, lower_k0, k1, lower_k1])
}

/// The two registers that hold a block: eight rows of A or eight columns of B, by 32 bytes of K.
#[inline(always)]
fn load_block(
    matrix: &MatrixDescriptor,
    major: Major,
    block: u32,
    shared: &[u8],
) -> Result<[Row; 2], OutOfShared> {
    let mut registers = [Row::ZERO; 2];
    for (half, register) in registers.iter_mut().enumerate() {
        let mut rows: [MatrixRow; 8] = [[0; CHUNK]; 8];
        for (i, row) in rows.iter_mut().enumerate() {
            let offset = matrix.chunk(major, block, half as u32, i as u32);
            let bytes = shared.get(offset as usize..).and_then(|rest| rest.first_chunk::<CHUNK>());
            *row = *bytes.ok_or(OutOfShared { offset })?;
        }
        *register = fragment(&rows);
        if major == Major::Mn {
            *register = transpose(register);
        }
    }
    Ok(registers)
}
