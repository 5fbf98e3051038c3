// Warpgroup products that kernels/hopper.h does not have.
#pragma once

#include "hopper.h"

// acc[64, 128] += a[64, 16] · b[128, 16]ᵀ, by four warps, both in shared memory.
__device__ __forceinline__ void wgmma_128(float (&acc)[64], unsigned long long a, unsigned long long b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" ACCUMULATORS_0_63
                 "}, %64, %65, 1, 1, 1, 0, 0;"
                 : ACCUMULATORS(acc, 0)
                 : "l"(a), "l"(b)
                 : "memory");
}
