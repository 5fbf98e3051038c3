// Epilogues of a GEMM: from f32 sums to y, eight columns of a row at a time.
#pragma once

#include "philox.h"
#include "swiglu.h"

// Sizes and strides of a product, as src/cuda/gemm/ passes them. With a SwiGLU epilogue n counts the columns
// of h, in gated_skinny_* those of [gate | up].
struct KERNEL_PARAMETER GemmParams {
    int m, n, k;
    int a_stride, b_stride;  // elements from one row of an operand to the next
    int y_stride, residual_stride;
    int a_vector, b_vector, y_vector;  // whether rows start on multiples of 16 bytes
    float alpha, beta;
    int output;
};

enum Output { OVERWRITE, ACCUMULATE };

// The plain epilogue.
struct Epilogue {
    static constexpr bool GATED = false;
    void* y;               // f32 for ACCUMULATE, else bf16
    const bf16* residual;  // [m, n] or null; may be y
    const float* bias;     // [n] or null
};

// SwiGLU epilogue: h = silu(gate) · up for [gate | up] = y.
struct GatedEpilogue {
    static constexpr bool GATED = true;
    bf16* h;        // [m, n]
    bf16* gate_up;  // [kept, 2n]
    int kept;       // rows of [gate | up] that the backward needs
};

// Loads eight elements of a row, of which `valid` are inside; the others are 0.
__device__ __forceinline__ Vector<8> load_partial(const bf16* from, int valid, bool vector) {
    if (vector && valid == 8) {
        return load<8>(from);
    }
    Vector<8> to;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        to.v[i] = i < valid ? __bfloat162float(from[i]) : 0.0f;
    }
    return to;
}

__device__ __forceinline__ Vector<8> load_partial(const float* from, int valid, bool vector) {
    if (vector && valid == 8) {
        return load<8>(from);
    }
    Vector<8> to;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        to.v[i] = i < valid ? from[i] : 0.0f;
    }
    return to;
}

// Stores the `valid` ones of eight elements of a row.
__device__ __forceinline__ void store_partial(bf16* to, const Vector<8>& from, int valid, bool vector) {
    if (vector && valid == 8) {
        store(to, from);
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        if (i < valid) {
            to[i] = __float2bfloat16_rn(from.v[i]);
        }
    }
}

// OVERWRITE: eight columns of y = alpha · sum + bias + beta · residual.
__device__ __forceinline__ void epilogue(const Epilogue& to, const GemmParams& params, Vector<8> sum, int row,
                                         int column) {
    const int valid = min(8, params.n - column);
    const size_t at = size_t(row) * params.y_stride + column;
    const bool vector = params.y_vector;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        sum.v[i] *= params.alpha;
    }
    if (to.bias) {
        const bool bias_vector = reinterpret_cast<size_t>(to.bias) % 16 == 0;
        const Vector<8> bias = load_partial(to.bias + column, valid, bias_vector);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            sum.v[i] += bias.v[i];
        }
    }
    if (to.residual) {
        const Vector<8> residual =
            load_partial(to.residual + size_t(row) * params.residual_stride + column, valid, vector);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            sum.v[i] += params.beta * residual.v[i];
        }
    }
    store_partial(static_cast<bf16*>(to.y) + at, sum, valid, vector);
}

// ACCUMULATE: four columns of y += alpha · sum.
__device__ __forceinline__ void epilogue(const Epilogue& to, const GemmParams& params, const Vector<4>& sum,
                                         int row, int column) {
    float* y = static_cast<float*>(to.y) + size_t(row) * params.y_stride + column;
    if (params.y_vector && column + 4 <= params.n) {
        const Vector<4> before = load<4>(y);
        *reinterpret_cast<float4*>(y) =
            make_float4(before.v[0] + params.alpha * sum.v[0], before.v[1] + params.alpha * sum.v[1],
                        before.v[2] + params.alpha * sum.v[2], before.v[3] + params.alpha * sum.v[3]);
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (column + i < params.n) {
            y[i] += params.alpha * sum.v[i];
        }
    }
}

// SwiGLU: eight columns of h, and of gate and up.
__device__ __forceinline__ void epilogue(const GatedEpilogue& to, const GemmParams& params,
                                         const Vector<8>& gate, const Vector<8>& up, int row, int column) {
    const int valid = min(8, params.n - column);
    const bool vector = params.y_vector;
    if (row < to.kept) {
        bf16* kept = to.gate_up + size_t(row) * 2 * params.n + column;
        store_partial(kept, gate, valid, vector);
        store_partial(kept + params.n, up, valid, vector);
    }
    const Vector<8> g = unpacked(packed(gate)), u = unpacked(packed(up));
    Vector<8> h;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        h.v[i] = swiglu(g.v[i], u.v[i]);
    }
    store_partial(to.h + size_t(row) * params.y_stride + column, h, valid, vector);
}
