// Sums in a fixed order of what several blocks have added up, and sums that are no products: of columns, and of two
// matrices. Launched by src/cuda/product.rs and src/cuda/gradient.rs.

#include "gemm_epilogue.h"

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
    const float* from = partials + size_t(row) * partial_stride + column;
    Vector<8> sum = load<8>(from);
    for (int split = 1; split < splits; split++) {
        const Vector<8> part = load<8>(from + size_t(split) * product.m * partial_stride);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            sum.v[i] += part.v[i];
        }
    }
    finish<false>({y, residual, bias, nullptr}, product, {}, sum, row, column);
}

// Sums over rows, each with its weight: partials[blockIdx.y, stride] of the columns of x[rows, n]. A block adds up 64
// columns of every gridDim.y-th group of 32 rows; a thread has eight columns of one row in 32.
extern "C" __global__ void __launch_bounds__(COLUMN_SUM_THREADS)
column_sums(float* partials, const bf16* x, const float* row_weight, int rows, int n, int stride, int vector) {
    constexpr int GROUPS = COLUMN_SUM_WIDTH / 8, LANES = COLUMN_SUM_THREADS / GROUPS;
    // Element i of a thread's eight, with a gap that keeps what a warp reads at a time on different banks.
    __shared__ float sums[8][LANES * GROUPS + GROUPS];
    const int group = threadIdx.x % GROUPS, lane = threadIdx.x / GROUPS;
    const int column = blockIdx.x * COLUMN_SUM_WIDTH + group * 8;
    const int valid = min(8, n - column);
    Vector<8> sum = {};
    if (valid > 0) {
        for (int row = blockIdx.y * LANES + lane; row < rows; row += gridDim.y * LANES) {
            const Vector<8> here = load_some(x + size_t(row) * n + column, valid, vector);
            const float weight = row_weight[row];
#pragma unroll
            for (int i = 0; i < 8; i++) {
                sum.v[i] += weight * here.v[i];
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
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
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
