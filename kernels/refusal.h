// What a kernel finds in its data and leaves out, as it would leave its arguments: an id beyond the rows of a table.
#pragma once

#include "tile.h"

// Page-locked memory of the host, which looks there after its next wait (src/cuda/refusal.rs). Any of several is kept.
struct __align__(16) Refusal {
    unsigned operation;  // REFUSED_…
    unsigned row;
    unsigned found;
    unsigned limit;
};

// In one store, so that parts of two do not mix.
__device__ __forceinline__ void refuse(Refusal* to, unsigned operation, unsigned row, unsigned found,
                                       unsigned limit) {
    *reinterpret_cast<uint4*>(to) = make_uint4(operation, row, found, limit);
}
