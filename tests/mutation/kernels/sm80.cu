// Small kernels for the mutation test, with what the kernels of the crate do not use.

#include "ampere.h"

namespace {

__device__ __forceinline__ void named_sync(int name, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(name), "r"(threads) : "memory");
}

__device__ __forceinline__ void named_arrive(int name, int threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(name), "r"(threads) : "memory");
}

__device__ __forceinline__ void mbarrier_init(unsigned barrier, int arrivals) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

__device__ __forceinline__ void mbarrier_arrive_copies(unsigned barrier) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(barrier) : "memory");
}

__device__ __forceinline__ void mbarrier_wait(unsigned barrier, int parity) {
    unsigned done;
    do {
        asm volatile("{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                     : "=r"(done)
                     : "r"(barrier), "r"(parity)
                     : "memory");
    } while (!done);
}

}  // namespace

// Lanes exchange values through shared memory: out = 3 · in of the opposite lane of the neighbour. 64
// threads.
extern "C" __global__ void warp_exchange(int* out, const int* in) {
    __shared__ int tile[64];
    const int lane = threadIdx.x % WARP, first = threadIdx.x - lane;
    tile[threadIdx.x] = in[threadIdx.x];
    __syncwarp();
    const int opposite = tile[first + 31 - lane];
    __syncwarp();
    tile[threadIdx.x ^ 1] = 3 * opposite;
    __syncwarp();
    out[threadIdx.x] = tile[threadIdx.x];
}

// Four 8 by 8 matrices of 16-bit elements, transposed, pairs of them exchanged, by a warp: lane i brings row
// i % 8 of matrix i / 8.
extern "C" __global__ void transpose(uint4* out, const uint4* in) {
    __shared__ uint4 rows[32];
    rows[threadIdx.x] = in[threadIdx.x];
    __syncwarp();
    unsigned to[4];
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(&rows[threadIdx.x ^ 8]))
                 : "memory");
    out[threadIdx.x] = make_uint4(to[0], to[1], to[2], to[3]);
}

// Sums of all lanes up to one's own; then the lower half adds what its lanes 8 apart have, and every lane the
// number of odd values before it.
extern "C" __global__ void warp_scan(int* out, const int* in) {
    const int lane = threadIdx.x;
    int x = in[lane];
#pragma unroll
    for (int step = 1; step < WARP; step *= 2) {
        const int before = __shfl_up_sync(ALL_LANES, x, step);
        x += lane >= step ? before : 0;
    }
    if (lane < 16) {
        x += __shfl_xor_sync(0xffffu, x, 8);
    }
    const unsigned odd = __ballot_sync(ALL_LANES, x % 2 != 0);
    out[lane] = x + 1000 * __popc(odd & ((1u << lane) - 1));
}

// counts[key] += number of times that the key is there. Any grid, 128 threads.
extern "C" __global__ void histogram(unsigned* counts, const unsigned char* keys, int n) {
    __shared__ unsigned bins[64];
    if (threadIdx.x < 64) {
        bins[threadIdx.x] = 0;
    }
    __syncthreads();
#pragma unroll 1
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        atomicAdd(&bins[keys[i] % 64], 1u);
    }
    __syncthreads();
    if (threadIdx.x < 64) {
        atomicAdd(&counts[threadIdx.x], bins[threadIdx.x]);
    }
}

// The same without shared memory.
extern "C" __global__ void histogram_direct(unsigned* counts, const unsigned char* keys, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        atomicAdd(&counts[keys[i] % 64], 1u);
    }
}

// Two warps hand rounds of values over to two others, through two buffers: barriers 1 and 2 when one is full,
// 3 and 4 when it is empty. out[t] = Σ (round + 1) · in[round][63 - t].
extern "C" __global__ void hand_over(int* out, const int* in, int rounds) {
    __shared__ int buffer[2][64];
    const int t = threadIdx.x % 64;
    if (threadIdx.x < 64) {
#pragma unroll 1
        for (int round = 0; round < rounds; round++) {
            if (round >= 2) {
                named_sync(3 + round % 2, 128);
            }
            buffer[round % 2][t] = in[round * 64 + t];
            named_arrive(1 + round % 2, 128);
        }
        return;
    }
    int sum = 0;
#pragma unroll 1
    for (int round = 0; round < rounds; round++) {
        named_sync(1 + round % 2, 128);
        sum += (round + 1) * buffer[round % 2][63 - t];
        if (round + 2 < rounds) {
            named_arrive(3 + round % 2, 128);
        }
    }
    out[t] = sum;
}

// Tiles of 512 elements through two stages, each with a mbarrier that copies arrive at: out[t] = Σ over tiles
// of the elements 4t + 4 … 4t + 7, which the next thread has copied. 128 threads.
extern "C" __global__ void arriving_copies(int* out, const int* in, int tiles) {
    __shared__ __align__(16) int stage[2][512];
    __shared__ unsigned long long full[2];
    if (threadIdx.x == 0) {
        mbarrier_init(shared_address(&full[0]), 128);
        mbarrier_init(shared_address(&full[1]), 128);
    }
    __syncthreads();
    const auto fetch = [&](int tile) {
        copy_async(shared_address(&stage[tile % 2][threadIdx.x * 4]), in + tile * 512 + threadIdx.x * 4, true);
        mbarrier_arrive_copies(shared_address(&full[tile % 2]));
    };
    fetch(0);
    int sum = 0;
#pragma unroll 1
    for (int tile = 0; tile < tiles; tile++) {
        if (tile + 1 < tiles) {
            fetch(tile + 1);
        }
        mbarrier_wait(shared_address(&full[tile % 2]), tile / 2 % 2);
        const int4 quad = *reinterpret_cast<const int4*>(&stage[tile % 2][(threadIdx.x * 4 + 4) % 512]);
        sum += quad.x + quad.y + quad.z + quad.w;
        __syncthreads();
    }
    out[threadIdx.x] = sum;
}

// Two buffers change roles: steps of x[i] = x[i - 1] + 2 x[i + 1], zero at both ends. 128 threads.
extern "C" __global__ void ping_pong(int* out, const int* in, int steps) {
    __shared__ int x[2][130];
    const int i = threadIdx.x + 1;
    x[0][i] = in[threadIdx.x];
    if (threadIdx.x < 2) {
        x[threadIdx.x][0] = 0;
        x[threadIdx.x][129] = 0;
    }
    __syncthreads();
#pragma unroll 1
    for (int step = 0; step < steps; step++) {
        x[1 - step % 2][i] = x[step % 2][i - 1] + 2 * x[step % 2][i + 1];
        __syncthreads();
    }
    out[threadIdx.x] = x[steps % 2][i];
}

// All blocks meet at a counter: out of a block is 2 · in of the next one, backwards, through `between`. 64
// threads.
extern "C" __global__ void grid_exchange(int* out, int* between, unsigned* counter, const int* in) {
    between[blockIdx.x * 64 + threadIdx.x] = 2 * in[blockIdx.x * 64 + threadIdx.x];
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        atomicAdd(counter, 1u);
        while (*static_cast<volatile unsigned*>(counter) < gridDim.x) {
        }
        __threadfence();
    }
    __syncthreads();
    const int next = (blockIdx.x + 1) % gridDim.x;
    out[blockIdx.x * 64 + threadIdx.x] = __ldcg(&between[next * 64 + 63 - threadIdx.x]);
}
