//! Kernels of warps, and of blocks, that hand values over to each other.

use cuda_emulator::machine::Profile;

use super::arrival::LOAD_ADD_STORE;
use super::compile;
use super::edit::{instead, move_behind, operand, remove, swap};
use super::harness::{Case, Expected, Mutant, Setup, bytes, mutant};
use super::inputs::wide_integers;

fn case(kernel: &'static str, setups: Vec<Setup>, mutants: Vec<Mutant>) -> Case {
    Case { kernel, ptx: compile::ptx("sm80", "80"), profile: Profile::A100, setups, mutants }
}

pub fn cases() -> Vec<Case> {
    vec![hand_over(), arriving_copies(), ping_pong(), grid_exchange()]
}

fn hand_over() -> Case {
    const ROUNDS: usize = 7;
    let x = wide_integers(64 * ROUNDS, 5);
    let term = |t: usize, round: usize| (round as i32 + 1).wrapping_mul(x[round * 64 + 63 - t]);
    let out: Vec<i32> =
        (0..64).map(|t| (0..ROUNDS).fold(0, |sum: i32, round| sum.wrapping_add(term(t, round)))).collect();
    let setup = Setup::new([1, 1], 128)
        .output("out", Expected::Exactly(bytes(&out)))
        .input("in", &x)
        .value(ROUNDS as i32);
    let mutants = vec![
        mutant("consumers do not wait", [remove("bar.sync", &[1])], "The buffer may not be full."),
        mutant(
            "consumers only arrive",
            [swap("bar.sync", &[1], "bar.sync", "bar.arrive")],
            "bar.arrive does not wait until the buffer is full.",
        ),
        mutant("producers do not wait", [remove("bar.sync", &[0])], "The buffer may not be empty."),
        mutant("producers do not arrive", [remove("bar.arrive", &[0])], "Consumers wait for ever."),
        mutant("consumers do not arrive", [remove("bar.arrive", &[1])], "Producers wait for ever."),
        mutant(
            "an arrival counts half of the threads",
            [operand("bar.arrive", &[0], 1, "64")],
            "All have to name one count.",
        ),
        mutant(
            "a barrier of half of the threads",
            [operand("bar.arrive", &[0], 1, "64"), operand("bar.sync", &[1], 1, "64")],
            "Consumers complete it without producers.",
        ),
        mutant(
            "empty and full are one barrier",
            [operand("bar.sync", &[0], 0, "1"), operand("bar.arrive", &[1], 0, "1")],
            "Producers complete it among themselves, or all wait for ever.",
        ),
        mutant(
            "arrival before the store",
            [move_behind("st.shared", &[0], "bar.arrive", 0)],
            "What is stored after the arrival is not ordered by it.",
        ),
        mutant(
            "one round too many",
            [swap("setp.lt.s32", &[3], ".lt.", ".le.")],
            "Nobody fills the buffer again.",
        ),
    ];
    case("hand_over", vec![setup], mutants)
}

fn arriving_copies() -> Case {
    const TILES: usize = 6;
    let x = wide_integers(512 * TILES, 6);
    let quad = |t: usize, tile: usize| {
        let from = tile * 512 + (t * 4 + 4) % 512;
        x[from..from + 4].iter().fold(0, |sum: i32, x| sum.wrapping_add(*x))
    };
    let out: Vec<i32> =
        (0..128).map(|t| (0..TILES).fold(0, |sum: i32, tile| sum.wrapping_add(quad(t, tile)))).collect();
    let setup = Setup::new([1, 1], 128)
        .output("out", Expected::Exactly(bytes(&out)))
        .input("in", &x)
        .value(TILES as i32);
    let mutants = vec![
        mutant(
            "the arrival raises the count",
            [swap("cp.async.mbarrier.arrive", &[], ".noinc", "")],
            "Its arrival only makes up for the raised count.",
        ),
        mutant("copies do not arrive", [remove("cp.async.mbarrier.arrive", &[1])], "The phase cannot end."),
        mutant(
            "threads arrive instead of their copies",
            [instead(
                "cp.async.mbarrier.arrive",
                &[1],
                "{ .reg .b64 %q; mbarrier.arrive.shared.b64 %q, $0; }",
            )],
            "A thread's arrival does not wait for its copies.",
        ),
        mutant(
            "one arrival less is expected",
            [operand("mbarrier.init", &[1], 1, "127")],
            "The last copy may be under way.",
        ),
        mutant(
            "one arrival more is expected",
            [operand("mbarrier.init", &[0], 1, "129")],
            "The phase cannot end.",
        ),
        mutant(
            "nobody waits for the copies",
            [swap("mbarrier.test_wait", &[0], ", 1, 0, p;", ", 1, 1, p;")],
            "The copies may be under way.",
        ),
        mutant(
            "the other parity",
            [swap("setp.eq.s32", &[0], "setp.eq", "setp.ne")],
            "It goes on while the phase has not ended.",
        ),
        mutant(
            "barrier at the end of a tile removed",
            [remove("bar.sync", &[1])],
            "The next copies overwrite what others read.",
        ),
        mutant(
            "barrier after the initialisation removed",
            [remove("bar.sync", &[0])],
            "Other warps use what may not be initialised.",
        ),
    ];
    case("arriving_copies", vec![setup], mutants)
}

fn ping_pong() -> Case {
    const STEPS: usize = 5;
    let x = wide_integers(128, 7);
    let mut now = [vec![0], x.clone(), vec![0]].concat();
    for _ in 0..STEPS {
        let next = |w: &[i32]| w[0].wrapping_add(w[2].wrapping_mul(2));
        now = [vec![0], now.windows(3).map(next).collect(), vec![0]].concat();
    }
    let setup = Setup::new([1, 1], 128)
        .output("out", Expected::Exactly(bytes(&now[1..129])))
        .input("in", &x)
        .value(STEPS as i32);
    let mutants = vec![
        mutant(
            "barrier of a step removed",
            [remove("bar.sync", &[1])],
            "Neighbours are read that other warps write.",
        ),
        mutant(
            "barrier before the first step removed",
            [remove("bar.sync", &[0])],
            "Neighbours are read that other warps write.",
        ),
        mutant("one end is not set", [remove("st.shared", &[2])], "Shared memory starts with anything."),
        mutant(
            "one buffer only",
            [operand("xor.b32", &[0], 2, "0")],
            "A step reads what the same step writes.",
        ),
        mutant(
            "a neighbour too far",
            [swap("ld.shared", &[0], "+8]", "+12]")],
            "in differs; the last lies behind the end.",
        ),
        mutant(
            "one step too few",
            [instead("setp.lt.s32", &[1], "{ .reg .s32 %q; sub.s32 %q, $2, 1; setp.lt.s32 $0, $1, %q; }")],
            "The buffer of the last step is asked for.",
        ),
        mutant(
            "only half of the block meets",
            [swap("bar.sync", &[1], "bar.sync \t0", "barrier.sync 0, 64")],
            "Two warps of four complete it.",
        ),
    ];
    case("ping_pong", vec![setup], mutants)
}

fn grid_exchange() -> Case {
    const BLOCKS: usize = 4;
    let x = wide_integers(64 * BLOCKS, 8);
    let between: Vec<i32> = x.iter().map(|x| x.wrapping_mul(2)).collect();
    let from = |i: usize| (i / 64 + 1) % BLOCKS * 64 + 63 - i % 64;
    let out: Vec<i32> = (0..64 * BLOCKS).map(|i| between[from(i)]).collect();
    let mut setup = Setup::new([BLOCKS as u32, 1], 64)
        .output("out", Expected::Exactly(bytes(&out)))
        .output("between", Expected::Exactly(bytes(&between)))
        .update("counter", bytes(&[0u32]), Expected::Exactly(bytes(&[BLOCKS as u32])))
        .input("in", &x);
    setup.cooperative = true;
    let mutants = vec![
        mutant(
            "blocks do not wait",
            [instead("setp.lt.u32", &[0], "setp.ne.u32 $0, $1, $1;")],
            "Other blocks may not have written.",
        ),
        mutant(
            "one block less is waited for",
            [instead("setp.lt.u32", &[0], "{ .reg .u32 %q; sub.u32 %q, $2, 1; setp.lt.u32 $0, $1, %q; }")],
            "The last block may not have written.",
        ),
        mutant(
            "one block more is waited for",
            [swap("setp.lt.u32", &[0], ".lt.", ".le.")],
            "It never comes.",
        ),
        mutant(
            "a block does not arrive",
            [swap("atom.global.add", &[0], ", 1;", ", 0;")],
            "Nobody is counted.",
        ),
        mutant(
            "fences removed",
            [remove("membar.gl", &[])],
            "Relaxed accesses to the counter do not order others.",
        ),
        mutant(
            "the arrival is no atomic",
            [instead("atom.global.add", &[0], LOAD_ADD_STORE)],
            "Two blocks may count from the same number.",
        ),
        mutant(
            "barrier before the arrival removed",
            [remove("bar.sync", &[0])],
            "The second warp may not have written.",
        ),
        mutant(
            "barrier after the wait removed",
            [remove("bar.sync", &[1])],
            "The second warp does not wait for other blocks.",
        ),
    ];
    case("grid_exchange", vec![setup], mutants)
}
