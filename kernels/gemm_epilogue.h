// What becomes of the f32 sums of a product: eight columns of a row at a time.
#pragma once

#include "philox.h"
#include "swiglu.h"

// Sizes and strides of a product, as src/cuda/product.rs passes them. Where y is gated, n is the columns of h; in gated_skinny_*,
// those of [gate | up].
struct Product {
    int m, n, k;
    int a_stride, b_stride;      // elements from one row of an operand to the next
    int y_stride, residual_stride;
    int a_vector, b_vector, y_vector;  // whether rows start on multiples of 16 bytes
    float alpha, beta;
    int output;
};

enum Output { OVERWRITE, ACCUMULATE };

struct Epilogue {
    static constexpr bool GATED = false;
    void* y;                  // f32 for ACCUMULATE, else bf16
    const bf16* residual;     // [m, n] or null; may be y
    const float* bias;        // [n] or null
};

// Where a feed-forward goes: h = silu(gate) · up for [gate | up] = y.
struct Gated {
    static constexpr bool GATED = true;
    bf16* h;        // [m, n]
    bf16* gate_up;  // [kept, 2n]
    int kept;       // rows of y that the backward will need
};

// Up to eight elements of a row, of which `valid` are inside; the others are 0.
__device__ __forceinline__ Vector<8> load_some(const bf16* from, int valid, bool vector) {
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

__device__ __forceinline__ Vector<8> load_some(const float* from, int valid, bool vector) {
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

__device__ __forceinline__ void store_some(bf16* to, const Vector<8>& from, int valid, bool vector) {
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

// OVERWRITE: eight columns of y from the sums, alpha · sum plus bias and beta · residual.
__device__ __forceinline__ void finish(const Epilogue& to, const Product& product, Vector<8> sum, int row,
                                       int column) {
    const int valid = min(8, product.n - column);
    const size_t at = size_t(row) * product.y_stride + column;
    const bool vector = product.y_vector;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        sum.v[i] *= product.alpha;
    }
    if (to.bias) {
        const bool bias_vector = reinterpret_cast<size_t>(to.bias) % 16 == 0;
        const Vector<8> bias = load_some(to.bias + column, valid, bias_vector);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            sum.v[i] += bias.v[i];
        }
    }
    if (to.residual) {
        const Vector<8> residual =
            load_some(to.residual + size_t(row) * product.residual_stride + column, valid, vector);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            sum.v[i] += product.beta * residual.v[i];
        }
    }
    store_some(static_cast<bf16*>(to.y) + at, sum, valid, vector);
}

// ACCUMULATE: alpha · sum is added to four columns of y.
__device__ __forceinline__ void finish(const Epilogue& to, const Product& product, const Vector<4>& sum, int row,
                                       int column) {
    float* y = static_cast<float*>(to.y) + size_t(row) * product.y_stride + column;
    if (product.y_vector && column + 4 <= product.n) {
        const Vector<4> before = load<4>(y);
        *reinterpret_cast<float4*>(y) =
            make_float4(before.v[0] + product.alpha * sum.v[0], before.v[1] + product.alpha * sum.v[1],
                        before.v[2] + product.alpha * sum.v[2], before.v[3] + product.alpha * sum.v[3]);
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (column + i < product.n) {
            y[i] += product.alpha * sum.v[i];
        }
    }
}

// Eight columns of h, and of [gate | up].
__device__ __forceinline__ void finish(const Gated& to, const Product& product, const Vector<8>& gate,
                                       const Vector<8>& up, int row, int column) {
    const int valid = min(8, product.n - column);
    const bool vector = product.y_vector;
    if (row < to.kept) {
        bf16* kept = to.gate_up + size_t(row) * 2 * product.n + column;
        store_some(kept, gate, valid, vector);
        store_some(kept + product.n, up, valid, vector);
    }
    const Vector<8> g = unpacked(packed(gate)), u = unpacked(packed(up));
    Vector<8> h;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        h.v[i] = swiglu(g.v[i], u.v[i]);
    }
    store_some(to.h + size_t(row) * product.y_stride + column, h, valid, vector);
}
