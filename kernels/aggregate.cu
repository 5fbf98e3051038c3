// The aggregator over the taps of a token. Contract: src/ops/aggregate.rs. taps[N, rows, width]: tap l of a
// row lies rows · width elements after tap l − 1. One block per row, whose threads walk it in vectors of N
// elements.
//
// A pass over the taps needs each of them twice: for its dot product with a vector, and in a sum whose
// weights depend on all dot products. Every thread keeps its own elements in shared memory, so that global
// memory is read once and no barrier is needed for them.

#include "common.h"

namespace {

constexpr int MAX_TAPS = AGGREGATE_TAPS;

// f(l) for every tap; unrolled, so that arrays indexed with l stay in registers.
template <typename F>
__device__ __forceinline__ void for_each_tap(int taps, F f) {
#pragma unroll
    for (int l = 0; l < MAX_TAPS; l++) {
        if (l < taps) {
            f(l);
        }
    }
}

// Loads one number per tap, tap l into lane l: one coalesced access of the warp.
__device__ __forceinline__ float load_by_lane(const float* numbers, int taps) {
    const int lane = threadIdx.x % WARP;
    return lane < taps ? numbers[lane] : 0.0f;
}

// The taps of one row, and room for them in shared memory; `kept` is null where they do not fit.
struct Taps {
    const bf16* row;
    size_t stride;
    bf16* kept;
    int count;
    int width;

    template <int N>
    __device__ __forceinline__ Vector<N> first(int l, int at) const {
        const Vector<N> x = load<N>(row + l * stride + at);
        if (kept) {
            store(kept + l * width + at, x);  // exact: these are bf16
        }
        return x;
    }

    template <int N>
    __device__ __forceinline__ Vector<N> again(int l, int at) const {
        return kept ? load<N>(kept + l * width + at) : load<N>(row + l * stride + at);
    }

    // products[l] = Σ with · tap l over the row, for all threads, in a fixed order.
    template <int N>
    __device__ __forceinline__ void dots(float (&products)[MAX_TAPS], const bf16* with) const {
        __shared__ float of_warp[MAX_TAPS][WARP];
        const int lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
        for_each_tap(count, [&](int l) { products[l] = 0.0f; });
        for_each_vector<N>(width, [&](int at) {
            const Vector<N> x = load<N>(with + at);
            for_each_tap(count, [&](int l) { products[l] += dot(x, first<N>(l, at)); });
        });
        for_each_tap(count, [&](int l) {
            const float sum = warp_sum(products[l]);
            if (lane == 0) {
                of_warp[l][threadIdx.x / WARP] = sum;
            }
        });
        __syncthreads();
        for_each_tap(count, [&](int l) { products[l] = warp_sum(lane < warps ? of_warp[l][lane] : 0.0f); });
    }

    // out = Σ factors[l] · tap l
    template <int N>
    __device__ __forceinline__ void weighted_sum(bf16* out, const float (&factors)[MAX_TAPS]) const {
        for_each_vector<N>(width, [&](int at) {
            Vector<N> sum = {};
            for_each_tap(count, [&](int l) { add_scaled(sum, factors[l], again<N>(l, at)); });
            store(out + at, sum);
        });
    }
};

template <int N>
__device__ __forceinline__ void forward_row(bf16* context, float* weights, const bf16* u, const Taps& taps) {
    float a[MAX_TAPS];
    taps.dots<N>(a, u);
    const float scale = 1.0f / sqrtf(float(taps.width));
    float largest = -INFINITY, sum = 0.0f;
    for_each_tap(taps.count, [&](int l) { largest = fmaxf(largest, a[l] *= scale); });
    for_each_tap(taps.count, [&](int l) { sum += a[l] = expf(a[l] - largest); });
    for_each_tap(taps.count, [&](int l) {
        a[l] /= sum;
        if (threadIdx.x == 0) {
            weights[l] = a[l];
        }
    });
    taps.weighted_sum<N>(context, a);
}

template <int N>
__device__ __forceinline__ void backward_row(bf16* du, float* dscores, const bf16* dcontext,
                                             const float* weights, const Taps& taps) {
    float ds[MAX_TAPS];
    taps.dots<N>(ds, dcontext);
    const float scale = 1.0f / sqrtf(float(taps.width));
    const float weight_of_lane = load_by_lane(weights, taps.count);
    float mean = 0.0f;
    for_each_tap(taps.count, [&](int l) { mean += __shfl_sync(ALL_LANES, weight_of_lane, l) * ds[l]; });
    for_each_tap(taps.count, [&](int l) {
        ds[l] = __shfl_sync(ALL_LANES, weight_of_lane, l) * (ds[l] - mean) * scale;
        if (threadIdx.x == 0) {
            dscores[l] = ds[l];
        }
    });
    taps.weighted_sum<N>(du, ds);
}

template <int N>
__device__ __forceinline__ void mean_row(bf16* mean, const bf16* row, size_t stride, int taps, int width) {
    for_each_vector<N>(width, [&](int at) {
        Vector<N> sum = {};
        for_each_tap(taps, [&](int l) { add_scaled(sum, 1.0f, load<N>(row + l * stride + at)); });
        const float factor = 1.0f / taps;
#pragma unroll
        for (int i = 0; i < N; i++) {
            sum.v[i] *= factor;
        }
        store(mean + at, sum);
    });
}

template <int N>
__device__ __forceinline__ void gradient_row(bf16* dtaps, size_t stride, const bf16* g, const bf16* u,
                                             const bf16* dmean, const float* weights, const float* dscores,
                                             float row_weight, int taps, int width) {
    const float weight_of_lane = row_weight * load_by_lane(weights, taps);
    const float dscore_of_lane = row_weight * load_by_lane(dscores, taps);
    float g_factor[MAX_TAPS], u_factor[MAX_TAPS];
    for_each_tap(taps, [&](int l) {
        g_factor[l] = __shfl_sync(ALL_LANES, weight_of_lane, l);
        u_factor[l] = __shfl_sync(ALL_LANES, dscore_of_lane, l);
    });
    for_each_vector<N>(width, [&](int at) {
        const Vector<N> g_here = load<N>(g + at), u_here = load<N>(u + at), dmean_here = load<N>(dmean + at);
        for_each_tap(taps, [&](int l) {
            Vector<N> d = {};
            add_scaled(d, g_factor[l], g_here);
            add_scaled(d, u_factor[l], u_here);
            add_scaled(d, row_weight / taps, dmean_here);
            store(dtaps + l * stride + at, d);
        });
    });
}

}  // namespace

// All below: with width a multiple of 8, matrices of bf16 start on multiples of 16 bytes.

// mean[rows, width] = Σ taps / N.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
    tap_mean(bf16* mean, const bf16* taps, int count, int width) {
    const size_t row = size_t(blockIdx.x) * width, stride = size_t(gridDim.x) * width;
    if (width % 8 == 0) {
        mean_row<8>(mean + row, taps + row, stride, count, width);
    } else {
        mean_row<1>(mean + row, taps + row, stride, count, width);
    }
}

// context[rows, width], weights[rows, N] from taps and u[rows, width]; N · width elements of dynamic shared
// memory, where `keep`.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
    aggregate(bf16* context, float* weights, const bf16* taps, const bf16* u, int count, int width,
              int keep) {
    extern __shared__ __align__(16) unsigned char kept[];
    const size_t row = size_t(blockIdx.x) * width;
    const Taps of_row = {taps + row, size_t(gridDim.x) * width,
                         keep ? reinterpret_cast<bf16*>(kept) : nullptr, count, width};
    if (width % 8 == 0) {
        forward_row<8>(context + row, weights + size_t(blockIdx.x) * count, u + row, of_row);
    } else {
        forward_row<1>(context + row, weights + size_t(blockIdx.x) * count, u + row, of_row);
    }
}

// du[rows, width], dscores[rows, N] from dcontext[rows, width], taps and weights[rows, N]; shared memory as
// above.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
    aggregate_backward(bf16* du, float* dscores, const bf16* dcontext, const bf16* taps, const float* weights,
                       int count, int width, int keep) {
    extern __shared__ __align__(16) unsigned char kept[];
    const size_t row = size_t(blockIdx.x) * width, scores = size_t(blockIdx.x) * count;
    const Taps of_row = {taps + row, size_t(gridDim.x) * width,
                         keep ? reinterpret_cast<bf16*>(kept) : nullptr, count, width};
    if (width % 8 == 0) {
        backward_row<8>(du + row, dscores + scores, dcontext + row, weights + scores, of_row);
    } else {
        backward_row<1>(du + row, dscores + scores, dcontext + row, weights + scores, of_row);
    }
}

// dtaps[N, rows, width] from g, u, dmean [·, width], weights, dscores [·, N] and row_weight[·], of which the
// first `rows` are read.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
    tap_gradient(bf16* dtaps, const bf16* g, const bf16* u, const bf16* dmean, const float* weights,
                 const float* dscores, const float* row_weight, int count, int width) {
    const size_t row = size_t(blockIdx.x) * width, scores = size_t(blockIdx.x) * count;
    const size_t stride = size_t(gridDim.x) * width;
    const float weight = row_weight[blockIdx.x];
    if (width % 8 == 0) {
        gradient_row<8>(dtaps + row, stride, g + row, u + row, dmean + row, weights + scores,
                        dscores + scores, weight, count, width);
    } else {
        gradient_row<1>(dtaps + row, stride, g + row, u + row, dmean + row, weights + scores,
                        dscores + scores, weight, count, width);
    }
}
