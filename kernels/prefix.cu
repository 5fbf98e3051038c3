// Learned keys and values, those of prefix tuning. Contract: src/ops/prefix.rs. One block per row.

#include "philox.h"

namespace {

// Dropout of N columns of this block's row, from column `at` on: with N = 4, half of a group of the mask.
template <int N>
__device__ __forceinline__ void drop(const Mask& mask, Vector<N>& x, int at) {
    if (!mask.row_keys) {
        return;
    }
    const uint4 group = dropout_bits(mask.key, mask.row_keys[blockIdx.x], at / 8);
    const bool first = at % 8 < 4;
    const unsigned low = first ? group.x : group.z, high = first ? group.y : group.w;
    const unsigned long long half = low | static_cast<unsigned long long>(high) << 32;
#pragma unroll
    for (int i = 0; i < N; i++) {
        const unsigned bits = static_cast<unsigned>(half >> (16 * ((at + i) % 4)));
        x.v[i] = kept(mask.key, bits, 0) ? x.v[i] * mask.key.scale : 0.0f;
    }
}

template <int N>
__device__ __forceinline__ void place_row(bf16* kv, const bf16* prefix, const Mask& mask, int width) {
    for_each_vector<N>(width, [&](int at) {
        Vector<N> x = load<N>(prefix + at);
        drop(mask, x, at);
        store(kv + at, x);
    });
}

template <int N>
__device__ __forceinline__ void backward_row(float* dprefix, bf16* dkv, const Mask& mask, int width) {
    for_each_vector<N>(width, [&](int at) {
        Vector<N> d = load<N>(dkv + at), sum = load<N>(dprefix + at);
        drop(mask, d, at);
        add_scaled(sum, 1.0f, d);
        store(dprefix + at, sum);
        store(dkv + at, Vector<N>{});
    });
}

}  // namespace

// Rows lie as many elements apart as their strides say. With `vector`, they start on multiples of 16 bytes,
// and the width is a multiple of 4.

// kv[rows, width] = mask ∘ prefix.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
    place_prefix(bf16* kv, const bf16* prefix, const Mask mask, int width, int kv_stride, int prefix_stride,
                 int vector) {
    bf16* to = kv + size_t(blockIdx.x) * kv_stride;
    const bf16* from = prefix + size_t(blockIdx.x) * prefix_stride;
    if (vector) {
        place_row<4>(to, from, mask, width);
    } else {
        place_row<1>(to, from, mask, width);
    }
}

// dprefix[rows, width] += mask ∘ dkv, each element once, and then dkv = 0.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
    prefix_backward(float* dprefix, bf16* dkv, const Mask mask, int width, int dprefix_stride, int dkv_stride,
                    int vector) {
    float* to = dprefix + size_t(blockIdx.x) * dprefix_stride;
    bf16* from = dkv + size_t(blockIdx.x) * dkv_stride;
    if (vector) {
        backward_row<4>(to, from, mask, width);
    } else {
        backward_row<1>(to, from, mask, width);
    }
}
