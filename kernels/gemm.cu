// y[m, n] = x[m, k] · w[n, k]ᵀ + bias[n]: bf16 in and out, f32 inside. Launched by src/cuda/gemm.rs.
//
// A block computes one tile of y with eight warps, two along m and four along n. STAGES tiles of x and w lie in shared
// memory: while the warps multiply one, cp.async fetches those to come. What lies outside the matrices is read as zero
// and not written, so that m and n may be anything; k has to be a multiple of 8, which makes a 16-byte chunk of a row
// lie inside or outside as a whole.

#include "ampere.h"

namespace {

constexpr int TILE_M = GEMM_TILE_M, TILE_N = GEMM_TILE_N, TILE_K = GEMM_TILE_K;
constexpr int STAGES = GEMM_STAGES, THREADS = GEMM_THREADS;
constexpr int WARPS_N = 4;
constexpr int WARP_M = 64, WARP_N = 32;     // the part of the tile that one warp computes
constexpr int MMAS_M = WARP_M / 16, MMAS_N = WARP_N / 8;
constexpr int CHUNK = 8;                    // elements in 16 bytes
constexpr int CHUNKS_K = TILE_K / CHUNK;
constexpr int CHUNKS_N = TILE_N / CHUNK;
constexpr int OPERAND_BYTES = TILE_M * TILE_K * 2;
constexpr int STAGE_BYTES = 2 * OPERAND_BYTES;
constexpr int COPIES = TILE_M * CHUNKS_K / THREADS;  // 16-byte chunks that a thread copies per operand and stage
constexpr int ROWS_PER_COPY = THREADS / CHUNKS_K;

static_assert(TILE_M == TILE_N, "both operands are copied alike");
static_assert(THREADS / WARP == TILE_M / WARP_M * WARPS_N && WARPS_N * WARP_N == TILE_N);
static_assert(CHUNKS_K == 4, "operand_offset is made for rows of 64 bytes");
static_assert(TILE_M * TILE_N * 2 <= STAGES * STAGE_BYTES, "the tile of y takes the place of the operands");

// Where a chunk of an operand's row lies within its tile. Two rows make one pass over all banks; the chunks of a row
// are permuted so that eight consecutive rows have theirs in eight different places, as ldmatrix wants them.
__device__ __forceinline__ int operand_offset(int row, int chunk) {
    return row * (TILE_K * 2) + (chunk ^ (row / 2 % 4)) * 16;
}

// The same for the tile of y, whose rows are passes over all banks themselves.
__device__ __forceinline__ int output_offset(int row, int chunk) {
    return row * (TILE_N * 2) + (chunk ^ (row % 8)) * 16;
}

// One thread's share in the copies of one operand.
struct Copier {
    const bf16* from[COPIES];
    bool valid[COPIES];
    int column;
    int to;

    __device__ __forceinline__ Copier(const bf16* matrix, int first_row, int rows, int k) {
        const int row = threadIdx.x / CHUNKS_K, chunk = threadIdx.x % CHUNKS_K;
        column = chunk * CHUNK;
        to = operand_offset(row, chunk);
#pragma unroll
        for (int i = 0; i < COPIES; i++) {
            const int matrix_row = first_row + row + i * ROWS_PER_COPY;
            valid[i] = matrix_row < rows;
            from[i] = matrix + size_t(valid[i] ? matrix_row : 0) * k;
        }
    }

    __device__ __forceinline__ void copy(unsigned tile, int first_column, int k) const {
        const int at = first_column + column;
#pragma unroll
        for (int i = 0; i < COPIES; i++) {
            const bool inside = valid[i] && at < k;
            // ROWS_PER_COPY is a multiple of 8: the permutation is that of the first row.
            copy_async(tile + to + i * ROWS_PER_COPY * TILE_K * 2, from[i] + (inside ? at : 0), inside);
        }
    }
};
static_assert(ROWS_PER_COPY % 8 == 0);

using Accumulators = float[MMAS_M][MMAS_N][4];

// acc += one stage's x · wᵀ, for the part of the tile that starts at (warp_m, warp_n).
__device__ __forceinline__ void multiply(Accumulators& acc, unsigned stage, int warp_m, int warp_n) {
    const int lane = threadIdx.x % WARP;
    const unsigned x_tile = stage, w_tile = stage + OPERAND_BYTES;
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS_K; chunk += 2) {
        unsigned a[MMAS_M][4], b[MMAS_N / 2][4];
#pragma unroll
        for (int i = 0; i < MMAS_M; i++) {
            load_matrices(a[i], x_tile + operand_offset(warp_m + i * 16 + lane % 16, chunk + lane / 16));
        }
#pragma unroll
        for (int j = 0; j < MMAS_N / 2; j++) {
            const int row = warp_n + j * 16 + lane / 16 * 8 + lane % 8;
            load_matrices(b[j], w_tile + operand_offset(row, chunk + lane / 8 % 2));
        }
#pragma unroll
        for (int i = 0; i < MMAS_M; i++) {
#pragma unroll
            for (int j = 0; j < MMAS_N; j++) {
                mma(acc[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
            }
        }
    }
}

// acc + bias, rounded, into the tile of y in shared memory.
__device__ __forceinline__ void put_down(unsigned char* tile, const Accumulators& acc, const float* bias,
                                         int warp_m, int warp_n, int first_column, int n) {
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int j = 0; j < MMAS_N; j++) {
        const int column = warp_n + j * 8 + lane % 4 * 2;
        const int y_column = first_column + column;
        const float bias0 = bias && y_column < n ? bias[y_column] : 0.0f;
        const float bias1 = bias && y_column + 1 < n ? bias[y_column + 1] : 0.0f;
#pragma unroll
        for (int i = 0; i < MMAS_M * 2; i++) {
            const int row = warp_m + i * 8 + lane / 4;
            const float* pair = &acc[i / 2][j][i % 2 * 2];
            *reinterpret_cast<__nv_bfloat162*>(tile + output_offset(row, column / CHUNK) + lane % 4 * 4) =
                __floats2bfloat162_rn(pair[0] + bias0, pair[1] + bias1);
        }
    }
}

// The tile of y from shared to global memory: rows of 256 contiguous bytes, where n allows it.
__device__ __forceinline__ void write_out(bf16* y, const unsigned char* tile, int first_row, int first_column, int m,
                                          int n) {
    for (int i = threadIdx.x; i < TILE_M * CHUNKS_N; i += THREADS) {
        const int row = i / CHUNKS_N, chunk = i % CHUNKS_N;
        const int column = first_column + chunk * CHUNK;
        if (first_row + row >= m || column >= n) {
            continue;
        }
        const unsigned char* from = tile + output_offset(row, chunk);
        bf16* to = y + size_t(first_row + row) * n + column;
        if (n % CHUNK == 0) {
            *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from);
        } else {
            for (int j = 0; j < min(CHUNK, n - column); j++) {
                to[j] = reinterpret_cast<const bf16*>(from)[j];
            }
        }
    }
}

}  // namespace

// blockIdx.x along m, blockIdx.y along n; STAGES · STAGE_BYTES of dynamic shared memory. y, x and w start on multiples
// of 16 bytes; bias may be null.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
gemm_nt(bf16* y, const bf16* x, const bf16* w, const float* bias, int m, int n, int k) {
    extern __shared__ __align__(128) unsigned char shared[];
    const unsigned stages = shared_address(shared);
    const int first_row = blockIdx.x * TILE_M, first_column = blockIdx.y * TILE_N;
    const int warp = threadIdx.x / WARP;
    const int warp_m = warp / WARPS_N * WARP_M, warp_n = warp % WARPS_N * WARP_N;
    const Copier copy_x(x, first_row, m, k), copy_w(w, first_column, n, k);
    const int tiles = (k + TILE_K - 1) / TILE_K;

    const auto fetch = [&](int tile) {
        if (tile < tiles) {
            const unsigned stage = stages + tile % STAGES * STAGE_BYTES;
            copy_x.copy(stage, tile * TILE_K, k);
            copy_w.copy(stage + OPERAND_BYTES, tile * TILE_K, k);
        }
        copy_commit();  // an empty group at the end keeps the count below right
    };

    for (int tile = 0; tile < STAGES - 1; tile++) {
        fetch(tile);
    }
    Accumulators acc = {};
    for (int tile = 0; tile < tiles; tile++) {
        copy_wait<STAGES - 2>();
        __syncthreads();  // this tile has arrived for all, and all are done with the one before
        fetch(tile + STAGES - 1);
        multiply(acc, stages + tile % STAGES * STAGE_BYTES, warp_m, warp_n);
    }
    copy_wait<0>();
    __syncthreads();
    put_down(shared, acc, bias, warp_m, warp_n, first_column, n);
    __syncthreads();
    write_out(y, shared, first_row, first_column, m, n);
}
