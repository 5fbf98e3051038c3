// One new token of every sample against the key/value cache. Contract: src/ops/attention.rs.
// Launched by src/cuda/attention.rs.
//
// Split-KV decoding: a block attends to a split of the keys. Splits of the prompt serve the queries of all
// samples, as packed rows of one tile: four warps of 16 rows each. Splits of a sample's own keys serve its
// group of query heads. With one sample, prompt and own keys are one list. With several splits, the last
// block to arrive at a sample's heads combines their results, in the order of the splits.
//
// How many keys the samples have is read from memory, so that a launch is the same for every token: each
// block derives the splits from it. The grid has the blocks of the most keys; those without a split return at
// once.

#include "arrival.h"
#include "attention.h"
#include "refusal.h"

namespace {

constexpr int ROWS = ATTENTION_DECODE_ROWS, KEYS = ATTENTION_LONG;

// Shape of the cache, as src/cuda/attention.rs passes it.
struct KERNEL_PARAMETER KvCache {
    int samples;
    int prompt_len;
    int capacity;
    int prompt_tiles;  // tiles of rows that read the prompt
    int own_tiles;     // tiles of rows of one sample

    // With one sample, prompt and own keys are one list.
    __device__ __forceinline__ bool is_one_list() const { return samples == 1; }
};

// Splits of the keys.
struct KvSplits {
    int filled;  // own keys of a sample
    int keys;    // keys of a split, a multiple of KEYS
    int prompt;  // splits of the prompt; 0 with one list
    int own;     // splits of one sample's own keys, or of the list

    __device__ __forceinline__ int count() const { return prompt + own; }

    // Blocks of a key/value head.
    __device__ __forceinline__ int blocks(const KvCache& cache) const {
        return prompt * cache.prompt_tiles + cache.samples * own * cache.own_tiles;
    }
};

__device__ __forceinline__ int tiles_of(int keys) {
    return (keys + KEYS - 1) / KEYS;
}

// Splits as long as possible, as long as there are ATTENTION_DECODE_BLOCKS blocks. `KvSplits::new` in
// src/cuda/attention.rs does the same.
__device__ __forceinline__ KvSplits splits_of(const KvCache& cache, int filled, const HeadShape& heads) {
    const int prompt = cache.is_one_list() ? 0 : tiles_of(cache.prompt_len);
    const int own = tiles_of(filled + (cache.is_one_list() ? cache.prompt_len : 0));
    KvSplits splits = {filled};
    for (int tiles = ATTENTION_DECODE_TILES; tiles > 0; tiles /= 2) {
        splits.keys = tiles * KEYS;
        splits.prompt = (prompt + tiles - 1) / tiles;
        splits.own = (own + tiles - 1) / tiles;
        if (splits.blocks(cache) * heads.key_value >= ATTENTION_DECODE_BLOCKS) {
            break;
        }
    }
    return splits;
}

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

// The work of a block.
struct Work {
    PackedRows rows;
    CachedKeys keys;
    int begin, end;
    int split;
};

__device__ __forceinline__ Work work_of(int block, int kv_head, const bf16* prompt_k, const bf16* prompt_v,
                                        const bf16* sample_k, const bf16* sample_v, const KvCache& cache,
                                        const KvSplits& splits, const HeadShape& heads) {
    Work work;
    const int stride = heads.kv_width();
    const int column = kv_head * heads.dim;
    const int prompt_blocks = splits.prompt * cache.prompt_tiles;
    const bool own = block >= prompt_blocks;
    const int number = own ? block - prompt_blocks : block;
    const int splits_of_tile = own ? splits.own : splits.prompt;
    const int tile = number / splits_of_tile, split = number % splits_of_tile;
    const int sample = own ? tile / cache.own_tiles : 0;
    const int first = (own ? tile % cache.own_tiles : tile) * ROWS;
    work.rows = {sample, kv_head, first, (own ? 1 : cache.samples) * heads.group};
    const size_t at = size_t(sample) * cache.capacity * stride + column;
    const int shared = !own || cache.is_one_list() ? cache.prompt_len : 0;
    work.keys = {prompt_k + column, prompt_v + column, sample_k + at, sample_v + at, shared, stride};
    work.begin = split * splits.keys;
    work.end = min(work.begin + splits.keys, shared + (own ? splits.filled : 0));
    work.split = own ? splits.prompt + split : split;
    return work;
}

// Partial results of splits: o[splits, samples, q_width] and lse[splits, samples, query heads]; and the
// arrival counters of the heads of a sample that share a key/value head, arrivals[samples, key/value heads],
// which are 0 between launches.
struct Partials {
    float* o;
    float* lse;
    unsigned* arrivals;
};

// Combines o of one sample's heads of a key/value head: the partial results of all splits, weighted by their
// shares of the sum of exponentials. A thread computes four elements at a time, which it loads as 16 bytes,
// past the L1 cache: other multiprocessors have written them. lse is loaded once, into shared memory,
// [splits][heads].
__device__ __forceinline__ void combine(bf16* o, float* logarithms, const Partials& partials, int sample,
                                        int kv_head, int samples, int count, const HeadShape& heads) {
    const int rows = samples * heads.query;
    const int first = sample * heads.query + kv_head * heads.group;
    const int quads = heads.dim / 4;
    __syncthreads();  // shared memory is free
    for (int i = threadIdx.x; i < count * heads.group; i += ATTENTION_THREADS) {
        const int split = i / heads.group;
        logarithms[i] = __ldcg(partials.lse + size_t(split) * rows + first + i - split * heads.group);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < heads.group * quads; i += ATTENTION_THREADS) {
        const float* lse = logarithms + i / quads;
        float largest = -INFINITY;
        for (int split = 0; split < count; split++) {
            largest = fmaxf(largest, lse[split * heads.group]);
        }
        const float4* from = reinterpret_cast<const float4*>(partials.o) + size_t(first) * quads + i;
        float4 sum = {};
        float weights = 0.0f;
#pragma unroll 4
        for (int split = 0; split < count; split++) {
            const float weight = exp2_fast((lse[split * heads.group] - largest) * LOG2_E);
            const float4 part = __ldcg(from + size_t(split) * rows * quads);
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

// Counts this block in at the arrival counters of its samples, and combines those samples for which it is the
// last. A tile meets at most ROWS samples: thread i arrives at the i-th.
__device__ __forceinline__ void arrive(bf16* o, float* logarithms, const Partials& partials, const Work& work,
                                       const KvCache& cache, const KvSplits& splits, const HeadShape& heads) {
    __shared__ bool is_last_of[ROWS];
    const int tile_end = min(work.rows.first + ROWS, work.rows.end);
    const int first = work.rows.start + heads.query_of(work.rows.first);
    const int count = work.rows.start + heads.query_of(tile_end - 1) + 1 - first;
    __syncthreads();  // all warps have written
    if (threadIdx.x < count) {
        const int sample = first + threadIdx.x;
        // Tiles of the prompt that have rows of this sample.
        const int tiles = (sample * heads.group + heads.group - 1) / ROWS - sample * heads.group / ROWS + 1;
        const int expected = tiles * splits.prompt + cache.own_tiles * splits.own;
        unsigned* arrivals = partials.arrivals + sample * heads.key_value + work.rows.kv_head;
        is_last_of[threadIdx.x] = is_last(arrivals, expected);
    }
    __syncthreads();
    for (int i = 0; i < count; i++) {
        if (is_last_of[i]) {
            combine(o, logarithms, partials, first + i, work.rows.kv_head, cache.samples, splits.count(),
                    heads);
        }
    }
}

template <int D>
__device__ __forceinline__ void decode(bf16* o, const Partials& partials, const bf16* q, int q_stride,
                                       const bf16* prompt_k, const bf16* prompt_v, const bf16* sample_k,
                                       const bf16* sample_v, const KvCache& cache, const KvSplits& splits,
                                       const HeadShape& heads) {
    extern __shared__ __align__(128) unsigned char shared[];
    const Work work =
        work_of(blockIdx.x, blockIdx.y, prompt_k, prompt_v, sample_k, sample_v, cache, splits, heads);
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    copy_tile<D, ROWS>(shared_address(shared), heads.dim, q,
                       [&](int row) { return offset_or_null(q, work.rows.at(row, q_stride, heads)); });

    PackedRows of_warp = work.rows;
    of_warp.first += warp * 16;
    const Visible visible = {of_warp.first, of_warp.end - 1, INT_MAX};
    unsigned char* own_tile = shared + warp * 16 * D * 2;
    Softmax<D, 1> state;
    attend<D, 1, KEYS>(state, shared_address(own_tile), shared_address(shared) + ROWS * D * 2, work.keys,
                       work.begin, work.end, visible, heads);
    const float factor[2] = {1.0f / state.sum[0][0], 1.0f / state.sum[0][1]};
    if (splits.count() == 1) {
        if (of_warp.first < of_warp.end) {
            store_accumulators<D>(own_tile, state.o[0], factor[0], factor[1]);
            write_rows<D, 16>(own_tile, heads.dim, [&](int row) {
                return offset_or_null(o, of_warp.at(row, heads.q_width(), heads));
            });
        }
        return;
    }
    const size_t before = size_t(work.split) * cache.samples * heads.query;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const long long at = of_warp.number(half * 8 + lane / 4, heads);
        if (at < 0) {
            continue;
        }
        if (lane % 4 == 0) {
            partials.lse[before + at] = state.log_sum_exp(0, half);
        }
        float* to = partials.o + (before + at) * heads.dim;
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            if (n * 8 < heads.dim) {
                const float2 pair = {state.o[0][n][2 * half] * factor[half],
                                     state.o[0][n][2 * half + 1] * factor[half]};
                *reinterpret_cast<float2*>(to + n * 8 + lane % 4 * 2) = pair;
            }
        }
    }
    arrive(o, reinterpret_cast<float*>(shared), partials, work, cache, splits, heads);
}

// The keys that each sample has of its own, at least 1 and no more than there is room for; 0 for others,
// which are refused.
__device__ __forceinline__ int filled_of(const unsigned* filled, int capacity, Refusal* refusal) {
    const unsigned found = *filled;
    if (found - 1 < unsigned(capacity)) {
        return int(found);
    }
    if (threadIdx.x == 0) {
        refuse(refusal, REFUSED_ATTENTION_DECODE, 0, found, capacity);
    }
    return 0;
}

}  // namespace

// o[samples, q_width] from q, whose rows lie q_stride elements apart; with several splits, by way of the
// partial results above. prompt_k and prompt_v [prompt_len, kv_width]; sample_k and sample_v [samples,
// capacity, kv_width], of which each sample has filled[1] keys and values. blockIdx.x counts splits of the
// prompt for each tile of rows, then splits of each sample's own keys for each tile of its rows; blockIdx.y
// is a key/value head. (ROWS + 3 · KEYS) · D · 2 bytes of shared memory, and no less than 4 for each split
// and head of a group, for the most of both that any number of keys has; matrices start on multiples of 16
// bytes.
#define DECODE(D)                                                                                          \
    extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 2) attention_decode_##D(               \
        bf16* o, float* partial_o, float* partial_lse, unsigned* arrivals, const bf16* q, int q_stride,    \
        const bf16* prompt_k, const bf16* prompt_v, const bf16* sample_k, const bf16* sample_v,            \
        const unsigned* filled, Refusal* refusal, const KvCache cache, const HeadShape heads) {            \
        const int keys = filled_of(filled, cache.capacity, refusal);                                       \
        const KvSplits splits = splits_of(cache, keys, heads);                                             \
        if (keys == 0 || int(blockIdx.x) >= splits.blocks(cache)) {                                        \
            return;                                                                                        \
        }                                                                                                  \
        const Partials partials = {partial_o, partial_lse, arrivals};                                      \
        decode<D>(o, partials, q, q_stride, prompt_k, prompt_v, sample_k, sample_v, cache, splits, heads); \
    }
DECODE(16)
DECODE(64)
DECODE(80)
DECODE(96)
DECODE(128)
