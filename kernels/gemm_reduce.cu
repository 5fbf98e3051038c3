// Sums in a fixed order of what several blocks have added up, and sums that are no products: of columns, and of two
// matrices. Launched by src/cuda/product.rs and src/cuda/gradient.rs.

#include "gemm_epilogue.h"

namespace {

// N columns, from a multiple of N on, of a row of the sums of all parts, which are [splits, rows, stride].
template <int N>
__device__ __forceinline__ Vector<N> sum_of_parts(const float* partials, int splits, int rows, int stride, int row,
                                                  int column) {
    const float* from = partials + size_t(row) * stride + column;
    Vector<N> sum = load<N>(from);
    for (int split = 1; split < splits; split++) {
        const Vector<N> part = load<N>(from + size_t(split) * rows * stride);
#pragma unroll
        for (int i = 0; i < N; i++) {
            sum.v[i] += part.v[i];
        }
    }
    return sum;
}

// A product whose parts are added up, as src/cuda/group.rs passes it.
struct SplitProduct {
    float* y;               // [rows, columns], to which alpha times the sums are added
    const float* partials;  // [splits, rows, stride]
    float alpha;
    int rows;
    int columns;
    int stride;
    int splits;
    int vector;             // whether rows of y start on multiples of 16 bytes
    int first_block;
    int padding;
};

struct SplitProducts {
    SplitProduct of[LORA_PRODUCTS];
    int count;
    int padding;
};

}  // namespace

// The parts of a product, [splits, m, partial_stride] as gemm_tile.h leaves them, become y. A thread does eight columns.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS, 6)
gemm_reduce(void* y, const float* partials, const bf16* residual, const float* bias, const Product product, int splits,
            int partial_stride) {
    const int groups = partial_stride / 8;
    const size_t group = size_t(blockIdx.x) * ELEMENT_THREADS + threadIdx.x;
    if (group >= size_t(product.m) * groups) {
        return;
    }
    const int row = group / groups, column = group % groups * 8;
    const Vector<8> sum = sum_of_parts<8>(partials, splits, product.m, partial_stride, row, column);
    finish({y, residual, bias}, product, sum, row, column);
}

// The same for several products that are added to f32; each has blocks of its own, from first_block on. A thread does four
// columns.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS, 6)
gemm_reduce_several(const __grid_constant__ SplitProducts several) {
    int i = several.count - 1;
    while (int(blockIdx.x) < several.of[i].first_block) {
        i--;
    }
    const SplitProduct& own = several.of[i];
    const int groups = own.stride / 4;
    const size_t group = size_t(blockIdx.x - own.first_block) * ELEMENT_THREADS + threadIdx.x;
    if (group >= size_t(own.rows) * groups) {
        return;
    }
    const int row = group / groups, column = group % groups * 4;
    const Vector<4> sum = sum_of_parts<4>(own.partials, own.splits, own.rows, own.stride, row, column);
    float* y = own.y + size_t(row) * own.columns + column;
    if (own.vector && column + 4 <= own.columns) {
        Vector<4> total = load<4>(y);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            total.v[j] += own.alpha * sum.v[j];
        }
        store(y, total);
        return;
    }
#pragma unroll
    for (int j = 0; j < 4; j++) {
        if (column + j < own.columns) {
            y[j] += own.alpha * sum.v[j];
        }
    }
}

// Sums over rows, each with its weight: partials[blockIdx.y, stride] of the columns of x[rows, n]. A block adds up
// COLUMN_SUM_WIDTH columns of every gridDim.y-th group of COLUMN_SUM_THREADS rows; a thread has eight columns of one row in
// 16.
extern "C" __global__ void __launch_bounds__(COLUMN_SUM_THREADS)
column_sums(float* partials, const bf16* x, const float* row_weight, int rows, int n, int stride, int vector) {
    constexpr int GROUPS = COLUMN_SUM_WIDTH / 8, LANES = COLUMN_SUM_THREADS / GROUPS;
    // Element i of a thread's eight, with a gap that keeps what a warp reads at a time on different banks.
    __shared__ float sums[8][LANES * GROUPS + GROUPS];
    __shared__ float weights[COLUMN_SUM_THREADS];
    const int group = threadIdx.x % GROUPS, lane = threadIdx.x / GROUPS;
    const int column = blockIdx.x * COLUMN_SUM_WIDTH + group * 8;
    const int valid = max(0, min(8, n - column));
    Vector<8> sum = {};
    for (int first = blockIdx.y * COLUMN_SUM_THREADS; first < rows; first += gridDim.y * COLUMN_SUM_THREADS) {
        const int here = min(COLUMN_SUM_THREADS, rows - first);
        __syncthreads();  // all are done with the weights before these
        if (threadIdx.x < here) {
            weights[threadIdx.x] = row_weight[first + threadIdx.x];
        }
        __syncthreads();
        for (int row = valid > 0 ? lane : here; row < here; row += LANES) {
            const Vector<8> more = load_some(x + size_t(first + row) * n + column, valid, vector);
            const float weight = weights[row];
#pragma unroll
            for (int i = 0; i < 8; i++) {
                sum.v[i] += weight * more.v[i];
            }
        }
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        sums[i][threadIdx.x] = sum.v[i];
    }
    __syncthreads();
    const int own = blockIdx.x * COLUMN_SUM_WIDTH + group * 8 + lane;
    if (threadIdx.x < COLUMN_SUM_WIDTH && own < stride) {
        float total = 0.0f;
        for (int i = 0; i < LANES; i++) {
            total += sums[lane][i * GROUPS + group];
        }
        partials[size_t(blockIdx.y) * stride + own] = total;
    }
}

// y[rows, columns] += x, a thread for eight columns of a row; strides are elements from one row to the next.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS, 6)
accumulate(float* y, const bf16* x, int rows, int columns, int y_stride, int x_stride, int vector) {
    const int groups = (columns + 7) / 8;
    const size_t group = size_t(blockIdx.x) * ELEMENT_THREADS + threadIdx.x;
    if (group >= size_t(rows) * groups) {
        return;
    }
    const int row = group / groups, column = group % groups * 8, valid = min(8, columns - column);
    float* to = y + size_t(row) * y_stride + column;
    Vector<8> sum = load_some(to, valid, vector);
    const Vector<8> more = load_some(x + size_t(row) * x_stride + column, valid, vector);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        sum.v[i] += more.v[i];
    }
    store_some(to, sum, valid, vector);
}
