//! Kernels of clusters, of bulk copies, and of launches that overlap.

use cuda_emulator::machine::Profile;

use super::compile;
use super::edit::{instead, move_behind, operand, remove, swap};
use super::harness::{Arg, Case, Expected, Mutant, Setup, bytes, mutant};
use super::inputs::wide_integers;

const TRY_WAIT: &str = "mbarrier.try_wait";
const OTHER_PARITY: &str =
    "{ .reg .b32 %q; xor.b32 %q, $2, 1; mbarrier.try_wait.parity.shared::cta.b64 $0, $1, %q; }";

fn case(kernel: &'static str, setups: Vec<Setup>, mutants: Vec<Mutant>) -> Case {
    Case { kernel, ptx: compile::ptx("sm90a", "90a"), profile: Profile::H100, setups, mutants }
}

pub fn cases() -> Vec<Case> {
    vec![cluster_exchange(), cluster_leave(), multicast(), multicast_ring(), bulk_scale(), chain()]
}

fn cluster_exchange() -> Case {
    let x = wide_integers(64 * 8, 9);
    let at = |cluster: usize, rank: usize, t: usize| x[(cluster * 4 + rank % 4) * 64 + t];
    let one = |i: usize| {
        let (cluster, rank, t) = (i / 256, i / 64 % 4, i % 64);
        at(cluster, rank + 1, 63 - t).wrapping_mul(2).wrapping_add(at(cluster, rank + 2, t))
    };
    let out: Vec<i32> = (0..64 * 8).map(one).collect();
    let setup =
        Setup::new([8, 1], 64).cluster(4).output("out", Expected::Exactly(bytes(&out))).input("in", &x);
    let mutants = vec![
        mutant(
            "first cluster barrier removed",
            [remove("barrier.cluster.arrive", &[0]), remove("barrier.cluster.wait", &[0])],
            "The next block may not have stored.",
        ),
        mutant(
            "second cluster barrier removed",
            [remove("barrier.cluster.arrive", &[1]), remove("barrier.cluster.wait", &[1])],
            "Another block may not have stored into the inbox.",
        ),
        mutant(
            "first cluster barrier is one of the block",
            [remove("barrier.cluster.arrive", &[0]), instead("barrier.cluster.wait", &[0], "bar.sync 0;")],
            "bar.sync does not wait for other blocks.",
        ),
        mutant(
            "the cluster's wait removed",
            [remove("barrier.cluster.wait", &[1])],
            "Arriving does not wait.",
        ),
        mutant(
            "mapa of the wrong block",
            [instead(
                "mapa",
                &[0],
                "{ .reg .b32 %q; xor.b32 %q, $2, 2; mapa.shared::cluster.u32 $0, $1, %q; }",
            )],
            "Blocks hold different values.",
        ),
        mutant(
            "mapa beyond the cluster",
            [instead(
                "mapa",
                &[1],
                "{ .reg .b32 %q; add.u32 %q, $2, 1; mapa.shared::cluster.u32 $0, $1, %q; }",
            )],
            "A cluster has ranks 0 to 3.",
        ),
        mutant(
            "the own block instead of the next",
            [instead("mapa", &[0], "mov.u32 $0, $1;")],
            "Blocks hold different values.",
        ),
        mutant(
            "arrival without release",
            [swap("barrier.cluster.arrive", &[0], ".release", ".relaxed")],
            "A relaxed arrival orders nothing.",
        ),
    ];
    case("cluster_exchange", vec![setup], mutants)
}

fn cluster_leave() -> Case {
    let x = wide_integers(64 * 4, 10);
    let sum =
        |i: usize| (0..4).fold(0i32, |sum, rank| sum.wrapping_mul(3).wrapping_add(x[rank * 64 + i % 64]));
    let out: Vec<i32> = (0..64 * 4).map(sum).collect();
    let setup =
        Setup::new([4, 1], 64).cluster(4).output("out", Expected::Exactly(bytes(&out))).input("in", &x);
    let mutants = vec![mutant(
        "blocks leave while others read their shared memory",
        [remove("barrier.cluster.arrive", &[1]), remove("barrier.cluster.wait", &[1])],
        "Shared memory of a block that has ended is gone.",
    )];
    case("cluster_leave", vec![setup], mutants)
}

fn multicast() -> Case {
    const ROUNDS: usize = 3;
    let x = wide_integers(ROUNDS * 16 * 32, 11);
    // Word i of the two boxes: the chunks of 16 bytes of a row are permuted by its number.
    let word = |round: usize, i: usize| {
        let (row, chunk) = (i / 32, i / 4 % 8);
        x[(round * 16 + row) * 32 + (chunk ^ (row % 8)) * 4 + i % 4]
    };
    let term = |rank: usize, round: usize, i: usize| {
        word(round, i).wrapping_mul((round + 1 + rank) as i32).wrapping_mul(i as i32 + 1)
    };
    let sum = |rank: usize, t: usize| {
        let places = (0..ROUNDS).flat_map(|round| (0..4).map(move |n| (round, t + 128 * n)));
        places.fold(0i32, |sum, (round, i)| sum.wrapping_add(term(rank, round, i)))
    };
    let out: Vec<i32> = (0..256).map(|i| sum(i / 128, i % 128)).collect();
    let mut setup = Setup::new([2, 1], 128)
        .cluster(2)
        .output("out", Expected::Exactly(bytes(&out)))
        .input("in", &x)
        .value(ROUNDS as i32);
    setup.args[1] = Arg::Map(1, [ROUNDS as u64 * 16, 64], [8, 64]);
    let mutants = vec![
        mutant(
            "sent to one block only",
            [operand("multicast::cluster", &[0], 3, "1")],
            "The other waits for ever.",
        ),
        mutant(
            "half of the bytes are expected",
            [operand("mbarrier.arrive.expect_tx", &[0], 2, "1024")],
            "The other box may be under way.",
        ),
        mutant(
            "barrier of the round removed",
            [remove("barrier.cluster.arrive", &[1]), remove("barrier.cluster.wait", &[1])],
            "The other block's next box overwrites what is still read.",
        ),
        mutant(
            "cluster barrier after the initialisation removed",
            [remove("barrier.cluster.arrive", &[0]), remove("barrier.cluster.wait", &[0])],
            "The other block's mbarrier may not be initialised.",
        ),
        mutant(
            "barrier of the block after the initialisation",
            [remove("barrier.cluster.arrive", &[0]), instead("barrier.cluster.wait", &[0], "bar.sync 0;")],
            "The other block's mbarrier may not be initialised.",
        ),
        mutant(
            "fence.mbarrier_init removed",
            [remove("fence.mbarrier_init", &[0])],
            "A relaxed arrival does not release the initialisation.",
        ),
        mutant(
            "nobody waits for the boxes",
            [instead(TRY_WAIT, &[0], "setp.eq.u32 $0, 0, 0;")],
            "They may be under way.",
        ),
        mutant(
            "the other parity",
            [instead(TRY_WAIT, &[0], OTHER_PARITY)],
            "The phase before the first counts as complete.",
        ),
        mutant("two arrivals are expected", [operand("mbarrier.init", &[0], 1, "2")], "There is one."),
    ];
    case("multicast", vec![setup], mutants)
}

fn multicast_ring() -> Case {
    const TILES: usize = 5;
    let x = wide_integers(TILES * 16 * 32, 13);
    let word = |tile: usize, i: usize| {
        let (row, chunk) = (i / 32, i / 4 % 8);
        x[(tile * 16 + row) * 32 + (chunk ^ (row % 8)) * 4 + i % 4]
    };
    let term = |rank: usize, tile: usize, i: usize| {
        word(tile, i).wrapping_mul((tile + 1 + rank) as i32).wrapping_mul(i as i32 + 1)
    };
    let sum = |rank: usize, t: usize| {
        let places = (0..TILES).flat_map(|tile| (0..4).map(move |n| (tile, t + 128 * n)));
        places.fold(0i32, |sum, (tile, i)| sum.wrapping_add(term(rank, tile, i)))
    };
    let out: Vec<i32> = (0..256).map(|i| sum(i / 128, i % 128)).collect();
    let mut setup = Setup::new([2, 1], 256)
        .cluster(2)
        .output("out", Expected::Exactly(bytes(&out)))
        .input("in", &x)
        .value(TILES as i32);
    setup.args[1] = Arg::Map(1, [TILES as u64 * 16, 64], [8, 64]);
    let mut mutants = mutants_of_registers();
    mutants.extend(mutants_of_stages());
    case("multicast_ring", vec![setup], mutants)
}

fn mutants_of_registers() -> Vec<Mutant> {
    vec![
        mutant("nobody gives registers back", [remove("setmaxnreg.dec", &[0])], "There are none to take."),
        mutant(
            "too few registers are given back",
            [operand("setmaxnreg.dec", &[0], 0, "48")],
            "216 of each of 128 threads are not there.",
        ),
        mutant(
            "too many registers are taken",
            [operand("setmaxnreg.inc", &[0], 0, "224")],
            "216 are what 40 of the others leave.",
        ),
        mutant(
            "two of four warps give registers back",
            [instead(
                "setmaxnreg.dec",
                &[0],
                "{ .reg .pred %q; .reg .b32 %w; mov.u32 %w, %tid.x; setp.lt.u32 %q, %w, 64; \
                 @%q setmaxnreg.dec.sync.aligned.u32 40; }",
            )],
            "All warps of a warpgroup have to.",
        ),
        mutant(
            "two of four warps take registers",
            [instead(
                "setmaxnreg.inc",
                &[0],
                "{ .reg .pred %q; .reg .b32 %w; mov.u32 %w, %tid.x; setp.lt.u32 %q, %w, 192; \
                 @%q setmaxnreg.inc.sync.aligned.u32 216; }",
            )],
            "All warps of a warpgroup have to.",
        ),
        mutant(
            "registers are taken where they are to be given back",
            [swap("setmaxnreg.dec", &[0], ".dec", ".inc")],
            "40 are fewer than there are.",
        ),
        mutant(
            "registers are given back where they are to be taken",
            [swap("setmaxnreg.inc", &[0], ".inc", ".dec")],
            "216 are more than there are.",
        ),
    ]
}

fn mutants_of_stages() -> Vec<Mutant> {
    vec![
        mutant(
            "a block waits for its own readers alone",
            [instead("mapa", &[0], "mov.u32 $0, $1;")],
            "The other block may still read, or not even have got the last tile.",
        ),
        mutant(
            "the readers of one block are enough",
            [operand("mbarrier.init", &[2, 3], 1, "1")],
            "The other block may still read.",
        ),
        mutant(
            "nobody waits for readers",
            [instead(TRY_WAIT, &[0], "setp.eq.u32 $0, 0, 0;")],
            "They may still read.",
        ),
        mutant(
            "nobody waits for a tile",
            [instead(TRY_WAIT, &[1], "setp.eq.u32 $0, 0, 0;")],
            "It may be under way.",
        ),
        mutant(
            "the own half of a tile is expected",
            [operand("mbarrier.arrive.expect_tx", &[0], 2, "1024")],
            "The other block's half may be under way.",
        ),
        mutant("one reader speaks for all", [remove("bar.sync", &[0])], "Other warps may still read."),
        mutant(
            "sent to one block only",
            [operand("multicast::cluster", &[0], 3, "1")],
            "The other waits for ever.",
        ),
        mutant(
            "a block leaves before the other",
            [remove("barrier.cluster.arrive", &[1]), remove("barrier.cluster.wait", &[1])],
            "Its shared memory is gone when the other sends or arrives.",
        ),
    ]
}

fn bulk_scale() -> Case {
    const TILES: usize = 6;
    let x = wide_integers(128 * TILES, 12);
    let out: Vec<i32> = x.iter().map(|x| x.wrapping_mul(2).wrapping_add(1)).collect();
    let setup = Setup::new([1, 1], 128)
        .output("out", Expected::Exactly(bytes(&out)))
        .input("in", &x)
        .value(TILES as i32);
    let mutants = vec![
        mutant(
            "a buffer is filled before it was stored",
            [remove("cp.async.bulk.wait_group.read", &[0])],
            "The store may still read it.",
        ),
        mutant(
            "one store less is waited for",
            [operand("cp.async.bulk.wait_group.read", &[0], 0, "2")],
            "The older of two stores may still read the buffer.",
        ),
        mutant(
            "last wait removed",
            [remove("cp.async.bulk.wait_group.read", &[1])],
            "Shared memory is gone when the block ends.",
        ),
        mutant(
            "stores are in no group",
            [remove("cp.async.bulk.commit_group", &[0])],
            "wait_group waits for groups.",
        ),
        mutant(
            "fence.proxy.async removed",
            [remove("fence.proxy.async", &[0])],
            "The copy reads through another proxy.",
        ),
        mutant(
            "barrier before the store removed",
            [remove("bar.sync", &[1])],
            "One thread stores what all have computed.",
        ),
        mutant(
            "nobody waits for a buffer",
            [instead(TRY_WAIT, &[0], "setp.eq.u32 $0, 0, 0;")],
            "It may not be full.",
        ),
        mutant(
            "the other parity",
            [instead(TRY_WAIT, &[0], OTHER_PARITY)],
            "The phase before the first counts as complete.",
        ),
        mutant(
            "a store too short",
            [operand("cp.async.bulk.global", &[0], 2, "496")],
            "Four elements are missing.",
        ),
        mutant(
            "a store too long",
            [operand("cp.async.bulk.global", &[0], 2, "528")],
            "It reads beyond the tile.",
        ),
        mutant(
            "a load too long",
            [
                operand("cp.async.bulk.shared", &[0], 2, "528"),
                operand("mbarrier.arrive.expect_tx", &[0], 2, "528"),
            ],
            "It reads behind in and writes into the other buffer.",
        ),
        mutant(
            "an address that is no multiple of 16",
            [operand("cp.async.bulk.shared", &[0], 0, "[&0+8]")],
            "Bulk copies need it.",
        ),
        mutant("a tile too many", [swap("setp.lt.s32", &[1], ".lt.", ".le.")], "in and out end."),
    ];
    case("bulk_scale", vec![setup], mutants)
}

fn chain() -> Case {
    const WAIT: &str = "griddepcontrol.wait";
    let (values, weights) = (wide_integers(512, 14), wide_integers(512, 15));
    let step = |value: i32, weight: i32| value.wrapping_mul(3).wrapping_add(weight);
    let twice = |(&value, &weight)| step(step(value, weight), weight);
    let out: Vec<i32> = values.iter().zip(&weights).map(twice).collect();
    let setup = Setup::new([4, 1], 128)
        .chained()
        .update("values", bytes(&values), Expected::Exactly(bytes(&out)))
        .input("weights", &weights);
    let mutants = vec![
        mutant("nobody waits", [remove(WAIT, &[0])], "The values of the first launch may not be there."),
        mutant(
            "values are read before the wait",
            [move_behind(WAIT, &[0], "ld.global", 1)],
            "They may be those from before the first launch.",
        ),
        mutant(
            "values are written before the wait",
            [move_behind(WAIT, &[0], "st.global", 0)],
            "The first launch may write over them.",
        ),
        mutant(
            "half of the threads wait",
            [instead(
                WAIT,
                &[0],
                "{ .reg .pred %q; .reg .b32 %w; mov.u32 %w, %tid.x; setp.lt.u32 %q, %w, 64; \
                 @%q griddepcontrol.wait; }",
            )],
            "Nothing orders the others.",
        ),
    ];
    case("chain", vec![setup], mutants)
}
