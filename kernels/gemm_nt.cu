// y[m, n] = a[m, k] · b[n, k]ᵀ: linear layers, with their LoRA as an extension of k. See gemm_tile.h.

#include "gemm_tile.h"

// blockIdx.x is a tile of y, blockIdx.z a split of k; STAGES · STAGE_BYTES of dynamic shared memory. bias,
// residual, and the workspace of a single split may be null. `gemm_nt_any` takes operands that start
// anywhere.
#define GEMM_NT(NAME, SHAPE, BLOCKS, VECTOR)                                                                \
    extern "C" __global__ void __launch_bounds__(SHAPE::THREADS, BLOCKS) NAME(                              \
        void* y, const bf16* a, const bf16* b, const bf16* residual, const float* bias,                     \
        const GemmParams params, const SplitWorkspace workspace, const __grid_constant__ LoraTerms terms) { \
        gemm_block<SHAPE, Layout::NT, VECTOR>({a, b, nullptr, &terms, {}}, Epilogue{y, residual, bias},     \
                                              params, work_tile_of_block(workspace));                       \
    }

GEMM_NT(gemm_nt_large, Large, 2, true)
GEMM_NT(gemm_nt_small, Small, 4, true)
GEMM_NT(gemm_nt_any, Small, 4, false)

// h[m, n] = silu(gate) · up for [gate | up] = a[m, k] · b[2n, k]ᵀ, whose first `kept` rows go to
// gate_up[kept, 2n]. A block computes TILE / 2 columns of h; otherwise as above.
#define GEMM_NT_GATED(NAME, SHAPE, BLOCKS)                                                                \
    extern "C" __global__ void __launch_bounds__(SHAPE::THREADS, BLOCKS)                                  \
        NAME(bf16* h, bf16* gate_up, int kept, const bf16* a, const bf16* b, const GemmParams params,     \
             const SplitWorkspace workspace, const __grid_constant__ LoraTerms terms) {                   \
        gemm_block<SHAPE, Layout::NT, true>({a, b, nullptr, &terms, {}}, GatedEpilogue{h, gate_up, kept}, \
                                            params, work_tile_of_block(workspace));                       \
    }

GEMM_NT_GATED(gemm_nt_gated_large, Large, 2)
GEMM_NT_GATED(gemm_nt_gated_small, Small, 4)
