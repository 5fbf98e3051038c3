// Threadblock swizzle: the order in which blocks compute the tiles of a product.
#pragma once

#include "tile.h"

// Which tile of y a block computes: RASTER tiles along m take turns before the next along n, so that blocks
// that run at the same time share operands in the L2 cache.
__device__ __forceinline__ int2 tile_of_block(int block, int tiles_m, int tiles_n) {
    const int band = block / (GEMM_RASTER * tiles_n), in_band = block % (GEMM_RASTER * tiles_n);
    const int height = min(GEMM_RASTER, tiles_m - band * GEMM_RASTER);
    return make_int2(band * GEMM_RASTER + in_band % height, in_band / height);
}
