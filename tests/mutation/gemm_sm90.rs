//! The product with TMA, mbarriers and `wgmma`: a producer warp and two consumer warpgroups.

use cuda_emulator::machine::Profile;
use deepguard::cuda::tile::*;

use super::edit::{instead, move_behind, operand, remove, swap};
use super::gemm::{Product, transposed};
use super::harness::{Arg, Case, Expected, Mutant, Setup, bytes, mutant};
use super::inputs::{bf16s, f32s, ptx};

const TRY_WAIT: &str = "mbarrier.try_wait";
const INIT: &str = "mbarrier.init";
const OTHER_PARITY: &str =
    "{ .reg .b32 %q; xor.b32 %q, $2, 1; mbarrier.try_wait.parity.shared::cta.b64 $0, $1, %q; }";
/// The stages, the tile of y, two barriers for each stage and one for the residual.
const SHARED: usize = GEMM_SM90_STAGES * (GEMM_SM90_TILE_M + GEMM_SM90_TILE_N) * GEMM_SM90_TILE_K * 2
    + GEMM_SM90_TILE_M * GEMM_SM90_TILE_N * 2
    + (GEMM_SM90_STAGES * 2 + 1) * 8;

/// Comparisons of a column of the bias with n: two for each of 16 pairs.
const BIAS: [usize; 32] = {
    let mut all = [0; 32];
    let mut i = 0;
    while i < all.len() {
        all[i] = i;
        i += 1;
    }
    all
};
/// Maps and ranges of LoRA, and their number: none.
const LORA_MAPS: usize = GEMM_LORA_TERMS * (2 * 128 + 16) + 16;

fn map(buffer: usize, rows: usize, columns: usize, box_rows: usize, box_columns: usize) -> Arg {
    Arg::Map(buffer, [rows as u64, columns as u64], [box_rows as u32, box_columns as u32])
}

fn start(m: usize, n: usize) -> Setup {
    let tiles = m.div_ceil(GEMM_SM90_TILE_M) * n.div_ceil(GEMM_SM90_TILE_N);
    Setup::new([tiles as u32, 1], GEMM_SM90_THREADS).shared(SHARED)
}

/// `gemm_nn_sm90`, n a multiple of 8.
fn setup_nn(m: usize, n: usize, k: usize) -> Setup {
    let product = Product::weighted(m, n, k, &vec![1; k]);
    let mut setup = start(m, n)
        .input("x", &bf16s(&product.x))
        .input("w", &bf16s(&transposed(&product.w, k)))
        .output("y", Expected::Exactly(bytes(&bf16s(&product.y))))
        .value(m as i32)
        .value(n as i32)
        .value(k as i32);
    setup.args[0] = map(0, m, k, GEMM_SM90_TILE_M, GEMM_SM90_TILE_K);
    setup.args[1] = map(1, k, n, GEMM_SM90_TILE_K, GEMM_SM90_TILE_N / 2);
    setup.args.insert(2, map(2, m, n, GEMM_SM90_STORE_M, GEMM_SM90_STORE_N));
    setup
}

/// More tiles along k than stages, a rest along m, n and k; `n` decides how y is written.
fn setup(m: usize, n: usize, k: usize) -> Setup {
    let product = Product::new(m, n, k);
    let mut setup = start(m, n)
        .input("x", &bf16s(&product.x))
        .input("w", &bf16s(&product.w))
        .output("y", Expected::Exactly(bytes(&bf16s(&product.y))))
        .input("bias", &f32s(&product.bias))
        .value(m as i32)
        .value(n as i32)
        .value(k as i32)
        .arg(Arg::Value(vec![0; 128]))
        .value(0i32)
        .arg(Arg::Value(vec![0; LORA_MAPS]));
    // The maps take the places of x and w, and one for y goes before its pointer.
    let y_map = match n.is_multiple_of(8) {
        true => map(2, m, n, GEMM_SM90_STORE_M, GEMM_SM90_STORE_N),
        false => Arg::Value(vec![0; 128]),
    };
    setup.args[0] = map(0, m, k, GEMM_SM90_TILE_M, GEMM_SM90_TILE_K);
    setup.args[1] = map(1, n, k, GEMM_SM90_TILE_N / 2, GEMM_SM90_TILE_K);
    setup.args.insert(2, y_map);
    setup
}

pub fn cases() -> Vec<Case> {
    let case = |kernel, setups, mutants| Case {
        kernel,
        ptx: ptx("gemm_sm90", "90a"),
        profile: Profile::H100,
        setups,
        mutants,
    };
    let mutants = [ring(), products(), output()].into_iter().flatten().collect();
    vec![
        case("gemm_nt_sm90", vec![setup(100, 72, 584), setup(70, 51, 72)], mutants),
        case("gemm_nn_sm90", vec![setup_nn(100, 104, 584)], transposition()),
    ]
}

/// w that lies along n.
fn transposition() -> Vec<Mutant> {
    vec![
        mutant(
            "wgmma does not transpose w",
            [swap("wgmma.mma_async", &[1], ", 1, 1, 1, 0, 1;", ", 1, 1, 1, 0, 0;")],
            "A row of w is a k.",
        ),
        mutant(
            "the halves of w lie beside each other",
            [operand("or.b64", &[2], 2, "4611686293305360384")],
            "Each is a box of its own, 8192 bytes.",
        ),
        mutant(
            "the second half of w is not fetched",
            [remove("cp.async.bulk.tensor.2d.shared", &[2])],
            "The phase cannot end without its bytes.",
        ),
        mutant(
            "k goes on within a row",
            [swap("add.s32", &[34], "18432", "16416")],
            "16 of k are 16 rows of 128 bytes.",
        ),
    ]
}

/// The ring of stages between the TMA and the products.
fn ring() -> Vec<Mutant> {
    vec![
        mutant(
            "consumers do not wait for a stage",
            [instead(TRY_WAIT, &[2], "setp.eq.u32 $0, 0, 0;")],
            "Nothing orders the copies of the TMA before the products.",
        ),
        mutant(
            "producer does not wait for a free stage",
            [instead(TRY_WAIT, &[0], "setp.eq.u32 $0, 0, 0;")],
            "The TMA overwrites stages that are being multiplied.",
        ),
        mutant(
            "consumers wait for the other parity",
            [instead(TRY_WAIT, &[2], OTHER_PARITY)],
            "The phase before the first counts as complete: the wait does not wait.",
        ),
        mutant(
            "producer waits for the other parity",
            [instead(TRY_WAIT, &[0], OTHER_PARITY)],
            "It waits for a phase that is complete already, or for one that needs its copies.",
        ),
        mutant(
            "half of the bytes are expected",
            [operand("mbarrier.arrive.expect_tx", &[1], 2, "16384")],
            "The phase ends when x has arrived, or never.",
        ),
        mutant(
            "more bytes are expected than are copied",
            [operand("mbarrier.arrive.expect_tx", &[1], 2, "32784")],
            "The phase cannot end.",
        ),
        mutant(
            "consumers do not give stages back",
            [remove("mbarrier.arrive.shared::cta.b64", &[0])],
            "The producer waits for ever.",
        ),
        mutant(
            "a consumer warp is forgotten",
            [operand(INIT, &[1, 3, 5, 7], 1, "7")],
            "Seven of eight warps give a stage back; the eighth may still multiply it.",
        ),
        mutant(
            "a consumer warp too many is expected",
            [operand(INIT, &[1, 3, 5, 7], 1, "9")],
            "Eight warps never make nine arrivals a phase.",
        ),
        mutant(
            "barriers are not initialised before they are used",
            [remove("bar.sync", &[0])],
            "Other warps may be there before thread 0.",
        ),
        mutant(
            "one barrier is not initialised",
            [remove(INIT, &[4])],
            "mbarrier operations on anything but a valid mbarrier are undefined.",
        ),
        mutant(
            "w is counted on the barrier of free stages",
            [instead(
                "cp.async.bulk.tensor.2d.shared",
                &[5],
                "{ .reg .b32 %q; add.s32 %q, &2, 32; \
                 cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes $0, $1, [%q]; }",
            )],
            "The full barrier lacks the bytes of w.",
        ),
    ]
}

/// `wgmma`.
fn products() -> Vec<Mutant> {
    vec![
        mutant(
            "wgmma.fence removed",
            [remove("wgmma.fence", &[0])],
            "The accumulators were zeroed by other instructions.",
        ),
        mutant(
            "wgmma.commit_group removed",
            [remove("wgmma.commit_group", &[0])],
            "wait_group only waits for products of groups.",
        ),
        mutant(
            "wgmma.wait_group in the loop waits for one group less",
            [operand("wgmma.wait_group", &[0], 0, "2")],
            "The stage is given back while its products may still read it.",
        ),
        mutant(
            "wgmma.wait_group in the loop removed",
            [remove("wgmma.wait_group", &[0])],
            "Stages are given back while products may still read them.",
        ),
        mutant(
            "last wgmma.wait_group removed",
            [remove("wgmma.wait_group", &[1])],
            "The accumulators of products under way are read.",
        ),
        mutant(
            "scale-d of a product is 0",
            [swap("wgmma.mma_async", &[1], ", 1, 1, 1, 0, 0;", ", 0, 1, 1, 0, 0;")],
            "It forgets the sum so far.",
        ),
        mutant(
            "w is negated",
            [swap("wgmma.mma_async", &[2], ", 1, 1, 1, 0, 0;", ", 1, 1, -1, 0, 0;")],
            "A quarter of the products is subtracted.",
        ),
        mutant(
            "descriptor without swizzle",
            [operand("or.b64", &[0], 2, "274877972480")],
            "The TMA has swizzled x.",
        ),
    ]
}

/// From the accumulators to y.
fn output() -> Vec<Mutant> {
    vec![
        mutant(
            "fence.proxy.async removed",
            [remove("fence.proxy.async", &[0])],
            "The TMA reads through another proxy what threads have written.",
        ),
        mutant(
            "fence.proxy.async after the copy",
            [move_behind("fence.proxy.async", &[0], "cp.async.bulk.tensor.2d.global", 0)],
            "It has to stand between the writes and the copy.",
        ),
        mutant(
            "barrier of the warpgroup removed",
            [remove("bar.sync %", &[0])],
            "One thread copies what all have written.",
        ),
        mutant(
            "barrier of the warpgroup counts half of its threads",
            [operand("bar.sync %", &[0], 1, "64")],
            "Two warps of four do not wait for the others.",
        ),
        mutant(
            "both warpgroups use one barrier",
            [operand("bar.sync %", &[0], 0, "1")],
            "Any four of eight warps complete it.",
        ),
        mutant(
            "commit_group of the stores removed",
            [remove("cp.async.bulk.commit_group", &[0])],
            "Nothing waits for the stores; shared memory is gone when the block ends.",
        ),
        mutant(
            "wait_group of the stores removed",
            [remove("cp.async.bulk.wait_group", &[0])],
            "Shared memory is gone when the block ends.",
        ),
        mutant(
            "stores read eight rows further down",
            [instead(
                "cp.async.bulk.tensor.2d.global",
                &[0],
                "{ .reg .b32 %q; add.s32 %q, &1, 1024; \
                 cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group $0, [%q]; }",
            )],
            "A row of a box is 128 bytes.",
        ),
        mutant(
            "swizzle of the store box changed",
            [operand("xor.b32", &[0, 1, 2, 19, 20, 31, 32, 33, 50, 51], 2, "32")],
            "The TMA undoes another permutation.",
        ),
        mutant(
            "column n is written element by element",
            [swap("setp.ge.s32", &[32], ".ge.", ".gt.")],
            "Column n is column 0 of the next row.",
        ),
        mutant("bias n is read", [swap("setp.ge.s32", &BIAS, ".ge.", ".gt.")], "The bias has n elements."),
    ]
}
