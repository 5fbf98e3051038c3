// Products of many lines with few: a frozen weight with the tokens of a decoding step, and a batch with the rows of a
// lora_A. The many are read once, 16 bytes at a time, straight into the registers of the tensor cores; the few come from
// the L1 cache. Launched by src/cuda/linear.rs and src/cuda/lora.rs.
//
// A block has 16 M of the many lines and 8 N of the few; its warps share k and add up what they have in a fixed order. The
// order of k within an mma is free as long as both factors agree: thread t of a quad takes elements 8t to 8t + 7 of 32, which are
// one access for each line and, for dropout, one group of a mask.

#include "ampere.h"
#include "gemm_epilogue.h"
#include "lora_terms.h"

namespace {

constexpr int WARPS = SKINNY_THREADS / WARP;
constexpr int STEP = 32;  // elements along k that a warp multiplies at a time
static_assert(SKINNY_LINES == 16 && SKINNY_DOWN_LINES == 32, "one and two times 16 lines of an mma");

// A matrix whose lines are multiplied.
struct Factor {
    const bf16* data;
    int stride;
    int first;   // line number of this block's first; may lie before line 0
    int count;
    bool vector; // whether lines start on multiples of 16 bytes
};

// Eight elements of a line; zeros outside of the matrix.
__device__ __forceinline__ uint4 load_chunk(const Factor& factor, int line, int at, int k) {
    const bool inside = line >= 0 && line < factor.count && at < k;
    const int valid = inside ? min(8, k - at) : 0;
    const bf16* from = factor.data + (inside ? size_t(line) * factor.stride + at : 0);
    if (factor.vector && valid == 8) {
        return *reinterpret_cast<const uint4*>(from);
    }
    const unsigned short* bits = reinterpret_cast<const unsigned short*>(from);
    unsigned pairs[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const unsigned low = 2 * i < valid ? bits[2 * i] : 0, high = 2 * i + 1 < valid ? bits[2 * i + 1] : 0;
        pairs[i] = low | high << 16;
    }
    return make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
}

__device__ __forceinline__ uint4 masked(const Mask& mask, uint4 x, int line, int at) {
    return mask.row_keys ? drop(mask.key, x, mask.row_keys[line], at / 8) : x;
}

template <int M, int N>
using Sums = float[M][N][4];

template <int N>
__device__ __forceinline__ void multiply(float (&acc)[N][4], uint4 low, uint4 high, const uint4 (&few)[N]) {
    const unsigned first[4] = {low.x, high.x, low.y, high.y}, second[4] = {low.z, high.z, low.w, high.w};
#pragma unroll
    for (int j = 0; j < N; j++) {
        mma(acc[j], first, few[j].x, few[j].y);
        mma(acc[j], second, few[j].z, few[j].w);
    }
}

// One step, of which anything may lie outside.
template <int M, int N>
__device__ __forceinline__ void step(Sums<M, N>& acc, const Factor& many, const Factor& few, const Mask& mask, int k0,
                                     int k) {
    const int lane = threadIdx.x % WARP, at = k0 + lane % 4 * 8;
    uint4 others[N];
#pragma unroll
    for (int j = 0; j < N; j++) {
        others[j] = load_chunk(few, few.first + j * 8 + lane / 4, at, k);
    }
#pragma unroll
    for (int i = 0; i < M; i++) {
        const int line = many.first + i * 16 + lane / 4;
        uint4 low = load_chunk(many, line, at, k), high = load_chunk(many, line + 8, at, k);
        low = masked(mask, low, min(line, many.count - 1), at);
        high = masked(mask, high, min(line + 8, many.count - 1), at);
        multiply(acc[i], low, high, others);
    }
}

// The share of this warp in the sums over k, of lines many.first + 16 M and few.first + 8 N.
template <int M, int N>
__device__ __forceinline__ void sum_up(Sums<M, N>& acc, const Factor& many, const Factor& few, const Mask& mask,
                                       int k) {
    constexpr int UNROLL = 4 / M;  // steps whose loads are started together
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    int k0 = 0;
    if (many.vector && few.vector) {
        // Lines beyond the last stand for it: what they give is not written.
        int lines[M][2];
        const bf16* from[M][2];
#pragma unroll
        for (int i = 0; i < 2 * M; i++) {
            lines[i / 2][i % 2] = min(many.first + i * 8 + lane / 4, many.count - 1);
            from[i / 2][i % 2] = many.data + size_t(lines[i / 2][i % 2]) * many.stride + lane % 4 * 8;
        }
        for (; k0 + WARPS * UNROLL * STEP <= k; k0 += WARPS * UNROLL * STEP) {
            const int own = k0 + warp * UNROLL * STEP;
            uint4 here[UNROLL][M][2];
#pragma unroll
            for (int u = 0; u < UNROLL; u++) {
#pragma unroll
                for (int i = 0; i < 2 * M; i++) {
                    here[u][i / 2][i % 2] =
                        *reinterpret_cast<const uint4*>(from[i / 2][i % 2] + own + u * STEP);
                }
            }
#pragma unroll
            for (int u = 0; u < UNROLL; u++) {
                const int at = own + u * STEP + lane % 4 * 8;
                uint4 others[N];
#pragma unroll
                for (int j = 0; j < N; j++) {
                    const int other = min(few.first + j * 8 + lane / 4, few.count - 1);
                    others[j] = *reinterpret_cast<const uint4*>(few.data + size_t(other) * few.stride + at);
                }
#pragma unroll
                for (int i = 0; i < M; i++) {
                    multiply(acc[i], masked(mask, here[u][i][0], lines[i][0], at),
                             masked(mask, here[u][i][1], lines[i][1], at), others);
                }
            }
        }
    }
    for (k0 += warp * STEP; k0 < k; k0 += WARPS * STEP) {
        step(acc, many, few, mask, k0, k);
    }
}

// Sums of all warps; f(sum, line, other) for each, a thread at a time.
template <int M, int N, typename F>
__device__ __forceinline__ void for_each_sum(const Sums<M, N>& acc, F f) {
    constexpr int COUNT = M * N * 16 * 8;
    __shared__ float of_warp[WARPS][M][N][16][8];
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
#pragma unroll
    for (int i = 0; i < M; i++) {
#pragma unroll
        for (int j = 0; j < N * 2; j++) {
            const float* pair = &acc[i][j / 2][j % 2 * 2];
            *reinterpret_cast<float2*>(&of_warp[warp][i][j / 2][lane / 4 + j % 2 * 8][lane % 4 * 2]) =
                make_float2(pair[0], pair[1]);
        }
    }
    __syncthreads();
    const float* sums = &of_warp[0][0][0][0][0];
    for (int at = threadIdx.x; at < COUNT; at += SKINNY_THREADS) {
        float sum = 0.0f;
#pragma unroll
        for (int other = 0; other < WARPS; other++) {
            sum += sums[other * COUNT + at];
        }
        f(sum, at / (N * 16 * 8) * 16 + at / 8 % 16, at / (16 * 8) % N * 8 + at % 8);
    }
}

template <int N>
__device__ __forceinline__ void linear_of_block(bf16* y, const bf16* x, const bf16* w, const bf16* residual,
                                                const float* bias, const Product& product, const LoraTerms& terms) {
    const int first = blockIdx.x * SKINNY_LINES;
    const Factor weight = {w, product.b_stride, first, product.n, product.b_vector != 0};
    const Factor tokens = {x, product.a_stride, 0, product.m, product.a_vector != 0};
    const Mask none = {{}, nullptr};
    Sums<1, N> acc = {};
    sum_up(acc, weight, tokens, none, product.k);
    for (int i = 0; i < terms.count; i++) {
        const LoraTerm& term = terms.term[i];
        if (first >= term.column + term.columns || first + SKINNY_LINES <= term.column) {
            continue;
        }
        const Factor b = {term.b, term.rank, first - term.column, term.columns, term.vector != 0};
        const Factor xa = {term.xa, term.rank, 0, term.rows, term.vector != 0};
        for (int k0 = threadIdx.x / WARP * STEP; k0 < term.rank; k0 += WARPS * STEP) {
            step(acc, b, xa, none, k0, term.rank);
        }
    }
    for_each_sum(acc, [&](float sum, int line, int token) {
        const int column = first + line;
        if (column < product.n && token < product.m) {
            sum *= product.alpha;
            sum += bias ? bias[column] : 0.0f;
            if (residual) {
                sum += product.beta * __bfloat162float(residual[size_t(token) * product.residual_stride + column]);
            }
            y[size_t(token) * product.y_stride + column] = __float2bfloat16_rn(sum);
        }
    });
}

// One of the adapters that read x, as src/cuda/lora.rs passes it.
struct LoraDown {
    bf16* xa;       // [rows, rank]
    const bf16* a;  // [rank, width]
    Mask mask;      // of x
};

struct LoraDowns {
    LoraDown of[GEMM_TERMS];
};

template <int N>
__device__ __forceinline__ void down_of_block(const LoraDown& adapter, const bf16* x, int rows, int width, int rank,
                                              float scale, bool vector) {
    const int first = blockIdx.y * SKINNY_DOWN_LINES, first_rank = blockIdx.z * N * 8;
    const Factor many = {x, width, first, rows, vector}, few = {adapter.a, width, first_rank, rank, vector};
    const Mask mask = adapter.mask;
    bf16* xa = adapter.xa;
    scale *= mask.key.scale;
    Sums<2, N> acc = {};
    sum_up(acc, many, few, mask, width);
    for_each_sum(acc, [&](float sum, int line, int other) {
        if (first + line < rows && first_rank + other < rank) {
            xa[size_t(first + line) * rank + first_rank + other] = __float2bfloat16_rn(sum * scale);
        }
    });
}

}  // namespace

// y[m, n] = x[m, k] · w[n, k]ᵀ and LoRA, as gemm_nt.cu has it, for m up to 8 times the number in the name. A block for
// SKINNY_LINES columns of y.
#define LINEAR(N)                                                                                                     \
    extern "C" __global__ void __launch_bounds__(SKINNY_THREADS)                                                      \
    linear_skinny_##N(bf16* y, const bf16* x, const bf16* w, const bf16* residual, const float* bias,                 \
                      const Product product, const __grid_constant__ LoraTerms terms) {                               \
        linear_of_block<N>(y, x, w, residual, bias, product, terms);                                                  \
    }

LINEAR(1)
LINEAR(2)
LINEAR(4)

// xa[rows, rank] = scale · dropout(x)[rows, width] · a[rank, width]ᵀ of some adapters; blockIdx.x for an adapter, so that
// those which run at the same time share x in the L2 cache, blockIdx.y for SKINNY_DOWN_LINES rows, blockIdx.z for 8 times
// the number in the name of the rank.
#define DOWN(N)                                                                                                       \
    extern "C" __global__ void __launch_bounds__(SKINNY_THREADS)                                                      \
    lora_down_##N(const bf16* x, const __grid_constant__ LoraDowns adapters, int rows, int width, int rank,           \
                  float scale, int vector) {                                                                          \
        down_of_block<N>(adapters.of[blockIdx.x], x, rows, width, rank, scale, vector);                               \
    }

DOWN(2)
DOWN(4)
