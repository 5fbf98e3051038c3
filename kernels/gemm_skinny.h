// Skinny GEMM: many lines with few, as a frozen weight with the tokens of a decoding step, or a batch with
// the rows of a lora_A. The m operand has the many lines, which are read once, 16 bytes at a time, straight
// into the registers of mma; the lines of the n operand come from the L1 cache. The kernels are in linear.cu
// and linear_lora.cu.
//
// A block has 16 M lines of the m operand, and 8 N of each of A n operands; its warps share k and add up
// their sums in a fixed order. The order of k within an mma is free as long as both operands agree: thread t
// of a quad takes elements 8t to 8t + 7 of 32, which are one access for each line and, for dropout, one group
// of a mask.
#pragma once

#include "ampere.h"
#include "gemm_epilogue.h"

constexpr int WARPS = SKINNY_THREADS / WARP;
constexpr int STEP = 32;  // elements along k that a warp multiplies at a time
static_assert(SKINNY_LINES == 16 && SKINNY_DOWN_LINES == 32, "one and two times 16 lines of an mma");

// A matrix whose lines are multiplied.
struct Operand {
    const bf16* data;
    int stride;
    int first;  // this block's first line; may lie before line 0
    int count;
    bool vector;  // whether lines start on multiples of 16 bytes
    int gap = 8;  // from the first to the second half of 16 lines

    // First line of the i-th group of 8 lines: half of an mma's m.
    __device__ __forceinline__ int eighth(int i) const { return first + i / 2 * 16 + i % 2 * gap; }
};

// Loads eight elements of a line; zeros outside of the matrix.
__device__ __forceinline__ uint4 load_chunk(const Operand& factor, int line, int at, int k) {
    const bool inside = line >= 0 && line < factor.count && at < k;
    const int valid = inside ? min(8, k - at) : 0;
    const bf16* from = factor.data + (inside ? size_t(line) * factor.stride + at : 0);
    if (factor.vector && valid == 8) {
        return *reinterpret_cast<const uint4*>(from);
    }
    const unsigned short* bits = reinterpret_cast<const unsigned short*>(from);
    unsigned pairs[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const unsigned low = 2 * i < valid ? bits[2 * i] : 0, high = 2 * i + 1 < valid ? bits[2 * i + 1] : 0;
        pairs[i] = low | high << 16;
    }
    return make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
}

// Loads eight elements that are inside as a whole, or not at all.
__device__ __forceinline__ uint4 load_vector(const bf16* from, bool inside) {
    return inside ? *reinterpret_cast<const uint4*>(from) : make_uint4(0, 0, 0, 0);
}

__device__ __forceinline__ uint4 masked(const Mask& mask, uint4 x, int line, int at) {
    return mask.row_keys ? drop(mask.key, x, mask.row_keys[line], at / 8) : x;
}

// A n operands of one shape, and for each the dropout mask of the m operand.
template <int A>
struct NOperands {
    const bf16* data[A];
    Mask mask[A];
    int stride;
    int first;
    int count;
    bool vector;

    __device__ __forceinline__ Operand operand(int a) const {
        return {data[a], stride, first, count, vector};
    }
};

// Accumulators of 16 M lines by 8 N lines.
template <int M, int N>
using Sums = float[M][N][4];

// Accumulators of each of A n operands.
template <int A, int M, int N>
using GroupedSums = float[A][M][N][4];

// acc += 16 lines of the m operand, as two groups of eight, times 8 of the n operand.
__device__ __forceinline__ void multiply(float (&acc)[4], uint4 low, uint4 high, uint4 n_chunk) {
    const unsigned first[4] = {low.x, high.x, low.y, high.y}, second[4] = {low.z, high.z, low.w, high.w};
    mma(acc, first, n_chunk.x, n_chunk.y);
    mma(acc, second, n_chunk.z, n_chunk.w);
}

// One step along k, any element of which may lie outside.
template <int M, int N>
__device__ __forceinline__ void step(Sums<M, N>& acc, const Operand& m_operand, const Operand& n_operand,
                                     const Mask& mask, int k0, int k) {
    const int lane = threadIdx.x % WARP, at = k0 + lane % 4 * 8;
    uint4 here[2 * M];
#pragma unroll
    for (int i = 0; i < 2 * M; i++) {
        const int line = m_operand.eighth(i) + lane / 4;
        here[i] = masked(mask, load_chunk(m_operand, line, at, k), min(line, m_operand.count - 1), at);
    }
    // The n operand line by line: there are no registers for all of it.
#pragma unroll
    for (int j = 0; j < N; j++) {
        const uint4 n_chunk = load_chunk(n_operand, n_operand.first + j * 8 + lane / 4, at, k);
#pragma unroll
        for (int i = 0; i < M; i++) {
            multiply(acc[i][j], here[2 * i], here[2 * i + 1], n_chunk);
        }
    }
}

// One step along k, where a thread's eight elements are inside as a whole or not at all: the loaded m operand
// with each of the n operands in turn. `offsets` are those of a thread's elements in an n operand.
template <int A, int M, int N>
__device__ __forceinline__ void multiply_each(GroupedSums<A, M, N>& acc, const uint4 (&m_chunks)[2 * M],
                                              const int (&lines)[2 * M], const NOperands<A>& n_operands,
                                              const int (&offsets)[N], int k0, bool inside) {
#pragma unroll
    for (int a = 0; a < A; a++) {
        uint4 n_chunks[N];
#pragma unroll
        for (int j = 0; j < N; j++) {
            n_chunks[j] = load_vector(n_operands.data[a] + offsets[j] + k0, inside);
        }
        Mask mask = n_operands.mask[a];
        if (A > 1) {
            // Computes the keys of Philox's rounds anew: those of several masks, kept, would fill the
            // registers.
            asm volatile("" : "+l"(mask.key.seed));
        }
#pragma unroll
        for (int i = 0; i < M; i++) {
            const int at = k0 + threadIdx.x % 4 * 8;
            const uint4 low = masked(mask, m_chunks[2 * i], lines[2 * i], at);
            const uint4 high = masked(mask, m_chunks[2 * i + 1], lines[2 * i + 1], at);
#pragma unroll
            for (int j = 0; j < N; j++) {
                multiply(acc[a][i][j], low, high, n_chunks[j]);
            }
        }
    }
}

// This warp's share in the sums over k. The sums are the same for any A, as neither a warp's share of k nor
// its order depend on A. With several n operands, all lines have to start on multiples of 16 bytes.
template <int A, int M, int N>
__device__ __forceinline__ void accumulate(GroupedSums<A, M, N>& acc, const Operand& m_operand,
                                           const NOperands<A>& n_operands, int k) {
    constexpr int UNROLL = 4 / M;                 // consecutive steps along k of one warp
    constexpr int AT_ONCE = A == 1 ? UNROLL : 1;  // steps whose loads are in flight at the same time
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    int k0 = 0;
    if (A > 1 || (m_operand.vector && n_operands.vector)) {
        // The last line stands in for lines beyond it, whose sums are not written.
        int lines[2 * M], offsets[N];
        const bf16* from[2 * M];
#pragma unroll
        for (int i = 0; i < 2 * M; i++) {
            lines[i] = min(m_operand.eighth(i) + lane / 4, m_operand.count - 1);
            from[i] = m_operand.data + size_t(lines[i]) * m_operand.stride + lane % 4 * 8;
        }
#pragma unroll
        for (int j = 0; j < N; j++) {
            offsets[j] = min(n_operands.first + j * 8 + lane / 4, n_operands.count - 1) * n_operands.stride +
                         lane % 4 * 8;
        }
        for (; k0 + WARPS * UNROLL * STEP <= k; k0 += WARPS * UNROLL * STEP) {
#pragma unroll 1
            for (int u0 = 0; u0 < UNROLL; u0 += AT_ONCE) {
                const int own = k0 + (warp * UNROLL + u0) * STEP;
                uint4 here[AT_ONCE][2 * M];
#pragma unroll
                for (int i = 0; i < AT_ONCE * 2 * M; i++) {
                    const int u = i / (2 * M);
                    here[u][i % (2 * M)] = load_vector(from[i % (2 * M)] + own + u * STEP, true);
                }
#pragma unroll
                for (int u = 0; u < AT_ONCE; u++) {
                    multiply_each(acc, here[u], lines, n_operands, offsets, own + u * STEP, true);
                }
            }
        }
        for (int at = k0 + warp * STEP; A > 1 && at < k; at += WARPS * STEP) {
            const bool inside = at + lane % 4 * 8 < k;
            uint4 here[2 * M];
#pragma unroll
            for (int i = 0; i < 2 * M; i++) {
                here[i] = load_vector(from[i] + at, inside);
            }
            multiply_each(acc, here, lines, n_operands, offsets, at, inside);
        }
    }
    for (k0 += warp * STEP; A == 1 && k0 < k; k0 += WARPS * STEP) {
        step(acc[0], m_operand, n_operands.operand(0), n_operands.mask[0], k0, k);
    }
}

// Reduces one of 16 M · 8 N sums over the warps.
template <int COUNT>
__device__ __forceinline__ float sum_of_warps(const float* sums, int at) {
    float sum = 0.0f;
#pragma unroll
    for (int warp = 0; warp < WARPS; warp++) {
        sum += sums[warp * COUNT + at];
    }
    return sum;
}

// Stores the sums of each warp to shared memory, [WARPS][M][N][16][8].
template <int M, int N>
__device__ __forceinline__ const float* store_sums(const Sums<M, N>& acc) {
    __shared__ float of_warp[WARPS][M][N][16][8];
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
#pragma unroll
    for (int i = 0; i < M; i++) {
#pragma unroll
        for (int j = 0; j < N * 2; j++) {
            const float* pair = &acc[i][j / 2][j % 2 * 2];
            *reinterpret_cast<float2*>(&of_warp[warp][i][j / 2][lane / 4 + j % 2 * 8][lane % 4 * 2]) =
                make_float2(pair[0], pair[1]);
        }
    }
    __syncthreads();
    return &of_warp[0][0][0][0][0];
}

// f(sum, m, n) for each sum, m and n being lines of the operands; the threads share the sums.
template <int M, int N, typename F>
__device__ __forceinline__ void for_each_sum(const Sums<M, N>& acc, F f) {
    constexpr int COUNT = M * N * 16 * 8;
    const float* sums = store_sums(acc);
    for (int at = threadIdx.x; at < COUNT; at += SKINNY_THREADS) {
        f(sum_of_warps<COUNT>(sums, at), at / (N * 16 * 8) * 16 + at / 8 % 16,
          at / (16 * 8) % N * 8 + at % 8);
    }
}
