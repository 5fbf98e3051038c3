// Losses of rows of logits that do not fit the shared memory of one block: each block of a cluster keeps a
// part of the row.

#include "cluster.h"
#include "loss.h"

// As cross_entropy_kl, with LOSS_CLUSTER blocks per row.
extern "C" __global__ void __cluster_dims__(LOSS_CLUSTER, 1, 1) __launch_bounds__(LOSS_THREADS)
    cross_entropy_kl_cluster(float* nll, float* kl, bf16* z, bf16* y, const int* targets, const float* w_ce,
                             const float* w_kl, Refusal* refusal, float cross_entropy, float kl_weight,
                             int width, int kept) {
    extern __shared__ uint4 memory[];
    __shared__ LossSums of_block;
    const LossArguments arguments = {nll,           kl,        z,     y,   targets, w_ce, w_kl, refusal,
                                     cross_entropy, kl_weight, width, kept};
    const auto all_reduce = [&](const LossSums& sums) {
        if (threadIdx.x == 0) {
            of_block = sums;
        }
        cluster_sync();
        LossSums all = no_logits();
        // In the same order in every block, so that all get the same result.
        for (int rank = 0; rank < LOSS_CLUSTER; rank++) {
            all = merged(all, {cluster_load(&of_block.z_max, rank), cluster_load(&of_block.z_sum, rank),
                               cluster_load(&of_block.y_max, rank), cluster_load(&of_block.y_sum, rank),
                               cluster_load(&of_block.cross, rank)});
        }
        cluster_sync();  // no block exits, or overwrites its sums, while others read them
        return all;
    };
    loss_of_row(arguments, blockIdx.x / LOSS_CLUSTER, cluster_rank(), LOSS_CLUSTER, memory, all_reduce);
}
