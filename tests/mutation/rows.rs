//! Row and element-wise kernels of the crate: sums over a block, and masks.

use cuda_emulator::machine::Profile;
use deepguard::cuda::tile::*;

use super::edit::{operand, remove, swap};
use super::harness::{Case, Expected, Setup, bytes, mutant};
use super::inputs::{bf16s, f32s, integers, ptx, wide_integers};

pub fn cases() -> Vec<Case> {
    vec![rms_norm(), sum_of_squares(), adamw(), exact_add()]
}

fn rms_norm_setup(rows: usize, width: usize, block: usize) -> Setup {
    const EPS: f32 = 1e-5;
    let (x, weight) = (integers(rows * width, 20, 9), integers(width, 21, 5));
    let rstd_of = |row: &[i32]| {
        let squares: i32 = row.iter().map(|x| x * x).sum();
        1.0 / (f64::from(squares) / width as f64 + f64::from(EPS)).sqrt()
    };
    let rstd: Vec<f64> = x.chunks(width).map(rstd_of).collect();
    let y = (0..rows * width).map(|i| f64::from(x[i] * weight[i % width]) * rstd[i / width]).collect();
    // A block for all rows, so that its warps have more than one each.
    Setup::new([1, 1], block)
        .shared((width + 32) * 4)
        .output("y", Expected::Bf16(y, 1.0 / 256.0))
        .output("rstd", Expected::F32(rstd, 1e-6))
        .input("x", &bf16s(&x))
        .input("weight", &f32s(&weight))
        .value(rows as i32)
        .value(width as i32)
        .value(EPS)
}

fn rms_norm() -> Case {
    let mutants = vec![
        mutant(
            "barrier before the rows removed",
            [remove("bar.sync", &[0])],
            "Weights of other warps are read.",
        ),
        mutant(
            "a step of the sum is repeated",
            [operand("shfl.sync.bfly", &[1], 2, "16")],
            "Eight lanes are counted twice.",
        ),
        mutant(
            "member mask without half of the lanes",
            [operand("shfl.sync.bfly", &[0], 4, "0xffff")],
            "A lane that executes it has to be in its mask.",
        ),
        mutant(
            "row behind the last",
            [swap("setp.lt.s32", &[4], ".lt.", ".le.")],
            "There are as many as the launch says.",
        ),
        mutant(
            "weights are stored one place on",
            [swap("st.shared", &[0], "]", "+4]")],
            "The first place is read.",
        ),
        mutant(
            "element behind a row",
            [swap("setp.lt.s32", &[2], ".lt.", ".le.")],
            "A row has width elements.",
        ),
        mutant(
            "vector behind a row",
            [swap("setp.ge.s32", &[3], ".ge.", ".gt.")],
            "A row has width / 8 vectors.",
        ),
        mutant(
            "weights one element on",
            [swap("ld.global.f32", &[0], "]", "+4]")],
            "Weights differ; the last lies behind the end.",
        ),
    ];
    Case {
        kernel: "rms_norm",
        ptx: ptx("norm", "80"),
        profile: Profile::A100,
        setups: vec![rms_norm_setup(3, 51, 64), rms_norm_setup(3, 72, 32)],
        mutants,
    }
}

fn sum_of_squares() -> Case {
    let x = integers(SUM_CHUNK + 3619, 22, 9);
    let partial: Vec<f64> =
        x.chunks(SUM_CHUNK).map(|x| f64::from(x.iter().map(|x| x * x).sum::<i32>())).collect();
    let setup = Setup::new([2, 1], SUM_THREADS)
        .output("partial", Expected::Exactly(bytes(&partial)))
        .input("x", &f32s(&x))
        .value(x.len() as u64);
    let mutants = vec![
        mutant("barrier of the sum removed", [remove("bar.sync", &[0])], "The sums of other warps are read."),
        mutant(
            "half of an f64 from another lane",
            [operand("shfl.sync.bfly", &[0], 2, "8")],
            "Both halves have to be of one number.",
        ),
        mutant(
            "a block reads into the next chunk",
            [swap("setp.ge.u64", &[0], ".ge.", ".gt.")],
            "The next block adds these, too.",
        ),
        mutant("thread 0 does not write the sum", [operand("setp.ne.s32", &[1], 2, "-1")], "Nobody does."),
    ];
    Case {
        kernel: "sum_of_squares",
        ptx: ptx("optim", "80"),
        profile: Profile::A100,
        setups: vec![setup],
        mutants,
    }
}

/// keep, step, root_correction, beta1, beta2, gain1, gain2, eps, grad_scale.
const CONSTANTS: [f32; 9] = [0.75, 0.125, 1.5, 0.5, 0.75, 0.5, 0.25, 0.0625, 0.5];

fn adamw() -> Case {
    // More than one pass of the block, and three elements left over.
    let n = 4 * 2 * ELEMENT_THREADS + 11;
    let [p, m, g] = [30, 31, 33].map(|seed| f32s(&integers(n, seed, 9)));
    let v: Vec<f32> = f32s(&integers(n, 32, 9)).iter().map(|v| v * v).collect();
    let [keep, step, root, beta1, beta2, gain1, gain2, eps, scale] = CONSTANTS.map(f64::from);
    let new = |i: usize| {
        let [p, m, v, g] = [&p, &m, &v, &g].map(|x| f64::from(x[i]));
        let g = g * scale;
        let (m, v) = (beta1 * m + gain1 * g, beta2 * v + gain2 * g * g);
        [p * keep - step * m / (v.sqrt() * root + eps), m, v]
    };
    let column = |c: usize| Expected::F32((0..n).map(|i| new(i)[c]).collect(), 1e-5);
    let setup = Setup::new([1, 1], ELEMENT_THREADS)
        .update("params", bytes(&p), column(0))
        .update("m", bytes(&m), column(1))
        .update("v", bytes(&v), column(2))
        .input("grads", &g)
        .value(n as u64)
        .value(CONSTANTS);
    let mutants = vec![
        mutant(
            "a quad too many",
            [swap("setp.lt.u64", &[0], ".lt.", ".le.")],
            "The last quad reaches beyond n.",
        ),
        mutant("an element too many", [swap("setp.ge.u64", &[1], ".ge.", ".gt.")], "There are n elements."),
        mutant("the rest is left out", [swap("setp.ge.u64", &[1], ".ge.", ".le.")], "n is no multiple of 4."),
        mutant("the second moment is not stored", [remove("st.global.v4", &[2])], "It changes."),
    ];
    Case { kernel: "adamw", ptx: ptx("optim", "80"), profile: Profile::A100, setups: vec![setup], mutants }
}

fn exact_add() -> Case {
    const LIMIT: i32 = 7;
    // More than one pass of both blocks, and an element left over. Odd numbers of halves of units are ties.
    let n = 2 * 3 * ELEMENT_THREADS + 5;
    let halves = integers(n, 40, 9);
    let mut sums: Vec<i64> = wide_integers(n + 1, 41).into_iter().map(|sum| i64::from(sum) << 20).collect();
    let before = bytes(&sums);
    for (i, &halves) in halves.iter().enumerate() {
        match halves.abs() < LIMIT {
            true => sums[i] += (f64::from(halves) / 2.0).round_ties_even() as i64,
            false => sums[n] += 1,
        }
    }
    let setup = Setup::new([2, 1], ELEMENT_THREADS)
        .update("sums", before, Expected::Exactly(bytes(&sums)))
        .update("x", bytes(&f32s(&halves)), Expected::Exactly(vec![0; 4 * n]))
        .value(n as u64)
        .value(0.5f32)
        .value(LIMIT as f32);
    let mutants = vec![
        mutant(
            "a pair too many",
            [swap("setp.lt.u64", &[0], ".lt.", ".le.")],
            "The last pair reaches beyond n.",
        ),
        mutant("the last element is left out", [swap("and.b64", &[0], ", 1;", ", 0;")], "n is odd."),
        mutant("units are cut off", [swap("cvt.rni", &[0], "rni", "rzi")], "3 halves are 2 units."),
        mutant(
            "what is at the limit is added",
            [swap("setp.lt.f32", &[1], ".lt.", ".le.")],
            "It is counted instead.",
        ),
        mutant("gradients stay", [remove("st.global.v2.f32", &[0])], "They are added again next time."),
        mutant("barrier of the count removed", [remove("bar.sync", &[0])], "Counts of other warps are read."),
        mutant(
            "a block's count takes the place of the sum",
            [swap("atom.global", &[0], ".add.u64", ".exch.b64")],
            "The other block counts, too.",
        ),
    ];
    Case {
        kernel: "exact_add",
        ptx: ptx("optim", "80"),
        profile: Profile::A100,
        setups: vec![setup],
        mutants,
    }
}
