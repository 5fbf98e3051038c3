// Gradients of biases: column sums. The products of `matmul` are in gemm_*.cu.

#include "arrival.h"
#include "gemm_epilogue.h"

namespace {

// A matrix whose columns are summed, as src/cuda/matmul.rs passes it.
struct KERNEL_PARAMETER ColumnSum {
    float* y;                  // [n], accumulated
    SplitWorkspace workspace;  // partials are [splits, n], arrivals [column_blocks]
    const bf16* x;             // [rows, n]
    const float* row_weight;   // [rows]
    int rows;
    int n;
    int x_stride;
    int vector;  // whether rows of x start on multiples of 16 bytes
    int splits;  // of the rows
    int column_blocks;
    int first_block;
    int padding;
};

struct KERNEL_PARAMETER ColumnSums {
    ColumnSum of[COLUMN_SUMS];
    int count;
    int padding;
};

// Adds the sum of a column over a split of the rows to y; of several splits, the block that arrives last adds
// all sums.
__device__ __forceinline__ void accumulate_column(const ColumnSum& own, float sum, int split, int block,
                                                  int column, bool has_column) {
    if (own.splits > 1) {
        if (has_column) {
            own.workspace.partials[size_t(split) * own.n + column] = sum;
        }
        if (!is_last_block(own.workspace.arrivals + block, own.splits)) {
            return;
        }
        sum = 0.0f;
        for (int i = 0; has_column && i < own.splits; i++) {
            sum += __ldcg(own.workspace.partials + size_t(i) * own.n + column);
        }
    }
    if (has_column) {
        own.y[column] += sum;
    }
}

}  // namespace

// Column sums of some matrices, each row with its weight. A block sums COLUMN_SUM_WIDTH columns of every
// splits-th group of COLUMN_SUM_THREADS rows; a thread has eight columns of one row in 16. The last block to
// arrive reduces the splits.
extern "C" __global__ void __launch_bounds__(COLUMN_SUM_THREADS, 5)
    column_sums(const __grid_constant__ ColumnSums several) {
    constexpr int GROUPS = COLUMN_SUM_WIDTH / 8, LANES = COLUMN_SUM_THREADS / GROUPS;
    // Element i of a thread's eight, with padding that avoids bank conflicts when a warp reads them.
    __shared__ float sums[8][COLUMN_SUM_THREADS + 4];
    __shared__ float weights[COLUMN_SUM_THREADS];
    int member = several.count - 1;
    while (int(blockIdx.x) < several.of[member].first_block) {
        member--;
    }
    const ColumnSum& own = several.of[member];
    const int block = (blockIdx.x - own.first_block) % own.column_blocks;
    const int split = (blockIdx.x - own.first_block) / own.column_blocks;
    const int group = threadIdx.x % GROUPS, lane = threadIdx.x / GROUPS;
    const int column = block * COLUMN_SUM_WIDTH + group * 8;
    const int valid = max(0, min(8, own.n - column));
    Vector<8> sum = {};
    for (int first = split * COLUMN_SUM_THREADS; first < own.rows; first += own.splits * COLUMN_SUM_THREADS) {
        const int here = min(COLUMN_SUM_THREADS, own.rows - first);
        __syncthreads();  // all threads are done with the previous weights
        if (threadIdx.x < here) {
            weights[threadIdx.x] = own.row_weight[first + threadIdx.x];
        }
        __syncthreads();
        for (int row = valid > 0 ? lane : here; row < here; row += LANES) {
            const Vector<8> more =
                load_partial(own.x + size_t(first + row) * own.x_stride + column, valid, own.vector);
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
    accumulate_column(own, total, split, block, at, has_column);
}
