// The losses of a row of logits, by one block each, or by several where a row does not fit the shared memory of one.

#include "loss.h"

// nll, kl [rows], z[rows, width], of which y is null or has the same shape, targets[rows], kl_mask[rows]; z and y start on
// multiples of 16 bytes. One block per row; 16 · kept bytes of dynamic shared memory for z, and as many for y.
extern "C" __global__ void __launch_bounds__(LOSS_THREADS)
cross_entropy_kl(float* nll, float* kl, bf16* z, bf16* y, const int* targets, const float* kl_mask,
                 Refusal* refusal, float cross_entropy, float kl_weight, int width, int kept) {
    extern __shared__ uint4 memory[];
    const LossArguments arguments = {nll, kl, z, y, targets, kl_mask, refusal, cross_entropy, kl_weight, width, kept};
    loss_of_row(arguments, blockIdx.x, 0, 1, memory, [](const LossSums& sums) { return sums; });
}

namespace {

// How the blocks of a group tell each other their sums, through global memory, row after row.
//
// A block writes its sums, counts itself, and goes on when all others of this row are counted. There are two sets of
// sums which take turns: when a block writes to a set again, all others have been counted with the other set since, and
// so have read this one.
struct Group {
    float* sums;        // [2, ranks, LOSS_SUMS]
    unsigned* arrived;  // 0 between launches
    int rank, ranks;
    unsigned rounds;    // rows with a loss so far

    __device__ __forceinline__ float* of(int rank) const {
        return sums + (rounds % 2 * ranks + rank) * LOSS_SUMS;
    }

    // The sums of all blocks, for all threads, from those of this block.
    __device__ __forceinline__ LossSums together(const LossSums& own) {
        __shared__ LossSums of_group;
        if (threadIdx.x == 0) {
            float* to = of(rank);
            *reinterpret_cast<float4*>(to) = make_float4(own.z_max, own.z_sum, own.y_max, own.y_sum);
            to[4] = own.cross;
            arrive();
            wait((rounds + 1) * ranks);
        }
        if (threadIdx.x < WARP) {
            __syncwarp();
            // In the same order in every block, so that all get the same. Past the first-level cache: other
            // multiprocessors have written them.
            LossSums all = no_logits();
#pragma unroll 1
            for (int other = threadIdx.x; other < ranks; other += WARP) {
                const float* from = of(other);
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

    // Counts itself once more. The last block, after which nobody looks, brings the counter back to 0.
    __device__ __forceinline__ void leave() const {
        if (threadIdx.x == 0) {
            atomicInc(arrived, (rounds + 1) * ranks - 1);
        }
    }

    // What this thread has written is there before its arrival is.
    __device__ __forceinline__ void arrive() const {
        asm volatile("red.release.gpu.global.add.u32 [%0], 1;" : : "l"(arrived) : "memory");
    }

    // Until `count` blocks have arrived; then what they have written is there.
    __device__ __forceinline__ void wait(unsigned count) const {
        while (true) {
            unsigned found;
            asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(found) : "l"(arrived) : "memory");
            if (found >= count) {
                return;
            }
            __nanosleep(64);
        }
    }
};

}  // namespace

// As cross_entropy_kl, with groups of `ranks` neighbouring blocks that share rows, each group one row after another; a
// block keeps its part. sums[groups, 2, ranks, LOSS_SUMS] on multiples of 16 bytes, arrived[groups]. Blocks wait for
// each other, so all have to be there at the same time: a cooperative launch.
extern "C" __global__ void __launch_bounds__(LOSS_THREADS)
cross_entropy_kl_group(float* nll, float* kl, bf16* z, bf16* y, const int* targets, const float* kl_mask, Refusal* refusal,
                       float* sums, unsigned* arrived, float cross_entropy, float kl_weight, int rows, int width, int kept,
                       int ranks) {
    extern __shared__ uint4 memory[];
    const LossArguments arguments = {nll, kl, z, y, targets, kl_mask, refusal, cross_entropy, kl_weight, width, kept};
    const int number = blockIdx.x / ranks, groups = gridDim.x / ranks;
    Group group = {sums + number * 2 * ranks * LOSS_SUMS, arrived + number, int(blockIdx.x) % ranks, ranks, 0};
    for (int row = number; row < rows; row += groups) {
        loss_of_row(arguments, row, group.rank, ranks, memory,
                    [&](const LossSums& own) { return group.together(own); });
    }
    group.leave();
}
