// Threadblock swizzle: the order in which blocks compute the tiles of a product.
#pragma once

#include "tile.h"

// Which tile of y a block computes: `height` tiles along m take turns before the next along n, so that blocks
// that run at the same time share operands in the L2 cache.
__device__ __forceinline__ int2 tile_of_block(int block, int tiles_m, int tiles_n, int height = GEMM_RASTER) {
    const int band = block / (height * tiles_n), in_band = block % (height * tiles_n);
    const int here = min(height, tiles_m - band * height);
    return make_int2(band * height + in_band % here, in_band / here);
}
