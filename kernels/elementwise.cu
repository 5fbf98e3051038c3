// Element-wise operations that several parts of a model share. Contract: src/ops/elementwise.rs.

#include "common.h"

namespace {

template <int N>
__device__ __forceinline__ void scale_row(bf16* y, const bf16* x, float factor, int width) {
    for_each_vector<N>(width, [&](int at) {
        Vector<N> y_here = {};
        add_scaled(y_here, factor, load<N>(x + at));
        store(y + at, y_here);
    });
}

template <int N>
__device__ __forceinline__ void add_row(bf16* y, const bf16* x, int width) {
    for_each_vector<N>(width, [&](int at) {
        Vector<N> y_here = load<N>(y + at);
        add_scaled(y_here, 1.0f, load<N>(x + at));
        store(y + at, y_here);
    });
}

}  // namespace

// Rows: one block each; with width a multiple of 8, matrices of bf16 start on multiples of 16 bytes.

// y[rows, width] = scale · row_weight[rows] · x.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
    scale_rows(bf16* y, const bf16* x, const float* row_weight, float scale, int width) {
    const size_t row = size_t(blockIdx.x) * width;
    const float factor = scale * row_weight[blockIdx.x];
    if (width % 8 == 0) {
        scale_row<8>(y + row, x + row, factor, width);
    } else {
        scale_row<1>(y + row, x + row, factor, width);
    }
}

// y[rows, width] += x.
extern "C" __global__ void __launch_bounds__(ROW_THREADS) add_rows(bf16* y, const bf16* x, int width) {
    bf16* to = y + size_t(blockIdx.x) * width;
    const bf16* from = x + size_t(blockIdx.x) * width;
    if (width % 8 == 0) {
        add_row<8>(to, from, width);
    } else {
        add_row<1>(to, from, width);
    }
}

// to[n] = from[n], rounded; both start on a multiple of 16 bytes. Any grid of ELEMENT_THREADS threads.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS) cast(bf16* to, const float* from, size_t n) {
    const size_t first = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    const size_t threads = size_t(gridDim.x) * blockDim.x;
    for (size_t quad = first; quad < n / 4; quad += threads) {
        const float4 here = reinterpret_cast<const float4*>(from)[quad];
        store_quad(to + quad * 4, here);
    }
    const size_t tail = n / 4 * 4 + first;
    if (tail < n) {
        to[tail] = __float2bfloat16_rn(from[tail]);
    }
}
