//! The product with TMA, mbarriers and `wgmma`: two blocks with a producer and two consumer warpgroups each,
//! which share an operand and stay for several tiles.

use cuda_emulator::machine::Profile;
use deepguard::cuda::tile::*;
use half::bf16;

use super::edit::{instead, move_behind, operand, remove, swap};
use super::gemm::{Product, transposed};
use super::harness::{Arg, Case, Expected, Mutant, Setup, bytes, mutant};
use super::inputs::{bf16s, f32s, integers, ptx};

pub const TRY_WAIT: &str = "mbarrier.try_wait";
const INIT: &str = "mbarrier.init";
const LOAD: &str = "cp.async.bulk.tensor.2d.shared";
const STORE: &str = "cp.async.bulk.tensor.2d.global";
const STORE_WAIT: &str = "cp.async.bulk.wait_group";
pub const OTHER_PARITY: &str =
    "{ .reg .b32 %q; xor.b32 %q, $2, 1; mbarrier.try_wait.parity.shared::cta.b64 $0, $1, %q; }";
pub const NO_WAIT: &str = "setp.eq.u32 $0, 0, 0;";
/// The stages, boxes of y, two barriers for each stage and one for each box.
const SHARED: usize = GEMM_SM90_STAGES * (GEMM_SM90_TILE_M + GEMM_SM90_TILE_N) * GEMM_SM90_TILE_K * 2
    + BOXES * GEMM_SM90_BOX * GEMM_SM90_BOX * 2
    + (2 * GEMM_SM90_STAGES + BOXES) * 8;
const BOXES: usize = GEMM_SM90_CONSUMERS * GEMM_SM90_BOXES;

/// Maps and ranges of LoRA, and their number: none.
const LORA_MAPS: usize = GEMM_LORA_TERMS * (2 * 128 + 16) + 16;

fn map(buffer: usize, rows: usize, columns: usize, box_rows: usize, box_columns: usize) -> Arg {
    Arg::Map(buffer, [rows as u64, columns as u64], [box_rows as u32, box_columns as u32])
}

fn y_map(buffer: usize, m: usize, n: usize) -> Arg {
    map(buffer, m, n, GEMM_SM90_BOX, GEMM_SM90_BOX)
}

/// One cluster for all tiles.
fn start() -> Setup {
    let blocks = GEMM_SM90_CLUSTER as u32;
    Setup::new([blocks, 1], GEMM_SM90_THREADS).cluster(blocks).shared(SHARED)
}

/// `gemm_nn_sm90`, n a multiple of 8; blocks share x or w.
fn setup_nn(m: usize, n: usize, k: usize, share_x: bool) -> Setup {
    let product = Product::weighted(m, n, k, &vec![1; k]);
    let mut setup = start()
        .input("x", &bf16s(&product.x))
        .input("w", &bf16s(&transposed(&product.w, k)))
        .output("y", Expected::Exactly(bytes(&bf16s(&product.y))))
        .value(m as i32)
        .value(n as i32)
        .value(k as i32)
        .value(i32::from(share_x));
    setup.args[0] = map(0, m, k, GEMM_SM90_TILE_M / 2, GEMM_SM90_TILE_K);
    setup.args[1] = map(1, k, n, GEMM_SM90_TILE_K, GEMM_SM90_TILE_N / 4);
    setup.args.insert(2, y_map(2, m, n));
    setup
}

/// `gemm_nt_sm90`: more tiles along k than stages, a rest along m, n and k; `n` decides how y is written.
fn setup(m: usize, n: usize, k: usize, residual: bool) -> Setup {
    let product = Product::new(m, n, k);
    let before = if residual { integers(m * n, 4, 9) } else { vec![0; m * n] };
    let y: Vec<i32> = product.y.iter().zip(&before).map(|(y, before)| y + before).collect();
    let mut setup = start()
        .input("x", &bf16s(&product.x))
        .input("w", &bf16s(&product.w))
        .output("y", Expected::Exactly(bytes(&bf16s(&y))))
        .input("bias", &f32s(&product.bias))
        .value(m as i32)
        .value(n as i32)
        .value(k as i32)
        .value(0i32)
        .input("residual", &bf16s(&before))
        .value(i32::from(residual))
        .arg(Arg::Value(vec![0; LORA_MAPS]));
    let place = setup.args.iter().position(|arg| matches!(arg, Arg::Buffer(4))).expect("the residual");
    let suits = n.is_multiple_of(8);
    let map_of = |buffer| if suits { y_map(buffer, m, n) } else { Arg::Value(vec![0; 128]) };
    setup.args[place] = map_of(4);
    // The maps take the places of x and w, and one for y goes before its pointer.
    setup.args[0] = map(0, m, k, GEMM_SM90_TILE_M / 2, GEMM_SM90_TILE_K);
    setup.args[1] = map(1, n, k, GEMM_SM90_TILE_N / 2, GEMM_SM90_TILE_K);
    setup.args.insert(2, map_of(2));
    setup
}

/// `gemm_nn_gated_sm90`: gates whose sigmoid is 1 make gradients that are exact.
fn setup_gated(m: usize, n: usize, k: usize) -> Setup {
    const GATE: i32 = 32;
    let product = Product::weighted(m, n, k, &vec![1; k]);
    let ups = integers(m * n, 5, 4);
    let rows = |row: usize| row * n..(row + 1) * n;
    let gate_up = (0..m).flat_map(|row| [vec![GATE; n], ups[rows(row)].to_vec()].concat());
    // As floats: zero times a negative number is −0.
    let times = |a: i32, b: i32| bf16::from_f32(a as f32 * b as f32);
    let dgate_up = (0..m).flat_map(|row| {
        let dh = &product.y[rows(row)];
        let dgate = dh.iter().zip(&ups[rows(row)]).map(|(&dh, &up)| times(dh, up));
        dgate.chain(dh.iter().map(|&dh| times(dh, GATE))).collect::<Vec<bf16>>()
    });
    let mut setup = start()
        .input("x", &bf16s(&product.x))
        .input("w", &bf16s(&transposed(&product.w, k)))
        .output("dgate_up", Expected::Exactly(bytes(&dgate_up.collect::<Vec<bf16>>())))
        .input("gate_up", &bf16s(&gate_up.collect::<Vec<i32>>()))
        .value(m as i32)
        .value(n as i32)
        .value(k as i32)
        .value(0i32);
    setup.args[0] = map(0, m, k, GEMM_SM90_TILE_M / 2, GEMM_SM90_TILE_K);
    setup.args[1] = map(1, k, n, GEMM_SM90_TILE_K, GEMM_SM90_TILE_N / 4);
    setup.args[2] = y_map(2, m, 2 * n);
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
    let mutants = [ring(), sharing(), products(), output()].into_iter().flatten().collect();
    vec![
        case("gemm_nt_sm90", vec![setup(200, 504, 328, false), setup(70, 51, 72, false)], mutants),
        case("gemm_nt_sm90", vec![setup(100, 264, 72, true)], residual()),
        case("gemm_nn_sm90", vec![setup_nn(100, 328, 328, true)], transposition()),
        case("gemm_nn_gated_sm90", vec![setup_gated(100, 192, 72)], gated_backward()),
    ]
}

/// gate and up, which become their gradients in shared memory.
fn gated_backward() -> Vec<Mutant> {
    vec![
        mutant(
            "boxes are filled while they are stored",
            [remove(STORE_WAIT, &[1])],
            "Both boxes are needed for the next columns.",
        ),
        mutant(
            "others do not wait for the thread that waits for the stores",
            [remove("bar.sync %", &[3])],
            "The leader alone knows that the boxes have been read.",
        ),
        mutant(
            "fence.proxy.async removed",
            [remove("fence.proxy.async", &[0])],
            "The TMA reads through another proxy what threads have written.",
        ),
        mutant(
            "up is read from gate's box",
            [instead(
                "ldmatrix",
                &[1],
                "{ .reg .b32 %q; sub.u32 %q, &1, 8192; ldmatrix.sync.aligned.m8n8.x4.shared.b16 $0, [%q]; }",
            )],
            "A box is 8192 bytes.",
        ),
    ]
}

/// w that lies along n, and x that is shared.
fn transposition() -> Vec<Mutant> {
    vec![
        mutant(
            "wgmma does not transpose w",
            [swap("wgmma.mma_async", &[1], ", add, 1, 1, 0, 1;", ", add, 1, 1, 0, 0;")],
            "A row of w is a k.",
        ),
        mutant(
            "the panels of w lie beside each other",
            [swap("33554432", &[], "33554432", "16777216")],
            "Each is a box of its own, 8192 bytes.",
        ),
        mutant(
            "the second panel of w is not fetched",
            [remove(LOAD, &[4])],
            "The phase cannot end without its bytes.",
        ),
        mutant(
            "each block keeps its half of x",
            [instead(
                LOAD,
                &[0],
                "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes $0, $1, $2;",
            )],
            "The other block waits for it.",
        ),
    ]
}

/// The ring of stages between the TMA and the products.
fn ring() -> Vec<Mutant> {
    vec![
        mutant(
            "consumers do not wait for a stage",
            [instead(TRY_WAIT, &[2], NO_WAIT)],
            "Nothing orders the copies of the TMA before the products.",
        ),
        mutant(
            "producer does not wait for a free stage",
            [instead(TRY_WAIT, &[0], NO_WAIT)],
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
            "two thirds of the bytes are expected",
            [operand("mbarrier.arrive.expect_tx", &[0], 2, "32768")],
            "The phase ends when w has arrived, or never.",
        ),
        mutant(
            "more bytes are expected than are copied",
            [operand("mbarrier.arrive.expect_tx", &[0], 2, "49168")],
            "The phase cannot end.",
        ),
        mutant(
            "consumers do not give stages back",
            [remove("mbarrier.arrive.shared::cluster", &[0])],
            "The producer waits for ever.",
        ),
        mutant(
            "a consumer warp is forgotten",
            [operand(INIT, &[1, 3, 5, 7], 1, "15")],
            "Fifteen of sixteen warps give a stage back; the last may still multiply it.",
        ),
        mutant(
            "a consumer warp too many is expected",
            [operand(INIT, &[1, 3, 5, 7], 1, "17")],
            "Sixteen warps never make seventeen arrivals a phase.",
        ),
        mutant(
            "barriers are not initialised before they are used",
            [remove("barrier.cluster", &[0, 1])],
            "Other warps may be there before thread 0.",
        ),
        mutant(
            "one barrier is not initialised",
            [remove(INIT, &[4])],
            "mbarrier operations on anything but a valid mbarrier are undefined.",
        ),
        mutant(
            "x is counted on the barrier of free stages",
            [instead(
                LOAD,
                &[1],
                "{ .reg .b32 %q; add.s32 %q, &2, 32; \
                 cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes $0, $1, [%q]; }",
            )],
            "The full barrier lacks the bytes of x.",
        ),
        mutant(
            "consumers take registers that nobody has given",
            [remove("setmaxnreg.dec", &[0])],
            "A multiprocessor has 65,536.",
        ),
    ]
}

/// What two blocks of a cluster share.
fn sharing() -> Vec<Mutant> {
    vec![
        mutant(
            "each block keeps its half of w",
            [instead(
                LOAD,
                &[3],
                "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes $0, $1, $2;",
            )],
            "The other block waits for it.",
        ),
        mutant(
            "halves of w go to block 0 alone",
            [instead(
                LOAD,
                &[3],
                "{ .reg .b16 %q; mov.b16 %q, 1; cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster $0, $1, $2, %q; }",
            )],
            "Block 1 waits for them.",
        ),
        mutant(
            "stages are given back to block 0 alone",
            [instead("mapa.shared::cluster", &[0], "mapa.shared::cluster.u32 $0, $1, 0;")],
            "It is told twice, and block 1 never.",
        ),
        mutant(
            "stages are free when the consumers of one block are through",
            [operand(INIT, &[1, 3, 5, 7], 1, "8")],
            "Each block writes to the memory of both.",
        ),
        mutant(
            "a block does not stay for the other",
            [remove("barrier.cluster", &[2, 3])],
            "Its memory and barriers are gone while the other one still uses them.",
        ),
    ]
}

/// The residual, in the boxes of y.
fn residual() -> Vec<Mutant> {
    vec![
        mutant(
            "the residual is not waited for",
            [instead(TRY_WAIT, &[3], NO_WAIT)],
            "The box is read while it is loaded.",
        ),
        mutant(
            "the residual of a later box is not waited for",
            [instead(TRY_WAIT, &[5], NO_WAIT)],
            "The box is read while it is loaded.",
        ),
        mutant(
            "a box is loaded while it is stored",
            [remove(STORE_WAIT, &[2])],
            "The TMA has not read the last results.",
        ),
        mutant(
            "half of a box is expected",
            [operand("mbarrier.arrive.expect_tx", &[2], 2, "4096")],
            "The phase ends too early, or never.",
        ),
        mutant(
            "the barrier of a box is not initialised",
            [remove(INIT, &[9])],
            "mbarrier operations on anything but a valid mbarrier are undefined.",
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
            "a tile begins with the sums of the last",
            [instead("setp.ne.b32 add", &[0], "setp.eq.u32 $0, 0, 0;")],
            "A block stays for several tiles.",
        ),
        mutant(
            "scale-d of a product is 0",
            [instead("setp.ne.b32 add", &[1], "setp.ne.u32 $0, 0, 0;")],
            "It forgets the sum so far.",
        ),
        mutant(
            "w is negated",
            [swap("wgmma.mma_async", &[2], ", add, 1, 1, 0, 0;", ", add, 1, -1, 0, 0;")],
            "A quarter of the products is subtracted.",
        ),
        mutant(
            "descriptor without swizzle",
            [operand("or.b64", &[0], 2, "274877906944")],
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
            [move_behind("fence.proxy.async", &[0], STORE, 0)],
            "It has to stand between the writes and the copy.",
        ),
        mutant(
            "barrier of the warpgroup removed",
            [remove("bar.sync %", &[2])],
            "One thread copies what all have written.",
        ),
        mutant(
            "barrier of the warpgroup counts half of its threads",
            [operand("bar.sync %", &[2], 1, "64")],
            "Two warps of four do not wait for the others.",
        ),
        mutant(
            "both warpgroups use one barrier",
            [operand("bar.sync %", &[2], 0, "1")],
            "Any four of eight warps complete it.",
        ),
        mutant(
            "a box is filled while it is stored",
            [remove(STORE_WAIT, &[5])],
            "The third box of a tile has the memory of the first.",
        ),
        mutant(
            "others do not wait for the thread that waits for the stores",
            [remove("bar.sync %", &[6])],
            "One thread alone knows when a box has been read.",
        ),
        mutant(
            "commit_group of the stores removed",
            [remove("cp.async.bulk.commit_group", &[])],
            "Nothing waits for the stores; shared memory is gone when the block ends.",
        ),
        mutant(
            "last wait_group of the stores removed",
            [remove(STORE_WAIT, &[7])],
            "Shared memory is gone when the block ends.",
        ),
        mutant(
            "stores read eight rows further down",
            [instead(
                STORE,
                &[0],
                "{ .reg .b32 %q; add.s32 %q, &1, 1024; \
                 cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group $0, [%q]; }",
            )],
            "A row of a box is 128 bytes.",
        ),
        mutant(
            "boxes are not swizzled",
            [operand("xor.b32", &[0, 1, 2, 3], 2, "0")],
            "The TMA undoes the swizzle.",
        ),
        mutant(
            "column n is written element by element",
            [swap("setp.ge.s32", &[9], ".ge.", ".gt.")],
            "Column n is column 0 of the next row.",
        ),
        mutant(
            "bias n is read",
            [swap("setp.ge.s32", &[7, 8, 16, 17, 25, 26, 34, 35], ".ge.", ".gt.")],
            "The bias has n elements.",
        ),
    ]
}
