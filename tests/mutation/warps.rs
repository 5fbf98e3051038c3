//! Kernels of lanes that work together, and of atomics.

use cuda_emulator::machine::Profile;

use super::compile;
use super::edit::{instead, operand, remove, swap};
use super::harness::{Case, Expected, Mutant, Setup, bytes, mutant};
use super::inputs::{integers, wide_integers};

const SHARED_LOAD_ADD_STORE: &str =
    "{ .reg .u32 %q; ld.shared.u32 %q, $1; add.u32 %q, %q, $2; st.shared.u32 $1, %q; }";
const GLOBAL_LOAD_ADD_STORE: &str =
    "{ .reg .u32 %q; ld.global.u32 %q, $1; add.u32 %q, %q, $2; st.global.u32 $1, %q; }";

fn case(kernel: &'static str, setups: Vec<Setup>, mutants: Vec<Mutant>) -> Case {
    Case { kernel, ptx: compile::ptx("sm80", "80"), profile: Profile::A100, setups, mutants }
}

pub fn cases() -> Vec<Case> {
    vec![warp_exchange(), transpose(), warp_scan(), histogram(), histogram_direct()]
}

fn warp_exchange() -> Case {
    let x = wide_integers(64, 1);
    // Lane i has what the opposite of its neighbour brought.
    let out: Vec<i32> = (0..64).map(|i| x[i / 32 * 32 + 31 - ((i % 32) ^ 1)].wrapping_mul(3)).collect();
    let setup = Setup::new([1, 1], 64).output("out", Expected::Exactly(bytes(&out))).input("in", &x);
    let mutants = vec![
        mutant(
            "syncwarp after the first store removed",
            [remove("bar.warp.sync", &[0])],
            "Lanes need not run in step: another lane's store may come after the load.",
        ),
        mutant(
            "syncwarp between load and store removed",
            [remove("bar.warp.sync", &[1])],
            "A lane may overwrite what another has still to load.",
        ),
        mutant(
            "last syncwarp removed",
            [remove("bar.warp.sync", &[2])],
            "A lane loads what its neighbour stores.",
        ),
        mutant(
            "the neighbour two lanes on",
            [operand("xor.b32", &[0], 2, "8")],
            "in differs from lane to lane.",
        ),
    ];
    case("warp_exchange", vec![setup], mutants)
}

fn transpose() -> Case {
    let x: Vec<u16> = wide_integers(256, 2).iter().map(|&v| v as u16).collect();
    // Lane i gets elements 2 (i % 4) and the next of row i / 4 of the transposed matrices.
    let element = |matrix: usize, row: usize, column: usize| x[(matrix ^ 1) * 64 + row * 8 + column];
    let pair =
        |lane: usize, m: usize| [element(m, lane % 4 * 2, lane / 4), element(m, lane % 4 * 2 + 1, lane / 4)];
    let out: Vec<u16> = (0..32).flat_map(|lane| (0..4).flat_map(move |m| pair(lane, m))).collect();
    let setup = Setup::new([1, 1], 32).output("out", Expected::Exactly(bytes(&out))).input("in", &x);
    let mutants = vec![
        mutant("not transposed", [swap("ldmatrix", &[0], ".trans", "")], "The matrices are not symmetric."),
        mutant(
            "syncwarp before ldmatrix removed",
            [remove("bar.warp.sync", &[0])],
            "A lane reads rows that others have stored.",
        ),
        mutant("ldmatrix off by a row", [swap("ldmatrix", &[0], "]", "-16]")], "Rows are 16 bytes."),
        mutant(
            "one matrix instead of two",
            [swap("xor.b32", &[0], "xor", "or")],
            "Every second matrix is missing.",
        ),
    ];
    case("transpose", vec![setup], mutants)
}

fn warp_scan() -> Case {
    let x = integers(32, 3, 50);
    let sums: Vec<i32> = x
        .iter()
        .scan(0, |sum, x| {
            Some({
                *sum += x;
                *sum
            })
        })
        .collect();
    let with_half: Vec<i32> = (0..32).map(|i| if i < 16 { sums[i] + sums[i ^ 8] } else { sums[i] }).collect();
    let odd_before = |i: usize| with_half[..i].iter().filter(|v| *v % 2 != 0).count() as i32;
    let out: Vec<i32> = (0..32).map(|i| with_half[i] + 1000 * odd_before(i)).collect();
    let setup = Setup::new([1, 1], 32).output("out", Expected::Exactly(bytes(&out))).input("in", &x);
    let mutants = vec![
        mutant(
            "a step of the scan is wrong",
            [operand("shfl.sync.up", &[2], 2, "3")],
            "Step 4 follows steps 1 and 2.",
        ),
        mutant("up became down", [swap("shfl.sync.up", &[0], ".up.", ".down.")], "It adds what comes after."),
        mutant(
            "shfl.up with the clamp of down",
            [operand("shfl.sync.up", &[1], 3, "31")],
            "No lane is in range.",
        ),
        mutant(
            "lane equal to the step is left out",
            [swap("setp.lt.s32", &[3], ".lt.", ".le.")],
            "It has a lane before it.",
        ),
        mutant(
            "member mask of all lanes in a branch",
            [operand("shfl.sync.bfly", &[0], 4, "-1")],
            "The upper lanes never execute it.",
        ),
        mutant(
            "member mask without lanes that execute it",
            [operand("shfl.sync.bfly", &[0], 4, "255")],
            "A lane that executes it has to be in its mask.",
        ),
        mutant(
            "member mask of the vote without lanes that execute it",
            [operand("vote.sync.ballot", &[0], 2, "0x7fffffff")],
            "A lane that executes it has to be in its mask.",
        ),
        mutant(
            "branch for one lane less",
            [operand("setp.gt.s32", &[0], 2, "14")],
            "Lane 15 is in the mask of the shuffle.",
        ),
    ];
    case("warp_scan", vec![setup], mutants)
}

/// Keys of which some are frequent, also within a warp; the last bin is not empty.
fn keys(len: usize) -> Vec<u8> {
    let key = |(i, v): (usize, &i32)| if i == len / 2 { 63 } else { (v & v >> 8) as u8 & 63 };
    wide_integers(len, 4).iter().enumerate().map(key).collect()
}

fn counted(keys: &[u8], blocks: u32, threads: usize) -> Setup {
    let before: Vec<u32> = (100..164).collect();
    let mut counts = before.clone();
    keys.iter().for_each(|&key| counts[usize::from(key)] += 1);
    Setup::new([blocks, 1], threads)
        .update("counts", bytes(&before), Expected::Exactly(bytes(&counts)))
        .input("keys", keys)
        .value(keys.len() as i32)
}

fn histogram() -> Case {
    let mutants = vec![
        mutant("bins are not zeroed", [remove("st.shared", &[0])], "Shared memory starts with anything."),
        mutant(
            "one bin is not zeroed",
            [operand("setp.gt.u32", &[0], 2, "62")],
            "Shared memory starts with anything.",
        ),
        mutant("barrier after zeroing removed", [remove("bar.sync", &[0])], "Other warps may count before."),
        mutant(
            "barrier before adding up removed",
            [remove("bar.sync", &[1])],
            "Other warps may still count.",
        ),
        mutant(
            "shared atomic became load, add and store",
            [instead("atom.shared.add", &[0], SHARED_LOAD_ADD_STORE)],
            "Two threads may count from the same number.",
        ),
        mutant("a key too many", [swap("setp.lt.s32", &[0], ".lt.", ".le.")], "There are n keys."),
        mutant(
            "addition became exchange",
            [swap("atom.global.add", &[0], ".add.u32", ".exch.b32")],
            "Only one block's counts stay.",
        ),
    ];
    case("histogram", vec![counted(&keys(1000), 2, 128), counted(&keys(768), 1, 128)], mutants)
}

fn histogram_direct() -> Case {
    let mutants = vec![
        mutant(
            "global atomic became load, add and store",
            [instead("atom.global.add", &[0], GLOBAL_LOAD_ADD_STORE)],
            "Two threads may count from the same number.",
        ),
        mutant("a key too many", [swap("setp.ge.s32", &[0], ".ge.", ".gt.")], "There are n keys."),
    ];
    case("histogram_direct", vec![counted(&keys(500), 4, 128)], mutants)
}
