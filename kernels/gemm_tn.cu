// y[m, n] = a[k, m]ᵀ · b[k, n]: gradients of weights. See gemm_tile.h.

#include "gemm_tile.h"

// As in gemm_nt.cu; with row_weight[k], the rows of a are multiplied by their weights.
#define GEMM_TN(NAME, SHAPE, BLOCKS, VECTOR)                                                       \
    extern "C" __global__ void __launch_bounds__(SHAPE::THREADS, BLOCKS)                           \
        NAME(void* y, const bf16* a, const bf16* b, const bf16* residual, const float* row_weight, \
             const GemmParams params, const SplitWorkspace workspace) {                            \
        gemm_block<SHAPE, Layout::TN, VECTOR>({a, b, row_weight, nullptr, {}},                     \
                                              Epilogue{y, residual, nullptr}, params,              \
                                              work_tile_of_block(workspace));                      \
    }

GEMM_TN(gemm_tn_large, Large, 2, true)
GEMM_TN(gemm_tn_small, Small, 4, true)
GEMM_TN(gemm_tn_any, Small, 4, false)
