// y[m, n] = x[m, k] · w[n, k]ᵀ + bias[n] + residual[m, n] and LoRA, as gemm_nt.cu, with what sm_90a has for it. Launched
// by src/cuda/gemm_sm90.rs.
//
// A producer warp lets the TMA fetch tiles of x and w into a ring of STAGES; two warpgroups multiply 64 rows of the
// tile of y each, straight from shared memory. Two barriers a stage: `full` when its bytes have arrived, `empty` when
// all consumers are done with it. The TMA fills with zeros what lies outside, and leaves out what it must not write. The
// residual comes to where the tile of y will be, with a barrier of its own.

#include "hopper.h"
#include "raster.h"

namespace {

constexpr int TILE_M = GEMM_SM90_TILE_M, TILE_N = GEMM_SM90_TILE_N, TILE_K = GEMM_SM90_TILE_K;
constexpr int STAGES = GEMM_SM90_STAGES, THREADS = GEMM_SM90_THREADS, CONSUMERS = GEMM_SM90_CONSUMERS;
constexpr int STORE_M = GEMM_SM90_STORE_M, STORE_N = GEMM_SM90_STORE_N;
constexpr int X_BYTES = TILE_M * TILE_K * 2, W_BYTES = TILE_N * TILE_K * 2;
constexpr int STAGE_BYTES = X_BYTES + W_BYTES;
constexpr int OUTPUT_BYTES = TILE_M * TILE_N * 2;
constexpr int STORE_BYTES = STORE_M * STORE_N * 2;
constexpr int STORES = TILE_N / STORE_N;
constexpr int K_OF_WGMMA = 16;

static_assert(THREADS == CONSUMERS * WARPGROUP + WARP, "the last warp is the producer");
static_assert(TILE_M == CONSUMERS * STORE_M && STORE_M == 64 && TILE_N == 128, "a wgmma is 64 by 128");
static_assert(TILE_K * 2 == 128 && STORE_N * 2 == 128, "rows of the 128-byte swizzle");

// Where a term of LoRA is: y += xa[rows, rank] · b[columns, rank]ᵀ in some columns and the first rows.
struct LoraRange {
    int rows;
    int column;  // the first
    int columns;
    int rank;
};

struct LoraMaps {
    CUtensorMap xa[GEMM_TERMS];
    CUtensorMap b[GEMM_TERMS];
    LoraRange range[GEMM_TERMS];
    int count;
    int padding[3];
};

// Tiles along k that a term adds to a tile of y.
__device__ __forceinline__ int tiles_of(const LoraRange& term, int first_row, int first_column) {
    const bool meets = first_row < term.rows && first_column < term.column + term.columns &&
                       first_column + TILE_N > term.column;
    return meets ? (term.rank + TILE_K - 1) / TILE_K : 0;
}

// Shared memory: STAGES of x and w, the tile of y, the barriers.
struct Layout {
    unsigned base;

    __device__ unsigned x(int stage) const { return base + stage * STAGE_BYTES; }
    __device__ unsigned w(int stage) const { return x(stage) + X_BYTES; }
    __device__ unsigned output(int consumer) const {
        return base + STAGES * STAGE_BYTES + consumer * STORES * STORE_BYTES;
    }
    __device__ unsigned full(int stage) const { return base + STAGES * STAGE_BYTES + OUTPUT_BYTES + stage * 8; }
    __device__ unsigned empty(int stage) const { return full(stage) + STAGES * 8; }
    __device__ unsigned residual() const { return full(2 * STAGES); }
};

// The producer's place in the ring.
struct Ring {
    const Layout& shared;
    int tile;

    // The next tiles of both operands, as soon as there is room for them.
    __device__ __forceinline__ void fetch(const CUtensorMap& x_map, const CUtensorMap& w_map, int k, int x_row,
                                          int w_row) {
        const int stage = tile % STAGES, round = tile / STAGES;
        if (round > 0) {
            barrier_wait(shared.empty(stage), (round - 1) % 2);
        }
        barrier_arrive_expect(shared.full(stage), STAGE_BYTES);
        tma_load(shared.x(stage), x_map, k, x_row, shared.full(stage));
        tma_load(shared.w(stage), w_map, k, w_row, shared.full(stage));
        tile++;
    }
};

// The producer, one thread.
__device__ __forceinline__ void produce(const Layout& shared, const CUtensorMap& x_map, const CUtensorMap& w_map,
                                        const LoraMaps& lora, int first_row, int first_column, int k) {
    tma_prefetch(x_map);
    tma_prefetch(w_map);
    Ring ring = {shared, 0};
    for (int at = 0; at < k; at += TILE_K) {
        ring.fetch(x_map, w_map, at, first_row, first_column);
    }
#pragma unroll 1
    for (int i = 0; i < lora.count; i++) {
        const int tiles = tiles_of(lora.range[i], first_row, first_column);
#pragma unroll 1
        for (int tile = 0; tile < tiles; tile++) {
            // A row of b before its first is outside, and so zero.
            ring.fetch(lora.xa[i], lora.b[i], tile * TILE_K, first_row, first_column - lora.range[i].column);
        }
    }
}

// The residual of the block's tile, to where y will be.
__device__ __forceinline__ void fetch_residual(const Layout& shared, const CUtensorMap& map, int first_row,
                                               int first_column) {
    barrier_arrive_expect(shared.residual(), OUTPUT_BYTES);
    for (int consumer = 0; consumer < CONSUMERS; consumer++) {
        for (int i = 0; i < STORES; i++) {
            tma_load(shared.output(consumer) + i * STORE_BYTES, map, first_column + i * STORE_N,
                     first_row + consumer * STORE_M, shared.residual());
        }
    }
}

// All products of one warpgroup. A stage is given back when the products after it have been started, so that the
// tensor cores always have work.
__device__ __forceinline__ void consume(float (&acc)[64], const Layout& shared, int consumer, int tiles) {
    const bool speaker = threadIdx.x % WARP == 0;
    for (int tile = 0; tile < tiles; tile++) {
        const int stage = tile % STAGES;
        barrier_wait(shared.full(stage), tile / STAGES % 2);
        const unsigned x_tile = shared.x(stage) + consumer * STORE_M * TILE_K * 2, w_tile = shared.w(stage);
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < TILE_K; k += K_OF_WGMMA) {
            wgmma(acc, operand_descriptor(x_tile + k * 2), operand_descriptor(w_tile + k * 2));
        }
        wgmma_commit();
        wgmma_wait<1>();
        if (speaker && tile > 0) {
            barrier_arrive(shared.empty((tile - 1) % STAGES));
        }
    }
    wgmma_wait<0>();
}

// Where a chunk of 16 bytes lies in a store box: the swizzle that the TMA undoes.
__device__ __forceinline__ int output_offset(int row, int chunk) {
    return row * 128 + (chunk ^ (row % 8)) * 16;
}

// acc + bias, and what lies there already where it is the residual, rounded, into the warpgroup's boxes in shared memory.
__device__ __forceinline__ void put_down(unsigned char* boxes, const float (&acc)[64], const float* bias,
                                         int first_column, int n, bool residual) {
    const int thread = threadIdx.x % WARPGROUP, lane = thread % WARP;
#pragma unroll
    for (int j = 0; j < TILE_N / 8; j++) {
        const int column = first_column + j * 8 + lane % 4 * 2;
        const float bias0 = bias && column < n ? bias[column] : 0.0f;
        const float bias1 = bias && column + 1 < n ? bias[column + 1] : 0.0f;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int row = thread / WARP * 16 + half * 8 + lane / 4;
            auto* to = reinterpret_cast<__nv_bfloat162*>(boxes + j / 8 * STORE_BYTES + output_offset(row, j % 8) +
                                                         lane % 4 * 4);
            float2 sum = {acc[j * 4 + half * 2] + bias0, acc[j * 4 + half * 2 + 1] + bias1};
            if (residual) {
                const float2 before = __bfloat1622float2(*to);
                sum = {sum.x + before.x, sum.y + before.y};
            }
            *to = __floats2bfloat162_rn(sum.x, sum.y);
        }
    }
}

// The warpgroup's boxes to y, element by element, for rows that the TMA cannot write because they do not start on
// multiples of 16 bytes.
__device__ __forceinline__ void write_out(bf16* y, const unsigned char* boxes, int first_row, int first_column, int m,
                                          int n) {
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

}  // namespace

// blockIdx.x is a tile of y, in the order of tile_of_block; dynamic shared memory as in Layout. Boxes of the maps: [TILE_M,
// TILE_K] of x[m, k] and each xa, [TILE_N, TILE_K] of w[n, k] and each b, [STORE_M, STORE_N] of y[m, n] and residual, all
// with the 128-byte swizzle. y_map is not looked at unless n is a multiple of 8; `with_residual` asks for that. bias may be
// null.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
gemm_nt_sm90(const __grid_constant__ CUtensorMap x_map, const __grid_constant__ CUtensorMap w_map,
             const __grid_constant__ CUtensorMap y_map, bf16* y, const float* bias, int m, int n, int k,
             const __grid_constant__ CUtensorMap residual_map, int with_residual,
             const __grid_constant__ LoraMaps lora) {
    extern __shared__ __align__(GEMM_SM90_ALIGNMENT) unsigned char bytes[];
    const Layout shared{shared_address(bytes)};
    const int2 place = tile_of_block(blockIdx.x, (m + TILE_M - 1) / TILE_M, (n + TILE_N - 1) / TILE_N);
    const int first_row = place.x * TILE_M, first_column = place.y * TILE_N;
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < STAGES; stage++) {
            barrier_init(shared.full(stage), 1);
            barrier_init(shared.empty(stage), CONSUMERS * WARPGROUP / WARP);
        }
        barrier_init(shared.residual(), 1);
        barrier_init_fence();
    }
    __syncthreads();

    const int consumer = threadIdx.x / WARPGROUP;
    if (consumer == CONSUMERS) {
        if (threadIdx.x % WARP == 0) {
            if (with_residual) {
                fetch_residual(shared, residual_map, first_row, first_column);
            }
            produce(shared, x_map, w_map, lora, first_row, first_column, k);
        }
        return;
    }
    int tiles = (k + TILE_K - 1) / TILE_K;
#pragma unroll 1
    for (int i = 0; i < lora.count; i++) {
        tiles += tiles_of(lora.range[i], first_row, first_column);
    }
    float acc[64] = {};
    consume(acc, shared, consumer, tiles);

    unsigned char* boxes = bytes + (shared.output(consumer) - shared.base);
    if (with_residual) {
        barrier_wait(shared.residual(), 0);
    }
    put_down(boxes, acc, bias, first_column, n, with_residual);
    const bool by_tma = n % 8 == 0;
    if (by_tma) {
        fence_for_tma();
    }
    named_barrier(1 + consumer, WARPGROUP);
    const int row = first_row + consumer * STORE_M;
    if (!by_tma) {
        write_out(y, boxes, row, first_column, m, n);
    } else if (threadIdx.x % WARPGROUP == 0 && row < m) {
        for (int i = 0; i < STORES && first_column + i * STORE_N < n; i++) {
            tma_store(y_map, first_column + i * STORE_N, row, shared.output(consumer) + i * STORE_BYTES);
        }
        tma_store_wait();
    }
}
