// Blocks that each leave a part of a result in memory, which the last of them puts together. Nobody waits.
#pragma once

#include "common.h"

// Counts a block in; true for the last of `expected`. What other threads of the block have written before a barrier is there
// for whoever is last. The count is set back to 0, as the next launch has to find it: nobody else will come.
__device__ __forceinline__ bool is_last(unsigned* arrived, unsigned expected) {
    __threadfence();  // what the block has written is there before its arrival is
    const bool last = atomicAdd(arrived, 1u) + 1 == expected;
    __threadfence();  // and what others have written is seen after theirs
    if (last) {
        *arrived = 0;
    }
    return last;
}

// The same for a whole block, all of whose threads call it.
__device__ __forceinline__ bool is_last_block(unsigned* arrived, unsigned expected) {
    __syncthreads();  // all have written
    return __syncthreads_or(threadIdx.x == 0 && is_last(arrived, expected));
}
