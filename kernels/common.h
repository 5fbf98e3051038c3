// Shared by all kernels: bf16 vectors, warp and block reductions.
#pragma once

#include <cuda_bf16.h>

#include "tile.h"

using bf16 = __nv_bfloat16;

// Marks a struct that kernels take by value. The build script generates its Rust mirror (build/params.rs).
#define KERNEL_PARAMETER

constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;

// N elements as f32. With N = 8, bf16 is read and written 16 bytes at a time, f32 as two such accesses; with
// N = 4, bf16 8 bytes at a time and f32 16. The address has to be a multiple of that. N = 1 fits any address.
template <int N>
struct Vector {
    float v[N];
};

// Two f32 rounded to packed bf16, the first one in the lower half.
__device__ __forceinline__ unsigned packed(float a, float b) {
    const __nv_bfloat162_raw pair = __floats2bfloat162_rn(a, b);
    return pair.x | unsigned(pair.y) << 16;
}

// Two packed bf16 as f32.
__device__ __forceinline__ float2 unpacked(unsigned pair) {
    return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)};
}

// Eight packed bf16 as f32.
__device__ __forceinline__ Vector<8> unpacked(const uint4& from) {
    const unsigned words[4] = {from.x, from.y, from.z, from.w};
    Vector<8> to;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float2 pair = unpacked(words[i]);
        to.v[2 * i] = pair.x;
        to.v[2 * i + 1] = pair.y;
    }
    return to;
}

template <int N>
__device__ __forceinline__ Vector<N> load(const bf16* from) {
    if constexpr (N == 8) {
        return unpacked(*reinterpret_cast<const uint4*>(from));
    } else if constexpr (N == 4) {
        const uint2 words = *reinterpret_cast<const uint2*>(from);
        const float2 low = unpacked(words.x), high = unpacked(words.y);
        return {{low.x, low.y, high.x, high.y}};
    } else {
        static_assert(N == 1);
        return {{__bfloat162float(*from)}};
    }
}

template <int N>
__device__ __forceinline__ Vector<N> load(const float* from) {
    Vector<N> to;
    if constexpr (N % 4 == 0) {
#pragma unroll
        for (int i = 0; i < N / 4; i++) {
            const float4 quad = reinterpret_cast<const float4*>(from)[i];
            to.v[4 * i] = quad.x;
            to.v[4 * i + 1] = quad.y;
            to.v[4 * i + 2] = quad.z;
            to.v[4 * i + 3] = quad.w;
        }
    } else {
        static_assert(N == 1);
        to.v[0] = *from;
    }
    return to;
}

// Eight f32 rounded to packed bf16. A single uint4, as the compiler may store a struct member by member.
__device__ __forceinline__ uint4 packed(const Vector<8>& from) {
    unsigned words[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        words[i] = packed(from.v[2 * i], from.v[2 * i + 1]);
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
}

// Stores four elements as 8 bytes: with 16 bytes of f32 for each thread, loads and stores are both coalesced.
__device__ __forceinline__ void store_quad(bf16* to, float4 from) {
    *reinterpret_cast<uint2*>(to) = make_uint2(packed(from.x, from.y), packed(from.z, from.w));
}

template <int N>
__device__ __forceinline__ void store(bf16* to, const Vector<N>& from) {
    if constexpr (N == 8) {
        *reinterpret_cast<uint4*>(to) = packed(from);
    } else if constexpr (N == 4) {
        store_quad(to, make_float4(from.v[0], from.v[1], from.v[2], from.v[3]));
    } else {
        static_assert(N == 1);
        *to = __float2bfloat16_rn(from.v[0]);
    }
}

template <int N>
__device__ __forceinline__ void store(float* to, const Vector<N>& from) {
    if constexpr (N == 4) {
        *reinterpret_cast<float4*>(to) = make_float4(from.v[0], from.v[1], from.v[2], from.v[3]);
    } else {
        static_assert(N == 1);
        *to = from.v[0];
    }
}

template <int N>
__device__ __forceinline__ float dot(const Vector<N>& a, const Vector<N>& b) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < N; i++) {
        sum += a.v[i] * b.v[i];
    }
    return sum;
}

// to += factor · x
template <int N>
__device__ __forceinline__ void add_scaled(Vector<N>& to, float factor, const Vector<N>& x) {
#pragma unroll
    for (int i = 0; i < N; i++) {
        to.v[i] += factor * x.v[i];
    }
}

// f(at) for a thread's vectors of N elements of a row.
template <int N, typename F>
__device__ __forceinline__ void for_each_vector(int width, F f) {
    for (int at = threadIdx.x * N; at < width; at += blockDim.x * N) {
        f(at);
    }
}

template <typename T>
__device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2) {
        x += __shfl_xor_sync(ALL_LANES, x, lanes);
    }
    return x;
}

// Σ x over the block, for all of its threads, in a fixed order. blockDim.x is a multiple of 32, at most 1024.
// Once per kernel: a second call would have to wait until every thread has read the first result.
template <typename T>
__device__ __forceinline__ T block_sum(T x) {
    __shared__ T of_warp[WARP];
    const int lane = threadIdx.x % WARP;
    const int warps = blockDim.x / WARP;
    x = warp_sum(x);
    if (lane == 0) {
        of_warp[threadIdx.x / WARP] = x;
    }
    __syncthreads();
    return warp_sum(lane < warps ? of_warp[lane] : T(0));
}
