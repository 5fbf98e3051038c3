// Grouped GEMM without anything beside it: gradients of LoRA's output side and of the guard's weights. See
// gemm_grouped.h.

#include "gemm_grouped.h"

// The products of a group, each [m, n] of bf16, or f32 that is accumulated. A block for a tile of 64 by 64 of
// a split of k; STAGES · STAGE_BYTES of dynamic shared memory. `gemm_grouped_any` takes operands that start
// anywhere.
#define GEMM_GROUPED(NAME, VECTOR)                                  \
    extern "C" __global__ void __launch_bounds__(Small::THREADS, 4) \
        NAME(const __grid_constant__ GemmGroup group) {             \
        grouped_gemm_block<VECTOR, false>(group, blockIdx.x);       \
    }

GEMM_GROUPED(gemm_grouped, true)
GEMM_GROUPED(gemm_grouped_any, false)
