// Causal varlen attention without prefixes, backward. Contract: src/ops/attention.rs. Launched by
// src/cuda/attention.rs.
//
// With p the softmax: dv = pᵀ do; ds = p ∘ (do vᵀ − D), D = rowsum(do ∘ o); dq = scale · ds k; dk = scale ·
// dsᵀ q. Two kernels recompute p and ds, one for dq and D, then one for dk and dv, so that every result is
// the work of one warp, which sums in a fixed order: no atomics, no partial sums in memory. p and ds are
// rounded to bf16 for the products. Rows are packed (attention.h); tiles above a warp's causal diagonal are
// skipped.

#include "attention.h"

namespace {

// Bytes of a tile that the loops visit. Tiles come in pairs, double-buffered: one pair is multiplied while
// the other is in flight.
template <int D>
constexpr int OPERAND_BYTES = VISITED<D> * D * 2;

constexpr int QUERY_ROWS = ATTENTION_QUERY_ROWS;
static_assert(QUERY_ROWS == 16 * ATTENTION_WARPS);
static_assert(QUERY_ROWS <= 2 * ATTENTION_SHORT, "o fits the second pair of operands");

// rowsum(do ∘ o) of a warp's 16 rows: of row lane % 16, for lanes 16 apart.
template <int D>
__device__ __forceinline__ float row_products(const unsigned char* dout, const unsigned char* o) {
    const int lane = threadIdx.x % WARP;
    float sum = 0.0f;
#pragma unroll
    for (int chunk = 0; chunk < D / CHUNK; chunk += 2) {
        const int at = tile_offset<D>(lane % 16, chunk + lane / 16);
        const Vector<CHUNK> a = load<CHUNK>(reinterpret_cast<const bf16*>(dout + at));
        const Vector<CHUNK> b = load<CHUNK>(reinterpret_cast<const bf16*>(o + at));
#pragma unroll
        for (int i = 0; i < CHUNK; i++) {
            sum += a.v[i] * b.v[i];
        }
    }
    return sum + __shfl_xor_sync(ALL_LANES, sum, 16);
}

template <int D>
__device__ __forceinline__ void query_gradient(bf16* gradient, int stride, float* products, const bf16* dout,
                                               const bf16* o, const float* lse, const Qkv& qkv,
                                               const Sequences& sequences, const HeadShape& heads) {
    extern __shared__ __align__(128) unsigned char shared[];
    constexpr int KEYS = VISITED<D>;
    constexpr int TILE_BYTES = QUERY_ROWS * D * 2;
    const Sequence sequence = sequences.find(blockIdx.x);
    const int rows = sequence.len * heads.group;
    // Longest first: the last queries see most keys.
    const int tile = (rows - 1) / QUERY_ROWS - (int(blockIdx.x) - sequence.first_tile);
    const int kv_head = blockIdx.y;
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const PackedRows of_block = {sequence.start, kv_head, tile * QUERY_ROWS, rows};
    const PackedRows of_warp = {sequence.start, kv_head, tile * QUERY_ROWS + warp * 16, rows};
    const int q_width = heads.q_width();
    const int end = heads.query_of(min(of_block.first + QUERY_ROWS, rows) - 1) + 1;
    const int tiles = (end + KEYS - 1) / KEYS;

    unsigned char* own_q = shared + warp * 16 * D * 2;
    unsigned char* own_dout = own_q + TILE_BYTES;
    unsigned char* const operands = shared + 2 * TILE_BYTES;
    const bf16* k = qkv.k + size_t(sequence.start) * qkv.k_stride + kv_head * heads.dim;
    const bf16* v = qkv.v + size_t(sequence.start) * qkv.v_stride + kv_head * heads.dim;
    const auto prefetch = [&](int tile) {
        if (tile < tiles) {
            const unsigned to = shared_address(operands) + tile % 2 * 2 * OPERAND_BYTES<D>;
            const auto copy = [&](unsigned to, const bf16* from, int from_stride) {
                copy_tile<D, KEYS>(to, heads.dim, from, [&](int row) {
                    const int j = tile * KEYS + row;
                    return j < end ? from + size_t(j) * from_stride : nullptr;
                });
            };
            copy(to, k, qkv.k_stride);
            copy(to + OPERAND_BYTES<D>, v, qkv.v_stride);
        }
        copy_commit();
    };
    copy_tile<D, QUERY_ROWS>(shared_address(shared), heads.dim, qkv.q, [&](int row) {
        return offset_or_null(qkv.q, of_block.at(row, qkv.q_stride, heads));
    });
    copy_tile<D, QUERY_ROWS>(shared_address(shared) + TILE_BYTES, heads.dim, dout,
                             [&](int row) { return offset_or_null(dout, of_block.at(row, q_width, heads)); });
    // The second pair of operands is not in flight yet: its buffer takes o.
    unsigned char* const o_tile = operands + 2 * OPERAND_BYTES<D>;
    copy_tile<D, QUERY_ROWS>(shared_address(o_tile), heads.dim, o,
                             [&](int row) { return offset_or_null(o, of_block.at(row, q_width, heads)); });
    prefetch(0);
    copy_wait<0>();
    __syncthreads();
    const float product = row_products<D>(own_dout, o_tile + warp * 16 * D * 2);
    const long long products_at = of_warp.number(lane % 16, heads);
    if (lane < 16 && products_at >= 0) {
        products[products_at] = product;
    }

    const Visible visible = {of_warp.first, rows - 1, 1};
    const bool any = of_warp.first < rows;
    const int least = visible.keys_of(0, heads), most = any ? visible.keys_of(15, heads) : 0;
    float log_sum[2], product_of[2];  // of rows lane / 4 and lane / 4 + 8
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const long long at = of_warp.number(half * 8 + lane / 4, heads);
        log_sum[half] = at < 0 ? 0.0f : LOG2_E * lse[at];
        product_of[half] = __shfl_sync(ALL_LANES, product, half * 8 + lane / 4);
    }
    const float scale = heads.scale * LOG2_E;
    float dq[1][D / 8][4] = {};
    const auto visit = [&](auto masked, int tile) {
        constexpr bool MASKED = decltype(masked)::value;
        const unsigned k_tile = shared_address(operands) + tile % 2 * 2 * OPERAND_BYTES<D>;
        const int seen = most - tile * KEYS;
        float p[1][KEYS / 8][4] = {}, ds[1][KEYS / 8][4] = {};
        multiply_rows<D, 1, KEYS, MASKED>(p, shared_address(own_q), k_tile, seen);
        multiply_rows<D, 1, KEYS, MASKED>(ds, shared_address(own_dout), k_tile + OPERAND_BYTES<D>, seen);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int limit = MASKED ? visible.keys_of(half * 8 + lane / 4, heads) - tile * KEYS : KEYS;
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
                for (int i = 2 * half; i < 2 * half + 2; i++) {
                    const float weight = exp2_fast(fmaf(p[0][n][i], scale, -log_sum[half]));
                    const bool sees = !MASKED || n * 8 + lane % 4 * 2 + i % 2 < limit;
                    ds[0][n][i] = sees ? weight * (ds[0][n][i] - product_of[half]) : 0.0f;
                }
            }
        }
        multiply_weights<D, 1, KEYS, MASKED>(dq, ds, k_tile, seen);
    };
    for (int tile = 0; tile < tiles; tile++) {
        copy_wait<0>();
        __syncthreads();  // all threads have this tile, and are done with the one before
        prefetch(tile + 1);
        if (tile * KEYS >= most) {
            continue;
        }
        if ((tile + 1) * KEYS <= least) {
            visit(Constant<false>{}, tile);
        } else {
            visit(Constant<true>{}, tile);
        }
    }
    if (any) {
        store_accumulators<D>(own_q, dq[0], heads.scale, heads.scale);
        write_rows<D, 16>(own_q, heads.dim,
                          [&](int row) { return offset_or_null(gradient, of_warp.at(row, stride, heads)); });
    }
}

constexpr int KEY_ROWS = ATTENTION_KEYS;
static_assert(KEY_ROWS == 16 * ATTENTION_WARPS);

// Starts to copy one number from global to shared memory; zero instead where not `valid`.
__device__ __forceinline__ void copy_number_async(unsigned to, const float* from, bool valid) {
    const int bytes = valid ? 4 : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

template <int D>
__device__ __forceinline__ void key_value_gradient(const QkvGradient& dqkv, const float* products,
                                                   const bf16* dout, const float* lse, const Qkv& qkv,
                                                   const Sequences& sequences, const HeadShape& heads) {
    extern __shared__ __align__(128) unsigned char shared[];
    constexpr int ROWS = VISITED<D>;
    constexpr int TILE_BYTES = KEY_ROWS * D * 2;
    constexpr int STAGE_BYTES = 2 * OPERAND_BYTES<D> + 2 * ROWS * 4;
    const Sequence sequence = sequences.find(blockIdx.x);
    const int rows = sequence.len * heads.group;
    const int first_key = (int(blockIdx.x) - sequence.first_tile) * KEY_ROWS;
    const int kv_head = blockIdx.y;
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int q_width = heads.q_width();
    // Packed rows whose queries see the first key.
    const int first_row = first_key * heads.group;
    const int tiles = (rows - first_row + ROWS - 1) / ROWS;
    const int own_key = first_key + warp * 16;

    unsigned char* own_k = shared + warp * 16 * D * 2;
    unsigned char* own_v = own_k + TILE_BYTES;
    unsigned char* const stages = shared + 2 * TILE_BYTES;
    const auto prefetch = [&](int tile) {
        if (tile < tiles) {
            const unsigned to = shared_address(stages) + tile % 2 * STAGE_BYTES;
            const PackedRows here = {sequence.start, kv_head, first_row + tile * ROWS, rows};
            copy_tile<D, ROWS>(to, heads.dim, qkv.q, [&](int row) {
                return offset_or_null(qkv.q, here.at(row, qkv.q_stride, heads));
            });
            copy_tile<D, ROWS>(to + OPERAND_BYTES<D>, heads.dim, dout,
                               [&](int row) { return offset_or_null(dout, here.at(row, q_width, heads)); });
            static_assert(2 * ROWS <= ATTENTION_THREADS);
            if (threadIdx.x < 2 * ROWS) {
                const long long at = here.number(threadIdx.x % ROWS, heads);
                const float* from = threadIdx.x < ROWS ? lse : products;
                copy_number_async(to + 2 * OPERAND_BYTES<D> + threadIdx.x * 4, from + max(at, 0ll), at >= 0);
            }
        }
        copy_commit();
    };
    // Where row j of this head's keys or values starts, null behind the last.
    const auto head_row = [&](auto* from, int stride, int j) {
        return j < sequence.len ? from + (size_t(sequence.start + j) * stride + kv_head * heads.dim)
                                : nullptr;
    };
    copy_tile<D, KEY_ROWS>(shared_address(shared), heads.dim, qkv.k,
                           [&](int row) { return head_row(qkv.k, qkv.k_stride, first_key + row); });
    copy_tile<D, KEY_ROWS>(shared_address(shared) + TILE_BYTES, heads.dim, qkv.v,
                           [&](int row) { return head_row(qkv.v, qkv.v_stride, first_key + row); });
    prefetch(0);

    const float scale = heads.scale * LOG2_E;
    float dk[1][D / 8][4] = {}, dv[1][D / 8][4] = {};
    const auto visit = [&](auto masked, int tile) {
        constexpr bool MASKED = decltype(masked)::value;
        const unsigned char* stage = stages + tile % 2 * STAGE_BYTES;
        const unsigned q_tile = shared_address(stage), dout_tile = q_tile + OPERAND_BYTES<D>;
        const float* numbers = reinterpret_cast<const float*>(stage + 2 * OPERAND_BYTES<D>);
        // pᵀ and dsᵀ: keys are rows here.
        float p[1][ROWS / 8][4] = {}, ds[1][ROWS / 8][4] = {};
        multiply_rows<D, 1, ROWS, false>(p, shared_address(own_k), q_tile, ROWS);
#pragma unroll
        for (int n = 0; n < ROWS / 8; n++) {
            const int column = n * 8 + lane % 4 * 2;
            const float2 log_sums = *reinterpret_cast<const float2*>(numbers + column);
            int query[2] = {};
            if (MASKED) {
                query[0] = heads.query_of(first_row + tile * ROWS + column);
                query[1] = heads.query_of(first_row + tile * ROWS + column + 1);
            }
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float log_sum = LOG2_E * (i % 2 == 0 ? log_sums.x : log_sums.y);
                const bool sees = !MASKED || own_key + i / 2 * 8 + lane / 4 <= query[i % 2];
                p[0][n][i] = sees ? exp2_fast(fmaf(p[0][n][i], scale, -log_sum)) : 0.0f;
            }
        }
        multiply_weights<D, 1, ROWS, false>(dv, p, dout_tile, ROWS);
        multiply_rows<D, 1, ROWS, false>(ds, shared_address(own_v), dout_tile, ROWS);
#pragma unroll
        for (int n = 0; n < ROWS / 8; n++) {
            const float2 products_here =
                *reinterpret_cast<const float2*>(numbers + ROWS + n * 8 + lane % 4 * 2);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                ds[0][n][i] = p[0][n][i] * (ds[0][n][i] - (i % 2 == 0 ? products_here.x : products_here.y));
            }
        }
        multiply_weights<D, 1, ROWS, false>(dk, ds, q_tile, ROWS);
    };
    for (int tile = 0; tile < tiles; tile++) {
        copy_wait<0>();
        __syncthreads();  // all threads have this tile, and are done with the one before
        prefetch(tile + 1);
        const int first = first_row + tile * ROWS;
        if (own_key >= sequence.len || heads.query_of(min(first + ROWS, rows) - 1) < own_key) {
            continue;
        }
        if (heads.query_of(first) >= own_key + 15) {
            visit(Constant<false>{}, tile);
        } else {
            visit(Constant<true>{}, tile);
        }
    }
    if (own_key < sequence.len) {
        // The tiles of keys and values are free: they take the gradients.
        store_accumulators<D>(own_k, dk[0], heads.scale, heads.scale);
        store_accumulators<D>(own_v, dv[0], 1.0f, 1.0f);
        write_rows<D, 16>(own_k, heads.dim,
                          [&](int row) { return head_row(dqkv.k, dqkv.k_stride, own_key + row); });
        write_rows<D, 16>(own_v, heads.dim,
                          [&](int row) { return head_row(dqkv.v, dqkv.v_stride, own_key + row); });
    }
}

}  // namespace

// attention_backward_q: dq, whose rows lie dq_stride elements apart, and products[.., query heads] =
// rowsum(dout ∘ o), from dout and o [.., q_width], lse[.., query heads], q[.., q_width], k and v
// [.., kv_width]; blockIdx.x is a tile of QUERY_ROWS packed rows of a sequence, blockIdx.y a key/value head.
// 2 · (QUERY_ROWS + 2 · VISITED<D>) · D · 2 bytes of shared memory.
//
// attention_backward_kv, after it: dk and dv; blockIdx.x is a tile of KEY_ROWS keys of a sequence. Shared
// memory as above with KEY_ROWS, and 16 · VISITED<D> bytes.
//
// The head's dimension is a multiple of 8, at most D; rows of bf16 start on multiples of 16 bytes.
#define BACKWARD(D)                                                                                       \
    extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 2) attention_backward_q_##D(          \
        bf16* dq, int dq_stride, float* products, const bf16* dout, const bf16* o, const float* lse,      \
        const Qkv qkv, const __grid_constant__ Sequences sequences, const HeadShape heads) {              \
        query_gradient<D>(dq, dq_stride, products, dout, o, lse, qkv, sequences, heads);                  \
    }                                                                                                     \
    extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 2) attention_backward_kv_##D(         \
        const QkvGradient dqkv, const float* products, const bf16* dout, const float* lse, const Qkv qkv, \
        const __grid_constant__ Sequences sequences, const HeadShape heads) {                             \
        key_value_gradient<D>(dqkv, products, dout, lse, qkv, sequences, heads);                          \
    }
BACKWARD(16)
BACKWARD(64)
BACKWARD(80)
BACKWARD(96)
BACKWARD(128)
