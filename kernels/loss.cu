// Losses of rows of logits, by one block per row, or by a group of blocks where a row does not fit the shared
// memory of one.

#include "loss.h"

// nll, kl [rows], z[rows, width], of which y is null or has the same shape, targets[rows], w_ce[rows],
// w_kl[rows]; z and y start on multiples of 16 bytes. One block per row; 16 · kept bytes of dynamic shared
// memory for z, and as many for y.
extern "C" __global__ void __launch_bounds__(LOSS_THREADS)
    cross_entropy_kl(float* nll, float* kl, bf16* z, bf16* y, const int* targets, const float* w_ce,
                     const float* w_kl, Refusal* refusal, float cross_entropy, float kl_weight, int width,
                     int kept) {
    extern __shared__ uint4 memory[];
    const LossArguments arguments = {nll,           kl,        z,     y,   targets, w_ce, w_kl, refusal,
                                     cross_entropy, kl_weight, width, kept};
    loss_of_row(arguments, blockIdx.x, 0, 1, memory, [](const LossSums& sums) { return sums; });
}

namespace {

// All-reduce of sums among the blocks of a group, through global memory, row after row.
//
// A block writes its sums, arrives at the group's counter, and spins until all blocks have arrived. The sums
// are double-buffered: before a block writes to a buffer again, all others have arrived with the other buffer
// since, and so have read this one.
struct Group {
    float* sums;         // [2, ranks, LOSS_SUMS]
    unsigned* arrivals;  // 0 between launches
    int rank, ranks;
    unsigned rounds;  // rows with a loss so far

    __device__ __forceinline__ float* sums_of(int rank) const {
        return sums + (rounds % 2 * ranks + rank) * LOSS_SUMS;
    }

    // The sums of all blocks, for all threads.
    __device__ __forceinline__ LossSums all_reduce(const LossSums& own) {
        __shared__ LossSums of_group;
        if (threadIdx.x == 0) {
            float* to = sums_of(rank);
            *reinterpret_cast<float4*>(to) = make_float4(own.z_max, own.z_sum, own.y_max, own.y_sum);
            to[4] = own.cross;
            arrive();
            wait((rounds + 1) * ranks);
        }
        if (threadIdx.x < WARP) {
            __syncwarp();
            // In the same order in every block, so that all get the same result. Past the L1 cache: other
            // multiprocessors have written the sums.
            LossSums all = no_logits();
#pragma unroll 1
            for (int other = threadIdx.x; other < ranks; other += WARP) {
                const float* from = sums_of(other);
                const float4 four = __ldcg(reinterpret_cast<const float4*>(from));
                all = merged(all, {four.x, four.y, four.z, four.w, __ldcg(from + 4)});
            }
            all = warp_merged(all);
            if (threadIdx.x == 0) {
                of_group = all;
            }
        }
        rounds++;
        __syncthreads();
        return of_group;
    }

    // Arrives once more. The last block to leave wraps the counter to 0; no block polls it any more.
    __device__ __forceinline__ void leave() const {
        if (threadIdx.x == 0) {
            atomicInc(arrivals, (rounds + 1) * ranks - 1);
        }
    }

    // Release: this thread's writes are visible before its arrival.
    __device__ __forceinline__ void arrive() const {
        asm volatile("red.release.gpu.global.add.u32 [%0], 1;" : : "l"(arrivals) : "memory");
    }

    // Acquire: spins until `count` blocks have arrived; then their writes are visible.
    __device__ __forceinline__ void wait(unsigned count) const {
        while (true) {
            unsigned found;
            asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(found) : "l"(arrivals) : "memory");
            if (found >= count) {
                return;
            }
            __nanosleep(64);
        }
    }
};

}  // namespace

// As cross_entropy_kl, with persistent groups of `ranks` neighbouring blocks that share rows, each group one
// row after another. sums[groups, 2, ranks, LOSS_SUMS] on multiples of 16 bytes, arrivals[groups]. Blocks
// wait for each other, so all have to be resident at the same time: a cooperative launch.
extern "C" __global__ void __launch_bounds__(LOSS_THREADS)
    cross_entropy_kl_group(float* nll, float* kl, bf16* z, bf16* y, const int* targets, const float* w_ce,
                           const float* w_kl, Refusal* refusal, float* sums, unsigned* arrivals,
                           float cross_entropy, float kl_weight, int rows, int width, int kept, int ranks) {
    extern __shared__ uint4 memory[];
    const LossArguments arguments = {nll,           kl,        z,     y,   targets, w_ce, w_kl, refusal,
                                     cross_entropy, kl_weight, width, kept};
    const int number = blockIdx.x / ranks, groups = gridDim.x / ranks;
    Group group = {sums + number * 2 * ranks * LOSS_SUMS, arrivals + number, int(blockIdx.x) % ranks, ranks,
                   0};
    for (int row = number; row < rows; row += groups) {
        loss_of_row(arguments, row, group.rank, ranks, memory,
                    [&](const LossSums& own) { return group.all_reduce(own); });
    }
    group.leave();
}
