// The gate of a feed-forward.
#pragma once

// To some 10⁻⁵, which is nothing beside a rounding to bf16; 0 and 1 for what is far out.
__device__ __forceinline__ float sigmoid(float x) {
    return __fdividef(1.0f, 1.0f + __expf(-x));
}

// silu(gate) · up
__device__ __forceinline__ float swiglu(float gate, float up) {
    return gate * sigmoid(gate) * up;
}
