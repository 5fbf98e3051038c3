//! Attention with TMA, mbarriers and `wgmma`: a producer, and two consumers that wait for nothing of each
//! other. One block takes all tiles, so that it fills each stage several times.

use cuda_emulator::machine::Profile;
use deepguard::cuda::tile::*;

use super::edit::{instead, operand, remove, swap};
use super::gemm_sm90::{NO_WAIT, OTHER_PARITY, TRY_WAIT};
use super::harness::{Arg, Case, Expected, Mutant, PackedHeads, Setup, mutant};
use super::inputs::{HeadShape, bf16s, integers, ptx};

const INIT: &str = "mbarrier.init.shared";
const LOAD: &str = "cp.async.bulk.tensor.4d";
const EXPECT: &str = "mbarrier.arrive.expect_tx";
const RELEASE: &str = "mbarrier.arrive.shared::cta.b64";

const DIM: usize = 64;
const GROUP: usize = 3;
const KV_HEADS: usize = 2;
const HEADS: usize = GROUP * KV_HEADS;
const SCALE: f32 = 0.25;
/// Rows of a consumer hold as many whole queries, and those of a tile twice as many.
const QUERIES: usize = ATTENTION_SM90_ROWS / GROUP;
/// Start and length of a sequence and of its prefix: one of many tiles of queries, and one that ends in the
/// queries of the first consumer, behind a prefix of several tiles of keys.
const SEQUENCES: [[usize; 4]; 2] = [[0, 200, 0, 0], [200, 50, 2, 150]];
const ROWS: usize = 250;

/// `Sequences` of `kernels/attention.h`.
#[derive(Clone, Copy, bytemuck::NoUninit)]
#[repr(C)]
struct Sequences {
    count: i32,
    of: [[i32; 5]; ATTENTION_SEQUENCES],
}

/// `TileShares` of `kernels/attention_sm90.cu`.
#[derive(Clone, Copy, bytemuck::NoUninit)]
#[repr(C)]
struct TileShares {
    of_head: i32,
    queries: i32,
    end: [i32; ATTENTION_SM90_BLOCKS],
}

/// Outputs and log-sum-exps.
fn expected(q: &[i32], k: &[i32], v: &[i32]) -> (Vec<f64>, Vec<f64>) {
    let (mut o, mut lse) = (Vec::new(), Vec::new());
    for [start, len, prefix, prefix_len] in SEQUENCES {
        for (query, head) in (start..start + len).flat_map(|query| (0..HEADS).map(move |head| (query, head)))
        {
            let keys: Vec<usize> = (prefix..prefix + prefix_len).chain(start..=query).collect();
            let place = |key: usize| (key * KV_HEADS + head / GROUP) * DIM;
            let q = &q[(query * HEADS + head) * DIM..][..DIM];
            let score = |&key: &usize| {
                let products = q.iter().zip(&k[place(key)..]).map(|(q, k)| q * k);
                f64::from(products.sum::<i32>()) * f64::from(SCALE)
            };
            let weights: Vec<f64> = keys.iter().map(|key| score(key).exp()).collect();
            let sum: f64 = weights.iter().sum();
            lse.push(sum.ln());
            let value = |d: usize| {
                let terms =
                    keys.iter().zip(&weights).map(|(key, weight)| weight * f64::from(v[place(*key) + d]));
                terms.sum::<f64>() / sum
            };
            o.extend((0..DIM).map(value));
        }
    }
    (o, lse)
}

fn setup() -> Setup {
    let (q, k) = (integers(ROWS * HEADS * DIM, 41, 1), integers(ROWS * KV_HEADS * DIM, 42, 2));
    // Without signs, so that relative errors of sums are small.
    let v: Vec<i32> = integers(ROWS * KV_HEADS * DIM, 43, 9).iter().map(|v| v.abs()).collect();
    let (o, lse) = expected(&q, &k, &v);
    let mut sequences = Sequences { count: SEQUENCES.len() as i32, of: [[0; 5]; ATTENTION_SEQUENCES] };
    let mut tiles = 0;
    for (to, from) in sequences.of.iter_mut().zip(SEQUENCES) {
        let [start, len, prefix, prefix_len] = from.map(|n| n as i32);
        *to = [start, len, prefix, prefix_len, tiles];
        tiles += from[1].div_ceil(ATTENTION_SM90_CONSUMERS * QUERIES) as i32;
    }
    let end = [tiles * KV_HEADS as i32; ATTENTION_SM90_BLOCKS];
    let shares = TileShares { of_head: tiles, queries: QUERIES as i32, end };
    let tile = ATTENTION_SM90_ROWS * DIM * 2;
    let shared = 2 * (ATTENTION_SM90_CONSUMERS + ATTENTION_SM90_STAGES) * tile
        + 2 * (1 + 2 * ATTENTION_SM90_STAGES) * 8;
    let map = |buffer, heads, box_shape| PackedHeads { buffer, rows: ROWS, heads, dim: DIM, box_shape };
    let keys = [ATTENTION_SM90_KEYS, 1];
    let mut setup = Setup::new([1, 1], ATTENTION_SM90_THREADS)
        .shared(shared)
        .output("o", Expected::Bf16(o, 0.02))
        .output("lse", Expected::F32(lse, 1e-3))
        .input("q", &bf16s(&q))
        .input("k", &bf16s(&k))
        .input("v", &bf16s(&v))
        .value(sequences)
        .value(shares)
        .value(HeadShape::new(HEADS, KV_HEADS, DIM, SCALE));
    let maps = vec![map(2, HEADS, [QUERIES, GROUP]), map(3, KV_HEADS, keys), map(4, KV_HEADS, keys)];
    // The maps take the places of the pointers.
    setup.args.splice(2..5, [Arg::HeadMaps(maps)]);
    setup
}

pub fn cases() -> Vec<Case> {
    vec![Case {
        kernel: "attention_64_sm90",
        ptx: ptx("attention_sm90", "90a"),
        profile: Profile::H100,
        setups: vec![setup()],
        mutants: [queries(), ring(), products()].into_iter().flatten().collect(),
    }]
}

/// From the producer to the consumers' registers.
fn queries() -> Vec<Mutant> {
    vec![
        mutant(
            "consumers do not wait for queries",
            [instead(TRY_WAIT, &[5], NO_WAIT)],
            "Nothing orders the copies of the TMA before the loads.",
        ),
        mutant(
            "consumers wait for the queries of another tile",
            [instead(TRY_WAIT, &[5], OTHER_PARITY)],
            "The phase before the first counts as complete.",
        ),
        mutant(
            "the producer does not wait until queries have been loaded",
            [instead(TRY_WAIT, &[0], NO_WAIT)],
            "The TMA overwrites queries of the last tile.",
        ),
        mutant("queries are not given back", [remove(RELEASE, &[0])], "The producer waits for ever."),
        mutant(
            "a consumer warp is forgotten",
            [operand(INIT, &[1], 1, "7")],
            "Seven of eight warps have loaded their queries; the last may still do.",
        ),
        mutant(
            "half of the queries are expected",
            [instead(
                EXPECT,
                &[0],
                "{ .reg .b32 %q; shr.u32 %q, $2, 1; mbarrier.arrive.expect_tx.shared::cta.b64 _, $1, %q; }",
            )],
            "The phase ends when those of the first consumer have arrived, or never.",
        ),
        mutant(
            "the barrier after the initialisation removed",
            [remove("bar.sync", &[0])],
            "Other warps may be there before thread 0.",
        ),
        mutant(
            "consumers take registers that nobody has given",
            [remove("setmaxnreg.dec", &[0])],
            "A multiprocessor has 65,536.",
        ),
    ]
}

/// The ring of keys and values.
fn ring() -> Vec<Mutant> {
    vec![
        mutant(
            "consumers do not wait for the first keys",
            [instead(TRY_WAIT, &[6], NO_WAIT)],
            "Nothing orders the copies of the TMA before the products.",
        ),
        mutant(
            "consumers do not wait for keys",
            [instead(TRY_WAIT, &[7], NO_WAIT)],
            "Nothing orders the copies of the TMA before the products.",
        ),
        mutant(
            "consumers do not wait for values",
            [instead(TRY_WAIT, &[8], NO_WAIT)],
            "Nothing orders the copies of the TMA before the products.",
        ),
        mutant(
            "consumers do not wait for the last values",
            [instead(TRY_WAIT, &[9], NO_WAIT)],
            "Nothing orders the copies of the TMA before the products.",
        ),
        mutant(
            "consumers wait for the other parity",
            [instead(TRY_WAIT, &[7], OTHER_PARITY)],
            "The phase before the first counts as complete: the wait does not wait.",
        ),
        mutant(
            "the producer does not wait for stages of a prefix's keys",
            [instead(TRY_WAIT, &[1], NO_WAIT)],
            "The TMA overwrites keys that are being multiplied.",
        ),
        mutant(
            "the producer does not wait for stages of keys",
            [instead(TRY_WAIT, &[3], NO_WAIT)],
            "The TMA overwrites keys that are being multiplied.",
        ),
        mutant(
            "the producer does not wait for stages of values",
            [instead(TRY_WAIT, &[4], NO_WAIT)],
            "The TMA overwrites values that are being multiplied.",
        ),
        mutant("keys are not given back", [remove(RELEASE, &[2])], "The producer waits for ever."),
        mutant("values are not given back", [remove(RELEASE, &[3])], "The producer waits for ever."),
        mutant(
            "keys that are not seen are not given back",
            [remove(RELEASE, &[5])],
            "Those of the other consumer alone do not free a stage.",
        ),
        mutant(
            "a consumer warp is forgotten",
            [operand(INIT, &[4, 8, 12, 16], 1, "7")],
            "Seven of eight warps give keys back; the last may still multiply them.",
        ),
        mutant(
            "a consumer warp too many is expected",
            [operand(INIT, &[5, 9, 13, 17], 1, "9")],
            "Eight warps never make nine arrivals a phase.",
        ),
        mutant(
            "half of the keys are expected",
            [operand(EXPECT, &[3], 2, "4096")],
            "The phase cannot end with other bytes than it expects.",
        ),
        mutant(
            "values are loaded in the place of keys",
            [instead(
                LOAD,
                &[4],
                "{ .reg .b32 %q; sub.s32 %q, &0, 32768; \
                 cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%q], $1, $2; }",
            )],
            "Stages of keys lie 32,768 bytes before those of values.",
        ),
    ]
}

/// `wgmma`.
fn products() -> Vec<Mutant> {
    vec![
        mutant(
            "wgmma.fence before scores removed",
            [remove("wgmma.fence", &[1])],
            "Weights were made where the scores go.",
        ),
        mutant(
            "wgmma.fence before the last values removed",
            [remove("wgmma.fence", &[3])],
            "Weights were rounded by other instructions.",
        ),
        mutant(
            "scores are no group of their own",
            [remove("wgmma.commit_group", &[1])],
            "The wait for all groups but one waits for neither.",
        ),
        mutant(
            "the softmax does not wait for scores",
            [operand("wgmma.wait_group", &[1], 0, "2")],
            "Accumulators of products under way are read.",
        ),
        mutant(
            "the softmax does not wait for the first scores",
            [remove("wgmma.wait_group", &[0])],
            "Accumulators of products under way are read.",
        ),
        mutant(
            "weights are replaced while they are multiplied",
            [operand("wgmma.wait_group", &[2], 0, "1")],
            "The values of the last tile may be under way.",
        ),
        mutant(
            "outputs are read while they are summed",
            [remove("wgmma.wait_group", &[3])],
            "The last values may be under way.",
        ),
        mutant(
            "scores begin with weights",
            [instead("setp.ne.b32 add", &[4], "setp.eq.u32 $0, 0, 0;")],
            "A tile of keys has scores of its own.",
        ),
        mutant(
            "outputs begin with those of the last tile",
            [instead("setp.ne.b32 add", &[8], "setp.eq.u32 $0, 0, 0;")],
            "A block stays for several tiles.",
        ),
        mutant(
            "values are not transposed",
            [swap("wgmma.mma_async", &[9], ", add, 1, 1, 1;", ", add, 1, 1, 0;")],
            "A row of values is a key.",
        ),
        mutant(
            "descriptor without swizzle",
            [operand("or.b64", &[0], 2, "274877906944")],
            "The TMA has swizzled keys.",
        ),
    ]
}
