//! The product with `cp.async`, `ldmatrix` and `mma.sync`.

use cuda_emulator::machine::Profile;
use deepguard::cuda::tile::*;

use super::edit::{instead, operand, remove, swap};
use super::harness::{Case, Expected, Mutant, Setup, bytes, mutant};
use super::inputs::{bf16s, f32s, integers, ptx};

const STAGE: usize = (GEMM_TILE_M + GEMM_TILE_N) * GEMM_TILE_K * 2;

/// A product of integers, so small that all sums are exact in bf16.
pub struct Product {
    pub x: Vec<i32>,
    pub w: Vec<i32>,
    pub bias: Vec<i32>,
    pub y: Vec<i32>,
}

impl Product {
    pub fn new(m: usize, n: usize, k: usize) -> Self {
        let (x, w, bias) = (integers(m * k, 1, 1), integers(n * k, 2, 1), integers(n, 3, 9));
        let dot = |x: &[i32], w: &[i32]| x.iter().zip(w).map(|(x, w)| x * w).sum::<i32>();
        let row = |x| w.chunks(k).zip(&bias).map(move |(w, bias)| dot(x, w) + bias);
        let y = x.chunks(k).flat_map(row).collect();
        Product { x, w, bias, y }
    }
}

/// More tiles along k than stages, a rest along m, n and k; `n` decides how y is written.
fn setup(m: usize, n: usize, k: usize) -> Setup {
    let product = Product::new(m, n, k);
    let grid = [m.div_ceil(GEMM_TILE_M) as u32, n.div_ceil(GEMM_TILE_N) as u32];
    Setup::new(grid, GEMM_THREADS)
        .shared(GEMM_STAGES * STAGE)
        .output("y", Expected::Exactly(bytes(&bf16s(&product.y))))
        .input("x", &bf16s(&product.x))
        .input("w", &bf16s(&product.w))
        .input("bias", &f32s(&product.bias))
        .value(m as i32)
        .value(n as i32)
        .value(k as i32)
}

pub fn cases() -> Vec<Case> {
    vec![Case {
        kernel: "gemm_nt",
        ptx: ptx("gemm", "80"),
        profile: Profile::A100,
        setups: vec![setup(100, 72, 232), setup(40, 51, 40)],
        mutants: mutants(),
    }]
}

fn mutants() -> Vec<Mutant> {
    [synchronisation(), masks(), indices()].into_iter().flatten().collect()
}

fn synchronisation() -> Vec<Mutant> {
    vec![
        mutant(
            "wait_group 2 waits for one group less",
            [operand("cp.async.wait_group", &[0], 0, "3")],
            "The newest of four groups is the tile that is multiplied next.",
        ),
        mutant(
            "wait_group in the loop removed",
            [remove("cp.async.wait_group", &[0])],
            "Nothing orders the copies before the reads of ldmatrix.",
        ),
        mutant(
            "commit_group in the loop removed",
            [remove("cp.async.commit_group", &[3])],
            "Copies of no group are not waited for by wait_group.",
        ),
        mutant(
            "commit_group of the first tile removed",
            [remove("cp.async.commit_group", &[0])],
            "The first tile is in the second group, which wait_group 2 does not wait for.",
        ),
        mutant(
            "barrier in the loop removed",
            [remove("bar.sync", &[0])],
            "wait_group only covers the copies of the thread itself.",
        ),
        mutant(
            "barrier before y takes the place of the tiles removed",
            [remove("bar.sync", &[1])],
            "Other warps still read the last tile of x and w.",
        ),
        mutant(
            "barrier before y is written out removed",
            [remove("bar.sync", &[2])],
            "A row of y was put down by four warps.",
        ),
        mutant(
            "barrier in the loop after the fetch",
            [
                remove("bar.sync", &[0]),
                instead("cp.async.commit_group", &[3], "cp.async.commit_group; bar.sync 0;"),
            ],
            "The fetch overwrites the stage that other warps still multiply.",
        ),
    ]
}

fn masks() -> Vec<Mutant> {
    vec![
        mutant("row m of x is read", [swap("setp.lt.s32", &[1], ".lt.", ".le.")], "x has m rows."),
        mutant("row n of w is read", [swap("setp.lt.s32", &[3], ".lt.", ".le.")], "w has n rows."),
        mutant(
            "column k is read",
            [swap("setp.lt.s32", &[14], ".lt.", ".le.")],
            "k is no multiple of the tile: the next row's first columns are added.",
        ),
        mutant(
            "columns beyond k are not zeroed",
            [operand("cp.async.cg", &[12, 13, 14, 15], 3, "16")],
            "The first columns stand in for those beyond k and are added again.",
        ),
        mutant(
            "bias n is read",
            [swap("setp.ge.s32", &[0, 1, 2, 3, 4, 5, 6, 7], ".ge.", ".gt.")],
            "The bias has n elements.",
        ),
        mutant(
            "row m of y is written",
            [swap("setp.ge.s32", &[12, 14, 16, 18], ".ge.", ".gt.")],
            "y has m rows.",
        ),
        mutant(
            "column n of y is written",
            [swap("setp.ge.s32", &[13, 15, 17, 19], ".ge.", ".gt.")],
            "Column n is column 0 of the next row, or lies behind y.",
        ),
        mutant(
            "one tile too many",
            [swap("setp.lt.s32", &[15], ".lt.", ".le.")],
            "The stage behind the last holds an older tile, which is added again.",
        ),
    ]
}

fn indices() -> Vec<Mutant> {
    vec![
        mutant(
            "swizzle of the copies in the loop left out",
            [instead("xor.b32", &[5], "mov.b32 $0, $2;")],
            "ldmatrix still permutes the chunks of a row.",
        ),
        mutant(
            "swizzle of ldmatrix changed",
            [swap("xor.b32", &[1], "xor", "or")],
            "The copies still permute the chunks with xor.",
        ),
        mutant(
            "ldmatrix off by a row",
            [swap("ldmatrix", &[4], "]", "+64]")],
            "A row of a tile is 64 bytes; w differs from row to row.",
        ),
        mutant(
            "ldmatrix transposes",
            [swap("ldmatrix", &[0], ".x4.", ".x4.trans.")],
            "x lies row by row, as mma wants it.",
        ),
        mutant(
            "stages one too few",
            [swap(", 49152;", &[], "49152", "32768")],
            "A tile overwrites one that is still read, and another is never multiplied.",
        ),
    ]
}
