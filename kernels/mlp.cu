// SwiGLU. Contract: src/ops/mlp.rs. gate_up[rows, 2 · width] holds [gate | up]; blockIdx.x is the row,
// and the blocks along y share its columns.

#include "common.h"
#include "swiglu.h"

// f(at) for a thread's vector of N elements of a row.
template <int N, typename F>
__device__ __forceinline__ void at_vector(int width, F f) {
    const int at = (blockIdx.y * blockDim.x + threadIdx.x) * N;
    if (at < width) {
        f(at);
    }
}

template <int N>
__device__ __forceinline__ void forward_row(bf16* h, const bf16* gate_up, int width) {
    at_vector<N>(width, [&](int at) {
        const Vector<N> gate = load<N>(gate_up + at), up = load<N>(gate_up + width + at);
        Vector<N> out;
#pragma unroll
        for (int i = 0; i < N; i++) {
            out.v[i] = swiglu(gate.v[i], up.v[i]);
        }
        store(h + at, out);
    });
}

template <int N>
__device__ __forceinline__ void backward_row(bf16* dgate_up, const bf16* dh, const bf16* gate_up, int width) {
    at_vector<N>(width, [&](int at) {
        const Vector<N> gate = load<N>(gate_up + at), up = load<N>(gate_up + width + at),
                        d = load<N>(dh + at);
        Vector<N> dgate, dup;
#pragma unroll
        for (int i = 0; i < N; i++) {
            const float2 gradient = swiglu_gradient(d.v[i], gate.v[i], up.v[i]);
            dgate.v[i] = gradient.x;
            dup.v[i] = gradient.y;
        }
        store(dgate_up + at, dgate);
        store(dgate_up + width + at, dup);
    });
}

// h[rows, width] from gate_up[rows, 2 · width]. With width a multiple of 8, both start on multiples of 16
// bytes.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    swiglu(bf16* h, const bf16* gate_up, int width) {
    const size_t row = size_t(blockIdx.x) * width;
    if (width % 8 == 0) {
        forward_row<8>(h + row, gate_up + 2 * row, width);
    } else {
        forward_row<1>(h + row, gate_up + 2 * row, width);
    }
}

// dgate_up[rows, 2 · width] from dh[rows, width] and gate_up; alignment as above.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    swiglu_backward(bf16* dgate_up, const bf16* dh, const bf16* gate_up, int width) {
    const size_t row = size_t(blockIdx.x) * width;
    if (width % 8 == 0) {
        backward_row<8>(dgate_up + 2 * row, dh + row, gate_up + 2 * row, width);
    } else {
        backward_row<1>(dgate_up + 2 * row, dh + row, gate_up + 2 * row, width);
    }
}
