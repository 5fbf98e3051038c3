// Warp-specialised GEMM with TMA and wgmma: y[m, n] = x[m, k] · w[n, k]ᵀ + bias[n] + residual[m, n] with
// LoRA, also with a SwiGLU epilogue, as gemm_nt.cu; and y = x[m, k] · w[k, n], as gemm_nn.cu. Launched by
// src/cuda/gemm/sm90.rs.
//
// A producer warp issues TMA loads of tiles of x and w into a ring of STAGES; two consumer warpgroups
// multiply 64 rows of the tile of y each, straight from shared memory. Each stage has two mbarriers: `full`
// completes when its bytes have arrived, `empty` when all consumers have released it. The TMA fills elements
// outside of a matrix with zeros, and does not store them. The residual is prefetched into the boxes of y,
// with an mbarrier of its own.

#include "hopper.h"
#include "raster.h"
#include "swiglu.h"

namespace {

constexpr int TILE_M = GEMM_SM90_TILE_M, TILE_N = GEMM_SM90_TILE_N, TILE_K = GEMM_SM90_TILE_K;
constexpr int STAGES = GEMM_SM90_STAGES, THREADS = GEMM_SM90_THREADS, CONSUMERS = GEMM_SM90_CONSUMERS;
constexpr int STORE_M = GEMM_SM90_STORE_M, STORE_N = GEMM_SM90_STORE_N;
constexpr int HALF_N = TILE_N / 2, HALF_BYTES = HALF_N * TILE_K * 2;
constexpr int X_BYTES = TILE_M * TILE_K * 2, W_BYTES = 2 * HALF_BYTES;
constexpr int STAGE_BYTES = X_BYTES + W_BYTES;
constexpr int STORE_BYTES = STORE_M * STORE_N * 2;
constexpr int STORES = TILE_N / STORE_N;
constexpr int K_OF_WGMMA = 16;

static_assert(THREADS == CONSUMERS * WARPGROUP + WARP, "the last warp is the producer");
static_assert(TILE_M == CONSUMERS * STORE_M && STORE_M == 64 && TILE_N == 128, "a wgmma is 64 by 128");
static_assert(TILE_K * 2 == 128 && STORE_N * 2 == 128, "rows of the 128-byte swizzle");
static_assert(HALF_N == STORE_N, "each half of a tile, which may lie apart from the other, is one store box");

// Extent of a LoRA term: in some columns and the first rows, y += xa[rows, rank] · b[columns, rank]ᵀ.
struct KERNEL_PARAMETER LoraRange {
    int rows;
    int column;  // the first
    int columns;
    int rank;
};

// The LoRA terms of a launch.
struct KERNEL_PARAMETER LoraMaps {
    CUtensorMap xa[GEMM_LORA_TERMS];
    CUtensorMap b[GEMM_LORA_TERMS];
    LoraRange range[GEMM_LORA_TERMS];
    int count;
    int padding[3];
};

// Outputs of the SwiGLU epilogue: h, and the rows of [gate | up] that are kept.
struct KERNEL_PARAMETER GatedMaps {
    CUtensorMap h;
    CUtensorMap gate_up;
};

// First columns of the halves of a tile: adjacent, or one in gate and one in up.
struct Halves {
    int first;
    int second;
};

// Tiles along k that a LoRA term adds to a tile of y.
__device__ __forceinline__ int lora_tiles(const LoraRange& term, int first_row, const Halves& columns) {
    const auto meets = [&](int column) {
        return column < term.column + term.columns && column + HALF_N > term.column;
    };
    const bool any = first_row < term.rows && (meets(columns.first) || meets(columns.second));
    return any ? (term.rank + TILE_K - 1) / TILE_K : 0;
}

// Shared memory: STAGES of x and w, BOXES of y for each consumer, the barriers.
template <int BOXES>
struct Layout {
    unsigned base;

    __device__ unsigned x(int stage) const { return base + stage * STAGE_BYTES; }
    __device__ unsigned w(int stage) const { return x(stage) + X_BYTES; }
    __device__ unsigned output(int consumer) const {
        return base + STAGES * STAGE_BYTES + consumer * BOXES * STORE_BYTES;
    }
    __device__ unsigned full(int stage) const { return output(CONSUMERS) + stage * 8; }
    __device__ unsigned empty(int stage) const { return full(stage) + STAGES * 8; }
    __device__ unsigned residual() const { return full(2 * STAGES); }
};
using Linear = Layout<STORES>;
using Gated = Layout<STORES + 1>;  // gate, up and h

template <typename L>
__device__ __forceinline__ void init_barriers(const L& shared) {
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < STAGES; stage++) {
            barrier_init(shared.full(stage), 1);
            barrier_init(shared.empty(stage), CONSUMERS * WARPGROUP / WARP);
        }
        barrier_init(shared.residual(), 1);
        barrier_init_fence();
    }
    __syncthreads();
}

// The producer's position in the ring of stages.
template <typename L>
struct Ring {
    const L& shared;
    int tile;

    // Loads the next tiles of both operands into the next stage, once it is empty: x at (row, k), w at the
    // halves' lines and k. W_ALONG_K says whether a row of w is a line or a k.
    template <bool W_ALONG_K>
    __device__ __forceinline__ void fetch(const CUtensorMap& x_map, const CUtensorMap& w_map, int k,
                                          int x_row, const Halves& lines) {
        const int stage = tile % STAGES, round = tile / STAGES;
        if (round > 0) {
            barrier_wait(shared.empty(stage), (round - 1) % 2);
        }
        const unsigned full = shared.full(stage), w = shared.w(stage);
        barrier_arrive_expect(full, STAGE_BYTES);
        tma_load(shared.x(stage), x_map, k, x_row, full);
        tma_load(w, w_map, W_ALONG_K ? k : lines.first, W_ALONG_K ? lines.first : k, full);
        tma_load(w + HALF_BYTES, w_map, W_ALONG_K ? k : lines.second, W_ALONG_K ? lines.second : k, full);
        tile++;
    }
};

// Producer, one elected thread: all tiles along k.
template <bool W_ALONG_K, typename L>
__device__ __forceinline__ void produce(Ring<L>& ring, const CUtensorMap& x_map, const CUtensorMap& w_map,
                                        int first_row, const Halves& columns, int k) {
    tma_prefetch(x_map);
    tma_prefetch(w_map);
    for (int at = 0; at < k; at += TILE_K) {
        ring.template fetch<W_ALONG_K>(x_map, w_map, at, first_row, columns);
    }
}

// Producer: the tiles of the LoRA terms.
template <typename L>
__device__ __forceinline__ void produce_lora(Ring<L>& ring, const LoraMaps& lora, int first_row,
                                             const Halves& columns) {
#pragma unroll 1
    for (int i = 0; i < lora.count; i++) {
        const int tiles = lora_tiles(lora.range[i], first_row, columns), before = lora.range[i].column;
#pragma unroll 1
        for (int tile = 0; tile < tiles; tile++) {
            // A row of b before its first is outside, and so zero.
            ring.template fetch<true>(lora.xa[i], lora.b[i], tile * TILE_K, first_row,
                                      {columns.first - before, columns.second - before});
        }
    }
}

// Tiles along k of a tile of y.
__device__ __forceinline__ int tiles_along_k(int k) {
    return (k + TILE_K - 1) / TILE_K;
}

__device__ __forceinline__ int tiles_along_k(int k, const LoraMaps& lora, int first_row,
                                             const Halves& columns) {
    int tiles = tiles_along_k(k);
#pragma unroll 1
    for (int i = 0; i < lora.count; i++) {
        tiles += lora_tiles(lora.range[i], first_row, columns);
    }
    return tiles;
}

// Prefetches the residual of the block's tile into the boxes of y.
__device__ __forceinline__ void prefetch_residual(const Linear& shared, const CUtensorMap& map, int first_row,
                                                  int first_column) {
    barrier_arrive_expect(shared.residual(), CONSUMERS * STORES * STORE_BYTES);
    for (int consumer = 0; consumer < CONSUMERS; consumer++) {
        for (int i = 0; i < STORES; i++) {
            tma_load(shared.output(consumer) + i * STORE_BYTES, map, first_column + i * STORE_N,
                     first_row + consumer * STORE_M, shared.residual());
        }
    }
}

// Consumer: all products of one warpgroup. A stage is released once the wgmmas of the next stage have been
// issued, so that the tensor cores always have work in flight.
template <bool W_ALONG_K, typename L>
__device__ __forceinline__ void consume(float (&acc)[64], const L& shared, int consumer, int tiles) {
    const bool is_leader_lane = threadIdx.x % WARP == 0;
#pragma unroll 1
    for (int tile = 0; tile < tiles; tile++) {
        const int stage = tile % STAGES;
        barrier_wait(shared.full(stage), tile / STAGES % 2);
        const unsigned x_tile = shared.x(stage) + consumer * STORE_M * TILE_K * 2, w_tile = shared.w(stage);
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < TILE_K; k += K_OF_WGMMA) {
            const auto w = W_ALONG_K ? operand_descriptor(w_tile + k * 2)
                                     : operand_descriptor(w_tile + k * HALF_N * 2, HALF_BYTES);
            wgmma<!W_ALONG_K>(acc, operand_descriptor(x_tile + k * 2), w);
        }
        wgmma_commit();
        wgmma_wait<1>();
        if (is_leader_lane && tile > 0) {
            barrier_arrive(shared.empty((tile - 1) % STAGES));
        }
    }
    wgmma_wait_for(acc);
}

// Offset of a 16-byte chunk in a store box, with the 128-byte swizzle that the TMA undoes.
__device__ __forceinline__ int output_offset(int row, int chunk) {
    return row * 128 + (chunk ^ (row % 8)) * 16;
}

// Address of two sums of this thread in a box: those of a chunk and of one half of the rows.
__device__ __forceinline__ __nv_bfloat162* pair_in_box(unsigned char* box, int chunk, int half) {
    const int thread = threadIdx.x % WARPGROUP, lane = thread % WARP;
    const int row = thread / WARP * 16 + half * 8 + lane / 4;
    return reinterpret_cast<__nv_bfloat162*>(box + output_offset(row, chunk) + lane % 4 * 4);
}

// Epilogue, first step: stores acc + bias, plus the residual that the boxes hold, rounded, to the warpgroup's
// boxes.
__device__ __forceinline__ void store_accumulators(unsigned char* boxes, const float (&acc)[64],
                                                   const float* bias, int first_column, int n,
                                                   bool residual) {
#pragma unroll
    for (int j = 0; j < TILE_N / 8; j++) {
        const int column = first_column + j * 8 + threadIdx.x % 4 * 2;
        const float bias0 = bias && column < n ? bias[column] : 0.0f;
        const float bias1 = bias && column + 1 < n ? bias[column + 1] : 0.0f;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            __nv_bfloat162* to = pair_in_box(boxes + j / 8 * STORE_BYTES, j % 8, half);
            float2 sum = {acc[j * 4 + half * 2] + bias0, acc[j * 4 + half * 2 + 1] + bias1};
            if (residual) {
                const float2 before = __bfloat1622float2(*to);
                sum = {sum.x + before.x, sum.y + before.y};
            }
            *to = __floats2bfloat162_rn(sum.x, sum.y);
        }
    }
}

// SwiGLU epilogue, first step: stores gate, up and h = silu(gate) · up to the warpgroup's boxes. Both factors
// are rounded before h is computed, as in `swiglu`.
__device__ __forceinline__ void store_gated_accumulators(unsigned char* boxes, const float (&acc)[64]) {
#pragma unroll
    for (int j = 0; j < HALF_N / 8; j++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int gate_at = j * 4 + half * 2, up_at = gate_at + HALF_N / 2;
            const __nv_bfloat162 gate = __floats2bfloat162_rn(acc[gate_at], acc[gate_at + 1]);
            const __nv_bfloat162 up = __floats2bfloat162_rn(acc[up_at], acc[up_at + 1]);
            const float2 g = __bfloat1622float2(gate), u = __bfloat1622float2(up);
            *pair_in_box(boxes, j, half) = gate;
            *pair_in_box(boxes + STORE_BYTES, j, half) = up;
            *pair_in_box(boxes + 2 * STORE_BYTES, j, half) =
                __floats2bfloat162_rn(swiglu(g.x, u.x), swiglu(g.y, u.y));
        }
    }
}

// Epilogue store without the TMA, element by element: for rows of y that do not start on multiples of 16
// bytes.
__device__ __forceinline__ void epilogue_store(bf16* y, const unsigned char* boxes, int first_row,
                                               int first_column, int m, int n) {
    for (int i = threadIdx.x % WARPGROUP; i < STORE_M * TILE_N; i += WARPGROUP) {
        const int row = i / TILE_N, column = i % TILE_N;
        if (first_row + row < m && first_column + column < n) {
            const int in_box = column % STORE_N;
            const unsigned char* from =
                boxes + column / STORE_N * STORE_BYTES + output_offset(row, in_box / 8) + in_box % 8 * 2;
            y[size_t(first_row + row) * n + first_column + column] = *reinterpret_cast<const bf16*>(from);
        }
    }
}

// Epilogue of a warpgroup's rows of the tile: accumulators, bias and residual to y.
__device__ __forceinline__ void epilogue(unsigned char* bytes, const Linear& shared, const CUtensorMap& y_map,
                                         bf16* y, const float (&acc)[64], const float* bias, bool residual,
                                         int first_row, int first_column, int m, int n) {
    const unsigned output = shared.output(threadIdx.x / WARPGROUP);
    unsigned char* boxes = bytes + (output - shared.base);
    if (residual) {
        barrier_wait(shared.residual(), 0);
    }
    store_accumulators(boxes, acc, bias, first_column, n, residual);
    const bool by_tma = n % 8 == 0;
    if (by_tma) {
        fence_for_tma();
    }
    named_barrier(1 + threadIdx.x / WARPGROUP, WARPGROUP);
    if (!by_tma) {
        epilogue_store(y, boxes, first_row, first_column, m, n);
    } else if (threadIdx.x % WARPGROUP == 0 && first_row < m) {
        for (int i = 0; i < STORES && first_column + i * STORE_N < n; i++) {
            tma_store(y_map, first_column + i * STORE_N, first_row, output + i * STORE_BYTES);
        }
        tma_store_wait();
    }
}

}  // namespace

// blockIdx.x is a tile of y, in the order of tile_of_block; dynamic shared memory as in Layout. Boxes of the
// maps: [TILE_M, TILE_K] of x[m, k] and each xa, [HALF_N, TILE_K] of w[n, k] and each b, [STORE_M, STORE_N]
// of y[m, n] and residual, all with the 128-byte swizzle. y_map is only used where n is a multiple of 8,
// which `with_residual` requires. bias may be null.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    gemm_nt_sm90(const __grid_constant__ CUtensorMap x_map, const __grid_constant__ CUtensorMap w_map,
                 const __grid_constant__ CUtensorMap y_map, bf16* y, const float* bias, int m, int n, int k,
                 const __grid_constant__ CUtensorMap residual_map, int with_residual,
                 const __grid_constant__ LoraMaps lora) {
    extern __shared__ __align__(GEMM_SM90_ALIGNMENT) unsigned char bytes[];
    const Linear shared{shared_address(bytes)};
    const int2 tile = tile_of_block(blockIdx.x, (m + TILE_M - 1) / TILE_M, (n + TILE_N - 1) / TILE_N);
    const int first_row = tile.x * TILE_M, first_column = tile.y * TILE_N;
    const Halves columns = {first_column, first_column + HALF_N};
    init_barriers(shared);
    const int consumer = threadIdx.x / WARPGROUP;
    if (consumer == CONSUMERS) {
        if (threadIdx.x % WARP == 0) {
            if (with_residual) {
                prefetch_residual(shared, residual_map, first_row, first_column);
            }
            Ring<Linear> ring = {shared, 0};
            produce<true>(ring, x_map, w_map, first_row, columns, k);
            produce_lora(ring, lora, first_row, columns);
        }
        return;
    }
    float acc[64] = {};
    consume<true>(acc, shared, consumer, tiles_along_k(k, lora, first_row, columns));
    epilogue(bytes, shared, y_map, y, acc, bias, with_residual, first_row + consumer * STORE_M, first_column,
             m, n);
}

// y[m, n] = x[m, k] · w[k, n]. As above, but boxes of w are [TILE_K, HALF_N].
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    gemm_nn_sm90(const __grid_constant__ CUtensorMap x_map, const __grid_constant__ CUtensorMap w_map,
                 const __grid_constant__ CUtensorMap y_map, bf16* y, int m, int n, int k) {
    extern __shared__ __align__(GEMM_SM90_ALIGNMENT) unsigned char bytes[];
    const Linear shared{shared_address(bytes)};
    const int2 tile = tile_of_block(blockIdx.x, (m + TILE_M - 1) / TILE_M, (n + TILE_N - 1) / TILE_N);
    const int first_row = tile.x * TILE_M, first_column = tile.y * TILE_N;
    init_barriers(shared);
    const int consumer = threadIdx.x / WARPGROUP;
    if (consumer == CONSUMERS) {
        if (threadIdx.x % WARP == 0) {
            Ring<Linear> ring = {shared, 0};
            produce<false>(ring, x_map, w_map, first_row, {first_column, first_column + HALF_N}, k);
        }
        return;
    }
    float acc[64] = {};
    consume<false>(acc, shared, consumer, tiles_along_k(k));
    epilogue(bytes, shared, y_map, y, acc, nullptr, false, first_row + consumer * STORE_M, first_column, m,
             n);
}

// h[m, n] = silu(gate) · up for [gate | up] = x[m, k] · w[2n, k]ᵀ, n a multiple of HALF_N. A block computes
// HALF_N columns of h. Boxes as above, of h[m, n] and gate_up[kept, 2n] like y; the latter's map is not used
// if `kept` is 0.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    gemm_nt_gated_sm90(const __grid_constant__ CUtensorMap x_map, const __grid_constant__ CUtensorMap w_map,
                       const __grid_constant__ GatedMaps to, int kept, int m, int n, int k,
                       const __grid_constant__ LoraMaps lora) {
    extern __shared__ __align__(GEMM_SM90_ALIGNMENT) unsigned char bytes[];
    const Gated shared{shared_address(bytes)};
    const int2 tile = tile_of_block(blockIdx.x, (m + TILE_M - 1) / TILE_M, n / HALF_N);
    const int first_row = tile.x * TILE_M;
    const Halves columns = {tile.y * HALF_N, n + tile.y * HALF_N};
    init_barriers(shared);
    const int consumer = threadIdx.x / WARPGROUP;
    if (consumer == CONSUMERS) {
        if (threadIdx.x % WARP == 0) {
            Ring<Gated> ring = {shared, 0};
            produce<true>(ring, x_map, w_map, first_row, columns, k);
            produce_lora(ring, lora, first_row, columns);
        }
        return;
    }
    float acc[64] = {};
    consume<true>(acc, shared, consumer, tiles_along_k(k, lora, first_row, columns));

    const unsigned output = shared.output(consumer);
    store_gated_accumulators(bytes + (output - shared.base), acc);
    fence_for_tma();
    named_barrier(1 + consumer, WARPGROUP);
    const int row = first_row + consumer * STORE_M;
    if (threadIdx.x % WARPGROUP == 0 && row < m) {
        if (row < kept) {
            tma_store(to.gate_up, columns.first, row, output);
            tma_store(to.gate_up, columns.second, row, output + STORE_BYTES);
        }
        tma_store(to.h, columns.first, row, output + 2 * STORE_BYTES);
        tma_store_wait();
    }
}
