// Vectors that all rows of a block share, in shared memory.
#pragma once

#include "common.h"

// A vector of f32 in shared memory, one float for each element of a row. With N = 8, the first four elements
// of all vectors come first and the last four after them, so that neighbouring lanes access neighbouring 16
// bytes; the padding between the halves puts them into different banks.
template <int N>
struct Shared {
    float* base;
    int half;  // floats from the first halves to the second ones

    static constexpr int GAP = 16;

    __device__ __forceinline__ Shared(float* base, int width) : base(base), half(width / 2 + GAP) {}

    // Floats that a row of `width` takes.
    static __device__ __forceinline__ int size(int width) { return width + (N == 8 ? 2 * GAP : 0); }

    __device__ __forceinline__ float& element(int i) const {
        return base[N == 8 ? i % 8 / 4 * half + i / 8 * 4 + i % 4 : i];
    }

    __device__ __forceinline__ Vector<N> get(int at) const {
        Vector<N> to;
        if constexpr (N == 8) {
            const float4 a = *reinterpret_cast<const float4*>(base + at / 2);
            const float4 b = *reinterpret_cast<const float4*>(base + half + at / 2);
            to.v[0] = a.x, to.v[1] = a.y, to.v[2] = a.z, to.v[3] = a.w;
            to.v[4] = b.x, to.v[5] = b.y, to.v[6] = b.z, to.v[7] = b.w;
        } else {
            to.v[0] = base[at];
        }
        return to;
    }

    __device__ __forceinline__ void set(int at, const Vector<N>& from) const {
        if constexpr (N == 8) {
            *reinterpret_cast<float4*>(base + at / 2) =
                make_float4(from.v[0], from.v[1], from.v[2], from.v[3]);
            *reinterpret_cast<float4*>(base + half + at / 2) =
                make_float4(from.v[4], from.v[5], from.v[6], from.v[7]);
        } else {
            base[at] = from.v[0];
        }
    }

    // Copies `width` elements with all threads of the block; a barrier has to follow.
    __device__ __forceinline__ void fill(const float* from, int width) const {
        if constexpr (N == 8) {
            for (int i = threadIdx.x * 4; i < width; i += blockDim.x * 4) {
                *reinterpret_cast<float4*>(base + i % 8 / 4 * half + i / 8 * 4) =
                    *reinterpret_cast<const float4*>(from + i);
            }
        } else {
            for (int i = threadIdx.x; i < width; i += blockDim.x) {
                base[i] = from[i];
            }
        }
    }
};
