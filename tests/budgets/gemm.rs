//! Products at the shapes of layers of Qwen2.5-0.5B, the widest of them narrowed, with rows that no tile
//! divides.
//!
//! Traffic and work of products: each tile reads the lines of both operands that it needs, and the result is
//! written once, or read and written where it is added to. Parts of k are written and read again.

use cuda_emulator::counters::Counters;
use deepguard::cuda::Cuda;
use deepguard::cuda::tile::{
    GEMM_LARGE_TILE, GEMM_SM90_TILE_K, GEMM_SM90_TILE_M, GEMM_SM90_TILE_N, GEMM_SMALL_TILE, GEMM_TILE_K,
    SKINNY_LINES,
};
use deepguard::ops::linear::{Linear, LoraBackward, LoraTerm, Write};
use deepguard::ops::matmul::{Matmul, Transpose};
use deepguard::ops::matrix::{Matrix, MatrixMut};
use deepguard::ops::mlp::Mlp;

use super::counting::{count, global_bytes, narrow, uncounted, within};
use super::memory::{buffer, random, weight};

const RANK: usize = 16;
const ROWS: usize = 500;
const HIDDEN: usize = 896;
const HALF: usize = HIDDEN / 2;
const WIDE: usize = 4864;
const QKV: usize = 1152;
/// Columns of q, k and v.
const Q: (usize, usize) = (0, 896);
const V: (usize, usize) = (1024, 128);

/// The tile of a block, along rows, columns and k.
type Tile = [usize; 3];
const LARGE: Tile = [GEMM_LARGE_TILE, GEMM_LARGE_TILE, GEMM_TILE_K];
const SMALL: Tile = [GEMM_SMALL_TILE, GEMM_SMALL_TILE, GEMM_TILE_K];
const SM90: Tile = [GEMM_SM90_TILE_M, GEMM_SM90_TILE_N, GEMM_SM90_TILE_K];

/// Bytes and operations that work needs, and operations issued if nothing but padding is wasted.
#[derive(Clone, Copy, Default)]
struct Need {
    bytes: usize,
    operations: usize,
    padded: usize,
}

impl std::ops::Add for Need {
    type Output = Need;
    fn add(self, other: Need) -> Need {
        Need {
            bytes: self.bytes + other.bytes,
            operations: self.operations + other.operations,
            padded: self.padded + other.padded,
        }
    }
}

/// Bytes of global memory, bulk copies included.
fn moved(counters: &Counters) -> usize {
    global_bytes(counters) + (counters.bulk_load_bytes + counters.bulk_store_bytes) as usize
}

/// Bytes beside products.
fn bytes(bytes: usize) -> Need {
    Need { bytes, ..Need::default() }
}

/// The sums of a product: operands, and multiply-adds.
fn sums([m, n, k]: [usize; 3], [tile_m, tile_n, tile_k]: Tile) -> Need {
    let (tiles_m, tiles_n) = (m.div_ceil(tile_m), n.div_ceil(tile_n));
    Need {
        bytes: 2 * k * (tiles_n * m + tiles_m * n),
        operations: 2 * m * n * k,
        padded: 2 * tiles_m * tile_m * tiles_n * tile_n * k.next_multiple_of(tile_k),
    }
}

/// The same where the two tiles of a cluster share an operand: the padding of the second tile of a pair is
/// multiplied as well, and of two ways that with fewer pairs is chosen.
fn shared_sums([m, n, k]: [usize; 3], [tile_m, tile_n, tile_k]: Tile) -> Need {
    let (tiles_m, tiles_n) = (m.div_ceil(tile_m), n.div_ceil(tile_n));
    let [sharing_w, sharing_x] = [tiles_m.div_ceil(2) * tiles_n, tiles_m * tiles_n.div_ceil(2)];
    let lines = match sharing_x < sharing_w {
        true => tiles_n.div_ceil(2) * m + tiles_m * n,
        false => tiles_n * m + tiles_m.div_ceil(2) * n,
    };
    let tiles = 2 * sharing_w.min(sharing_x);
    Need {
        bytes: 2 * k * lines,
        operations: 2 * m * n * k,
        padded: 2 * tiles * tile_m * tile_n * k.next_multiple_of(tile_k),
    }
}

/// The sums with tiles of that size.
fn sums_of(size: [usize; 3], tile: Tile) -> Need {
    if tile == SM90 { shared_sums(size, tile) } else { sums(size, tile) }
}

/// The same of the LoRA of some columns.
fn term(rows: usize, (column, columns): (usize, usize), tile: Tile) -> Need {
    assert_eq!(column % tile[1], 0, "the first tile of an adapter");
    sums_of([rows, columns, RANK], tile)
}

/// Most bytes, and most operations of tensor cores, as parts of what is needed.
struct Limits {
    global: f64,
    operations: f64,
}

const fn limits(global: f64, operations: f64) -> Limits {
    Limits { global, operations }
}

/// Holds a kernel to what its work needs.
fn check(what: &str, counters: &Counters, need: Need, limits: Limits) {
    within(&format!("{what}: global memory"), moved(counters), need.bytes, limits.global);
    let operations = counters.tensor_flops as usize;
    within(&format!("{what}: operations"), operations, need.operations, limits.operations);
    assert_eq!(operations, need.padded, "{what}: operations of whole tiles");
    let (taken, ideal) = (counters.shared_wavefronts, counters.shared_wavefronts_ideal);
    assert_eq!(taken, ideal, "{what}: wavefronts of shared memory");
    assert_eq!(counters.local_bytes, 0, "{what}: local memory");
}

/// Bytes of split-K's partial sums, written and read, and counters that were reset.
fn split_k(counters: &Counters, [m, n]: [usize; 2], tile: Tile) -> (usize, usize) {
    if tile == SM90 {
        return (0, 0);
    }
    let tiles = m.div_ceil(tile[0]) * n.div_ceil(tile[1]);
    assert_eq!(counters.blocks as usize % tiles, 0, "blocks of {tiles} tiles");
    match counters.blocks as usize / tiles {
        1 => (0, 0),
        splits => (2 * splits * m * n * 4, tiles),
    }
}

#[derive(Clone, Copy)]
struct Layer {
    rows: usize,
    out: usize,
    width: usize,
    bias: bool,
    residual: bool,
    adapted: &'static [(usize, usize)],
}

/// Counters of a linear layer with adapters.
fn linear(kernel: &str, layer: Layer) -> Counters {
    let Layer { rows, out, width, .. } = layer;
    let [counters] = count([kernel], |cuda: &Cuda| {
        let (x, w, mut y) =
            (random(cuda, rows * width, 1.0), weight(cuda, out, width), buffer(cuda, rows * out));
        let (bias, residual) = (buffer(cuda, out), random(cuda, rows * out, 1.0));
        let (xa, b) = (random(cuda, rows * RANK, 1.0), random(cuda, out * RANK, 1.0));
        let terms: Vec<_> = layer
            .adapted
            .iter()
            .map(|&(column, out_features)| LoraTerm {
                xa: xa.view(),
                b: b.slice(0..out_features * RANK),
                column,
                out_features,
                rank: RANK,
            })
            .collect();
        let write = if layer.residual { Write::Residual(residual.view()) } else { Write::Overwrite };
        cuda.linear(y.view_mut(), x.view(), &w, layer.bias.then(|| bias.view()), &terms, write);
    });
    counters
}

fn need_of(layer: Layer, tile: Tile) -> Need {
    let Layer { rows, out, width, .. } = layer;
    let product = sums_of([rows, out, width], tile);
    let terms = layer.adapted.iter().map(|&columns| term(rows, columns, tile));
    let results = 2 * rows * out * if layer.residual { 2 } else { 1 } + if layer.bias { 4 * out } else { 0 };
    terms.fold(product + bytes(results), |sum, term| sum + term)
}

/// The layers with split-K: with few tiles, there is no work for all multiprocessors otherwise.
#[test]
fn linear_layers_with_split_k() {
    if uncounted() {
        return;
    }
    let plain = Layer { rows: ROWS, out: HIDDEN, width: HIDDEN, bias: false, residual: false, adapted: &[] };
    let qkv = Layer { out: QKV, bias: true, adapted: &[Q, V], ..plain };
    let o = Layer { residual: true, ..plain };
    let down = Layer { width: WIDE / 2, ..o };
    for (name, layer, kernel, tile, limits) in [
        // Each row reads the bias, which the L1 cache holds.
        ("qkv", qkv, "gemm_nt_small", SMALL, limits(1.03, 1.05)),
        ("qkv without bias", Layer { bias: false, ..qkv }, "gemm_nt_small", SMALL, limits(1.01, 1.05)),
        ("o", o, "gemm_nt_small", SMALL, limits(1.01, 1.03)),
        ("o of 400 rows", Layer { rows: 400, ..o }, "gemm_nt_small", SMALL, limits(1.01, 1.13)),
        ("down", down, "gemm_nt_large", LARGE, limits(1.01, 1.03)),
    ] {
        let counters = linear(kernel, layer);
        let (partials, reset) = split_k(&counters, [layer.rows, layer.out], tile);
        assert!(partials > 0, "{name}: split-K");
        check(&format!("{name}, {kernel}"), &counters, need_of(layer, tile) + bytes(partials), limits);
        narrow(name, &counters, reset);
    }
}

#[test]
fn linear_layers_on_hopper() {
    if uncounted() {
        return;
    }
    let wide = Layer { rows: ROWS, out: WIDE, width: HALF, bias: false, residual: false, adapted: &[] };
    let all = Layer { bias: true, residual: true, adapted: &[(0, WIDE)], ..wide };
    for (name, layer, limits) in [
        ("up", wide, limits(1.001, 1.03)),
        ("up of 400 rows", Layer { rows: 400, ..wide }, limits(1.001, 1.29)),
        // A rank of 16 takes as much of k as 64, of which these layers have seven.
        ("up with LoRA, bias, residual", all, limits(1.04, 1.15)),
    ] {
        let counters = linear("gemm_nt_sm90", layer);
        check(&format!("{name}, gemm_nt_sm90"), &counters, need_of(layer, SM90), limits);
        // Each of eight warps begins a tile, and reads the bias of each column once.
        let bias = counters.sums_begun as usize * SM90[1];
        narrow(name, &counters, if layer.bias { bias } else { 0 });
    }
}

/// The first half of a feed-forward, which leaves gate and up of some rows for a backward.
#[test]
fn feed_forward() {
    if uncounted() {
        return;
    }
    for (rows, wide, kept, kernel, tile, limits) in [
        (40, WIDE / 2, 0, "gemm_nt_gated_small", SMALL, limits(1.01, 1.61)),
        (ROWS, WIDE / 4, 100, "gemm_nt_gated_large", LARGE, limits(1.01, 1.03)),
        (ROWS, WIDE / 2, 0, "gemm_nt_gated_sm90", SM90, limits(1.001, 1.03)),
        (ROWS, WIDE / 2, 400, "gemm_nt_gated_sm90", SM90, limits(1.001, 1.03)),
    ] {
        let width = HIDDEN;
        let [counters] = count([kernel], |cuda: &Cuda| {
            let (x, w) = (random(cuda, rows * width, 1.0), weight(cuda, 2 * wide, width));
            let (mut h, mut gate_up) = (buffer(cuda, rows * wide), buffer(cuda, 2 * rows * wide));
            cuda.gated(h.view_mut(), gate_up.view_mut(), kept, x.view(), &w, &[], wide);
        });
        let what = format!("gate and up of {rows} rows, {kept} kept, {kernel}");
        let (partials, reset) = split_k(&counters, [rows, 2 * wide], tile);
        let need = sums_of([rows, 2 * wide, width], tile) + bytes(2 * (rows + 2 * kept) * wide + partials);
        check(&what, &counters, need, limits);
        narrow(&what, &counters, reset);
    }
}

/// Gradients through a layer.
#[test]
fn gradients_of_inputs() {
    if uncounted() {
        return;
    }
    for (name, out, width, kernel, tile, limits) in [
        ("qkv", QKV, HIDDEN, "gemm_nn_small", SMALL, limits(1.01, 1.03)),
        ("half of down", HIDDEN, WIDE / 2, "gemm_nn_large", LARGE, limits(1.01, 1.03)),
        ("down", HALF, WIDE, "gemm_nn_sm90", SM90, limits(1.001, 1.03)),
    ] {
        let [counters] = count([kernel], |cuda: &Cuda| {
            let dy = random(cuda, ROWS * out, 1.0);
            let (w, mut dx) = (weight(cuda, out, width), buffer(cuda, ROWS * width));
            cuda.linear_backward(dx.view_mut(), dy.view(), &w);
        });
        let (partials, reset) = split_k(&counters, [ROWS, width], tile);
        let need = sums_of([ROWS, width, out], tile) + bytes(2 * ROWS * width + partials);
        check(&format!("through {name}, {}", kernel), &counters, need, limits);
        narrow(name, &counters, reset);
    }
}

/// Gradients of gate and up through the layer behind a feed-forward: they are read and written once, and the
/// gradient of h never is.
#[test]
fn feed_forward_backward() {
    if uncounted() {
        return;
    }
    let [counters] = count(["gemm_nn_gated_sm90"], |cuda: &Cuda| {
        let (dy, gate_up) = (random(cuda, ROWS * HALF, 1.0), random(cuda, ROWS * 2 * WIDE, 1.0));
        let (w, mut dh) = (weight(cuda, HALF, WIDE), buffer(cuda, ROWS * WIDE));
        let mut dgate_up = buffer(cuda, ROWS * 2 * WIDE);
        cuda.gated_backward(dgate_up.view_mut(), dh.view_mut(), dy.view(), &w, gate_up.view(), WIDE);
    });
    let need = sums_of([ROWS, WIDE, HALF], SM90) + bytes(2 * 4 * ROWS * WIDE);
    check("through down and SwiGLU, gemm_nn_gated_sm90", &counters, need, limits(1.001, 1.03));
    narrow("through down and SwiGLU", &counters, 0);
}

/// Gradients of a weight. Row weights are read four bytes at a time.
#[test]
fn gradients_of_weights() {
    if uncounted() {
        return;
    }
    for (out, kernel, tile, limits) in
        [(HIDDEN, "gemm_tn_small", SMALL, [1.01, 1.01]), (WIDE / 2, "gemm_tn_large", LARGE, [1.001, 1.001])]
    {
        for (weighted, limit) in [(false, limits[0]), (true, limits[1])] {
            let [counters] = count([kernel], |cuda: &Cuda| {
                let (dy, x) = (random(cuda, ROWS * out, 1.0), random(cuda, ROWS * HIDDEN, 1.0));
                let (weights, mut dw) = (buffer(cuda, ROWS), buffer(cuda, out * HIDDEN));
                let (dw, dy) =
                    (MatrixMut::new(dw.view_mut(), out, HIDDEN), Matrix::new(dy.view(), ROWS, out));
                let x = Matrix::new(x.view(), ROWS, HIDDEN);
                match weighted {
                    true => cuda.weighted_product(dw, dy, x, weights.view()),
                    false => cuda.matmul(dw, dy, x, Transpose::First, 1.0, 0.0),
                }
            });
            let weights = if weighted { ROWS * out.div_ceil(tile[0]) * HIDDEN.div_ceil(tile[1]) } else { 0 };
            let (partials, reset) = split_k(&counters, [out, HIDDEN], tile);
            let need = sums([out, HIDDEN, ROWS], tile) + bytes(2 * out * HIDDEN + 4 * weights + partials);
            let what = format!("of {out}, {}, weighted: {weighted}", kernel);
            check(&what, &counters, need, Limits { global: limit, operations: 1.03 });
            narrow(&what, &counters, weights + reset);
        }
    }
}

/// The backward of the adapters of q and v. Their ranks fill a quarter of a tile.
#[test]
fn factor_gradients() {
    if uncounted() {
        return;
    }
    let adapted = [Q, V];
    let [outputs, inputs] = count(["gemm_grouped", "lora_inputs"], |cuda: &Cuda| {
        let (dy, x) = (random(cuda, ROWS * QKV, 1.0), random(cuda, ROWS * HIDDEN, 1.0));
        let (a, b) = (random(cuda, RANK * HIDDEN, 1.0), random(cuda, HIDDEN * RANK, 1.0));
        let (xa, mut dx) = (random(cuda, ROWS * RANK, 1.0), random(cuda, ROWS * HIDDEN, 1.0));
        let (mut da, mut db) = (buffer(cuda, 2 * RANK * HIDDEN), buffer(cuda, QKV * RANK));
        let da = da.view_mut().ranges([0, 1].map(|i| i * RANK * HIDDEN..(i + 1) * RANK * HIDDEN).into_iter());
        let of_columns = |(column, out): (usize, usize)| column * RANK..(column + out) * RANK;
        let db = db.view_mut().ranges(adapted.map(of_columns).into_iter());
        let dy = Matrix::new(dy.view(), ROWS, QKV);
        let adapters = adapted.iter().zip(da.into_iter().zip(db));
        let adapters = adapters.map(|(&(column, out), (da_acc, db_acc))| LoraBackward {
            da_acc,
            db_acc,
            xa: xa.view(),
            dy: dy.columns(column, out),
            a: a.view(),
            b: b.slice(0..out * RANK),
            dropout: None,
        });
        cuda.lora_backward(Some(dx.view_mut()), adapters.collect(), x.view(), 2.0);
    });
    let total =
        |f: &dyn Fn(usize) -> Need| adapted.iter().fold(Need::default(), |sum, &(_, out)| sum + f(out));
    let tiles = |n: usize| n.div_ceil(GEMM_SMALL_TILE);
    // All dB have as many splits, and all dA.
    let of_b: usize = adapted.iter().map(|&(_, out)| tiles(out)).sum();
    let splits_b = (outputs.blocks as usize - 2 * tiles(ROWS)) / of_b;
    let splits_a = (inputs.blocks as usize - tiles(ROWS) * tiles(HIDDEN)) / (2 * tiles(HIDDEN));
    assert_eq!((splits_a, splits_b), (2, 2), "splits of k");

    let need = total(&|out| {
        let of_b = sums([out, RANK, ROWS], SMALL) + bytes(8 * (splits_b + 1) * out * RANK);
        of_b + sums([ROWS, RANK, out], SMALL) + bytes(2 * ROWS * RANK)
    });
    check("dB and t, gemm_grouped", &outputs, need, limits(1.01, 4.1));
    narrow("dB and t, gemm_grouped: counters reset", &outputs, of_b);
    // dx is read and written once for all.
    let need = total(&|_| {
        let of_a = sums([RANK, HIDDEN, ROWS], SMALL) + bytes(8 * (splits_a + 1) * RANK * HIDDEN);
        of_a + sums([ROWS, HIDDEN, RANK], SMALL)
    });
    check("dA and dx, lora_inputs", &inputs, need + bytes(4 * ROWS * HIDDEN), limits(1.01, 3.08));
    narrow("dA and dx, lora_inputs: counters reset", &inputs, 2 * tiles(HIDDEN));
}

/// Products with few rows, as in decoding. Results, bias and residual are two or four bytes at a time.
#[test]
fn few_rows() {
    if uncounted() {
        return;
    }
    let limits_of = [
        (1, 1, 1.02, 8.13),
        (8, 1, 1.035, 1.02),
        (12, 2, 1.04, 1.36),
        (20, 4, 1.05, 1.63),
        (32, 4, 1.06, 1.02),
    ];
    for (rows, n, global, operations) in limits_of {
        let tile = [8 * n, SKINNY_LINES, 32];
        let plain = Layer { rows, out: HIDDEN, width: HIDDEN, bias: false, residual: false, adapted: &[] };
        let qkv = Layer { out: QKV, bias: true, adapted: &[Q, V], ..plain };
        let down = Layer { width: WIDE, residual: true, ..plain };
        for (name, layer) in [("qkv", qkv), ("down", down)] {
            let what = format!("{name} of {rows} rows, linear_skinny_{n}");
            let counters = linear(&format!("linear_skinny_{n}"), layer);
            check(&what, &counters, need_of(layer, tile), Limits { global, operations });
            narrow(&what, &counters, 2 * rows * layer.out);
        }
        let what = format!("gate and up of {rows} rows, gated_skinny_{n}");
        let [counters] = count([&format!("gated_skinny_{n}")], |cuda: &Cuda| {
            let (x, w) = (random(cuda, rows * HIDDEN, 1.0), weight(cuda, 2 * WIDE, HIDDEN));
            let (mut h, mut between) = (buffer(cuda, rows * WIDE), buffer(cuda, 2 * rows * WIDE));
            cuda.gated(h.view_mut(), between.view_mut(), 0, x.view(), &w, &[], WIDE);
        });
        let need = sums([rows, 2 * WIDE, HIDDEN], tile) + bytes(2 * rows * WIDE);
        check(&what, &counters, need, limits(1.02, operations));
        narrow(&what, &counters, rows * WIDE);
    }
}
