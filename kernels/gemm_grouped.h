// Grouped GEMM: several products in one launch, for those too small to fill a device one by one. Their table
// is a kernel parameter, and a block finds its product there. Launched by src/cuda/gemm/grouped.rs.
#pragma once

#include "gemm_tile.h"

// A product of a group.
struct KERNEL_PARAMETER GroupedGemm {
    const bf16* a;
    const bf16* b;
    void* y;
    const float* row_weight;   // [k] or null, TN only
    Mask mask;                 // dropout of b, TN only
    SplitWorkspace workspace;  // of split-K
    GemmParams gemm;
    int first_block;
    int splits;      // of k
    int transposed;  // aᵀ b rather than a b
};

// The table of a launch.
struct KERNEL_PARAMETER GemmGroup {
    GroupedGemm of[GROUPED_GEMMS];
    int count;
    int blocks;
};

// The work tile of block `block` of a group.
template <bool VECTOR, bool ALL_TRANSPOSED>
__device__ __forceinline__ void grouped_gemm_block(const GemmGroup& group, int block) {
    using S = Small;
    int i = group.count - 1;
    while (block < group.of[i].first_block) {
        i--;
    }
    const GroupedGemm& own = group.of[i];
    const int tiles_m = (own.gemm.m + S::TILE - 1) / S::TILE, tiles_n = (own.gemm.n + S::TILE - 1) / S::TILE;
    const int tiles = tiles_m * tiles_n;
    const WorkTile work = {(block - own.first_block) % tiles, (block - own.first_block) / tiles, own.splits,
                           own.workspace};
    const Operands from = {own.a, own.b, own.row_weight, nullptr, own.mask};
    const Epilogue to = {own.y, nullptr, nullptr};
    if (ALL_TRANSPOSED || own.transposed) {
        gemm_block<S, Layout::TN, VECTOR>(from, to, own.gemm, work);
    } else {
        gemm_block<S, Layout::NN, VECTOR>(from, to, own.gemm, work);
    }
}
