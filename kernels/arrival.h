// Split reductions: several blocks write partial results to global memory and count themselves in at an
// arrival counter; the block that arrives last reduces the partial results. No block waits for another.
#pragma once

#include "common.h"

// Memory of a split reduction, as src/cuda/split.rs passes it.
struct KERNEL_PARAMETER SplitWorkspace {
    float* partials;     // [tiles, splits, …]
    unsigned* arrivals;  // [tiles]: arrival counters; 0 before and after a launch
};

// Counts a block in; true for the last of `expected`. What other threads of the block have written before a
// barrier is visible to the last block. The last block resets the counter to 0 for the next launch: no
// further block arrives.
__device__ __forceinline__ bool is_last(unsigned* arrivals, unsigned expected) {
    __threadfence();  // release: this block's writes are visible before its arrival
    const bool last = atomicAdd(arrivals, 1u) + 1 == expected;
    __threadfence();  // acquire: other blocks' writes are visible after their arrivals
    if (last) {
        *arrivals = 0;
    }
    return last;
}

// The same for a whole block, all of whose threads call it.
__device__ __forceinline__ bool is_last_block(unsigned* arrivals, unsigned expected) {
    __syncthreads();  // all threads have written
    return __syncthreads_or(threadIdx.x == 0 && is_last(arrivals, expected));
}
