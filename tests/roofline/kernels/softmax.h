// Parts of attention over heads of 128 that do not depend on how products are made.
#pragma once

#include "ampere.h"

constexpr int DIM = 128;
// √d and the base of the exponential.
constexpr float SCALE = 0.08838834764831845f * 1.4426950408889634f;

__device__ __forceinline__ float power_of_two(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// The running softmax of the two rows of a thread's fragments of 16 rows.
struct Softmax {
    float max[2] = {-1e30f, -1e30f}, sum[2] = {};

    // Turns scores into weights; returns the factors of what was summed before.
    template <int N>
    __device__ __forceinline__ float2 step(float (&s)[N]) {
        float factor[2];
#pragma unroll
        for (int row = 0; row < 2; row++) {
            float most = max[row];
#pragma unroll
            for (int i = 2 * row; i < N; i += 4) {
                most = fmaxf(most, fmaxf(s[i], s[i + 1]));
            }
            most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, 1));
            most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, 2));
            factor[row] = power_of_two((max[row] - most) * SCALE);
            max[row] = most;
            sum[row] *= factor[row];
            const float scaled = most * SCALE;
#pragma unroll
            for (int i = 2 * row; i < N; i += 4) {
                s[i] = power_of_two(s[i] * SCALE - scaled);
                s[i + 1] = power_of_two(s[i + 1] * SCALE - scaled);
                sum[row] += s[i] + s[i + 1];
            }
        }
        return {factor[0], factor[1]};
    }

    // What the sums have to be multiplied by in the end.
    __device__ __forceinline__ float2 finish() {
#pragma unroll
        for (int row = 0; row < 2; row++) {
            sum[row] += __shfl_xor_sync(ALL_LANES, sum[row], 1);
            sum[row] += __shfl_xor_sync(ALL_LANES, sum[row], 2);
        }
        return {1.0f / sum[0], 1.0f / sum[1]};
    }
};

template <int N>
__device__ __forceinline__ void scale(float (&o)[N], float2 by) {
#pragma unroll
    for (int i = 0; i < N; i += 4) {
        o[i] *= by.x, o[i + 1] *= by.x, o[i + 2] *= by.y, o[i + 3] *= by.y;
    }
}

// Weights of 16 rows and 16 keys as the first operand of a product.
__device__ __forceinline__ void as_operand(unsigned (&a)[4], const float* s) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        a[i] = packed(s[2 * i], s[2 * i + 1]);
    }
}

// Sums of 16 rows to global memory; `to` is the first one's.
__device__ __forceinline__ void write(bf16* to, const float (&o)[64]) {
    bf16* row = to + threadIdx.x % WARP / 4 * DIM + threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < 64; i += 2) {
        *reinterpret_cast<unsigned*>(row + i % 4 / 2 * 8 * DIM + i / 4 * 8) = packed(o[i], o[i + 1]);
    }
}
