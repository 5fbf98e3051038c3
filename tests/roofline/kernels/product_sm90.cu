// y[m, n] = x[m, k] · w[n, k]ᵀ in the designs of public kernels with published times: warp-specialised with
// one consumer warpgroup, with two and a wider tile, persistent, in clusters of two that share w by
// multicast.

#include "cluster.h"
#include "wgmma.h"

namespace {

constexpr int TILE_M = 128, TILE_K = 64, K_OF_WGMMA = 16;

template <int TILE_N, int CONSUMERS, int CLUSTER, int STAGES>
struct Product {
    static constexpr int ROWS = TILE_M / CONSUMERS;  // of a consumer
    static constexpr int X_BYTES = TILE_M * TILE_K * 2, W_BYTES = TILE_N * TILE_K * 2;
    static constexpr int STAGE_BYTES = X_BYTES + W_BYTES;
    // Of w, that each block of a cluster loads for all.
    static constexpr int PART_N = TILE_N / CLUSTER, PART_BYTES = W_BYTES / CLUSTER;

    unsigned base, rank;
    int tiles_m, tiles_n, k;

    __device__ unsigned x(int stage) const { return base + stage * STAGE_BYTES; }
    __device__ unsigned w(int stage) const { return x(stage) + X_BYTES; }
    __device__ unsigned full(int stage) const { return x(STAGES) + stage * 8; }
    __device__ unsigned empty(int stage) const { return full(STAGES) + stage * 8; }

    __device__ void init_barriers() const {
        if (threadIdx.x == 0) {
            for (int stage = 0; stage < STAGES; stage++) {
                barrier_init(full(stage), 1);
                barrier_init(empty(stage), CLUSTER * CONSUMERS * WARPGROUP / WARP);
            }
            barrier_init_fence();
        }
        sync();
    }

    __device__ void sync() const {
        if (CLUSTER > 1) {
            cluster_sync();
        } else {
            __syncthreads();
        }
    }

    // Bands of eight tiles along m take turns along n; blocks of a cluster have neighbours along m.
    __device__ int2 tile(int number) const {
        constexpr int BAND = 8 / CLUSTER;
        const int cluster = number / CLUSTER, rows = tiles_m / CLUSTER;
        const int band = cluster / (BAND * tiles_n), in_band = cluster % (BAND * tiles_n);
        const int height = min(BAND, rows - band * BAND);
        return make_int2((band * BAND + in_band % height) * CLUSTER + rank, in_band / height);
    }

    __device__ void produce(const CUtensorMap& x_map, const CUtensorMap& w_map) const {
        int step = 0;
        for (int number = blockIdx.x; number < tiles_m * tiles_n; number += gridDim.x) {
            const int2 at = tile(number);
            for (int from = 0; from < k; from += TILE_K, step++) {
                const int stage = step % STAGES, round = step / STAGES;
                if (round > 0) {
                    barrier_wait(empty(stage), (round - 1) % 2);
                }
                barrier_arrive_expect(full(stage), STAGE_BYTES);
                tma_load(x(stage), x_map, from, at.x * TILE_M, full(stage));
                const unsigned to = w(stage) + rank * PART_BYTES;
                const int row = at.y * TILE_N + rank * PART_N;
                if (CLUSTER > 1) {
                    tma_load_multicast(to, w_map, from, row, full(stage), (1 << CLUSTER) - 1);
                } else {
                    tma_load(to, w_map, from, row, full(stage));
                }
            }
        }
    }

    __device__ void release(int stage) const {
        if (threadIdx.x % WARP < CLUSTER) {
            barrier_arrive(empty(stage), threadIdx.x % WARP);
        }
    }

    __device__ void consume(bf16* y, int consumer) const {
        int step = 0;
        for (int number = blockIdx.x; number < tiles_m * tiles_n; number += gridDim.x) {
            float acc[ROWS / 64][TILE_N / 2] = {};
            for (int from = 0; from < k; from += TILE_K, step++) {
                const int stage = step % STAGES;
                barrier_wait(full(stage), step / STAGES % 2);
                wgmma_fence();
#pragma unroll
                for (int i = 0; i < ROWS / 64; i++) {
                    const unsigned rows = x(stage) + (consumer * ROWS + i * 64) * TILE_K * 2;
#pragma unroll
                    for (int at = 0; at < TILE_K; at += K_OF_WGMMA) {
                        multiply(acc[i], Operand(rows).at(at * 2), Operand(w(stage)).at(at * 2));
                    }
                }
                wgmma_commit();
                wgmma_wait<1>();
                if (from > 0) {
                    release((step - 1) % STAGES);
                }
            }
            wgmma_wait<0>();
            release((step - 1) % STAGES);
            const int2 at = tile(number);
#pragma unroll
            for (int i = 0; i < ROWS / 64; i++) {
                pin(acc[i]);
                store(y, acc[i], at.x * TILE_M + consumer * ROWS + i * 64, at.y * TILE_N);
            }
        }
    }

    __device__ static void multiply(float (&acc)[64], unsigned long long a, unsigned long long b) {
        wgmma_128(acc, a, b);
    }

    __device__ static void multiply(float (&acc)[128], unsigned long long a, unsigned long long b) {
        wgmma<false>(acc, a, b, true);
    }

    __device__ void store(bf16* y, const float (&acc)[TILE_N / 2], int first_row, int first_column) const {
        const int thread = threadIdx.x % WARPGROUP, n = tiles_n * TILE_N;
        const int row = first_row + thread / WARP * 16 + thread % WARP / 4;
        bf16* to = y + size_t(row) * n + first_column + thread % 4 * 2;
#pragma unroll
        for (int j = 0; j < TILE_N / 8; j++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                *reinterpret_cast<__nv_bfloat162*>(to + size_t(half) * 8 * n + j * 8) =
                    __floats2bfloat162_rn(acc[j * 4 + half * 2], acc[j * 4 + half * 2 + 1]);
            }
        }
    }

    __device__ static void run(const CUtensorMap& x_map, const CUtensorMap& w_map, bf16* y, int m, int n,
                               int k) {
        extern __shared__ __align__(1024) unsigned char bytes[];
        const Product self = {shared_address(bytes), CLUSTER > 1 ? unsigned(cluster_rank()) : 0, m / TILE_M,
                              n / TILE_N, k};
        self.init_barriers();
        const int warpgroup = threadIdx.x / WARPGROUP;
        if (warpgroup == CONSUMERS) {
            if (CONSUMERS > 1) {
                give_registers<40>();
            }
            if (threadIdx.x % WARPGROUP == 0) {
                self.produce(x_map, w_map);
            }
        } else {
            if (CONSUMERS > 1) {
                take_registers<232>();
            }
            self.consume(y, warpgroup);
        }
        // A block stays while others of its cluster write to its memory.
        __syncwarp();
        if (CLUSTER > 1) {
            cluster_sync();
        }
    }
};

}  // namespace

#define ARGUMENTS                                                                                         \
    const __grid_constant__ CUtensorMap x_map, const __grid_constant__ CUtensorMap w_map, bf16 *y, int m, \
        int n, int k

extern "C" __global__ void __launch_bounds__(256, 1) product_128(ARGUMENTS) {
    Product<128, 1, 1, 5>::run(x_map, w_map, y, m, n, k);
}

extern "C" __global__ void __launch_bounds__(384, 1) product_256(ARGUMENTS) {
    Product<256, 2, 1, 4>::run(x_map, w_map, y, m, n, k);
}

extern "C" __global__ void __launch_bounds__(384, 1) __cluster_dims__(2) product_256_cluster(ARGUMENTS) {
    Product<256, 2, 2, 4>::run(x_map, w_map, y, m, n, k);
}
