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

// Counters of a radix sort, for each warp's piece of the rows and each digit.
struct Sort {
    static constexpr int WARPS = SORT_THREADS / WARP, DIGITS = 1 << SORT_BITS;
    unsigned piece[WARPS][DIGITS];
    unsigned total[DIGITS];
};

// Goes over the warp's piece of the rows, which are those of `from`, or all in their order if that is null,
// and counts its digits in sort.piece. With PLACES, those counters begin with the rows that come earlier, and
// each row goes to its place in `to`.
template <bool PLACES>
__device__ __forceinline__ void sort_piece(unsigned* to, Sort& sort, const unsigned* from,
                                           const unsigned* ids, int rows, unsigned count, int shift) {
    constexpr int AT_ONCE = 4;  // loads of a lane
    const int lane = threadIdx.x % WARP;
    unsigned* counters = sort.piece[threadIdx.x / WARP];
    const int piece = (rows + SORT_THREADS - 1) / SORT_THREADS * WARP;
    const int begin = threadIdx.x / WARP * piece, end = min(begin + piece, rows);
#pragma unroll 1
    for (int first = begin; first < end; first += AT_ONCE * WARP) {
        unsigned row[AT_ONCE], digit[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int at = first + i * WARP + lane;
            row[i] = at < end && from != nullptr ? from[at] : at;
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const bool inside = first + i * WARP + lane < end;
            digit[i] = inside ? min(ids[row[i]], count) >> shift & (Sort::DIGITS - 1) : Sort::DIGITS;
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const bool inside = digit[i] < Sort::DIGITS;
            const unsigned peers = __match_any_sync(ALL_LANES, digit[i]);
            const int earlier = __popc(peers & ((1u << lane) - 1));
            const unsigned before = inside ? counters[digit[i]] : 0;
            __syncwarp();
            if (inside && earlier == 0) {
                counters[digit[i]] = before + __popc(peers);
            }
            __syncwarp();
            if (PLACES && inside) {
                to[sort.total[digit[i]] + before + earlier] = row[i];
            }
        }
    }
}

// Each of sort.piece becomes the sum of earlier pieces' counters of that digit, sort.total those of smaller
// digits.
__device__ __forceinline__ void sum_counters(Sort& sort) {
    const int digit = threadIdx.x, lane = threadIdx.x % WARP;
    if (digit < Sort::DIGITS) {
        unsigned sum = 0;
#pragma unroll 8
        for (int warp = 0; warp < Sort::WARPS; warp++) {
            const unsigned own = sort.piece[warp][digit];
            sort.piece[warp][digit] = sum;
            sum += own;
        }
        sort.total[digit] = sum;
    }
    __syncthreads();
    if (threadIdx.x < WARP) {
        unsigned before = 0;
        for (int first = 0; first < Sort::DIGITS; first += WARP) {
            const unsigned own = sort.total[first + lane];
            unsigned sum = own;
#pragma unroll
            for (int lanes = 1; lanes < WARP; lanes *= 2) {
                const unsigned other = __shfl_up_sync(ALL_LANES, sum, lanes);
                sum += lane >= lanes ? other : 0;
            }
            sort.total[first + lane] = before + sum - own;
            before += __shfl_sync(ALL_LANES, sum, WARP - 1);
        }
    }
    __syncthreads();
}

// Stable sort of the rows by id: order[rows] are row indices, sorted_ids and sorted_weights [rows] the ids
// and row_weights in that order; ids from `count` on count as equal, and come last. One block of SORT_THREADS
// threads, which sorts by SORT_BITS of the ids at a time, the lowest first.
extern "C" __global__ void __launch_bounds__(SORT_THREADS)
    sort_rows(unsigned* order, unsigned* sorted_ids, float* sorted_weights, const unsigned* ids,
              const float* row_weight, Refusal* refusal, int rows, int count) {
    __shared__ Sort sort;
    const int passes = max(1, (WARP - __clz(count) + SORT_BITS - 1) / SORT_BITS);
    const unsigned* from = nullptr;
    for (int pass = 0; pass < passes; pass++) {
        // What a pass before the last leaves in sorted_ids or in order is only read by the next.
        unsigned* to = (passes - pass) % 2 == 1 ? order : sorted_ids;
        for (int i = threadIdx.x; i < Sort::WARPS * Sort::DIGITS; i += SORT_THREADS) {
            sort.piece[i / Sort::DIGITS][i % Sort::DIGITS] = 0;
        }
        __syncthreads();
        sort_piece<false>(to, sort, from, ids, rows, count, pass * SORT_BITS);
        __syncthreads();
        sum_counters(sort);
        sort_piece<true>(to, sort, from, ids, rows, count, pass * SORT_BITS);
        __syncthreads();
        from = to;
    }
    for (int at = threadIdx.x; at < rows; at += SORT_THREADS) {
        const unsigned row = order[at], id = ids[row];
        if (id >= count) {
            refuse(refusal, REFUSED_SCATTER_ADD, row, id, count);
        }
        sorted_ids[at] = id;
        sorted_weights[at] = row_weight[row];
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
