// Instructions of sm_90 for blocks of a cluster.
#pragma once

#include "ampere.h"

__device__ __forceinline__ int cluster_rank() {
    int rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

// Waits for all threads of all blocks; what they have written before is visible after.
__device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// Reads the float that lies at `address` of shared memory in another block of the cluster.
__device__ __forceinline__ float cluster_load(const float* address, int rank) {
    float value;
    asm volatile(
        "{\n"
        ".reg .b32 remote;\n"
        "mapa.shared::cluster.u32 remote, %1, %2;\n"
        "ld.shared::cluster.f32 %0, [remote];\n"
        "}"
        : "=f"(value)
        : "r"(shared_address(address)), "r"(rank)
        : "memory");
    return value;
}
