// The down projection of LoRA: a batch with the rows of each lora_A that reads it. Launched by
// src/cuda/linear/lora.rs. See gemm_skinny.h.

#include "gemm_skinny.h"

namespace {

// One of the adapters that read x, as src/cuda/linear/lora.rs passes it.
struct KERNEL_PARAMETER LoraDown {
    bf16* xa;       // [rows, rank]
    const bf16* a;  // [rank, width]
    Mask mask;      // dropout of x
};

struct KERNEL_PARAMETER LoraDowns {
    LoraDown of[GEMM_LORA_TERMS];
    int count;
    int adapters_per_block;  // the last block may have fewer
};

struct KERNEL_PARAMETER LoraDownShape {
    int rows;
    int width;
    int rank;
    int vector;  // whether rows of x and of each a start on multiples of 16 bytes
};

template <int A, int N>
__device__ __forceinline__ void down_block(const LoraDown* adapters, const bf16* x,
                                           const LoraDownShape& shape, float scale) {
    const bool vector = shape.vector != 0;
    const int first = blockIdx.y * SKINNY_DOWN_LINES, first_rank = blockIdx.z * N * 8;
    const Operand m_operand = {x, shape.width, first, shape.rows, vector};
    NOperands<A> n_operands = {{}, {}, shape.width, first_rank, shape.rank, vector};
#pragma unroll
    for (int a = 0; a < A; a++) {
        n_operands.data[a] = adapters[a].a;
        n_operands.mask[a] = adapters[a].mask;
    }
    GroupedSums<A, 2, N> acc = {};
    accumulate(acc, m_operand, n_operands, shape.width);
#pragma unroll
    for (int a = 0; a < A; a++) {
        bf16* xa = adapters[a].xa;
        const float factor = scale * adapters[a].mask.key.scale;
        if (a > 0) {
            __syncthreads();  // the sums of the previous adapter are read
        }
        for_each_sum(acc[a], [&](float sum, int line, int rank) {
            if (first + line < shape.rows && first_rank + rank < shape.rank) {
                xa[size_t(first + line) * shape.rank + first_rank + rank] = __float2bfloat16_rn(sum * factor);
            }
        });
    }
}

// The adapters of a block, at most MOST of them.
template <int MOST, int N>
__device__ __forceinline__ void down(const LoraDowns& adapters, const bf16* x, const LoraDownShape& shape,
                                     float scale) {
    const int first = blockIdx.x * adapters.adapters_per_block;
    const int count = min(adapters.adapters_per_block, adapters.count - first);
    if constexpr (MOST > 1) {
        if (count < MOST) {
            down<MOST - 1, N>(adapters, x, shape, scale);
            return;
        }
    }
    down_block<MOST, N>(adapters.of + first, x, shape, scale);
}

}  // namespace

// xa[rows, rank] = scale · dropout(x)[rows, width] · a[rank, width]ᵀ of some adapters; blockIdx.x for some of
// them, blockIdx.y for SKINNY_DOWN_LINES rows, blockIdx.z for 8 times the number in the name of the rank. A
// piece of x is read once for all adapters of a block, and masked for each.
#define DOWN(MOST, N)                                                                                        \
    extern "C" __global__ void __launch_bounds__(SKINNY_THREADS, 2) lora_down_##N(                           \
        const bf16* x, const __grid_constant__ LoraDowns adapters, const LoraDownShape shape, float scale) { \
        down<MOST, N>(adapters, x, shape, scale);                                                            \
    }

DOWN(SKINNY_DOWN_ADAPTERS, 2)
DOWN(1, 4)
