// Instructions of sm_90a that C++ has no name for: mbarriers with transaction counts, the tensor memory
// accelerator (TMA), and warpgroup matrix products (wgmma).
#pragma once

#include <cuda.h>

#include "ampere.h"

constexpr int WARPGROUP = 128;

// Initialises an mbarrier whose phase completes after `arrivals` arrivals and all expected bytes.
__device__ __forceinline__ void barrier_init(unsigned barrier, unsigned arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// Makes initialised mbarriers visible to the TMA; a __syncthreads has to follow, for the other threads.
__device__ __forceinline__ void barrier_init_fence() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void barrier_arrive(unsigned barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// Arrives, and expects `bytes` more from the TMA in this phase.
__device__ __forceinline__ void barrier_arrive_expect(unsigned barrier, unsigned bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

// Waits for the end of the phase with this parity.
__device__ __forceinline__ void barrier_wait(unsigned barrier, unsigned parity) {
    unsigned done;
    do {
        asm volatile(
            "{\n"
            ".reg .pred done;\n"
            "mbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\n"
            "selp.u32 %0, 1, 0, done;\n"
            "}"
            : "=r"(done)
            : "r"(barrier), "r"(parity)
            : "memory");
    } while (!done);
}

// A barrier of the `threads` threads that name it; 0 is that of __syncthreads.
__device__ __forceinline__ void named_barrier(int name, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(name), "r"(threads) : "memory");
}

// Starts a TMA load of the box of `map` at (column, row) to shared memory; its bytes complete on `barrier`.
__device__ __forceinline__ void tma_load(unsigned to, const CUtensorMap& map, int column, int row,
                                         unsigned barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, "
        "%3}], [%4];" ::"r"(to),
        "l"(&map), "r"(column), "r"(row), "r"(barrier)
        : "memory");
}

// Starts a TMA store of shared memory to the box of `map` at (column, row).
__device__ __forceinline__ void tma_store(const CUtensorMap& map, int column, int row, unsigned from) {
    asm volatile(
        "cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%1, %2}], [%3];" ::"l"(&map),
        "r"(column), "r"(row), "r"(from)
        : "memory");
}

// Waits for all stores that this thread has started.
__device__ __forceinline__ void tma_store_wait() {
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
    asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

// Makes this thread's writes to shared memory visible to the TMA.
__device__ __forceinline__ void fence_for_tma() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Prefetches a descriptor ahead of its first use.
__device__ __forceinline__ void tma_prefetch(const CUtensorMap& map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

// Matrix descriptor of a wgmma operand in shared memory: rows of 128 bytes with the TMA's 128-byte swizzle,
// groups of eight rows 1024 bytes apart. Rows lie along k, and the address may point into the first row, at
// multiples of 32 bytes; or each row is a k, has 64 lines of the operand, and the next 64 are `next` bytes
// further.
__device__ __forceinline__ unsigned long long operand_descriptor(unsigned address, unsigned next = 16) {
    constexpr unsigned long long SWIZZLE_128B = 1ull << 62;
    constexpr unsigned long long GROUP_STRIDE = 1024ull >> 4 << 32;
    return SWIZZLE_128B | GROUP_STRIDE | (unsigned long long)(next >> 4) << 16 | (address & 0x3ffff) >> 4;
}

// Orders earlier uses of the accumulators before the products that follow.
__device__ __forceinline__ void wgmma_fence() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

// Commits a group of wgmmas.
__device__ __forceinline__ void wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Waits until at most `PENDING` groups of wgmmas are in flight.
template <int PENDING>
__device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

// Waits for all wgmmas. The empty asm statements keep reads of the accumulators behind the wait.
__device__ __forceinline__ void wgmma_wait_for(float (&acc)[64]) {
    wgmma_wait<0>();
#pragma unroll
    for (int i = 0; i < 64; i++) {
        asm volatile("" : "+f"(acc[i])::"memory");
    }
}

// acc[64, 128] += a[64, 16] · b[128, 16]ᵀ, by four warps; or b[16, 128].
template <bool TRANSPOSE_B>
__device__ __forceinline__ void wgmma(float (&acc)[64], unsigned long long a, unsigned long long b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, "
        "%8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, "
        "%24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, "
        "%40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, "
        "%56, %57, %58, %59, %60, %61, %62, %63}, "
        "%64, %65, 1, 1, 1, 0, %66;"
        : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3]), "+f"(acc[4]), "+f"(acc[5]), "+f"(acc[6]),
          "+f"(acc[7]), "+f"(acc[8]), "+f"(acc[9]), "+f"(acc[10]), "+f"(acc[11]), "+f"(acc[12]),
          "+f"(acc[13]), "+f"(acc[14]), "+f"(acc[15]), "+f"(acc[16]), "+f"(acc[17]), "+f"(acc[18]),
          "+f"(acc[19]), "+f"(acc[20]), "+f"(acc[21]), "+f"(acc[22]), "+f"(acc[23]), "+f"(acc[24]),
          "+f"(acc[25]), "+f"(acc[26]), "+f"(acc[27]), "+f"(acc[28]), "+f"(acc[29]), "+f"(acc[30]),
          "+f"(acc[31]), "+f"(acc[32]), "+f"(acc[33]), "+f"(acc[34]), "+f"(acc[35]), "+f"(acc[36]),
          "+f"(acc[37]), "+f"(acc[38]), "+f"(acc[39]), "+f"(acc[40]), "+f"(acc[41]), "+f"(acc[42]),
          "+f"(acc[43]), "+f"(acc[44]), "+f"(acc[45]), "+f"(acc[46]), "+f"(acc[47]), "+f"(acc[48]),
          "+f"(acc[49]), "+f"(acc[50]), "+f"(acc[51]), "+f"(acc[52]), "+f"(acc[53]), "+f"(acc[54]),
          "+f"(acc[55]), "+f"(acc[56]), "+f"(acc[57]), "+f"(acc[58]), "+f"(acc[59]), "+f"(acc[60]),
          "+f"(acc[61]), "+f"(acc[62]), "+f"(acc[63])
        : "l"(a), "l"(b), "n"(TRANSPOSE_B)
        : "memory");
}
