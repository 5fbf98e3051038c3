// RMSNorm of rows of WIDTH, with the row in registers between its two uses, or read twice.

#include "common.h"

namespace {

constexpr int WIDTH = 16384;
// Rows that are kept take many threads, rows that are read again few, so that many run at the same time.
constexpr int ONCE_THREADS = 512, TWICE_THREADS = 128;

__device__ float squares(const Vector<8>& x) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        sum += x.v[i] * x.v[i];
    }
    return sum;
}

// The factor of a row from each thread's sum of squares.
template <int THREADS>
__device__ float factor(float sum) {
    __shared__ float of_warp[THREADS / WARP];
#pragma unroll
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2) {
        sum += __shfl_xor_sync(ALL_LANES, sum, lanes);
    }
    if (threadIdx.x % WARP == 0) {
        of_warp[threadIdx.x / WARP] = sum;
    }
    __syncthreads();
    sum = 0.0f;
#pragma unroll
    for (int warp = 0; warp < THREADS / WARP; warp++) {
        sum += of_warp[warp];
    }
    return rsqrtf(sum / WIDTH + 1e-6f);
}

__device__ void put(bf16* to, Vector<8> x, const bf16* weight, float factor) {
    const Vector<8> w = load<8>(weight);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        x.v[i] *= factor * w.v[i];
    }
    store(to, x);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(ONCE_THREADS)
    norm_once(bf16* y, const bf16* x, const bf16* weight) {
    constexpr int THREADS = ONCE_THREADS, VECTORS = WIDTH / 8 / THREADS;
    const size_t row = size_t(blockIdx.x) * WIDTH;
    uint4 kept[VECTORS];
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < VECTORS; i++) {
        kept[i] = *reinterpret_cast<const uint4*>(x + row + (i * THREADS + threadIdx.x) * 8);
        sum += squares(unpacked(kept[i]));
    }
    const float scale = factor<THREADS>(sum);
#pragma unroll
    for (int i = 0; i < VECTORS; i++) {
        const int at = (i * THREADS + threadIdx.x) * 8;
        put(y + row + at, unpacked(kept[i]), weight + at, scale);
    }
}

extern "C" __global__ void __launch_bounds__(TWICE_THREADS)
    norm_twice(bf16* y, const bf16* x, const bf16* weight) {
    constexpr int THREADS = TWICE_THREADS;
    const size_t row = size_t(blockIdx.x) * WIDTH;
    float sum = 0.0f;
#pragma unroll 1
    for (int at = threadIdx.x * 8; at < WIDTH; at += THREADS * 8) {
        sum += squares(load<8>(x + row + at));
    }
    const float scale = factor<THREADS>(sum);
#pragma unroll 1
    for (int at = threadIdx.x * 8; at < WIDTH; at += THREADS * 8) {
        put(y + row + at, load<8>(x + row + at), weight + at, scale);
    }
}
