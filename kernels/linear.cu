// Linear layers of few rows, the tokens of a decoding step, with their LoRA; also with a SwiGLU epilogue, as
// the first half of a feed-forward whose [gate | up] never reaches memory. Launched by
// src/cuda/gemm/skinny.rs. See gemm_skinny.h.

#include "gemm_skinny.h"
#include "lora_terms.h"

namespace {

// f(first, second, m, n) for each sum of the first eight lines and that of the line `gap` after it.
template <int N, typename F>
__device__ __forceinline__ void for_each_pair(const Sums<1, N>& acc, F f) {
    constexpr int COUNT = N * 16 * 8;
    const float* sums = store_sums(acc);
    for (int i = threadIdx.x; i < COUNT / 2; i += SKINNY_THREADS) {
        const int m = i / 8 % 8, n = i / 64 * 8 + i % 8, at = i / 64 * 128 + i % 64;
        f(sum_of_warps<COUNT>(sums, at), sum_of_warps<COUNT>(sums, at + 64), m, n);
    }
}

// Adds the LoRA terms of a block's lines.
template <int N>
__device__ __forceinline__ void add_terms(GroupedSums<1, 1, N>& acc, const Operand& weight,
                                          const LoraTerms& terms) {
    for (int i = 0; i < terms.count; i++) {
        const LoraTerm& term = terms.term[i];
        const int first = weight.first - term.column, second = first + weight.gap;
        const bool meets_first = first < term.columns && first + 8 > 0;
        const bool meets_second = second < term.columns && second + 8 > 0;
        if (!meets_first && !meets_second) {
            continue;
        }
        const Operand b = {term.b, term.rank, first, term.columns, term.vector != 0, weight.gap};
        const Operand xa = {term.xa, term.rank, 0, term.rows, term.vector != 0};
        for (int k0 = threadIdx.x / WARP * STEP; k0 < term.rank; k0 += WARPS * STEP) {
            step(acc[0], b, xa, {}, k0, term.rank);
        }
    }
}

// SKINNY_LINES columns of y.
template <int N>
__device__ __forceinline__ void linear_block(bf16* y, const bf16* x, const bf16* w, const bf16* residual,
                                             const float* bias, const GemmParams& params,
                                             const LoraTerms& terms) {
    const int first = blockIdx.x * SKINNY_LINES;
    const Operand weight = {w, params.b_stride, first, params.n, params.b_vector != 0};
    const NOperands<1> tokens = {{x}, {}, params.a_stride, 0, params.m, params.a_vector != 0};
    GroupedSums<1, 1, N> acc = {};
    accumulate(acc, weight, tokens, params.k);
    add_terms(acc, weight, terms);
    for_each_sum(acc[0], [&](float sum, int line, int token) {
        const int column = first + line;
        if (column < params.n && token < params.m) {
            sum *= params.alpha;
            sum += bias ? bias[column] : 0.0f;
            if (residual) {
                sum +=
                    params.beta * __bfloat162float(residual[size_t(token) * params.residual_stride + column]);
            }
            y[size_t(token) * params.y_stride + column] = __float2bfloat16_rn(sum);
        }
    });
}

// SKINNY_LINES / 2 columns of h: of the block's 16 lines, 8 are of gate and 8 the same of up.
template <int N>
__device__ __forceinline__ void gated_block(bf16* h, const bf16* x, const bf16* w, const GemmParams& params,
                                            const LoraTerms& terms) {
    const int width = params.n / 2, first = blockIdx.x * (SKINNY_LINES / 2);
    const Operand weight = {w, params.b_stride, first, params.n, params.b_vector != 0, width};
    const NOperands<1> tokens = {{x}, {}, params.a_stride, 0, params.m, params.a_vector != 0};
    GroupedSums<1, 1, N> acc = {};
    accumulate(acc, weight, tokens, params.k);
    add_terms(acc, weight, terms);
    for_each_pair(acc[0], [&](float gate, float up, int line, int token) {
        const int column = first + line;
        if (column < width && token < params.m) {
            h[size_t(token) * params.y_stride + column] = __float2bfloat16_rn(swiglu(gate, up));
        }
    });
}

}  // namespace

// y[m, n] = x[m, k] · w[n, k]ᵀ and LoRA, as gemm_nt.cu has it, for m up to 8 times the number in the name. A
// block for SKINNY_LINES columns of y.
#define LINEAR(N)                                                                                         \
    extern "C" __global__ void __launch_bounds__(SKINNY_THREADS)                                          \
        linear_skinny_##N(bf16* y, const bf16* x, const bf16* w, const bf16* residual, const float* bias, \
                          const GemmParams params, const __grid_constant__ LoraTerms terms) {             \
        linear_block<N>(y, x, w, residual, bias, params, terms);                                          \
    }

LINEAR(1)
LINEAR(2)
LINEAR(4)

// h[m, n / 2] = silu(gate) · up for [gate | up] = x[m, k] · w[n, k]ᵀ and LoRA; n is even. A block for
// SKINNY_LINES / 2 columns of h.
#define GATED(N)                                                                         \
    extern "C" __global__ void __launch_bounds__(SKINNY_THREADS)                         \
        gated_skinny_##N(bf16* h, const bf16* x, const bf16* w, const GemmParams params, \
                         const __grid_constant__ LoraTerms terms) {                      \
        gated_block<N>(h, x, w, params, terms);                                          \
    }

GATED(1)
GATED(2)
GATED(4)
