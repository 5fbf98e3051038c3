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

// Makes initialised mbarriers visible to the TMA and to other blocks; a barrier of the block has to follow,
// or of the cluster, for the threads that use them.
__device__ __forceinline__ void barrier_init_fence() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// Arrives at the mbarrier at the same address in block `rank` of the cluster. It releases nothing to that
// block, for which all of the device's memory would be waited for.
__device__ __forceinline__ void barrier_arrive(unsigned barrier, int rank) {
    asm volatile(
        "{\n"
        ".reg .b32 there;\n"
        "mapa.shared::cluster.u32 there, %0, %1;\n"
        "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
        "}" ::"r"(barrier),
        "r"(rank)
        : "memory");
}

// Arrives, and expects `bytes` more from the TMA in this phase.
__device__ __forceinline__ void barrier_arrive_expect(unsigned barrier, unsigned bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

// Arrives at an mbarrier of this block.
__device__ __forceinline__ void barrier_arrive(unsigned barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
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

// The same of a box of four dimensions.
__device__ __forceinline__ void tma_load(unsigned to, const CUtensorMap& map, const int (&at)[4],
                                         unsigned barrier) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, "
        "%3, %4, %5}], [%6];" ::"r"(to),
        "l"(&map), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "r"(barrier)
        : "memory");
}

// A box of two dimensions for all blocks of the cluster whose bits are in `blocks`: their bytes and barriers
// have the same addresses.
__device__ __forceinline__ void tma_load_multicast(unsigned to, const CUtensorMap& map, int column, int row,
                                                   unsigned barrier, unsigned short blocks) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to),
        "l"(&map), "r"(column), "r"(row), "r"(barrier), "h"(blocks)
        : "memory");
}

// Starts a TMA store of shared memory to the box of `map` at (column, row).
__device__ __forceinline__ void tma_store(const CUtensorMap& map, int column, int row, unsigned from) {
    asm volatile(
        "cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%1, %2}], [%3];" ::"l"(&map),
        "r"(column), "r"(row), "r"(from)
        : "memory");
}

// Commits the stores that this thread has started since as a group.
__device__ __forceinline__ void tma_store_commit() {
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

// Waits until at most `PENDING` of this thread's groups of stores still read shared memory.
template <int PENDING>
__device__ __forceinline__ void tma_store_wait_read() {
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(PENDING) : "memory");
}

// Makes this thread's writes to shared memory visible to the TMA.
__device__ __forceinline__ void fence_for_tma() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Stores four 8×8 matrices of 16-bit elements; lane i gives the address of row i % 8 of matrix i / 8.
__device__ __forceinline__ void store_matrices(unsigned row_address, const unsigned (&from)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row_address),
                 "r"(from[0]), "r"(from[1]), "r"(from[2]), "r"(from[3])
                 : "memory");
}

__device__ __forceinline__ bf16 load_shared(unsigned address) {
    unsigned short bits;
    asm volatile("ld.shared.u16 %0, [%1];" : "=h"(bits) : "r"(address) : "memory");
    return __ushort_as_bfloat16(bits);
}

__device__ __forceinline__ uint4 load_shared_vector(unsigned address) {
    uint4 to;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to.x), "=r"(to.y), "=r"(to.z), "=r"(to.w)
                 : "r"(address)
                 : "memory");
    return to;
}

__device__ __forceinline__ void store_shared(unsigned address, uint4 from) {
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(from.x), "r"(from.y),
                 "r"(from.z), "r"(from.w)
                 : "memory");
}

// Prefetches a descriptor ahead of its first use.
__device__ __forceinline__ void tma_prefetch(const CUtensorMap& map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

// A wgmma operand in shared memory: rows of 128 bytes with the TMA's 128-byte swizzle, groups of eight rows
// 1024 bytes apart. Rows lie along k, and the address may point into the first row, at multiples of 32 bytes;
// or each row is a k, has 64 lines of the operand, and the next 64 are `next` bytes further.
struct Operand {
    unsigned low;  // of its matrix descriptor

    __device__ __forceinline__ Operand(unsigned address, unsigned next = 16)
        : low((next >> 4) << 16 | (address & 0x3ffff) >> 4) {}

    // The descriptor of the operand that begins so many bytes further.
    __device__ __forceinline__ unsigned long long at(unsigned bytes) const {
        constexpr unsigned SWIZZLE_128B = 1u << 30, GROUP_STRIDE = 1024 >> 4;
        return (unsigned long long)(SWIZZLE_128B | GROUP_STRIDE) << 32 | (low + (bytes >> 4));
    }
};

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

// Has accumulators hold their values here: reads stay behind a wait, and zeros before a fence.
template <int N>
__device__ __forceinline__ void pin(float (&acc)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) {
        asm volatile("" : "+f"(acc[i])::"memory");
    }
}

// The accumulators of a wgmma: in its text, and 32 or 64 from i on as operands of the asm statement.
#define ACCUMULATORS_0_31                      \
    "%0, %1, %2, %3, %4, %5, %6, %7, "         \
    "%8, %9, %10, %11, %12, %13, %14, %15, "   \
    "%16, %17, %18, %19, %20, %21, %22, %23, " \
    "%24, %25, %26, %27, %28, %29, %30, %31"
#define ACCUMULATORS_0_63                      \
    ACCUMULATORS_0_31                          \
    ", "                                       \
    "%32, %33, %34, %35, %36, %37, %38, %39, " \
    "%40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, " \
    "%56, %57, %58, %59, %60, %61, %62, %63"
#define ACCUMULATORS_64_127                            \
    "%64, %65, %66, %67, %68, %69, %70, %71, "         \
    "%72, %73, %74, %75, %76, %77, %78, %79, "         \
    "%80, %81, %82, %83, %84, %85, %86, %87, "         \
    "%88, %89, %90, %91, %92, %93, %94, %95, "         \
    "%96, %97, %98, %99, %100, %101, %102, %103, "     \
    "%104, %105, %106, %107, %108, %109, %110, %111, " \
    "%112, %113, %114, %115, %116, %117, %118, %119, " \
    "%120, %121, %122, %123, %124, %125, %126, %127"
#define EIGHT_ACCUMULATORS(acc, i)                                                                          \
    "+f"(acc[i]), "+f"(acc[i + 1]), "+f"(acc[i + 2]), "+f"(acc[i + 3]), "+f"(acc[i + 4]), "+f"(acc[i + 5]), \
        "+f"(acc[i + 6]), "+f"(acc[i + 7])
#define HALF_ACCUMULATORS(acc, i)                                                                \
    EIGHT_ACCUMULATORS(acc, i), EIGHT_ACCUMULATORS(acc, i + 8), EIGHT_ACCUMULATORS(acc, i + 16), \
        EIGHT_ACCUMULATORS(acc, i + 24)
#define ACCUMULATORS(acc, i) HALF_ACCUMULATORS(acc, i), HALF_ACCUMULATORS(acc, i + 32)

// acc[64, 256] += a[64, 16] · b[256, 16]ᵀ, by four warps; or b[16, 256]. What acc held counts if `add`.
template <bool TRANSPOSE_B>
__device__ __forceinline__ void wgmma(float (&acc)[128], unsigned long long a, unsigned long long b,
                                      bool add) {
    asm volatile(
        "{\n"
        ".reg .pred add;\n"
        "setp.ne.b32 add, %130, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" ACCUMULATORS_0_63 ", " ACCUMULATORS_64_127
        "}, %128, %129, add, 1, 1, 0, %131;\n"
        "}"
        : ACCUMULATORS(acc, 0), ACCUMULATORS(acc, 64)
        : "l"(a), "l"(b), "r"(int(add)), "n"(TRANSPOSE_B)
        : "memory");
}

// acc[64, 64] += a[64, 16] · b[64, 16]ᵀ, a in registers; or b[16, 64].
template <bool TRANSPOSE_B>
__device__ __forceinline__ void wgmma(float (&acc)[32], const unsigned (&a)[4], unsigned long long b,
                                      bool add) {
    asm volatile(
        "{\n"
        ".reg .pred add;\n"
        "setp.ne.b32 add, %37, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" ACCUMULATORS_0_31
        "}, {%32, %33, %34, %35}, %36, add, 1, 1, %38;\n"
        "}"
        : HALF_ACCUMULATORS(acc, 0)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(add)), "n"(TRANSPOSE_B)
        : "memory");
}

// acc[64, 128] += a[64, 16] · b[128, 16]ᵀ, a in registers; or b[16, 128].
template <bool TRANSPOSE_B>
__device__ __forceinline__ void wgmma(float (&acc)[64], const unsigned (&a)[4], unsigned long long b,
                                      bool add) {
    asm volatile(
        "{\n"
        ".reg .pred add;\n"
        "setp.ne.b32 add, %69, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" ACCUMULATORS_0_63
        "}, {%64, %65, %66, %67}, %68, add, 1, 1, %70;\n"
        "}"
        : ACCUMULATORS(acc, 0)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(add)), "n"(TRANSPOSE_B)
        : "memory");
}

// Moves registers of all warps of a warpgroup to the block's others, and back.
template <int REGISTERS>
__device__ __forceinline__ void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

template <int REGISTERS>
__device__ __forceinline__ void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}
