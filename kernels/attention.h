// Shared by the attention kernels: packed rows, tiles in shared memory, warp-level products, the online
// softmax.
//
// Packed rows. All query heads of a group read one key/value head (GQA), so a block treats (query, head of
// the group) pairs as the rows of its matrices: row r is query r / group, head r % group. A tile of rows then
// spans few queries, which wastes little work on the causal diagonal, and one load of a key serves the whole
// group.
//
// Tiles. A tile in shared memory has rows of D elements, the head's dimension rounded up; elements beyond the
// head or the last row are zeros. The 16-byte chunks of a row are swizzled so that eight consecutive rows
// have the same chunk in eight different groups of four banks: ldmatrix, cp.async and the 16-byte accesses of
// the results are free of bank conflicts.
#pragma once

#include <limits.h>

#include "ampere.h"

constexpr int CHUNK = 8;  // elements in 16 bytes
constexpr int ATTENTION_WARPS = ATTENTION_THREADS / WARP;
constexpr float LOG2_E = 1.4426950408889634f;
constexpr float LN_2 = 0.6931471805599453f;

// Keys, or packed rows, of a tile that a loop visits: fewer where accumulators of wide heads take most
// registers.
template <int D>
constexpr int VISITED = D <= ATTENTION_NARROW ? ATTENTION_LONG : ATTENTION_SHORT;

// Head counts and widths, as the launch passes them.
struct KERNEL_PARAMETER HeadShape {
    int query;
    int key_value;
    int dim;
    int group;                  // query heads per key/value head
    unsigned group_reciprocal;  // ⌈2³² / group⌉, for group > 1
    float scale;

    __device__ __forceinline__ int q_width() const { return query * dim; }
    __device__ __forceinline__ int kv_width() const { return key_value * dim; }

    // row / group; exact as long as row · group < 2³².
    __device__ __forceinline__ int query_of(int row) const {
        return group == 1 ? row : int(__umulhi(unsigned(row), group_reciprocal));
    }
};

// Queries, keys and values of packed rows: where they start, and elements from one row to the next.
struct KERNEL_PARAMETER Qkv {
    const bf16* q;
    const bf16* k;
    const bf16* v;
    int q_stride;
    int k_stride;
    int v_stride;
    int padding;
};

// Gradients of the same.
struct KERNEL_PARAMETER QkvGradient {
    bf16* q;
    bf16* k;
    bf16* v;
    int q_stride;
    int k_stride;
    int v_stride;
    int padding;
};

// A sequence of a packed (varlen) batch, and its first block.
struct KERNEL_PARAMETER Sequence {
    int start;
    int len;
    int prefix_start;
    int prefix_len;
    int first_tile;
};

// The sequences of a launch.
struct KERNEL_PARAMETER Sequences {
    int count;
    Sequence of[ATTENTION_SEQUENCES];

    // The sequence of a block.
    __device__ __forceinline__ Sequence find(int tile) const {
        int low = 0, high = count;
        while (high - low > 1) {
            const int middle = (low + high) / 2;
            if (of[middle].first_tile <= tile) {
                low = middle;
            } else {
                high = middle;
            }
        }
        return of[low];
    }
};

// 2^x to within 2 ulp of f32 (2⁻²²), and 0 for -inf. The argument, a difference of numbers below 2⁷ in any
// sane model, has an error of 2⁻¹⁷, and so has the result: negligible beside bf16's 2⁻⁹.
__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Offset of a chunk of a tile's row. Rows 16 apart have the same swizzle.
template <int D>
__device__ __forceinline__ int tile_offset(int row, int chunk) {
    constexpr int CHUNKS = D / CHUNK;
    static_assert(D % 16 == 0);
    // Without a swizzle, eight rows begin in 8 / SWIZZLED of the eight groups of banks; the swizzle covers
    // the others.
    constexpr int SWIZZLED = CHUNKS % 8 == 0 ? 8 : CHUNKS % 4 == 0 ? 4 : 2;
    return row * (D * 2) + (chunk ^ (row / (8 / SWIZZLED) % SWIZZLED)) * 16;
}

// Starts copies of ROWS rows of `dim` elements into a tile. row_at(i) is where row i starts, null for a row
// of zeros; `anywhere` is a valid address.
template <int D, int ROWS, typename RowAt>
__device__ __forceinline__ void copy_tile(unsigned tile, int dim, const bf16* anywhere, RowAt row_at) {
    constexpr int CHUNKS = D / CHUNK;
    constexpr int COPIES = ROWS * CHUNKS;
#pragma unroll
    for (int i = 0; i < (COPIES + ATTENTION_THREADS - 1) / ATTENTION_THREADS; i++) {
        const int at = int(threadIdx.x) + i * ATTENTION_THREADS;
        if (COPIES % ATTENTION_THREADS == 0 || at < COPIES) {
            const int row = at / CHUNKS, chunk = at % CHUNKS;
            const bf16* from = row_at(row);
            const bool valid = from != nullptr && chunk * CHUNK < dim;
            copy_async(tile + tile_offset<D>(row, chunk), valid ? from + chunk * CHUNK : anywhere, valid);
        }
    }
}

// A boolean as a type: whether a tile has to be masked.
template <bool B>
struct Constant {
    static constexpr bool value = B;
};

// Four 8×8 matrices as load_matrices has them, each transposed.
__device__ __forceinline__ void load_transposed(unsigned (&to)[4], unsigned row_address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(row_address)
                 : "memory");
}

// acc[M · 16, N] += a · bᵀ over D, both row by row in tiles; a_tile and b_tile are the addresses of the
// warp's first row (a multiple of 16) of each. With LIMITED, groups of 16 columns from `columns` on are
// skipped.
template <int D, int M, int N, bool LIMITED>
__device__ __forceinline__ void multiply_rows(float (&acc)[M][N / 8][4], unsigned a_tile, unsigned b_tile,
                                              int columns) {
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int chunk = 0; chunk < D / CHUNK; chunk += 2) {
        unsigned a[M][4];
#pragma unroll
        for (int m = 0; m < M; m++) {
            load_matrices(a[m], a_tile + m * 16 * D * 2 + tile_offset<D>(lane % 16, chunk + lane / 16));
        }
#pragma unroll
        for (int j = 0; j < N / 16; j++) {
            if (!LIMITED || j * 16 < columns) {
                unsigned b[4];
                load_matrices(b, b_tile + j * 16 * D * 2 +
                                     tile_offset<D>(lane / 16 * 8 + lane % 8, chunk + lane / 8 % 2));
#pragma unroll
                for (int m = 0; m < M; m++) {
                    mma(acc[m][2 * j], a[m], b[0], b[1]);
                    mma(acc[m][2 * j + 1], a[m], b[2], b[3]);
                }
            }
        }
    }
}

// acc[M · 16, D] += p[M · 16, K] · b[K, D], b row by row in a tile. With LIMITED, groups of 16 of K from
// `rows` on are skipped. p is rounded to bf16.
template <int D, int M, int K, bool LIMITED>
__device__ __forceinline__ void multiply_weights(float (&acc)[M][D / 8][4], const float (&p)[M][K / 8][4],
                                                 unsigned b_tile, int rows) {
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int k = 0; k < K / 16; k++) {
        if (!LIMITED || k * 16 < rows) {
            unsigned a[M][4];
#pragma unroll
            for (int m = 0; m < M; m++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const float* pair = &p[m][2 * k + i / 2][i % 2 * 2];
                    const __nv_bfloat162 rounded = __floats2bfloat162_rn(pair[0], pair[1]);
                    a[m][i] = *reinterpret_cast<const unsigned*>(&rounded);
                }
            }
#pragma unroll
            for (int chunk = 0; chunk < D / CHUNK; chunk += 2) {
                unsigned b[4];
                load_transposed(b, b_tile + k * 16 * D * 2 + tile_offset<D>(lane % 16, chunk + lane / 16));
#pragma unroll
                for (int m = 0; m < M; m++) {
                    mma(acc[m][chunk], a[m], b[0], b[1]);
                    mma(acc[m][chunk + 1], a[m], b[2], b[3]);
                }
            }
        }
    }
}

// Epilogue, first step: rounds 16 rows of accumulators times `factor`, that of row lane / 4 and that of the
// row 8 below, and stores them to the warp's own rows of a tile, from which whole rows can be written 16
// bytes at a time.
template <int D>
__device__ __forceinline__ void store_accumulators(unsigned char* tile, const float (&acc)[D / 8][4],
                                                   float factor, float factor_below) {
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float by = half == 0 ? factor : factor_below;
            unsigned char* to = tile + tile_offset<D>(half * 8 + lane / 4, n) + lane % 4 * 4;
            *reinterpret_cast<__nv_bfloat162*>(to) =
                __floats2bfloat162_rn(acc[n][2 * half] * by, acc[n][2 * half + 1] * by);
        }
    }
}

// Epilogue, second step: writes a warp's own ROWS rows of a tile with coalesced stores. row_at(i) as with
// copy_tile.
template <int D, int ROWS, typename RowAt>
__device__ __forceinline__ void write_rows(const unsigned char* tile, int dim, RowAt row_at) {
    __syncwarp();
    const int chunks = dim / CHUNK;
    for (int i = threadIdx.x % WARP; i < ROWS * (D / CHUNK); i += WARP) {
        const int row = i / (D / CHUNK), chunk = i % (D / CHUNK);
        bf16* to = row_at(row);
        if (to != nullptr && chunk < chunks) {
            *reinterpret_cast<uint4*>(to + chunk * CHUNK) =
                *reinterpret_cast<const uint4*>(tile + tile_offset<D>(row, chunk));
        }
    }
}

// Packed rows `first .. end` of a sequence whose first query is row `start` of the batch.
struct PackedRows {
    int start;
    int kv_head;
    int first;
    int end;

    // Element of q, o or their gradients, in rows `stride` elements apart, where row i of a tile starts, -1
    // for none.
    __device__ __forceinline__ long long at(int i, int stride, const HeadShape& heads) const {
        const int row = first + i;
        const int query = heads.query_of(row);
        const int head = kv_head * heads.group + row - query * heads.group;
        return row < end ? (long long)(start + query) * stride + head * heads.dim : -1;
    }

    // Element of `[.., query heads]` that belongs to row i of a tile, -1 for none.
    __device__ __forceinline__ long long number(int i, const HeadShape& heads) const {
        const int row = first + i;
        const int query = heads.query_of(row);
        const int head = kv_head * heads.group + row - query * heads.group;
        return row < end ? (long long)(start + query) * heads.query + head : -1;
    }
};

template <typename T>
__device__ __forceinline__ T* offset_or_null(T* from, long long at) {
    return at < 0 ? nullptr : from + at;
}

// Online softmax: weighted sums of values for M · 16 rows of a warp, in the layout of the accumulators: a
// lane has rows lane / 4 and lane / 4 + 8 of each 16. Scores are in units of ln 2, relative to `max`.
//
// The running maximum is lazy: `max` is raised, and the sums rescaled, only when a score is more than SLACK
// above it. Weights are then at most 2^SLACK, which f32 and bf16 represent as exactly as those below 1, and
// rescaling hardly ever happens after the first tile.
template <int D, int M>
struct Softmax {
    static constexpr float SLACK = 8.0f;

    float o[M][D / 8][4];
    float max[M][2];
    float sum[M][2];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int m = 0; m < M; m++) {
#pragma unroll
            for (int n = 0; n < D / 8; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    o[m][n][i] = 0.0f;
                }
            }
#pragma unroll
            for (int half = 0; half < 2; half++) {
                max[m][half] = -INFINITY;
                sum[m][half] = 0.0f;
            }
        }
    }

    // Turns scores into weights and adds the weights to the sums. Every row has a score above -inf.
    template <int KEYS>
    __device__ __forceinline__ void weigh(float (&s)[M][KEYS / 8][4], float scale) {
        float largest[M][2];
        bool raise = false;
#pragma unroll
        for (int m = 0; m < M; m++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float here = -INFINITY;
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++) {
                    here = fmaxf(here, fmaxf(s[m][n][2 * half], s[m][n][2 * half + 1]));
                }
                here = fmaxf(here, __shfl_xor_sync(ALL_LANES, here, 1));
                here = scale * fmaxf(here, __shfl_xor_sync(ALL_LANES, here, 2));
                largest[m][half] = here;
                raise |= here > max[m][half] + SLACK;
            }
        }
        if (__any_sync(ALL_LANES, raise)) {
            rescale(largest);
        }
#pragma unroll
        for (int m = 0; m < M; m++) {
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    s[m][n][i] = exp2_fast(fmaf(s[m][n][i], scale, -max[m][i / 2]));
                    sum[m][i / 2] += s[m][n][i];
                }
            }
        }
    }

    __device__ __forceinline__ void rescale(const float (&largest)[M][2]) {
#pragma unroll
        for (int m = 0; m < M; m++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const float raised = fmaxf(max[m][half], largest[m][half]);
                const float factor = exp2_fast(max[m][half] - raised);
                max[m][half] = raised;
                sum[m][half] *= factor;
#pragma unroll
                for (int n = 0; n < D / 8; n++) {
                    o[m][n][2 * half] *= factor;
                    o[m][n][2 * half + 1] *= factor;
                }
            }
        }
    }

    // Reduces the sums over the lanes of a row.
    __device__ __forceinline__ void reduce_sums() {
#pragma unroll
        for (int m = 0; m < M; m++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                sum[m][half] += __shfl_xor_sync(ALL_LANES, sum[m][half], 1);
                sum[m][half] += __shfl_xor_sync(ALL_LANES, sum[m][half], 2);
            }
        }
    }

    __device__ __forceinline__ float log_sum_exp(int m, int half) const {
        return LN_2 * max[m][half] + logf(sum[m][half]);
    }
};

// The causal mask of the packed rows `first ..` of a warp: row sees the keys below keys_of(row), of those
// that the block visits. Rows beyond `last` see the keys of `last`.
struct Visible {
    int first;
    int last;
    int before;  // keys that the first query sees, its own included; INT_MAX where every row sees all keys

    __device__ __forceinline__ int keys_of(int row, const HeadShape& heads) const {
        return before == INT_MAX ? INT_MAX : before + heads.query_of(min(first + row, last));
    }
};

// Attends to keys `begin .. end`, of which every row sees the first; keys.k(j) and keys.v(j) are the
// addresses of key and value j, keys.anywhere() is some address among them. The rows' queries are in the
// warp's q_tile, or in copies that were started and not yet committed, which the first wait covers. `ring`
// has room for three tiles of KEYS rows, keys and values in turn: while one is multiplied the next is in
// flight, and the prefetch of the one after it starts as soon as all warps have released the one before.
template <int D, int M, int KEYS, typename Keys>
__device__ __forceinline__ void attend(Softmax<D, M>& state, unsigned q_tile, unsigned ring, const Keys& keys,
                                       int begin, int end, const Visible& visible, const HeadShape& heads) {
    constexpr int RING = 3;
    constexpr int TILE_BYTES = KEYS * D * 2;
    const int lane = threadIdx.x % WARP;
    const int items = 2 * ((end - begin + KEYS - 1) / KEYS);
    const float scale = heads.scale * LOG2_E;
    // All rows of the warp see the first `least` keys, no row those from `most` on.
    const int least = min(end, visible.keys_of(0, heads));
    const int most = visible.first <= visible.last ? min(end, visible.keys_of(M * 16 - 1, heads)) : 0;

    const auto prefetch = [&](int item) {
        if (item < items) {
            const int first = begin + item / 2 * KEYS;
            const bool values = item % 2 != 0;
            copy_tile<D, KEYS>(ring + item % RING * TILE_BYTES, heads.dim, keys.anywhere(), [&](int row) {
                const int key = first + row;
                return key >= end ? nullptr : values ? keys.v(key) : keys.k(key);
            });
        }
        copy_commit();  // empty groups at the end keep the count of pending groups constant
    };
    const auto wait_for_tile = [&]() {
        copy_wait<1>();
        __syncthreads();
    };
    const auto tile = [&](auto masked, int item) {
        constexpr bool MASKED = decltype(masked)::value;
        const int first = begin + item / 2 * KEYS;
        const int seen = most - first;
        float s[M][KEYS / 8][4] = {};
        multiply_rows<D, M, KEYS, MASKED>(s, q_tile, ring + item % RING * TILE_BYTES, seen);
        if (MASKED) {
#pragma unroll
            for (int m = 0; m < M; m++) {
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const int limit = min(end, visible.keys_of(m * 16 + half * 8 + lane / 4, heads));
#pragma unroll
                    for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
                        for (int i = 2 * half; i < 2 * half + 2; i++) {
                            const int key = first + n * 8 + lane % 4 * 2 + i % 2;
                            s[m][n][i] = key < limit ? s[m][n][i] : -INFINITY;
                        }
                    }
                }
            }
        }
        state.template weigh<KEYS>(s, scale);
        wait_for_tile();
        prefetch(item + 3);
        multiply_weights<D, M, KEYS, MASKED>(state.o, s, ring + (item + 1) % RING * TILE_BYTES, seen);
    };

    state.clear();
    prefetch(0);
    prefetch(1);
    for (int item = 0; item < items; item += 2) {
        wait_for_tile();
        prefetch(item + 2);
        const int first = begin + item / 2 * KEYS;
        if (first >= most) {
            wait_for_tile();
            prefetch(item + 3);
        } else if (first + KEYS <= least) {
            tile(Constant<false>{}, item);
        } else {
            tile(Constant<true>{}, item);
        }
    }
    copy_wait<0>();
    state.reduce_sums();
}
