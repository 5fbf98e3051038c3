// Products of many lines with few: a frozen weight with the tokens of a decoding step, and a batch with the rows of a
// lora_A. The many are read once, 16 bytes at a time, straight into the registers of the tensor cores; the few come from
// the L1 cache. Launched by src/cuda/linear.rs and src/cuda/lora.rs.
//
// The first half of a feed-forward is such a product too, whose result needs no memory: of the 16 lines of a block, 8 are of
// the gate and 8 the same of what it gates.
//
// A block has 16 M of the many lines and 8 N of the few, or 8 N of each of several few (the lora_A that read one batch); its
// warps share k and add up what they have in a fixed order. The order of k within an mma is free as long as both factors
// agree: thread t of a quad takes elements 8t to 8t + 7 of 32, which are one access for each line and, for dropout, one group
// of a mask.

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
    int gap = 8; // from the first to the second half of 16 lines

    // Line number of the first of 8 lines: that is what half a tile of an mma takes.
    __device__ __forceinline__ int eighth(int i) const {
        return first + i / 2 * 16 + i % 2 * gap;
    }
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

// The same where it is there as a whole, or not at all.
__device__ __forceinline__ uint4 load_vector(const bf16* from, bool inside) {
    return inside ? *reinterpret_cast<const uint4*>(from) : make_uint4(0, 0, 0, 0);
}

__device__ __forceinline__ uint4 masked(const Mask& mask, uint4 x, int line, int at) {
    return mask.row_keys ? drop(mask.key, x, mask.row_keys[line], at / 8) : x;
}

// What the many are multiplied with: some matrices of one shape, for each of which the many are masked.
template <int A>
struct Others {
    const bf16* data[A];
    Mask mask[A];
    int stride;
    int first;
    int count;
    bool vector;

    __device__ __forceinline__ Factor of(int a) const {
        return {data[a], stride, first, count, vector};
    }
};

// Sums of 16 M lines with 8 N others.
template <int M, int N>
using Sums = float[M][N][4];

// The same with each of A matrices of others.
template <int A, int M, int N>
using SumsOfEach = float[A][M][N][4];

// acc += 16 lines, as their first and second eight, times 8 others.
__device__ __forceinline__ void multiply(float (&acc)[4], uint4 low, uint4 high, uint4 others) {
    const unsigned first[4] = {low.x, high.x, low.y, high.y}, second[4] = {low.z, high.z, low.w, high.w};
    mma(acc, first, others.x, others.y);
    mma(acc, second, others.z, others.w);
}

// One step, of which anything may lie outside.
template <int M, int N>
__device__ __forceinline__ void step(Sums<M, N>& acc, const Factor& many, const Factor& few, const Mask& mask, int k0,
                                     int k) {
    const int lane = threadIdx.x % WARP, at = k0 + lane % 4 * 8;
    uint4 here[2 * M];
#pragma unroll
    for (int i = 0; i < 2 * M; i++) {
        const int line = many.eighth(i) + lane / 4;
        here[i] = masked(mask, load_chunk(many, line, at, k), min(line, many.count - 1), at);
    }
    // The others one after the other: there are no registers for all of them.
#pragma unroll
    for (int j = 0; j < N; j++) {
        const uint4 others = load_chunk(few, few.first + j * 8 + lane / 4, at, k);
#pragma unroll
        for (int i = 0; i < M; i++) {
            multiply(acc[i][j], here[2 * i], here[2 * i + 1], others);
        }
    }
}

// One step, where a thread's eight elements are there as a whole or not at all: `many`, which have been read, with each of
// the others in turn. `few` is where a thread's elements of a matrix begin.
template <int A, int M, int N>
__device__ __forceinline__ void multiply_each(SumsOfEach<A, M, N>& acc, const uint4 (&many)[2 * M],
                                              const int (&lines)[2 * M], const Others<A>& others, const int (&few)[N],
                                              int k0, bool inside) {
#pragma unroll
    for (int a = 0; a < A; a++) {
        uint4 other[N];
#pragma unroll
        for (int j = 0; j < N; j++) {
            other[j] = load_vector(others.data[a] + few[j] + k0, inside);
        }
        Mask mask = others.mask[a];
        if (A > 1) {
            // The keys of Philox's rounds are made here: those of several masks, kept, would fill the registers.
            asm volatile("" : "+l"(mask.key.seed));
        }
#pragma unroll
        for (int i = 0; i < M; i++) {
            const int at = k0 + threadIdx.x % 4 * 8;
            const uint4 low = masked(mask, many[2 * i], lines[2 * i], at);
            const uint4 high = masked(mask, many[2 * i + 1], lines[2 * i + 1], at);
#pragma unroll
            for (int j = 0; j < N; j++) {
                multiply(acc[a][i][j], low, high, other[j]);
            }
        }
    }
}

// The share of this warp in the sums over k, of lines many.first + 16 M with others.first + 8 N of each of the others: the
// same sums whatever A is, as neither the part of k that a warp has nor its order depend on it. With several others, all
// lines have to start on multiples of 16 bytes.
template <int A, int M, int N>
__device__ __forceinline__ void sum_up(SumsOfEach<A, M, N>& acc, const Factor& many, const Others<A>& others, int k) {
    constexpr int UNROLL = 4 / M;                 // steps along k that are one warp's
    constexpr int AT_ONCE = A == 1 ? UNROLL : 1;  // those of them whose loads are started together
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    int k0 = 0;
    if (A > 1 || (many.vector && others.vector)) {
        // Lines beyond the last stand for it: what they give is not written.
        int lines[2 * M], few[N];
        const bf16* from[2 * M];
#pragma unroll
        for (int i = 0; i < 2 * M; i++) {
            lines[i] = min(many.eighth(i) + lane / 4, many.count - 1);
            from[i] = many.data + size_t(lines[i]) * many.stride + lane % 4 * 8;
        }
#pragma unroll
        for (int j = 0; j < N; j++) {
            few[j] = min(others.first + j * 8 + lane / 4, others.count - 1) * others.stride + lane % 4 * 8;
        }
        for (; k0 + WARPS * UNROLL * STEP <= k; k0 += WARPS * UNROLL * STEP) {
#pragma unroll 1
            for (int part = 0; part < UNROLL; part += AT_ONCE) {
                const int own = k0 + (warp * UNROLL + part) * STEP;
                uint4 here[AT_ONCE][2 * M];
#pragma unroll
                for (int i = 0; i < AT_ONCE * 2 * M; i++) {
                    const int u = i / (2 * M);
                    here[u][i % (2 * M)] = load_vector(from[i % (2 * M)] + own + u * STEP, true);
                }
#pragma unroll
                for (int u = 0; u < AT_ONCE; u++) {
                    multiply_each(acc, here[u], lines, others, few, own + u * STEP, true);
                }
            }
        }
        for (int at = k0 + warp * STEP; A > 1 && at < k; at += WARPS * STEP) {
            const bool inside = at + lane % 4 * 8 < k;
            uint4 here[2 * M];
#pragma unroll
            for (int i = 0; i < 2 * M; i++) {
                here[i] = load_vector(from[i] + at, inside);
            }
            multiply_each(acc, here, lines, others, few, at, inside);
        }
    }
    for (k0 += warp * STEP; A == 1 && k0 < k; k0 += WARPS * STEP) {
        step(acc[0], many, others.of(0), others.mask[0], k0, k);
    }
}

// What all warps have added up, one of 16 M · 8 N sums.
template <int COUNT>
__device__ __forceinline__ float sum_of_warps(const float* sums, int at) {
    float sum = 0.0f;
#pragma unroll
    for (int warp = 0; warp < WARPS; warp++) {
        sum += sums[warp * COUNT + at];
    }
    return sum;
}

// Leaves the sums of each warp in shared memory, [WARPS][M][N][16][8].
template <int M, int N>
__device__ __forceinline__ const float* share_sums(const Sums<M, N>& acc) {
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
    return &of_warp[0][0][0][0][0];
}

// f(sum, line, other) for each sum, a thread at a time.
template <int M, int N, typename F>
__device__ __forceinline__ void for_each_sum(const Sums<M, N>& acc, F f) {
    constexpr int COUNT = M * N * 16 * 8;
    const float* sums = share_sums(acc);
    for (int at = threadIdx.x; at < COUNT; at += SKINNY_THREADS) {
        f(sum_of_warps<COUNT>(sums, at), at / (N * 16 * 8) * 16 + at / 8 % 16, at / (16 * 8) % N * 8 + at % 8);
    }
}

// f(first, second, line, other) for each of the lines of the first half and what lies `gap` lines after it.
template <int N, typename F>
__device__ __forceinline__ void for_each_pair(const Sums<1, N>& acc, F f) {
    constexpr int COUNT = N * 16 * 8;
    const float* sums = share_sums(acc);
    for (int i = threadIdx.x; i < COUNT / 2; i += SKINNY_THREADS) {
        const int line = i / 8 % 8, other = i / 64 * 8 + i % 8, at = i / 64 * 128 + i % 64;
        f(sum_of_warps<COUNT>(sums, at), sum_of_warps<COUNT>(sums, at + 64), line, other);
    }
}

// Adds the LoRA of the lines of a block.
template <int N>
__device__ __forceinline__ void add_terms(SumsOfEach<1, 1, N>& acc, const Factor& weight, const LoraTerms& terms) {
    for (int i = 0; i < terms.count; i++) {
        const LoraTerm& term = terms.term[i];
        const int first = weight.first - term.column, second = first + weight.gap;
        const bool meets_first = first < term.columns && first + 8 > 0;
        const bool meets_second = second < term.columns && second + 8 > 0;
        if (!meets_first && !meets_second) {
            continue;
        }
        const Factor b = {term.b, term.rank, first, term.columns, term.vector != 0, weight.gap};
        const Factor xa = {term.xa, term.rank, 0, term.rows, term.vector != 0};
        for (int k0 = threadIdx.x / WARP * STEP; k0 < term.rank; k0 += WARPS * STEP) {
            step(acc[0], b, xa, {}, k0, term.rank);
        }
    }
}

template <int N>
__device__ __forceinline__ void linear_of_block(bf16* y, const bf16* x, const bf16* w, const bf16* residual,
                                                const float* bias, const Product& product, const LoraTerms& terms) {
    const int first = blockIdx.x * SKINNY_LINES;
    const Factor weight = {w, product.b_stride, first, product.n, product.b_vector != 0};
    const Others<1> tokens = {{x}, {}, product.a_stride, 0, product.m, product.a_vector != 0};
    SumsOfEach<1, 1, N> acc = {};
    sum_up(acc, weight, tokens, product.k);
    add_terms(acc, weight, terms);
    for_each_sum(acc[0], [&](float sum, int line, int token) {
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

template <int N>
__device__ __forceinline__ void gated_of_block(bf16* h, const bf16* x, const bf16* w, const Product& product,
                                               const LoraTerms& terms) {
    const int width = product.n / 2, first = blockIdx.x * (SKINNY_LINES / 2);
    const Factor weight = {w, product.b_stride, first, product.n, product.b_vector != 0, width};
    const Others<1> tokens = {{x}, {}, product.a_stride, 0, product.m, product.a_vector != 0};
    SumsOfEach<1, 1, N> acc = {};
    sum_up(acc, weight, tokens, product.k);
    add_terms(acc, weight, terms);
    for_each_pair(acc[0], [&](float gate, float up, int line, int token) {
        const int column = first + line;
        if (column < width && token < product.m) {
            h[size_t(token) * product.y_stride + column] = __float2bfloat16_rn(swiglu(gate, up));
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
    int count;
    int together;  // adapters of a block; the last block may have fewer
};

struct DownShape {
    int rows;
    int width;
    int rank;
    int vector;  // whether rows of x and of each a start on multiples of 16 bytes
};

template <int A, int N>
__device__ __forceinline__ void down_of_block(const LoraDown* adapters, const bf16* x, const DownShape& shape,
                                              float scale) {
    const bool vector = shape.vector != 0;
    const int first = blockIdx.y * SKINNY_DOWN_LINES, first_rank = blockIdx.z * N * 8;
    const Factor many = {x, shape.width, first, shape.rows, vector};
    Others<A> others = {{}, {}, shape.width, first_rank, shape.rank, vector};
#pragma unroll
    for (int a = 0; a < A; a++) {
        others.data[a] = adapters[a].a;
        others.mask[a] = adapters[a].mask;
    }
    SumsOfEach<A, 2, N> acc = {};
    sum_up(acc, many, others, shape.width);
#pragma unroll
    for (int a = 0; a < A; a++) {
        bf16* xa = adapters[a].xa;
        const float factor = scale * adapters[a].mask.key.scale;
        if (a > 0) {
            __syncthreads();  // the sums of the adapter before are read
        }
        for_each_sum(acc[a], [&](float sum, int line, int other) {
            if (first + line < shape.rows && first_rank + other < shape.rank) {
                xa[size_t(first + line) * shape.rank + first_rank + other] = __float2bfloat16_rn(sum * factor);
            }
        });
    }
}

// A block's share of the adapters, at most MOST of them.
template <int MOST, int N>
__device__ __forceinline__ void down(const LoraDowns& adapters, const bf16* x, const DownShape& shape, float scale) {
    const int first = blockIdx.x * adapters.together;
    const int count = min(adapters.together, adapters.count - first);
    if constexpr (MOST > 1) {
        if (count < MOST) {
            down<MOST - 1, N>(adapters, x, shape, scale);
            return;
        }
    }
    down_of_block<MOST, N>(adapters.of + first, x, shape, scale);
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

// h[m, n / 2] = silu(gate) · up for [gate | up] = x[m, k] · w[n, k]ᵀ and LoRA; n is even. A block for SKINNY_LINES / 2 columns
// of h.
#define GATED(N)                                                                                                      \
    extern "C" __global__ void __launch_bounds__(SKINNY_THREADS)                                                      \
    gated_skinny_##N(bf16* h, const bf16* x, const bf16* w, const Product product,                                    \
                     const __grid_constant__ LoraTerms terms) {                                                       \
        gated_of_block<N>(h, x, w, product, terms);                                                                   \
    }

GATED(1)
GATED(2)
GATED(4)

// xa[rows, rank] = scale · dropout(x)[rows, width] · a[rank, width]ᵀ of some adapters; blockIdx.x for some of them,
// blockIdx.y for SKINNY_DOWN_LINES rows, blockIdx.z for 8 times the number in the name of the rank. A piece of x is read
// once for all adapters of a block, and masked for each.
#define DOWN(MOST, N)                                                                                                 \
    extern "C" __global__ void __launch_bounds__(SKINNY_THREADS, 2)                                                   \
    lora_down_##N(const bf16* x, const __grid_constant__ LoraDowns adapters, const DownShape shape, float scale) {    \
        down<MOST, N>(adapters, x, shape, scale);                                                                     \
    }

DOWN(SKINNY_DOWN_ADAPTERS, 2)
DOWN(1, 4)
