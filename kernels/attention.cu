// Causal varlen attention, forward. Contract: src/ops/attention.rs. Launched by src/cuda/attention.rs.
//
// A block has four warps of 32 packed rows each (attention.h) of one sequence and one key/value head, and
// passes over the keys that they see: those of the shared prefix, then the sequence's own. With 32 rows to a
// warp, one ldmatrix of keys or values feeds four mmas. Tiles below the causal diagonal are not masked; of
// those on the diagonal, groups of 16 keys that no row of the warp sees are skipped.

#include "attention.h"

namespace {

constexpr int ROWS = ATTENTION_ROWS;
constexpr int M = ROWS / 16 / ATTENTION_WARPS;

// Keys and values of one head of a sequence: the prefix, then the sequence's own. Addresses and strides stay
// in constant memory, where they cost no registers.
struct PackedKeys {
    const Qkv& qkv;
    int column;
    int prefix_start, prefix_len;
    int own;  // row of a key of the sequence's own, less its index

    __device__ __forceinline__ size_t row(int j) const { return (j < prefix_len ? prefix_start : own) + j; }
    __device__ __forceinline__ const bf16* k(int j) const { return qkv.k + (row(j) * qkv.k_stride + column); }
    __device__ __forceinline__ const bf16* v(int j) const { return qkv.v + (row(j) * qkv.v_stride + column); }
    __device__ __forceinline__ const bf16* anywhere() const { return qkv.k; }
};

template <int D>
__device__ __forceinline__ void forward(bf16* o, float* lse, const Qkv& qkv, const Sequences& sequences,
                                        const HeadShape& heads) {
    extern __shared__ __align__(128) unsigned char shared[];
    const Sequence sequence = sequences.find(blockIdx.x);
    const int rows = sequence.len * heads.group;
    // Longest first: the last queries see most keys.
    const int tile = (rows - 1) / ROWS - (int(blockIdx.x) - sequence.first_tile);
    const int kv_head = blockIdx.y;
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const PackedRows of_block = {sequence.start, kv_head, tile * ROWS, rows};
    const PackedRows of_warp = {sequence.start, kv_head, tile * ROWS + warp * M * 16, rows};

    copy_tile<D, ROWS>(shared_address(shared), heads.dim, qkv.q,
                       [&](int row) { return offset_or_null(qkv.q, of_block.at(row, qkv.q_stride, heads)); });

    const int prefix = sequence.prefix_len;
    const Visible visible = {of_warp.first, rows - 1, prefix + 1};
    const int end = prefix + heads.query_of(min(of_block.first + ROWS, rows) - 1) + 1;
    const PackedKeys keys = {qkv, kv_head * heads.dim, sequence.prefix_start, prefix,
                             sequence.start - prefix};

    unsigned char* own_tile = shared + warp * M * 16 * D * 2;
    Softmax<D, M> state;
    attend<D, M, VISITED<D>>(state, shared_address(own_tile), shared_address(shared) + ROWS * D * 2, keys, 0,
                             end, visible, heads);
    if (of_warp.first >= rows) {
        return;
    }

#pragma unroll
    for (int m = 0; m < M; m++) {
        // The tile of the queries is free: it takes the outputs.
        store_accumulators<D>(own_tile + m * 16 * D * 2, state.o[m], 1.0f / state.sum[m][0],
                              1.0f / state.sum[m][1]);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const long long at = of_warp.number(m * 16 + half * 8 + lane / 4, heads);
            if (lane % 4 == 0 && at >= 0) {
                lse[at] = state.log_sum_exp(m, half);
            }
        }
    }
    write_rows<D, M * 16>(own_tile, heads.dim, [&](int row) {
        return offset_or_null(o, of_warp.at(row, heads.q_width(), heads));
    });
}

}  // namespace

// o[.., q_width], lse[.., query heads] from q[.., q_width], k and v [.., kv_width]; blockIdx.x is a tile of
// rows of a sequence, blockIdx.y a key/value head. (ROWS + 3 · VISITED<D>) · D · 2 bytes of shared memory;
// the head's dimension is a multiple of 8, at most D. o and all rows of q, k and v start on multiples of 16
// bytes.
#define FORWARD(D)                                                                                     \
    extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 2)                                 \
        attention_##D(bf16* o, float* lse, const Qkv qkv, const __grid_constant__ Sequences sequences, \
                      const HeadShape heads) {                                                         \
        forward<D>(o, lse, qkv, sequences, heads);                                                     \
    }
FORWARD(16)
FORWARD(64)
FORWARD(80)
FORWARD(96)
FORWARD(128)
