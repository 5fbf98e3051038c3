// Rotary position embedding, in place. Contract: src/ops/rope.rs. One block per row. A thread turns the same N pairs, whose
// halves lie dim / 2 apart, in several heads: the angles are the same for all of them. What the kernel for decoding adds is
// that keys and values go to the cache as well.

#include "common.h"

// sin and cos of position · frequency. sinf and cosf keep a table on the stack for angles of thousands of radians, so
// the number of turns is computed instead, as a sum of two floats: only its fraction counts, and that is exact.
__device__ __forceinline__ void sin_cos(float position, float frequency, float& s, float& c) {
    constexpr float INV_2PI = 0.15915494f, INV_2PI_REST = 4.6179e-9f;
    const float turns = frequency * INV_2PI;
    const float turns_rest = fmaf(frequency, INV_2PI, -turns) + frequency * INV_2PI_REST;
    const float whole = position * turns;
    const float rest = fmaf(position, turns, -whole) + position * turns_rest;
    sincospif(2.0f * ((whole - rintf(whole)) + rest), &s, &c);
}

// The first `heads` heads of a row; those from head `query` on are written to `keys` too, if there is such a place.
template <int N>
__device__ __forceinline__ void rotate_row(bf16* row, bf16* keys, const float* inv_freq, float position, int heads,
                                           int query, int half, float sign) {
    const int vectors = half / N;
    const int lanes = blockDim.x / vectors;  // heads that are turned at once
    if (threadIdx.x >= lanes * vectors) {
        return;
    }
    const int pair = threadIdx.x % vectors * N;
    const Vector<N> frequency = load<N>(inv_freq + pair);
    float s[N], c[N];
#pragma unroll
    for (int j = 0; j < N; j++) {
        sin_cos(position, frequency.v[j], s[j], c[j]);
        s[j] *= sign;
    }
    for (int head = threadIdx.x / vectors; head < heads; head += lanes) {
        bf16* first = row + head * 2 * half + pair;
        const Vector<N> a = load<N>(first), b = load<N>(first + half);
        Vector<N> turned_a, turned_b;
#pragma unroll
        for (int j = 0; j < N; j++) {
            turned_a.v[j] = a.v[j] * c[j] - b.v[j] * s[j];
            turned_b.v[j] = b.v[j] * c[j] + a.v[j] * s[j];
        }
        store(first, turned_a);
        store(first + half, turned_b);
        if (keys && head >= query) {
            bf16* key = keys + (head - query) * 2 * half + pair;
            store(key, turned_a);
            store(key + half, turned_b);
        }
    }
}

// qkv[rows, width], of which the first `heads` heads of 2 · half elements (queries and keys) are rotated by
// sign · positions[row] · inv_freq[half]; at least half / 8 threads (half, if no multiple of 8). With half a multiple of
// 8, qkv and inv_freq start on multiples of 16 bytes, and width is a multiple of 8.
extern "C" __global__ void __launch_bounds__(ROPE_THREADS)
rope(bf16* qkv, const unsigned* positions, const float* inv_freq, int width, int heads, int half, float sign) {
    bf16* row = qkv + size_t(blockIdx.x) * width;
    const float position = float(positions[blockIdx.x]);
    if (half % 8 == 0) {
        rotate_row<8>(row, nullptr, inv_freq, position, heads, heads, half, sign);
    } else {
        rotate_row<1>(row, nullptr, inv_freq, position, heads, heads, half, sign);
    }
}

template <int N>
__device__ __forceinline__ void cache_row(bf16* row, bf16* keys, bf16* values, const float* inv_freq, float position,
                                          int query, int key_value, int half) {
    const int heads = query + key_value, width = key_value * 2 * half;
    const bf16* from = row + heads * 2 * half;
    for (int at = threadIdx.x * N; at < width; at += ROPE_THREADS * N) {
        if constexpr (N == 8) {
            *reinterpret_cast<uint4*>(values + at) = *reinterpret_cast<const uint4*>(from + at);
        } else {
            values[at] = from[at];
        }
    }
    rotate_row<N>(row, keys, inv_freq, position, heads, query, half, 1.0f);
}

// As rope, of qkv[rows, (query + 2 · key_value) · 2 · half], for position positions[row] + first. The keys and values of a row
// become row `row · step + first` of k and v [.., key_value · 2 · half] too, which start as qkv does.
extern "C" __global__ void __launch_bounds__(ROPE_THREADS)
rope_into_cache(bf16* qkv, bf16* k, bf16* v, const unsigned* positions, const float* inv_freq, int query, int key_value,
                int half, int first, int step) {
    bf16* row = qkv + size_t(blockIdx.x) * (query + 2 * key_value) * 2 * half;
    const size_t at = (size_t(blockIdx.x) * step + first) * key_value * 2 * half;
    const float position = float(positions[blockIdx.x] + first);
    if (half % 8 == 0) {
        cache_row<8>(row, k + at, v + at, inv_freq, position, query, key_value, half);
    } else {
        cache_row<1>(row, k + at, v + at, inv_freq, position, query, key_value, half);
    }
}
