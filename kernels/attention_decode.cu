// One new token of every sample against the key/value cache. Contract: src/ops/attention.rs.
// Launched by src/cuda/attention.rs.
//
// A block attends to a piece of the keys. Pieces of the prompt serve the queries of all samples, as packed rows of one
// tile: four warps of 16 rows each. Pieces of a sample's own keys serve its group of query heads. With one sample, prompt
// and own keys are one list. Where there are several pieces, the last block to finish with a sample's heads puts their
// results together, in the order of the pieces, whichever block that is.

#include "arrival.h"
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
    __device__ __forceinline__ const bf16* anywhere() const { return own_k; }
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

// What pieces leave: partial_o[pieces, samples, q_width], the logarithms of their sums of exponentials
// partial_lse[pieces, samples, query heads], and how many blocks are done with what they have to say of a sample's heads of
// one key/value head, arrived[samples, key/value heads]; that is 0 between launches.
struct Results {
    float* o;
    float* lse;
    unsigned* arrived;
};

// o of one sample's heads of a key/value head: the results of all pieces, each weighted by its part of the sum of
// exponentials. A thread makes four elements at a time, which it reads as 16 bytes, past the first-level cache: other
// multiprocessors have written them. The logarithms are read once, into shared memory, [pieces][heads].
__device__ __forceinline__ void combine(bf16* o, float* logarithms, const Results& results, int sample, int kv_head,
                                        const Pieces& pieces, const HeadShape& heads) {
    const int count = pieces.prompt_pieces + pieces.own_pieces;
    const int rows = pieces.samples * heads.query;
    const int first = sample * heads.query + kv_head * heads.group;
    const int quads = heads.dim / 4;
    __syncthreads();  // what was in shared memory is done with
    for (int i = threadIdx.x; i < count * heads.group; i += ATTENTION_THREADS) {
        const int piece = i / heads.group;
        logarithms[i] = __ldcg(results.lse + size_t(piece) * rows + first + i - piece * heads.group);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < heads.group * quads; i += ATTENTION_THREADS) {
        const float* lse = logarithms + i / quads;
        float largest = -INFINITY;
        for (int piece = 0; piece < count; piece++) {
            largest = fmaxf(largest, lse[piece * heads.group]);
        }
        const float4* from = reinterpret_cast<const float4*>(results.o) + size_t(first) * quads + i;
        float4 sum = {};
        float weights = 0.0f;
#pragma unroll 4
        for (int piece = 0; piece < count; piece++) {
            const float weight = exp2_fast((lse[piece * heads.group] - largest) * LOG2_E);
            const float4 part = __ldcg(from + size_t(piece) * rows * quads);
            weights += weight;
            sum.x += weight * part.x;
            sum.y += weight * part.y;
            sum.z += weight * part.z;
            sum.w += weight * part.w;
        }
        const float factor = 1.0f / weights;
        store_quad(o + size_t(first) * heads.dim + i * 4,
                   make_float4(sum.x * factor, sum.y * factor, sum.z * factor, sum.w * factor));
    }
}

// Reports that this block's results are there, and combines those of samples of which it is the last to do so. A tile
// meets at most ROWS samples: thread i asks for the i-th.
__device__ __forceinline__ void arrive(bf16* o, float* logarithms, const Results& results, const Work& work,
                                       const Pieces& pieces, const HeadShape& heads) {
    __shared__ bool ends[ROWS];
    const int tile_end = min(work.rows.first + ROWS, work.rows.end);
    const int first = work.rows.start + heads.query_of(work.rows.first);
    const int count = work.rows.start + heads.query_of(tile_end - 1) + 1 - first;
    __syncthreads();  // all warps have written
    if (threadIdx.x < count) {
        const int sample = first + threadIdx.x;
        // Tiles of the prompt that have rows of this sample.
        const int tiles = (sample * heads.group + heads.group - 1) / ROWS - sample * heads.group / ROWS + 1;
        const int expected = tiles * pieces.prompt_pieces + pieces.own_tiles * pieces.own_pieces;
        unsigned* arrived = results.arrived + sample * heads.key_value + work.rows.kv_head;
        ends[threadIdx.x] = is_last(arrived, expected);
    }
    __syncthreads();
    for (int i = 0; i < count; i++) {
        if (ends[i]) {
            combine(o, logarithms, results, first + i, work.rows.kv_head, pieces, heads);
        }
    }
}

template <int D>
__device__ __forceinline__ void decode(bf16* o, const Results& results, const bf16* q, int q_stride,
                                       const bf16* prompt_k, const bf16* prompt_v, const bf16* sample_k, const bf16* sample_v,
                                       const Pieces& pieces, const HeadShape& heads) {
    extern __shared__ __align__(128) unsigned char shared[];
    const Work work = work_of(blockIdx.x, blockIdx.y, prompt_k, prompt_v, sample_k, sample_v, pieces, heads);
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    copy_tile<D, ROWS>(shared_address(shared), heads.dim, q,
                       [&](int row) { return offset_or_null(q, work.rows.at(row, q_stride, heads)); });

    PackedRows of_warp = work.rows;
    of_warp.first += warp * 16;
    const Visible visible = {of_warp.first, of_warp.end - 1, INT_MAX};
    unsigned char* own_tile = shared + warp * 16 * D * 2;
    Softmax<D, 1> state;
    attend<D, 1, KEYS>(state, shared_address(own_tile), shared_address(shared) + ROWS * D * 2, work.keys, work.begin,
                       work.end, visible, heads);
    const float factor[2] = {1.0f / state.sum[0][0], 1.0f / state.sum[0][1]};
    if (pieces.prompt_pieces + pieces.own_pieces == 1) {
        if (of_warp.first < of_warp.end) {
            put_down<D>(own_tile, state.o[0], factor[0], factor[1]);
            write_rows<D, 16>(own_tile, heads.dim, [&](int row) {
                return offset_or_null(o, of_warp.at(row, heads.q_width(), heads));
            });
        }
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
            results.lse[before + at] = state.log_sum_exp(0, half);
        }
        float* to = results.o + (before + at) * heads.dim;
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            if (n * 8 < heads.dim) {
                const float2 pair = {state.o[0][n][2 * half] * factor[half], state.o[0][n][2 * half + 1] * factor[half]};
                *reinterpret_cast<float2*>(to + n * 8 + lane % 4 * 2) = pair;
            }
        }
    }
    arrive(o, reinterpret_cast<float*>(shared), results, work, pieces, heads);
}

}  // namespace

// o[samples, q_width] from q, whose rows lie q_stride elements apart; with several pieces, by way of the results above. prompt_k and prompt_v
// [prompt_len, kv_width]; sample_k and sample_v [samples, capacity, kv_width]. blockIdx.x counts pieces of the prompt for
// each tile of rows, then pieces of each sample's own keys for each tile of its rows; blockIdx.y is a key/value head.
// (ROWS + 3 · KEYS) · D · 2 bytes of shared memory, and no less than 4 for each piece and head of a group; everything starts
// on multiples of 16 bytes.
#define DECODE(D)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 2)                                              \
    attention_decode_##D(bf16* o, float* partial_o, float* partial_lse, unsigned* arrived, const bf16* q,           \
                         int q_stride, const bf16* prompt_k, const bf16* prompt_v, const bf16* sample_k, const bf16* sample_v,    \
                         const Pieces pieces, const HeadShape heads) {                                              \
        const Results results = {partial_o, partial_lse, arrived};                                                  \
        decode<D>(o, results, q, q_stride, prompt_k, prompt_v, sample_k, sample_v, pieces, heads);                          \
    }
DECODE(16)
DECODE(64)
DECODE(80)
DECODE(96)
DECODE(128)
