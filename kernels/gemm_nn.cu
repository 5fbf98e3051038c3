// y[m, n] = a[m, k] · b[k, n]: gradients through layers. See gemm_tile.h.

#include "gemm_tile.h"

// As in gemm_nt.cu.
#define GEMM_NN(NAME, SHAPE, BLOCKS, VECTOR)                                                                \
    extern "C" __global__ void __launch_bounds__(SHAPE::THREADS, BLOCKS)                                    \
        NAME(void* y, const bf16* a, const bf16* b, const bf16* residual, const GemmParams params,          \
             const SplitWorkspace workspace) {                                                              \
        gemm_block<SHAPE, Layout::NN, VECTOR>({a, b, nullptr, nullptr, {}}, Epilogue{y, residual, nullptr}, \
                                              params, work_tile_of_block(workspace));                       \
    }

GEMM_NN(gemm_nn_large, Large, 2, true)
GEMM_NN(gemm_nn_small, Small, 4, true)
GEMM_NN(gemm_nn_any, Small, 4, false)
