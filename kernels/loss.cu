// The losses of a row of logits, by one block each.

#include "loss.h"

// nll, kl [rows], z[rows, width], of which y is null or has the same shape, targets[rows], kl_mask[rows]; z and y start on
// multiples of 16 bytes. One block per row; 32 · kept bytes of dynamic shared memory.
extern "C" __global__ void __launch_bounds__(LOSS_THREADS)
cross_entropy_kl(float* nll, float* kl, bf16* z, bf16* y, const int* targets, const float* kl_mask,
                 float cross_entropy, float kl_weight, int width, int kept) {
    extern __shared__ uint4 memory[];
    const LossArguments arguments = {nll, kl, z, y, targets, kl_mask, cross_entropy, kl_weight, width, kept};
    loss_of_row(arguments, blockIdx.x, 0, 1, memory, [](const LossSums& sums) { return sums; });
}
