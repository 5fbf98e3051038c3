// Gradients of biases: sums over rows.

#include "arrival.h"
#include "gemm_epilogue.h"

namespace {

// A matrix whose rows are added up, as src/cuda/gradient.rs passes it.
struct ColumnSum {
    float* y;                 // [n], to which the sums are added
    float* partials;          // [parts, n]
    unsigned* arrived;        // [column_blocks]: blocks that have left theirs; 0 before and after
    const bf16* x;            // [rows, n]
    const float* row_weight;  // [rows]
    int rows;
    int n;
    int x_stride;
    int vector;               // whether rows of x start on multiples of 16 bytes
    int parts;
    int column_blocks;
    int first_block;
    int padding;
};

struct ColumnSums {
    ColumnSum of[COLUMN_SUMS];
    int count;
    int padding;
};

// The sum of a column, of a part of the rows: adds it to y, in the last block of several with those of all parts.
__device__ __forceinline__ void finish(const ColumnSum& own, float sum, int part, int block, int column,
                                       bool has_column) {
    if (own.parts > 1) {
        if (has_column) {
            own.partials[size_t(part) * own.n + column] = sum;
        }
        if (!is_last_block(own.arrived + block, own.parts)) {
            return;
        }
        sum = 0.0f;
        for (int i = 0; has_column && i < own.parts; i++) {
            sum += __ldcg(own.partials + size_t(i) * own.n + column);
        }
    }
    if (has_column) {
        own.y[column] += sum;
    }
}

}  // namespace

// Sums over rows, each with its weight, of some matrices. A block adds up COLUMN_SUM_WIDTH columns of every parts-th group
// of COLUMN_SUM_THREADS rows; a thread has eight columns of one row in 16. The last block of some columns adds up the parts.
extern "C" __global__ void __launch_bounds__(COLUMN_SUM_THREADS, 5)
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
    const bool has_column = threadIdx.x < COLUMN_SUM_WIDTH && at < own.n;
    float total = 0.0f;
    for (int i = 0; has_column && i < LANES; i++) {
        total += sums[threadIdx.x % 8][i * GROUPS + threadIdx.x / 8];
    }
    finish(own, total, part, block, at, has_column);
}
