// Small kernels for the mutation test, with what sm_90a has and the kernels of the crate do not use.

#include "cluster.h"
#include "hopper.h"

namespace {

__device__ __forceinline__ void cluster_barrier() {
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// An address in shared memory of another block of the cluster.
__device__ __forceinline__ unsigned address_in(unsigned address, unsigned rank) {
    unsigned remote;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(address), "r"(rank));
    return remote;
}

__device__ __forceinline__ void bulk_load(unsigned to, const void* from, unsigned bytes, unsigned barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                 ::"r"(to), "l"(from), "r"(bytes), "r"(barrier)
                 : "memory");
}

__device__ __forceinline__ void bulk_store(void* to, unsigned from, unsigned bytes) {
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(from), "r"(bytes)
                 : "memory");
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

}  // namespace

// Blocks of a cluster of four read from the next one and write to the one after. 64 threads.
// out = 2 · in of the next block, backwards, + in of the block two before.
extern "C" __global__ void cluster_exchange(int* out, const int* in) {
    __shared__ int mine[64];
    __shared__ int inbox[64];
    const unsigned rank = cluster_rank();
    const int value = in[blockIdx.x * 64 + threadIdx.x];
    mine[threadIdx.x] = value;
    cluster_barrier();
    int read;
    asm volatile("ld.shared::cluster.s32 %0, [%1];"
                 : "=r"(read)
                 : "r"(address_in(shared_address(&mine[63 - threadIdx.x]), (rank + 1) % 4))
                 : "memory");
    asm volatile("st.shared::cluster.s32 [%0], %1;"
                 ::"r"(address_in(shared_address(&inbox[threadIdx.x]), (rank + 2) % 4)), "r"(value)
                 : "memory");
    cluster_barrier();
    out[blockIdx.x * 64 + threadIdx.x] = 2 * read + inbox[threadIdx.x];
}

// Blocks of a cluster of four read each other's shared memory once more before they may leave.
extern "C" __global__ void cluster_leave(int* out, const int* in) {
    __shared__ int mine[64];
    mine[threadIdx.x] = in[blockIdx.x * 64 + threadIdx.x];
    cluster_barrier();
    int sum = 0;
    for (unsigned rank = 0; rank < 4; rank++) {
        int read;
        asm volatile("ld.shared::cluster.s32 %0, [%1];"
                     : "=r"(read)
                     : "r"(address_in(shared_address(&mine[threadIdx.x]), rank))
                     : "memory");
        sum = 3 * sum + read;
    }
    cluster_barrier();
    out[blockIdx.x * 64 + threadIdx.x] = sum;
}

// Two blocks of a cluster load eight rows of 128 bytes each and send them to both, in rounds. 128 threads.
// out[block][t] = Σ over rounds and words i = t, t + 128, … of the two boxes of (round + 1 + block) · word ·
// (i + 1).
extern "C" __global__ void multicast(unsigned* out, const __grid_constant__ CUtensorMap map, int rounds) {
    __shared__ __align__(1024) unsigned char boxes[2048];
    __shared__ unsigned long long full;
    const unsigned rank = cluster_rank(), barrier = shared_address(&full);
    if (threadIdx.x == 0) {
        barrier_init(barrier, 1);
        barrier_init_fence();
    }
    // The fence has released the initialisation.
    asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
    unsigned sum = 0;
#pragma unroll 1
    for (int round = 0; round < rounds; round++) {
        if (threadIdx.x == 0) {
            barrier_arrive_expect(barrier, 2048);
            asm volatile(
                "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
                "[%0], [%1, {%2, %3}], [%4], %5;"
                ::"r"(shared_address(boxes) + rank * 1024), "l"(&map), "r"(0), "r"(round * 16 + int(rank) * 8),
                "r"(barrier), "h"(static_cast<unsigned short>(3))
                : "memory");
        }
        barrier_wait(barrier, round % 2);
#pragma unroll 1
        for (int i = threadIdx.x; i < 512; i += 128) {
            sum += (round + 1 + rank) * reinterpret_cast<const unsigned*>(boxes)[i] * (i + 1);
        }
        cluster_barrier();
    }
    out[blockIdx.x * 128 + threadIdx.x] = sum;
}

// out = 2 · in + 1, tiles of 128 elements through two buffers that bulk copies fill and empty. 128 threads.
extern "C" __global__ void bulk_scale(int* out, const int* in, int tiles) {
    __shared__ __align__(16) int buffer[2][128];
    __shared__ unsigned long long full[2];
    if (threadIdx.x == 0) {
        barrier_init(shared_address(&full[0]), 1);
        barrier_init(shared_address(&full[1]), 1);
        barrier_init_fence();
    }
    __syncthreads();
#pragma unroll 1
    for (int tile = 0; tile < tiles; tile++) {
        const int stage = tile % 2;
        if (threadIdx.x == 0) {
            // All but the newest store have read their buffer.
            asm volatile("cp.async.bulk.wait_group.read 1;" ::: "memory");
            barrier_arrive_expect(shared_address(&full[stage]), 512);
            bulk_load(shared_address(buffer[stage]), in + tile * 128, 512, shared_address(&full[stage]));
        }
        barrier_wait(shared_address(&full[stage]), tile / 2 % 2);
        buffer[stage][threadIdx.x] = 2 * buffer[stage][threadIdx.x] + 1;
        fence_for_tma();
        __syncthreads();
        if (threadIdx.x == 0) {
            bulk_store(out + tile * 128, shared_address(buffer[stage]), 512);
        }
    }
    if (threadIdx.x == 0) {
        asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
    }
}

// Tiles of 16 rows of 128 bytes through a ring of two stages. Each of two blocks of a cluster loads eight
// rows and sends them to both; the first warpgroup loads, the second, with the registers that the first gave
// back, sums up. 256 threads.
// out[block][t] = Σ over tiles and words i = t, t + 128, … of the tile of (tile + 1 + block) · word · (i +
// 1).
extern "C" __global__ void __launch_bounds__(256, 2)
    multicast_ring(unsigned* out, const __grid_constant__ CUtensorMap map, int tiles) {
    constexpr int BYTES = 2048;
    __shared__ __align__(1024) unsigned char stages[2][BYTES];
    __shared__ unsigned long long full[2], empty[2];
    const unsigned rank = cluster_rank();
    if (threadIdx.x == 0) {
        barrier_init(shared_address(&full[0]), 1);
        barrier_init(shared_address(&full[1]), 1);
        // Both blocks say that they have read.
        barrier_init(shared_address(&empty[0]), 2);
        barrier_init(shared_address(&empty[1]), 2);
        barrier_init_fence();
    }
    cluster_barrier();
    if (threadIdx.x < 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x == 0) {
#pragma unroll 1
            for (int tile = 0; tile < tiles; tile++) {
                const int stage = tile % 2;
                barrier_wait(shared_address(&empty[stage]), tile / 2 % 2 ^ 1);
                barrier_arrive_expect(shared_address(&full[stage]), BYTES);
                asm volatile(
                    "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
                    "[%0], [%1, {%2, %3}], [%4], %5;"
                    ::"r"(shared_address(stages[stage]) + rank * 1024), "l"(&map), "r"(0),
                    "r"(tile * 16 + int(rank) * 8), "r"(shared_address(&full[stage])),
                    "h"(static_cast<unsigned short>(3))
                    : "memory");
            }
        }
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 216;");
        const int t = threadIdx.x - 128;
        unsigned sum = 0;
#pragma unroll 1
        for (int tile = 0; tile < tiles; tile++) {
            const int stage = tile % 2;
            barrier_wait(shared_address(&full[stage]), tile / 2 % 2);
#pragma unroll 1
            for (int i = t; i < BYTES / 4; i += 128) {
                sum += (tile + 1 + rank) * reinterpret_cast<const unsigned*>(stages[stage])[i] * (i + 1);
            }
            named_barrier(1, 128);
            if (t < 2) {
                asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(
                                 address_in(shared_address(&empty[stage]), t))
                             : "memory");
            }
        }
        out[blockIdx.x * 128 + t] = sum;
    }
    cluster_barrier();
}

// A step of a chain of launches, each of which starts before the one before it has ended. 128 threads.
// values = 3 · values + weights.
extern "C" __global__ void chain(int* values, const int* weights) {
    const int i = blockIdx.x * 128 + threadIdx.x;
    // Nobody writes the weights.
    const int weight = weights[i];
    asm volatile("griddepcontrol.launch_dependents;");
    asm volatile("griddepcontrol.wait;" ::: "memory");
    values[i] = 3 * values[i] + weight;
}
