// Rotary position embedding, in place. Contract: src/ops/rope.rs. One block per row. A thread rotates the
// same N pairs, whose halves lie dim / 2 apart, in several heads, as all heads have the same angles. The
// kernel for decoding also writes keys and values to the cache.

#include "common.h"
#include "refusal.h"

// sin and cos of position · frequency. sinf and cosf keep a table on the stack (local memory) for angles of
// thousands of radians. The number of revolutions is computed instead, as a sum of two floats: only its
// fraction matters, which is exact.
__device__ __forceinline__ void sin_cos(float position, float frequency, float& s, float& c) {
    constexpr float INV_2PI = 0.15915494f, INV_2PI_REST = 4.6179e-9f;
    const float revolutions = frequency * INV_2PI;
    const float revolutions_rest = fmaf(frequency, INV_2PI, -revolutions) + frequency * INV_2PI_REST;
    const float whole = position * revolutions;
    const float rest = fmaf(position, revolutions, -whole) + position * revolutions_rest;
    sincospif(2.0f * ((whole - rintf(whole)) + rest), &s, &c);
}

// Rotates the first `heads` heads of a row; heads from `query` on are written to `keys` too, unless it is
// null.
template <int N>
__device__ __forceinline__ void rotate_row(bf16* row, bf16* keys, const float* inv_freq, float position,
                                           int heads, int query, int half, float sign) {
    const int vectors = half / N;
    const int lanes = blockDim.x / vectors;  // heads rotated at a time
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
        Vector<N> rotated_a, rotated_b;
#pragma unroll
        for (int j = 0; j < N; j++) {
            rotated_a.v[j] = a.v[j] * c[j] - b.v[j] * s[j];
            rotated_b.v[j] = b.v[j] * c[j] + a.v[j] * s[j];
        }
        store(first, rotated_a);
        store(first + half, rotated_b);
        if (keys && head >= query) {
            bf16* key = keys + (head - query) * 2 * half + pair;
            store(key, rotated_a);
            store(key + half, rotated_b);
        }
    }
}

// qkv[rows, width], of which the first `heads` heads of 2 · half elements (queries and keys) are rotated by
// sign · positions[row] · inv_freq[half]; at least half / 8 threads (half, if no multiple of 8). With half a
// multiple of 8, qkv and inv_freq start on multiples of 16 bytes, and width is a multiple of 8.
extern "C" __global__ void __launch_bounds__(ROPE_THREADS)
    rope(bf16* qkv, const unsigned* positions, const float* inv_freq, int width, int heads, int half,
         float sign) {
    bf16* row = qkv + size_t(blockIdx.x) * width;
    const float position = float(positions[blockIdx.x]);
    if (half % 8 == 0) {
        rotate_row<8>(row, nullptr, inv_freq, position, heads, heads, half, sign);
    } else {
        rotate_row<1>(row, nullptr, inv_freq, position, heads, heads, half, sign);
    }
}

template <int N>
__device__ __forceinline__ void cache_row(bf16* row, bf16* keys, bf16* values, const float* inv_freq,
                                          float position, int query, int key_value, int half) {
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

// As rope, of qkv[rows, (query + 2 · key_value) · 2 · half], for position positions[row] + first, where
// `first` is filled[1] - 1, below `step`, or 0 if `filled` is null. The keys and values of a row become row
// `row · step + first` of k and v [.., key_value · 2 · half] too, which start as qkv does.
extern "C" __global__ void __launch_bounds__(ROPE_THREADS)
    rope_into_cache(bf16* qkv, bf16* k, bf16* v, const unsigned* positions, const unsigned* filled,
                    const float* inv_freq, Refusal* refusal, int query, int key_value, int half, int step) {
    const unsigned first = filled == nullptr ? 0 : *filled - 1;
    if (filled != nullptr && first >= unsigned(step)) {
        if (threadIdx.x == 0) {
            refuse(refusal, REFUSED_ROPE_INTO_CACHE, 0, first + 1, step);
        }
        return;
    }
    bf16* row = qkv + size_t(blockIdx.x) * (query + 2 * key_value) * 2 * half;
    const size_t at = (size_t(blockIdx.x) * step + first) * key_value * 2 * half;
    const float position = float(positions[blockIdx.x] + first);
    if (half % 8 == 0) {
        cache_row<8>(row, k + at, v + at, inv_freq, position, query, key_value, half);
    } else {
        cache_row<1>(row, k + at, v + at, inv_freq, position, query, key_value, half);
    }
}
