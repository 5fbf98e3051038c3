// AdamW, the gradient norm and exact sums of gradients. Contract: src/ops/optim.rs.

#include "common.h"

// The constants of one update, derived in f64 by src/cuda/optim.rs.
struct KERNEL_PARAMETER AdamWConstants {
    float keep;             // 1 − lr·wd
    float step;             // lr / (1 − β1ᵗ)
    float root_correction;  // 1 / √(1 − β2ᵗ)
    float beta1;
    float beta2;
    float gain1;  // 1 − β1
    float gain2;  // 1 − β2
    float eps;
    float grad_scale;
};

__device__ __forceinline__ void update(float& p, float& m, float& v, float g, const AdamWConstants& c) {
    g *= c.grad_scale;
    m = c.beta1 * m + c.gain1 * g;
    v = c.beta2 * v + c.gain2 * g * g;
    p = p * c.keep - c.step * m / (sqrtf(v) * c.root_correction + c.eps);
}

// params, m, v, grads [n], each starting on a multiple of 16 bytes. Any grid of ELEMENT_THREADS threads.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    adamw(float* params, float* m, float* v, const float* grads, size_t n, AdamWConstants constants) {
    const size_t first = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    const size_t threads = size_t(gridDim.x) * blockDim.x;
    for (size_t quad = first; quad < n / 4; quad += threads) {
        float4 p4 = reinterpret_cast<float4*>(params)[quad];
        float4 m4 = reinterpret_cast<float4*>(m)[quad];
        float4 v4 = reinterpret_cast<float4*>(v)[quad];
        const float4 g4 = reinterpret_cast<const float4*>(grads)[quad];
        update(p4.x, m4.x, v4.x, g4.x, constants);
        update(p4.y, m4.y, v4.y, g4.y, constants);
        update(p4.z, m4.z, v4.z, g4.z, constants);
        update(p4.w, m4.w, v4.w, g4.w, constants);
        reinterpret_cast<float4*>(params)[quad] = p4;
        reinterpret_cast<float4*>(m)[quad] = m4;
        reinterpret_cast<float4*>(v)[quad] = v4;
    }
    const size_t tail = n / 4 * 4 + first;
    if (tail < n) {
        update(params[tail], m[tail], v[tail], grads[tail], constants);
    }
}

// partial[block] = Σ x² over the block's SUM_CHUNK elements of x[n], x starting on a multiple of 16 bytes.
// The order of the sum depends on n alone.
extern "C" __global__ void __launch_bounds__(SUM_THREADS)
    sum_of_squares(double* partial, const float* x, size_t n) {
    const size_t begin = size_t(blockIdx.x) * SUM_CHUNK;
    const size_t end = min(begin + SUM_CHUNK, n);
    double sum = 0.0;
    size_t at = begin + threadIdx.x * 4;
    for (; at + 4 <= end; at += SUM_THREADS * 4) {
        const float4 quad = *reinterpret_cast<const float4*>(x + at);
        sum += double(quad.x) * quad.x;
        sum += double(quad.y) * quad.y;
        sum += double(quad.z) * quad.z;
        sum += double(quad.w) * quad.w;
    }
    for (; at < end; at++) {  // the last elements of x, at most three, all of one thread
        sum += double(x[at]) * x[at];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = sum;
    }
}

// total[0] = Σ partial[n], by a single block.
extern "C" __global__ void __launch_bounds__(SUM_THREADS)
    sum_of_partials(double* total, const double* partial, int n) {
    double sum = 0.0;
    for (int i = threadIdx.x; i < n; i += SUM_THREADS) {
        sum += partial[i];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        *total = sum;
    }
}

// x in units of an exact sum, ties to even; 0 for what is not below the limit, which is counted.
__device__ __forceinline__ long long units(float x, float scale, float limit, unsigned long long& left_out) {
    const bool fits = fabsf(x) < limit;
    left_out += !fits;
    return __float2ll_rn(fits ? x * scale : 0.0f);
}

// Adds x[n], in units of 1 / scale, to sums and clears it; counts elements that are not below the limit in
// sums[n]. Both start on a multiple of 16 bytes. Any grid of ELEMENT_THREADS threads. With two elements for
// each thread, 16 bytes of sums, all accesses are coalesced.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    exact_add(long long* sums, float* x, size_t n, float scale, float limit) {
    const size_t first = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    const size_t threads = size_t(gridDim.x) * blockDim.x;
    unsigned long long left_out = 0;
#pragma unroll 1  // stores hold back the loads of the next pair anyway, and sm_100 would run out of registers
    for (size_t pair = first; pair < n / 2; pair += threads) {
        const float2 from = reinterpret_cast<const float2*>(x)[pair];
        longlong2 to = reinterpret_cast<const longlong2*>(sums)[pair];
        to.x += units(from.x, scale, limit, left_out);
        to.y += units(from.y, scale, limit, left_out);
        reinterpret_cast<longlong2*>(sums)[pair] = to;
        reinterpret_cast<float2*>(x)[pair] = make_float2(0.0f, 0.0f);
    }
    if (first == 0 && n % 2 != 0) {
        sums[n - 1] += units(x[n - 1], scale, limit, left_out);
        x[n - 1] = 0.0f;
    }
    left_out = block_sum(left_out);
    if (threadIdx.x == 0 && left_out != 0) {
        atomicAdd(reinterpret_cast<unsigned long long*>(sums + n), left_out);
    }
}

// x[n] = sums[n] · unit, and x[0] not a number if sums[n] counts elements that were left out; both start on a
// multiple of 16 bytes. Any grid of ELEMENT_THREADS threads.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    exact_take(float* x, const long long* sums, size_t n, float unit) {
    const size_t first = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    const size_t threads = size_t(gridDim.x) * blockDim.x;
    for (size_t pair = first; pair < n / 2; pair += threads) {
        const longlong2 from = reinterpret_cast<const longlong2*>(sums)[pair];
        const float2 to = make_float2(__ll2float_rn(from.x) * unit, __ll2float_rn(from.y) * unit);
        reinterpret_cast<float2*>(x)[pair] = to;
    }
    if (first == 0) {
        if (n % 2 != 0) {
            x[n - 1] = __ll2float_rn(sums[n - 1]) * unit;
        }
        if (n != 0 && sums[n] != 0) {
            x[0] = nanf("");
        }
    }
}
