// RMSNorm. Contract: src/ops/norm.rs. A warp takes a row at a time, without barriers, and a persistent block
// many rows: the weight is copied to shared memory once for all of them. A lane keeps its first KEPT vectors
// of a row in registers, packed: rows of up to 4096 elements are read once, with all loads in flight
// together. Rows that are no multiple of 8 elements are walked one element at a time, and read again.

#include "shared_vector.h"

namespace {

constexpr int KEPT = 16;

// A row of bf16 by a warp, N elements at a time.
template <int N>
struct WarpRow;

template <>
struct WarpRow<8> {
    const bf16* from;
    uint4 kept[KEPT];

    __device__ __forceinline__ WarpRow(const bf16* from, int width) : from(from) {
        int at = threadIdx.x % WARP * 8;
#pragma unroll
        for (int slot = 0; slot < KEPT; slot++, at += WARP * 8) {
            kept[slot] = at < width ? *reinterpret_cast<const uint4*>(from + at) : make_uint4(0, 0, 0, 0);
        }
    }

    __device__ __forceinline__ Vector<8> get(int at, int slot) const {
        return slot < KEPT ? unpacked(kept[slot]) : load<8>(from + at);
    }
};

template <>
struct WarpRow<1> {
    const bf16* from;

    __device__ __forceinline__ WarpRow(const bf16* from, int) : from(from) {}

    __device__ __forceinline__ Vector<1> get(int at, int) const { return load<1>(from + at); }
};

// f(at, slot) for a lane's vectors of a row; slot KEPT stands for vectors that are not kept.
template <int N, typename F>
__device__ __forceinline__ void for_each_lane_vector(int width, F f) {
    int at = threadIdx.x % WARP * N;
    if constexpr (N == 8) {
#pragma unroll
        for (int slot = 0; slot < KEPT; slot++, at += WARP * N) {
            if (at < width) {
                f(at, slot);
            }
        }
    }
#pragma unroll 1
    for (; at < width; at += WARP * N) {
        f(at, KEPT);
    }
}

// f(row) for the rows of this warp.
template <typename F>
__device__ __forceinline__ void for_each_row(int rows, F f) {
    const int warps = blockDim.x / WARP;
#pragma unroll 1
    for (int row = blockIdx.x * warps + threadIdx.x / WARP; row < rows; row += gridDim.x * warps) {
        f(row);
    }
}

template <int N>
__device__ __forceinline__ void forward_rows(bf16* y, float* rstds, const bf16* x, const float* weight,
                                             int rows, int width, float eps, float* memory) {
    const Shared<N> shared(memory, width);
    shared.fill(weight, width);
    __syncthreads();
    for_each_row(rows, [&](int row) {
        const size_t start = size_t(row) * width;
        const WarpRow<N> x_row(x + start, width);
        float squares = 0.0f;
        for_each_lane_vector<N>(width, [&](int at, int slot) {
            const Vector<N> x_here = x_row.get(at, slot);
            squares += dot(x_here, x_here);
        });
        const float rstd = 1.0f / sqrtf(warp_sum(squares) / width + eps);
        if (threadIdx.x % WARP == 0) {
            rstds[row] = rstd;
        }
        for_each_lane_vector<N>(width, [&](int at, int slot) {
            const Vector<N> x_here = x_row.get(at, slot), w = shared.get(at);
            Vector<N> y_here;
#pragma unroll
            for (int i = 0; i < N; i++) {
                y_here.v[i] = w.v[i] * (x_here.v[i] * rstd);
            }
            store(y + start + at, y_here);
        });
    });
}

template <int N>
__device__ __forceinline__ void backward_rows(bf16* dx_acc, const bf16* dy, const bf16* x, const float* rstds,
                                              const float* weight, int rows, int width, float* memory) {
    const Shared<N> shared(memory, width);
    shared.fill(weight, width);
    __syncthreads();
    for_each_row(rows, [&](int row) {
        const size_t start = size_t(row) * width;
        const WarpRow<N> x_row(x + start, width), dy_row(dy + start, width);
        const float rstd = rstds[row];
        const auto weighted_dy = [&](int at, int slot) {
            Vector<N> wdy = dy_row.get(at, slot);
            const Vector<N> w = shared.get(at);
#pragma unroll
            for (int i = 0; i < N; i++) {
                wdy.v[i] *= w.v[i];
            }
            return wdy;
        };
        float projected = 0.0f;
        for_each_lane_vector<N>(
            width, [&](int at, int slot) { projected += dot(weighted_dy(at, slot), x_row.get(at, slot)); });
        const float projection = rstd * rstd * rstd * warp_sum(projected) / width;
        for_each_lane_vector<N>(width, [&](int at, int slot) {
            const Vector<N> x_here = x_row.get(at, slot), wdy = weighted_dy(at, slot);
            Vector<N> dx = load<N>(dx_acc + start + at);
#pragma unroll
            for (int i = 0; i < N; i++) {
                dx.v[i] += rstd * wdy.v[i] - projection * x_here.v[i];
            }
            store(dx_acc + start + at, dx);
        });
    });
}

}  // namespace

// y[rows, width], rstd[rows] from x[rows, width], weight[width]. With width a multiple of 8, all but rstd
// have to start on a multiple of 16 bytes. Any grid of whole warps; width + 32 floats of dynamic shared
// memory.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
    rms_norm(bf16* y, float* rstd, const bf16* x, const float* weight, int rows, int width, float eps) {
    extern __shared__ __align__(16) float memory[];
    if (width % 8 == 0) {
        forward_rows<8>(y, rstd, x, weight, rows, width, eps, memory);
    } else {
        forward_rows<1>(y, rstd, x, weight, rows, width, eps, memory);
    }
}

// dx_acc[rows, width] += … of dy, x [rows, width], rstd[rows], weight[width]; the rest as above.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
    rms_norm_backward(bf16* dx_acc, const bf16* dy, const bf16* x, const float* rstd, const float* weight,
                      int rows, int width) {
    extern __shared__ __align__(16) float memory[];
    if (width % 8 == 0) {
        backward_rows<8>(dx_acc, dy, x, rstd, weight, rows, width, memory);
    } else {
        backward_rows<1>(dx_acc, dy, x, rstd, weight, rows, width, memory);
    }
}
