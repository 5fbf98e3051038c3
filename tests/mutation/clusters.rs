//! Kernels of clusters, and of bulk copies.

use cuda_emulator::machine::Profile;

use super::compile;
use super::edit::{instead, operand, remove, swap};
use super::harness::{Arg, Case, Expected, Mutant, Setup, bytes, mutant};
use super::inputs::wide_integers;

const TRY_WAIT: &str = "mbarrier.try_wait";
const OTHER_PARITY: &str =
    "{ .reg .b32 %q; xor.b32 %q, $2, 1; mbarrier.try_wait.parity.shared::cta.b64 $0, $1, %q; }";

fn case(kernel: &'static str, setups: Vec<Setup>, mutants: Vec<Mutant>) -> Case {
    Case { kernel, ptx: compile::ptx("sm90a", "90a"), profile: Profile::H100, setups, mutants }
}

pub fn cases() -> Vec<Case> {
    vec![cluster_exchange(), cluster_leave(), multicast(), bulk_scale()]
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
