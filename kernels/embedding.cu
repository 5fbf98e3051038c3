// Embedding tables. Contract: src/ops/embedding.rs.

#include "common.h"

// f(at) for a thread's vectors of N elements of a row.
template <int N, typename F>
__device__ __forceinline__ void for_each_vector(int width, F f) {
    for (int at = threadIdx.x * N; at < width; at += blockDim.x * N) {
        f(at);
    }
}

// out[rows, width] = table[ids[row], width], whose rows lie `stride` elements apart. One block per row. With width a
// multiple of 8, out starts on a multiple of 16 bytes; a row of the table always does.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
embed(bf16* out, const bf16* table, const unsigned* ids, int width, int stride) {
    bf16* to = out + size_t(blockIdx.x) * width;
    const bf16* from = table + size_t(ids[blockIdx.x]) * stride;
    if (width % 8 == 0) {
        for_each_vector<8>(width, [&](int at) {
            *reinterpret_cast<uint4*>(to + at) = *reinterpret_cast<const uint4*>(from + at);
        });
    } else {
        for_each_vector<1>(width, [&](int at) { to[at] = from[at]; });
    }
}

// The same from a table[·, width] of f32, rounded.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
gather(bf16* out, const float* table, const unsigned* ids, int width) {
    bf16* to = out + size_t(blockIdx.x) * width;
    const float* from = table + size_t(ids[blockIdx.x]) * width;
    if (width % 8 == 0) {
        for_each_vector<4>(width, [&](int at) {
            const float4 quad = *reinterpret_cast<const float4*>(from + at);
            store_quad(to + at, quad);
        });
    } else {
        for_each_vector<1>(width, [&](int at) { store(to + at, load<1>(from + at)); });
    }
}

// order[rows] = the rows sorted by id, those of one id in their order: a row goes after all with a smaller id and after
// earlier ones with the same. Any grid of ELEMENT_THREADS threads.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
sort_rows(unsigned* order, const unsigned* ids, int rows) {
    __shared__ unsigned tile[ELEMENT_THREADS];
    const int row = blockIdx.x * ELEMENT_THREADS + threadIdx.x;
    const unsigned id = row < rows ? ids[row] : 0;
    int place = 0;
    for (int first = 0; first < rows; first += ELEMENT_THREADS) {
        const int count = min(ELEMENT_THREADS, rows - first);
        if (threadIdx.x < count) {
            tile[threadIdx.x] = ids[first + threadIdx.x];
        }
        __syncthreads();
        for (int i = 0; i < count; i++) {
            place += tile[i] < id || (tile[i] == id && first + i < row);
        }
        __syncthreads();
    }
    if (row < rows) {
        order[place] = row;
    }
}

// dtable[ids[row], width] += Σ row_weight[row] · dout[row, width] over the rows of one id, in their order. One block per
// place in `order`; the block at an id's first place adds up all of them, the others have nothing to do.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
scatter_add(float* dtable, const bf16* dout, const unsigned* ids, const unsigned* order, const float* row_weight,
            int rows, int width) {
    const int place = blockIdx.x;
    const unsigned id = ids[order[place]];
    if (place > 0 && ids[order[place - 1]] == id) {
        return;
    }
    for (int column = threadIdx.x; column < width; column += blockDim.x) {
        float sum = dtable[size_t(id) * width + column];
        for (int i = place; i < rows && ids[order[i]] == id; i++) {
            const unsigned row = order[i];
            sum += row_weight[row] * __bfloat162float(dout[size_t(row) * width + column]);
        }
        dtable[size_t(id) * width + column] = sum;
    }
}
