// SwiGLU's activation.
#pragma once

// Sigmoid with an error of some 10⁻⁵, negligible beside a rounding to bf16; saturates at 0 and 1.
__device__ __forceinline__ float sigmoid(float x) {
    return __fdividef(1.0f, 1.0f + __expf(-x));
}

// silu(gate) · up
__device__ __forceinline__ float swiglu(float gate, float up) {
    return gate * sigmoid(gate) * up;
}

// Gradients of gate and up from that of h.
__device__ __forceinline__ float2 swiglu_gradient(float dh, float gate, float up) {
    const float s = sigmoid(gate);
    return {dh * up * s * (1.0f + gate * (1.0f - s)), dh * gate * s};
}
