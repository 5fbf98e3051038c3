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
