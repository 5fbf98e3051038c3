// RMSNorm. Contract: src/ops/norm.rs. One block per row, blockDim.x a multiple of 32 up to ROW_THREADS. A thread walks
// the row in vectors of N elements and keeps its first CACHED ones in registers, so that rows of up to
// ROW_THREADS · CACHED · N elements are read once; what lies beyond is read again, from L1 or L2.

#include "common.h"

constexpr int CACHED = 4;

// f(i, cached): element i starts vector number `cached` of this thread; CACHED if it is not kept.
template <int N, typename F>
__device__ __forceinline__ void for_each_vector(int width, F f) {
    const int step = blockDim.x * N;
    int at = threadIdx.x * N;
#pragma unroll
    for (int cached = 0; cached < CACHED; cached++, at += step) {
        if (at < width) {
            f(at, cached);
        }
    }
    for (; at < width; at += step) {
        f(at, CACHED);
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

template <int N>
__device__ __forceinline__ void forward_row(bf16* y, float* rstd_of_row, const bf16* x, const float* weight,
                                            int width, float eps) {
    Vector<N> kept[CACHED];
    float squares = 0.0f;
    for_each_vector<N>(width, [&](int at, int cached) {
        const Vector<N> x_here = load<N>(x + at);
        squares += dot(x_here, x_here);
        if (cached < CACHED) {
            kept[cached] = x_here;
        }
    });
    const float rstd = 1.0f / sqrtf(block_sum(squares) / width + eps);
    if (threadIdx.x == 0) {
        *rstd_of_row = rstd;
    }
    for_each_vector<N>(width, [&](int at, int cached) {
        const Vector<N> x_here = cached < CACHED ? kept[cached] : load<N>(x + at);
        const Vector<N> w = load<N>(weight + at);
        Vector<N> y_here;
#pragma unroll
        for (int i = 0; i < N; i++) {
            y_here.v[i] = w.v[i] * (x_here.v[i] * rstd);
        }
        store(y + at, y_here);
    });
}

template <int N>
__device__ __forceinline__ void backward_row(bf16* dx_acc, const bf16* dy, const bf16* x, const float* weight,
                                             int width, float rstd) {
    Vector<N> kept_x[CACHED];
    Vector<N> kept_wdy[CACHED];
    float projected = 0.0f;
    const auto weighted_dy = [&](int at) {
        const Vector<N> w = load<N>(weight + at);
        Vector<N> wdy = load<N>(dy + at);
#pragma unroll
        for (int i = 0; i < N; i++) {
            wdy.v[i] *= w.v[i];
        }
        return wdy;
    };
    for_each_vector<N>(width, [&](int at, int cached) {
        const Vector<N> x_here = load<N>(x + at);
        const Vector<N> wdy = weighted_dy(at);
        projected += dot(wdy, x_here);
        if (cached < CACHED) {
            kept_x[cached] = x_here;
            kept_wdy[cached] = wdy;
        }
    });
    const float projection = rstd * rstd * rstd * block_sum(projected) / width;
    for_each_vector<N>(width, [&](int at, int cached) {
        const Vector<N> x_here = cached < CACHED ? kept_x[cached] : load<N>(x + at);
        const Vector<N> wdy = cached < CACHED ? kept_wdy[cached] : weighted_dy(at);
        Vector<N> dx = load<N>(dx_acc + at);
#pragma unroll
        for (int i = 0; i < N; i++) {
            dx.v[i] += rstd * wdy.v[i] - projection * x_here.v[i];
        }
        store(dx_acc + at, dx);
    });
}

// y[rows, width], rstd[rows] from x[rows, width], weight[width]. With width a multiple of 8, all but rstd have to start
// on a multiple of 16 bytes.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
rms_norm(bf16* y, float* rstd, const bf16* x, const float* weight, int width, float eps) {
    const size_t row = size_t(blockIdx.x) * width;
    if (width % 8 == 0) {
        forward_row<8>(y + row, rstd + blockIdx.x, x + row, weight, width, eps);
    } else {
        forward_row<1>(y + row, rstd + blockIdx.x, x + row, weight, width, eps);
    }
}

// dx_acc[rows, width] += … of dy, x [rows, width], rstd[rows], weight[width]; alignment as above.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
rms_norm_backward(bf16* dx_acc, const bf16* dy, const bf16* x, const float* rstd, const float* weight, int width) {
    const size_t row = size_t(blockIdx.x) * width;
    if (width % 8 == 0) {
        backward_row<8>(dx_acc + row, dy + row, x + row, weight, width, rstd[blockIdx.x]);
    } else {
        backward_row<1>(dx_acc + row, dy + row, x + row, weight, width, rstd[blockIdx.x]);
    }
}
