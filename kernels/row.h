// Rows of any length, which may start anywhere, in vectors that start on multiples of 16 bytes.
#pragma once

#include "common.h"

// `width` elements, the first of which is element `shift` of the vector at `base`, a multiple of 16 bytes.
struct Row {
    bf16* base;
    int shift;
    int width;

    // Row `index` of a matrix that starts on a multiple of 16 bytes.
    __device__ __forceinline__ Row(bf16* matrix, int index, int width) : width(width) {
        const size_t start = size_t(index) * width;
        shift = start % 8;
        base = matrix + (start - shift);
    }

    __device__ __forceinline__ int vectors() const { return (shift + width + 7) / 8; }

    // Column of element i of a vector; may lie outside of the row.
    __device__ __forceinline__ int column(int vector, int i) const { return vector * 8 + i - shift; }

    __device__ __forceinline__ bool inside(int column) const { return unsigned(column) < unsigned(width); }

    // Whether all elements of a vector are elements of the row.
    __device__ __forceinline__ bool whole(int vector) const {
        return inside(column(vector, 0)) && inside(column(vector, 7));
    }

    // Loads a vector; elements outside of the row, which others may be writing, are `outside`, bits of a
    // bf16.
    __device__ __forceinline__ uint4 get(int vector, unsigned outside) const {
        const bf16* from = base + vector * 8;
        if (whole(vector)) {
            return *reinterpret_cast<const uint4*>(from);
        }
        unsigned words[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const unsigned low = inside(column(vector, 2 * i)) ? __bfloat16_as_ushort(from[2 * i]) : outside;
            const unsigned high =
                inside(column(vector, 2 * i + 1)) ? __bfloat16_as_ushort(from[2 * i + 1]) : outside;
            words[i] = low | high << 16;
        }
        return make_uint4(words[0], words[1], words[2], words[3]);
    }

    // Stores the elements of a vector that lie inside the row.
    __device__ __forceinline__ void set(int vector, const Vector<8>& from) const {
        bf16* to = base + vector * 8;
        if (whole(vector)) {
            // One 16-byte store: the compiler would otherwise merge parts of it with the other branch's
            // stores.
            __stwb(reinterpret_cast<uint4*>(to), packed(from));
            return;
        }
#pragma unroll
        for (int i = 0; i < 8; i++) {
            if (inside(column(vector, i))) {
                to[i] = __float2bfloat16_rn(from.v[i]);
            }
        }
    }
};

// eˣ with a relative error of some 1e-7 · max(1, |x|), 0 below −87.
__device__ __forceinline__ float exp_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x * 1.44269504f));
    return y;
}
