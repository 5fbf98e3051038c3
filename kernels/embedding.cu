// Embedding tables. Contract: src/ops/embedding.rs.

#include "common.h"
#include "refusal.h"

// The id of this block's row; the table's `count` stands for one that is refused.
template <unsigned OPERATION>
__device__ __forceinline__ unsigned id_of_block(const unsigned* ids, unsigned count, Refusal* refusal) {
    const unsigned row = blockIdx.x, id = ids[row];
    if (id >= count && threadIdx.x == 0) {
        refuse(refusal, OPERATION, row, id, count);
    }
    return min(id, count);
}

// out[rows, width] = table[ids[row], width], whose `count` rows lie `stride` elements apart. One block per
// row. With width a multiple of 8, out starts on a multiple of 16 bytes; a row of the table always does. The
// row of an id beyond the table is left alone.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
    embed(bf16* out, const bf16* table, const unsigned* ids, Refusal* refusal, int width, int stride,
          int count) {
    const unsigned id = id_of_block<REFUSED_EMBED>(ids, count, refusal);
    if (id == count) {
        return;
    }
    bf16* to = out + size_t(blockIdx.x) * width;
    const bf16* from = table + size_t(id) * stride;
    if (width % 8 == 0) {
        for_each_vector<8>(width, [&](int at) {
            *reinterpret_cast<uint4*>(to + at) = *reinterpret_cast<const uint4*>(from + at);
        });
    } else {
        for_each_vector<1>(width, [&](int at) { to[at] = from[at]; });
    }
}

// out[rows, width] = table[ids[row], width], rounded, from a table[count, width] of f32.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
    gather(bf16* out, const float* table, const unsigned* ids, Refusal* refusal, int width, int count) {
    const unsigned id = id_of_block<REFUSED_GATHER>(ids, count, refusal);
    if (id == count) {
        return;
    }
    bf16* to = out + size_t(blockIdx.x) * width;
    const float* from = table + size_t(id) * width;
    if (width % 8 == 0) {
        for_each_vector<4>(width, [&](int at) {
            const float4 quad = *reinterpret_cast<const float4*>(from + at);
            store_quad(to + at, quad);
        });
    } else {
        for_each_vector<1>(width, [&](int at) { store(to + at, load<1>(from + at)); });
    }
}

// Stable sort of the rows by id: order[rows] are row indices, sorted_ids and sorted_weights [rows] the ids
// and row_weights in that order. A row's rank is the number of rows with a smaller id, or with the same id
// and an earlier place, so that ids from `count` on come last. Any grid of ELEMENT_THREADS threads.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    sort_rows(unsigned* order, unsigned* sorted_ids, float* sorted_weights, const unsigned* ids,
              const float* row_weight, Refusal* refusal, int rows, int count) {
    __shared__ unsigned tile[ELEMENT_THREADS];
    const int row = blockIdx.x * ELEMENT_THREADS + threadIdx.x;
    const unsigned id = row < rows ? ids[row] : 0;
    if (id >= count && row < rows) {
        refuse(refusal, REFUSED_SCATTER_ADD, row, id, count);
    }
    int rank = 0;
    for (int first = 0; first < rows; first += ELEMENT_THREADS) {
        const int here = min(ELEMENT_THREADS, rows - first);
        if (threadIdx.x < here) {
            tile[threadIdx.x] = ids[first + threadIdx.x];
        }
        __syncthreads();
        for (int i = 0; i < here; i++) {
            rank += tile[i] < id || (tile[i] == id && first + i < row);
        }
        __syncthreads();
    }
    if (row < rows) {
        order[rank] = row;
        sorted_ids[rank] = id;
        sorted_weights[rank] = row_weight[row];
    }
}

// Rows in the order of their ids.
struct SortedRows {
    const unsigned* order;
    const unsigned* ids;
    const float* weights;
    int count;
};

// A warp's work on SCATTER_ROWS sorted rows: for each that is the first of its id, it sums all rows of that
// id, also those in later groups. Lanes hold the ids, indices and weights of a group, one row each.
template <int N>
__device__ __forceinline__ void scatter_group(float* dtable, const bf16* dout, const SortedRows& rows,
                                              int width, unsigned count) {
    const int lane = threadIdx.x % WARP;
    const int begin = (blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP) * SCATTER_ROWS;
    if (begin >= rows.count) {
        return;
    }
    const auto has = [&](int first) { return lane < SCATTER_ROWS && first + lane < rows.count; };
    const unsigned own_id = has(begin) ? rows.ids[begin + lane] : 0;
    const unsigned own_row = has(begin) ? rows.order[begin + lane] : 0;
    const float own_weight = has(begin) ? rows.weights[begin + lane] : 0.0f;
    unsigned id_before = __shfl_up_sync(ALL_LANES, own_id, 1);
    if (lane == 0 && begin > 0) {
        id_before = rows.ids[begin - 1];
    }
    const bool starts = has(begin) && own_id < count && (begin + lane == 0 || own_id != id_before);
    unsigned starts_left = __ballot_sync(ALL_LANES, starts);
#pragma unroll 1
    for (; starts_left != 0; starts_left &= starts_left - 1) {
        const int start = __ffs(starts_left) - 1;
        const unsigned id = __shfl_sync(ALL_LANES, own_id, start);
#pragma unroll 1
        for (int chunk = 0; chunk < width; chunk += WARP * N) {
            const int column = chunk + lane * N;
            const bool inside = column < width;
            float* to = dtable + size_t(id) * width + column;
            Vector<N> sum = {};
            if (inside) {
                sum = load<N>(to);
            }
            unsigned group_id = own_id, group_row = own_row;
            float group_weight = own_weight;
            int first = begin, i = start;
#pragma unroll 1
            while (first + i < rows.count && __shfl_sync(ALL_LANES, group_id, i) == id) {
                const unsigned row = __shfl_sync(ALL_LANES, group_row, i);
                const float weight = __shfl_sync(ALL_LANES, group_weight, i);
                if (inside) {
                    const Vector<N> d = load<N>(dout + size_t(row) * width + column);
#pragma unroll
                    for (int j = 0; j < N; j++) {
                        sum.v[j] += weight * d.v[j];
                    }
                }
                if (++i == SCATTER_ROWS) {
                    i = 0;
                    first += SCATTER_ROWS;
                    group_id = has(first) ? rows.ids[first + lane] : 0;
                    group_row = has(first) ? rows.order[first + lane] : 0;
                    group_weight = has(first) ? rows.weights[first + lane] : 0.0f;
                }
            }
            if (inside) {
                store(to, sum);
            }
        }
    }
}

// dtable[id, width] += Σ weight · dout[row, width] over the rows of one id below `count`, in their order;
// order, ids and weights are those of sort_rows. SCATTER_ROWS sorted rows for each warp. With width a
// multiple of 4, dtable and dout start on multiples of 16 bytes.
extern "C" __global__ void __launch_bounds__(SCATTER_THREADS)
    scatter_add(float* dtable, const bf16* dout, const unsigned* order, const unsigned* ids,
                const float* weights, int rows, int width, int count) {
    const SortedRows sorted = {order, ids, weights, rows};
    if (width % 4 == 0) {
        scatter_group<4>(dtable, dout, sorted, width, count);
    } else {
        scatter_group<1>(dtable, dout, sorted, width, count);
    }
}
