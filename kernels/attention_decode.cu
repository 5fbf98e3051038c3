// One new token of every sample against the key/value cache. Contract: src/ops/attention.rs.
// Launched by src/cuda/attention.rs.
//
// A block attends to a piece of the keys. Pieces of the prompt serve the queries of all samples, as packed rows of one
// tile: four warps of 16 rows each. Pieces of a sample's own keys serve its group of query heads. With one sample, prompt
// and own keys are one list. Where there are several pieces, a second kernel puts their results together, in their order.

#include "attention.h"

namespace {

constexpr int ROWS = ATTENTION_DECODE_ROWS, KEYS = ATTENTION_LONG;

// Pieces of the cache, as the launch cuts it.
struct Pieces {
    int samples;
    int prompt_len;
    int filled;
    int capacity;
    int keys;           // keys of a piece, a multiple of KEYS
    int prompt_pieces;  // 0 with one sample, whose own pieces hold all
    int own_pieces;
    int prompt_tiles;   // tiles of rows that the prompt is read for
    int own_tiles;      // the same for one sample
};

// Keys and values of one head: those of the prompt, then a sample's own.
struct CachedKeys {
    const bf16 *prompt_k, *prompt_v, *own_k, *own_v;
    int prompt_len;
    int stride;

    __device__ __forceinline__ const bf16* at(const bf16* prompt, const bf16* own, int j) const {
        return j < prompt_len ? prompt + size_t(j) * stride : own + size_t(j - prompt_len) * stride;
    }
    __device__ __forceinline__ const bf16* k(int j) const { return at(prompt_k, own_k, j); }
    __device__ __forceinline__ const bf16* v(int j) const { return at(prompt_v, own_v, j); }
};

struct Work {
    PackedRows rows;
    CachedKeys keys;
    int begin, end;
    int piece;
};

__device__ __forceinline__ Work work_of(int block, int kv_head, const bf16* prompt_k, const bf16* prompt_v,
                                        const bf16* sample_k, const bf16* sample_v, const Pieces& pieces,
                                        const HeadShape& heads) {
    Work work;
    const int stride = heads.kv_width();
    const int column = kv_head * heads.dim;
    const int of_prompt = pieces.prompt_pieces * pieces.prompt_tiles;
    const bool own = block >= of_prompt;
    const int number = own ? block - of_prompt : block;
    const int many = own ? pieces.own_pieces : pieces.prompt_pieces;
    const int tile = number / many, piece = number % many;
    const int sample = own ? tile / pieces.own_tiles : 0;
    const int first = (own ? tile % pieces.own_tiles : tile) * ROWS;
    work.rows = {sample, kv_head, first, (own ? 1 : pieces.samples) * heads.group};
    const size_t at = size_t(sample) * pieces.capacity * stride + column;
    const int shared = !own || pieces.prompt_pieces == 0 ? pieces.prompt_len : 0;
    work.keys = {prompt_k + column, prompt_v + column, sample_k + at, sample_v + at, shared, stride};
    work.begin = piece * pieces.keys;
    work.end = min(work.begin + pieces.keys, shared + (own ? pieces.filled : 0));
    work.piece = own ? pieces.prompt_pieces + piece : piece;
    return work;
}

template <int D>
__device__ __forceinline__ void decode(bf16* o, float* partial_o, float* partial_lse, const bf16* qkv,
                                       const bf16* prompt_k, const bf16* prompt_v, const bf16* sample_k,
                                       const bf16* sample_v, const Pieces& pieces, const HeadShape& heads) {
    extern __shared__ __align__(128) unsigned char shared[];
    const Work work = work_of(blockIdx.x, blockIdx.y, prompt_k, prompt_v, sample_k, sample_v, pieces, heads);
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int width = heads.qkv_width();
    copy_tile<D, ROWS>(shared_address(shared), heads.dim, qkv,
                       [&](int row) { return offset_or_null(qkv, work.rows.at(row, width, heads)); });

    PackedRows of_warp = work.rows;
    of_warp.first += warp * 16;
    const Visible visible = {of_warp.first, of_warp.end - 1, INT_MAX};
    unsigned char* own_tile = shared + warp * 16 * D * 2;
    Softmax<D, 1> state;
    attend<D, 1, KEYS>(state, shared_address(own_tile), shared_address(shared) + ROWS * D * 2, work.keys, work.begin,
                       work.end, visible, heads);
    if (of_warp.first >= of_warp.end) {
        return;
    }

    const float factor[2] = {1.0f / state.sum[0][0], 1.0f / state.sum[0][1]};
    if (pieces.prompt_pieces + pieces.own_pieces == 1) {
        put_down<D>(own_tile, state.o[0], factor[0], factor[1]);
        write_rows<D, 16>(own_tile, heads.dim, [&](int row) {
            return offset_or_null(o, of_warp.at(row, heads.q_width(), heads));
        });
        return;
    }
    const size_t before = size_t(work.piece) * pieces.samples * heads.query;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const long long at = of_warp.number(half * 8 + lane / 4, heads);
        if (at < 0) {
            continue;
        }
        if (lane % 4 == 0) {
            partial_lse[before + at] = state.log_sum_exp(0, half);
        }
        float* to = partial_o + (before + at) * heads.dim;
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            if (n * 8 < heads.dim) {
                const float2 pair = {state.o[0][n][2 * half] * factor[half], state.o[0][n][2 * half + 1] * factor[half]};
                *reinterpret_cast<float2*>(to + n * 8 + lane % 4 * 2) = pair;
            }
        }
    }
}

}  // namespace

// o[samples, q_width] from qkv[samples, qkv_width], or, with several pieces, partial_o[pieces, samples, q_width] and
// partial_lse[pieces, samples, query heads]. prompt_k and prompt_v [prompt_len, kv_width]; sample_k and sample_v
// [samples, capacity, kv_width]. blockIdx.x counts pieces of the prompt for each tile of rows, then pieces of each
// sample's own keys for each tile of its rows; blockIdx.y is a key/value head. (ROWS + 3 · KEYS) · D · 2 bytes of shared
// memory; everything starts on multiples of 16 bytes.
#define DECODE(D)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 2)                                              \
    attention_decode_##D(bf16* o, float* partial_o, float* partial_lse, const bf16* qkv, const bf16* prompt_k,      \
                         const bf16* prompt_v, const bf16* sample_k, const bf16* sample_v, const Pieces pieces,     \
                         const HeadShape heads) {                                                                   \
        decode<D>(o, partial_o, partial_lse, qkv, prompt_k, prompt_v, sample_k, sample_v, pieces, heads);           \
    }
DECODE(16)
DECODE(64)
DECODE(80)
DECODE(96)
DECODE(128)

// o[rows, dim] from partial_o[pieces, rows, dim], each weighted by its part of the sum of exponentials, of which
// partial_lse[pieces, rows] is the logarithm. A thread makes four elements, which it reads as 16 bytes.
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS)
attention_decode_combine(bf16* o, const float* partial_o, const float* partial_lse, int pieces, int rows, int dim) {
    const int at = blockIdx.x * ATTENTION_THREADS + threadIdx.x;
    const int row = at / (dim / 4);
    if (row >= rows) {
        return;
    }
    float largest = -INFINITY;
    for (int piece = 0; piece < pieces; piece++) {
        largest = fmaxf(largest, partial_lse[size_t(piece) * rows + row]);
    }
    float4 sum = {};
    float weights = 0.0f;
    for (int piece = 0; piece < pieces; piece++) {
        const float weight = exp2_fast((partial_lse[size_t(piece) * rows + row] - largest) * LOG2_E);
        const float4 part = reinterpret_cast<const float4*>(partial_o + size_t(piece) * rows * dim)[at];
        weights += weight;
        sum.x += weight * part.x;
        sum.y += weight * part.y;
        sum.z += weight * part.z;
        sum.w += weight * part.w;
    }
    struct alignas(8) Four {
        __nv_bfloat162_raw pairs[2];
    };
    reinterpret_cast<Four*>(o)[at] = {__floats2bfloat162_rn(sum.x / weights, sum.y / weights),
                                      __floats2bfloat162_rn(sum.z / weights, sum.w / weights)};
}
