// Sums in a fixed order of what several blocks have added up, and sums that are no products: of
// columns. Launched by src/cuda/product.rs, src/cuda/group.rs and src/cuda/gradient.rs.

#include "gemm_epilogue.h"

namespace {

// Four columns of the sums of all parts, which are of `length` each; all of a warp read neighbouring memory.
__device__ __forceinline__ Vector<4> sum_of_parts(const float* from, int splits, size_t length) {
    Vector<4> sum = load<4>(from);
    for (int split = 1; split < splits; split++) {
        const Vector<4> part = load<4>(from + split * length);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            sum.v[i] += part.v[i];
        }
    }
    return sum;
}

// Quads 2i and 2i + 1 of a warp's 64 for lane i, where lane i has the quads i and 32 + i.
__device__ __forceinline__ Vector<8> neighbouring(const Vector<4>& low, const Vector<4>& high) {
    const int lane = threadIdx.x % WARP, from = 2 * lane % WARP;
    Vector<8> both;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float of_low = __shfl_sync(ALL_LANES, low.v[i % 4], from + i / 4);
        const float of_high = __shfl_sync(ALL_LANES, high.v[i % 4], from + i / 4);
        both.v[i] = lane < WARP / 2 ? of_low : of_high;
    }
    return both;
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
    int y_stride;
};

struct SplitProducts {
    SplitProduct of[GROUP_PRODUCTS];
    int count;
    int padding;
};

}  // namespace

// The parts of a product, [splits, m, partial_stride] as gemm_tile.h leaves them, become y. A thread does eight columns, but
// adds up two quads 32 apart, so that a warp reads 512 bytes without gaps; ELEMENT_THREADS is a multiple of 32.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS, 6)
gemm_reduce(void* y, const float* partials, const bf16* residual, const float* bias, const Product product, int splits,
            int partial_stride) {
    const int groups = partial_stride / 8, lane = threadIdx.x % WARP;
    const size_t group = size_t(blockIdx.x) * ELEMENT_THREADS + threadIdx.x;
    const size_t quads = size_t(product.m) * groups * 2, quad = (group - lane) * 2 + lane;
    Vector<4> low = {}, high = {};
    if (quad < quads) {
        low = sum_of_parts(partials + quad * 4, splits, quads * 4);
    }
    if (quad + WARP < quads) {
        high = sum_of_parts(partials + (quad + WARP) * 4, splits, quads * 4);
    }
    const Vector<8> sum = neighbouring(low, high);
    if (group >= quads / 2) {
        return;
    }
    const int row = group / groups, column = group % groups * 8;
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
    const Vector<4> sum = sum_of_parts(own.partials + group * 4, own.splits, size_t(own.rows) * own.stride);
    float* y = own.y + size_t(row) * own.y_stride + column;
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

namespace {

// A matrix whose rows are added up, as src/cuda/gradient.rs passes it.
struct ColumnSum {
    float* partials;          // [parts, stride]
    const bf16* x;            // [rows, n]
    const float* row_weight;  // [rows]
    int rows;
    int n;
    int x_stride;
    int stride;
    int vector;               // whether rows of x start on multiples of 16 bytes
    int parts;
    int column_blocks;
    int first_block;
};

struct ColumnSums {
    ColumnSum of[COLUMN_SUMS];
    int count;
    int padding;
};

}  // namespace

// Sums over rows, each with its weight, of some matrices: the partials above. A block adds up COLUMN_SUM_WIDTH columns of
// every parts-th group of COLUMN_SUM_THREADS rows; a thread has eight columns of one row in 16.
extern "C" __global__ void __launch_bounds__(COLUMN_SUM_THREADS, 6)
column_sums(const __grid_constant__ ColumnSums several) {
    constexpr int GROUPS = COLUMN_SUM_WIDTH / 8, LANES = COLUMN_SUM_THREADS / GROUPS;
    // Element i of a thread's eight, with a gap that keeps what a warp reads at a time on different banks.
    __shared__ float sums[8][COLUMN_SUM_THREADS + 4];
    __shared__ float weights[COLUMN_SUM_THREADS];
    int member = several.count - 1;
    while (int(blockIdx.x) < several.of[member].first_block) {
        member--;
    }
    const ColumnSum& own = several.of[member];
    const int block = (blockIdx.x - own.first_block) % own.column_blocks;
    const int part = (blockIdx.x - own.first_block) / own.column_blocks;
    const int group = threadIdx.x % GROUPS, lane = threadIdx.x / GROUPS;
    const int column = block * COLUMN_SUM_WIDTH + group * 8;
    const int valid = max(0, min(8, own.n - column));
    Vector<8> sum = {};
    for (int first = part * COLUMN_SUM_THREADS; first < own.rows; first += own.parts * COLUMN_SUM_THREADS) {
        const int here = min(COLUMN_SUM_THREADS, own.rows - first);
        __syncthreads();  // all are done with the weights before these
        if (threadIdx.x < here) {
            weights[threadIdx.x] = own.row_weight[first + threadIdx.x];
        }
        __syncthreads();
        for (int row = valid > 0 ? lane : here; row < here; row += LANES) {
            const Vector<8> more = load_some(own.x + size_t(first + row) * own.x_stride + column, valid, own.vector);
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
    const int at = block * COLUMN_SUM_WIDTH + threadIdx.x;
    if (threadIdx.x < COLUMN_SUM_WIDTH && at < own.stride) {
        float total = 0.0f;
        for (int i = 0; i < LANES; i++) {
            total += sums[threadIdx.x % 8][i * GROUPS + threadIdx.x / 8];
        }
        own.partials[size_t(part) * own.stride + at] = total;
    }
}
