// Tiled GEMM of bf16 with sums in f32. The kernels are in gemm_nt.cu, gemm_nn.cu and gemm_tn.cu, which differ
// in the layout of their operands, and in gemm_grouped.cu; src/cuda/gemm/ launches them.
//
// A block computes one tile of y[m, n]. STAGES tiles of both operands lie in shared memory: while the warps
// multiply one, cp.async prefetches the next ones. An operand has "lines", the rows of y for a and its
// columns for b. Lines are either contiguous along k, or k is the row: ldmatrix then transposes. Elements
// outside of the matrices are zero in shared memory and not written, so that m, n and k may be anything.
// Operands whose rows do not start on multiples of 16 bytes are copied element by element.
//
// With split-K, the tiles along k are divided among several blocks. Each writes its sums to a workspace; the
// block that arrives last reduces them, in the order of the splits, and runs the epilogue.
#pragma once

#include "ampere.h"
#include "arrival.h"
#include "gemm_epilogue.h"
#include "lora_terms.h"
#include "raster.h"

constexpr int TILE_K = GEMM_TILE_K, STAGES = GEMM_STAGES;
constexpr int CHUNK = 8;  // elements in 16 bytes

enum class Layout { NT, NN, TN };

// The tile of a block, and the part of it that one warp computes.
template <int TILE_, int THREADS_, int WARP_M_, int WARP_N_>
struct Shape {
    static constexpr int TILE = TILE_, THREADS = THREADS_, WARP_M = WARP_M_, WARP_N = WARP_N_;
    static constexpr int WARPS_N = TILE / WARP_N;
    static constexpr int MMAS_M = WARP_M / 16, MMAS_N = WARP_N / 8;
    static constexpr int OPERAND_BYTES = TILE * TILE_K * 2;
    static constexpr int WEIGHT_BYTES = TILE_K * 4;  // row weights of a stage
    static constexpr int STAGE_BYTES = 2 * OPERAND_BYTES + WEIGHT_BYTES;
    static constexpr int COPIES =
        TILE * TILE_K / CHUNK / THREADS;  // chunks that a thread copies per operand and stage
    using Accumulators = float[MMAS_M][MMAS_N][4];

    static_assert(THREADS / WARP == TILE / WARP_M * WARPS_N);
    static_assert(TILE * TILE * 4 <= STAGES * STAGE_BYTES, "the epilogue reuses the memory of the stages");
};
using Large = Shape<GEMM_LARGE_TILE, GEMM_LARGE_THREADS, 64, 32>;
using Small = Shape<GEMM_SMALL_TILE, GEMM_SMALL_THREADS, 32, 32>;

// A matrix in global memory as an operand.
struct Lines {
    const bf16* data;
    int stride;
    int first;  // line at which the tile starts; may lie before line 0
    int count;  // lines of the matrix
    int k;
    bool vector;
    int second;  // line at which the second half of the tile starts, if HALVES lie apart
};

// Layout of an operand's tile in shared memory: rows of chunks, swizzled such that the eight chunks of an 8×8
// matrix of ldmatrix, and those that eight threads copy, lie on different banks.
template <typename S, bool ALONG_K>
struct SharedLayout {
    // Chunks of a row: along k, or along the lines.
    static constexpr int CHUNKS = (ALONG_K ? TILE_K : S::TILE) / CHUNK;
    static constexpr int ROW_BYTES = CHUNKS * 16;
    static constexpr int ROWS_PER_COPY = S::THREADS / CHUNKS;

    static_assert(ALONG_K ? CHUNKS == 4 : CHUNKS % 8 == 0);
    static_assert(ROWS_PER_COPY % 8 == 0, "the copies of a thread have the same swizzle");

    static __device__ __forceinline__ int offset(int row, int chunk) {
        // Two rows of 64 bytes make one pass over all banks; longer rows are passes themselves.
        return row * ROW_BYTES + (chunk ^ (ALONG_K ? row / 2 % 4 : row % 8)) * 16;
    }
};

// Eight elements to shared memory, of which `valid` are inside; the others are zeros.
template <bool VECTOR>
__device__ __forceinline__ void copy_chunk(unsigned to, const bf16* from, int valid, bool vector) {
    if (VECTOR || vector) {
        copy_async_part(to, from, valid * 2);
        return;
    }
    const unsigned short* bits = reinterpret_cast<const unsigned short*>(from);
    unsigned pairs[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const unsigned low = 2 * i < valid ? bits[2 * i] : 0, high = 2 * i + 1 < valid ? bits[2 * i + 1] : 0;
        pairs[i] = low | high << 16;
    }
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(pairs[0]), "r"(pairs[1]),
                 "r"(pairs[2]), "r"(pairs[3])
                 : "memory");
}

// Starts this thread's copies of the tile of `from` at `first_k`. HALVES of the tile may lie apart.
template <typename S, bool ALONG_K, bool VECTOR, bool HALVES = false>
__device__ __forceinline__ void fetch(unsigned tile, const Lines& from, int first_k) {
    using P = SharedLayout<S, ALONG_K>;
    static_assert(!HALVES || (ALONG_K && S::COPIES == 2), "each copy of a thread belongs to one half");
    const int row = threadIdx.x / P::CHUNKS, chunk = threadIdx.x % P::CHUNKS;
    const unsigned to = tile + P::offset(row, chunk);
#pragma unroll(VECTOR ? S::COPIES : 1)
    for (int i = 0; i < S::COPIES; i++) {
        const int here = row + i * P::ROWS_PER_COPY;
        const int line = HALVES && i == 1 ? from.second + row : from.first + (ALONG_K ? here : chunk * CHUNK);
        const int at = first_k + (ALONG_K ? chunk * CHUNK : here);
        const bool inside = line >= 0 && line < from.count && at < from.k;
        const int valid = inside ? min(CHUNK, ALONG_K ? from.k - at : from.count - line) : 0;
        const size_t element = ALONG_K ? size_t(line) * from.stride + at : size_t(at) * from.stride + line;
        copy_chunk<VECTOR>(to + i * P::ROWS_PER_COPY * P::ROW_BYTES, from.data + (inside ? element : 0),
                           valid, from.vector);
    }
}

// Applies a dropout mask to the elements of b that this thread itself has copied, k being the rows of the
// mask.
template <typename S>
__device__ __forceinline__ void drop_copied(unsigned tile, const Lines& b, int first_k, const Mask& mask) {
    using P = SharedLayout<S, false>;
    const int row = threadIdx.x / P::CHUNKS, chunk = threadIdx.x % P::CHUNKS;
    const unsigned at = tile + P::offset(row, chunk);
#pragma unroll
    for (int i = 0; i < S::COPIES; i++) {
        const int k = first_k + row + i * P::ROWS_PER_COPY;
        if (k < b.k) {
            const unsigned address = at + i * P::ROWS_PER_COPY * P::ROW_BYTES;
            uint4 x;
            asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                         : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                         : "r"(address)
                         : "memory");
            x = drop(mask.key, x, mask.row_keys[k], b.first / CHUNK + chunk);
            asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(x.x), "r"(x.y),
                         "r"(x.z), "r"(x.w)
                         : "memory");
        }
    }
}

__device__ __forceinline__ unsigned scaled(unsigned pair, float2 by) {
    __nv_bfloat162 both;
    memcpy(&both, &pair, sizeof pair);
    const float2 x = __bfloat1622float2(both);
    both = __floats2bfloat162_rn(x.x * by.x, x.y * by.y);
    memcpy(&pair, &both, sizeof pair);
    return pair;
}

// Fragment of a: 16 lines by 16 of k.
template <typename S, bool ALONG_K>
__device__ __forceinline__ void load_a(unsigned (&a)[4], unsigned tile, int line, int k) {
    using P = SharedLayout<S, ALONG_K>;
    const int lane = threadIdx.x % WARP;
    if constexpr (ALONG_K) {
        load_matrices(a, tile + P::offset(line + lane % 16, k / CHUNK + lane / 16));
    } else {
        load_matrices_transposed(a,
                                 tile + P::offset(k + lane / 16 * 8 + lane % 8, line / CHUNK + lane / 8 % 2));
    }
}

// Fragments of b for two adjacent mmas: 16 lines by 16 of k.
template <typename S, bool ALONG_K>
__device__ __forceinline__ void load_b(unsigned (&b)[4], unsigned tile, int line, int k) {
    using P = SharedLayout<S, ALONG_K>;
    const int lane = threadIdx.x % WARP;
    if constexpr (ALONG_K) {
        load_matrices(b, tile + P::offset(line + lane / 16 * 8 + lane % 8, k / CHUNK + lane / 8 % 2));
    } else {
        load_matrices_transposed(b,
                                 tile + P::offset(k + lane / 8 % 2 * 8 + lane % 8, line / CHUNK + lane / 16));
    }
}

// acc += the product of one stage, for the warp tile at (warp_m, warp_n). With `weights`, each k of a is
// multiplied with its row weight, which lies behind the operands.
template <typename S, Layout LAYOUT>
__device__ __forceinline__ void multiply(typename S::Accumulators& acc, const unsigned char* stage,
                                         int warp_m, int warp_n, bool weights) {
    const unsigned a_tile = shared_address(stage), b_tile = a_tile + S::OPERAND_BYTES;
#pragma unroll
    for (int k = 0; k < TILE_K; k += 16) {
        unsigned a[S::MMAS_M][4], b[S::MMAS_N / 2][4];
#pragma unroll
        for (int i = 0; i < S::MMAS_M; i++) {
            load_a<S, LAYOUT != Layout::TN>(a[i], a_tile, warp_m + i * 16, k);
        }
#pragma unroll
        for (int j = 0; j < S::MMAS_N / 2; j++) {
            load_b<S, LAYOUT == Layout::NT>(b[j], b_tile, warp_n + j * 16, k);
        }
        if (LAYOUT == Layout::TN && weights) {
            const float2* pairs = reinterpret_cast<const float2*>(stage + 2 * S::OPERAND_BYTES);
            const int pair = k / 2 + threadIdx.x % 4;
            const float2 first = pairs[pair], second = pairs[pair + 4];
#pragma unroll
            for (int i = 0; i < S::MMAS_M; i++) {
                a[i][0] = scaled(a[i][0], first);
                a[i][1] = scaled(a[i][1], first);
                a[i][2] = scaled(a[i][2], second);
                a[i][3] = scaled(a[i][3], second);
            }
        }
#pragma unroll
        for (int i = 0; i < S::MMAS_M; i++) {
#pragma unroll
            for (int j = 0; j < S::MMAS_N; j++) {
                mma(acc[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
            }
        }
    }
}

// Swizzle of the sums in shared memory, by groups of four columns: a half-warp, which stores pairs of four
// rows at a time, then hits different banks. The swizzle is its own inverse.
__device__ __forceinline__ int swizzled(int row, int quad) {
    return quad ^ (row % 4 * 2);
}

// Offset of a sum in shared memory.
template <typename S>
__device__ __forceinline__ int sum_offset(int row, int column) {
    return row * S::TILE + swizzled(row, column / 4) * 4 + column % 4;
}

// Stores the accumulators of a warp to shared memory, for the epilogue.
template <typename S>
__device__ __forceinline__ void store_accumulators(float* sums, const typename S::Accumulators& acc,
                                                   int warp_m, int warp_n) {
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int j = 0; j < S::MMAS_N; j++) {
#pragma unroll
        for (int i = 0; i < S::MMAS_M * 2; i++) {
            const float* pair = &acc[i / 2][j][i % 2 * 2];
            const int at = sum_offset<S>(warp_m + i * 8 + lane / 4, warp_n + j * 8 + lane % 4 * 2);
            // In PTX, as the compiler splits some of these stores in two.
            asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(shared_address(sums + at)), "f"(pair[0]),
                         "f"(pair[1])
                         : "memory");
        }
    }
}

// Loads four or eight sums of a row. Of eight, every other four threads begin with the second half, which
// avoids bank conflicts.
template <typename S>
__device__ __forceinline__ void load_sums(Vector<4>& to, const float* sums, int row, int column) {
    to = load<4>(sums + sum_offset<S>(row, column));
}

template <typename S>
__device__ __forceinline__ void load_sums(Vector<8>& to, const float* sums, int row, int column) {
    const bool second = threadIdx.x / 4 % 2;
    const float4 one = *reinterpret_cast<const float4*>(sums + sum_offset<S>(row, column + (second ? 4 : 0)));
    const float4 two = *reinterpret_cast<const float4*>(sums + sum_offset<S>(row, column + (second ? 0 : 4)));
    const float4 low = second ? two : one, high = second ? one : two;
    to = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
}

// Epilogue of the tile in shared memory, whole rows at a time, N columns by each thread.
template <typename S, int N>
__device__ __forceinline__ void epilogue_store_rows(const float* sums, const Epilogue& to,
                                                    const GemmParams& params, int first_row,
                                                    int first_column) {
    constexpr int GROUPS = S::TILE / N;
    const int in_row = threadIdx.x % GROUPS * N;
    if (first_column + in_row >= params.n) {
        return;
    }
    for (int row = threadIdx.x / GROUPS; row < min(S::TILE, params.m - first_row);
         row += S::THREADS / GROUPS) {
        Vector<N> sum;
        load_sums<S>(sum, sums, row, in_row);
        epilogue(to, params, sum, first_row + row, first_column + in_row);
    }
}

// Epilogue with coalesced stores: neighbouring threads write neighbouring 16 bytes, of bf16 or of f32.
template <typename S>
__device__ __forceinline__ void epilogue_store(const float* sums, const Epilogue& to,
                                               const GemmParams& params, int first_row, int first_column) {
    if (params.output == ACCUMULATE) {
        epilogue_store_rows<S, 4>(sums, to, params, first_row, first_column);
    } else {
        epilogue_store_rows<S, 8>(sums, to, params, first_row, first_column);
    }
}

// SwiGLU epilogue of a tile: h and, for rows up to `kept`, [gate | up], eight columns of each by a thread.
// The first half of the tile belongs to gate, the second to the same columns of up. Both are rounded before h
// is computed, as in `swiglu`.
template <typename S>
__device__ __forceinline__ void epilogue_store_gated(const float* sums, const GatedEpilogue& to,
                                                     const GemmParams& params, int first_row,
                                                     int first_column) {
    constexpr int HALF = S::TILE / 2, GROUPS = HALF / 8;
    const int in_row = threadIdx.x % GROUPS * 8, column = first_column + in_row;
    if (column >= params.n) {
        return;
    }
    for (int row = threadIdx.x / GROUPS; row < min(S::TILE, params.m - first_row);
         row += S::THREADS / GROUPS) {
        Vector<8> gate, up;
        load_sums<S>(gate, sums, row, in_row);
        load_sums<S>(up, sums, row, HALF + in_row);
        epilogue(to, params, gate, up, first_row + row, column);
    }
}

// Tiles along k that a LoRA term adds to a tile of y, whose halves may lie apart.
template <typename S>
__device__ __forceinline__ int lora_tiles(const LoraTerm& term, int first_row, int first_column,
                                          int second_column) {
    const auto meets = [&](int column) {
        return column < term.column + term.columns && column + S::TILE / 2 > term.column;
    };
    const bool any = first_row < term.rows && (meets(first_column) || meets(second_column));
    return any ? (term.rank + TILE_K - 1) / TILE_K : 0;
}

// The work of a block: a tile of y, and one of the splits of k.
struct WorkTile {
    int tile;
    int split;
    int splits;
    SplitWorkspace workspace;  // partials are [tiles, splits, TILE, TILE], rows of a tile up to the last of y
};

// The work tile of a block where the launch has one product.
__device__ __forceinline__ WorkTile work_tile_of_block(const SplitWorkspace& workspace) {
    return {int(blockIdx.x), int(blockIdx.z), int(gridDim.z), workspace};
}

// Split-K reduction: writes the block's sums of `rows` by `columns` of a tile to the workspace. In the block
// that arrives last, for which the result is true, `sums` become the totals of all splits. The workspace has
// the layout of shared memory, swizzle included, so that a thread reads and writes whole sectors and adds to
// sums of its own. A thread issues all its loads of a split before it adds, as few other warps are left to
// hide their latency.
template <typename S>
__device__ __forceinline__ bool reduce_split_k(float* sums, const WorkTile& work, int rows, int columns) {
    constexpr int OF_ROW = S::TILE / 4, OF_TILE = S::TILE * OF_ROW, OWN = OF_TILE / S::THREADS,
                  STEP = S::THREADS / OF_ROW;
    static_assert(STEP % 4 == 0, "the sums of a thread have the same swizzle");
    const int row = threadIdx.x / OF_ROW;
    const bool inside = swizzled(row, threadIdx.x % OF_ROW) * 4 < columns;
    const int end = inside ? rows : 0;
    float4* own = reinterpret_cast<float4*>(sums) + threadIdx.x;
    float4* partials = reinterpret_cast<float4*>(work.workspace.partials) +
                       size_t(work.tile) * work.splits * OF_TILE + threadIdx.x;
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        if (row + i * STEP < end) {
            partials[work.split * OF_TILE + i * S::THREADS] = own[i * S::THREADS];
        }
    }
    if (!is_last_block(work.workspace.arrivals + work.tile, work.splits)) {
        return false;
    }
    float4 sum[OWN] = {};
#pragma unroll 1
    for (int split = 0; split < work.splits; split++) {
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            const float4 zero = {};
            const float4 more =
                row + i * STEP < end ? __ldcg(partials + split * OF_TILE + i * S::THREADS) : zero;
            sum[i].x += more.x;
            sum[i].y += more.y;
            sum[i].z += more.z;
            sum[i].w += more.w;
        }
    }
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        own[i * S::THREADS] = sum[i];
    }
    __syncthreads();
    return true;
}

// Inputs of a GEMM.
struct Operands {
    const bf16* a;
    const bf16* b;
    const float* row_weight;  // [k] or null, TN only
    const LoraTerms* terms;   // NT only
    Mask mask;                // dropout of b, TN only
};

// Starts this thread's copies of tile `tile` of the LoRA tiles of a tile of y: of xa and of lora_B.
template <typename S, bool HALVES>
__device__ __forceinline__ void fetch_lora(unsigned stage, const LoraTerms& terms, int tile, int first_row,
                                           int first_column, int second_column) {
#pragma unroll 1
    for (int i = 0; i < terms.count; i++) {
        const LoraTerm& term = terms.term[i];
        const int tiles = lora_tiles<S>(term, first_row, first_column, second_column);
        if (tile >= 0 && tile < tiles) {
            const Lines xa = {term.xa, term.rank, first_row, term.rows, term.rank, term.vector != 0};
            const Lines factor = {term.b,    term.rank,        first_column - term.column, term.columns,
                                  term.rank, term.vector != 0, second_column - term.column};
            fetch<S, true, false>(stage, xa, tile * TILE_K);
            fetch<S, true, false, HALVES>(stage + S::OPERAND_BYTES, factor, tile * TILE_K);
        }
        tile -= tiles;
    }
}

// Computes a work tile. To is Epilogue or GatedEpilogue; with the latter y has half as many columns as b has
// lines, of which each tile takes two groups, one from either half.
template <typename S, Layout LAYOUT, bool VECTOR, typename To>
__device__ __forceinline__ void gemm_block(const Operands& from, const To& to, const GemmParams& params,
                                           const WorkTile& work) {
    extern __shared__ __align__(128) unsigned char shared[];
    constexpr bool A_ALONG_K = LAYOUT != Layout::TN, B_ALONG_K = LAYOUT == Layout::NT, GATED = To::GATED;
    constexpr int COLUMNS = GATED ? S::TILE / 2 : S::TILE;
    const int2 tile_of_y =
        tile_of_block(work.tile, (params.m + S::TILE - 1) / S::TILE, (params.n + COLUMNS - 1) / COLUMNS);
    const int first_row = tile_of_y.x * S::TILE, first_column = tile_of_y.y * COLUMNS;
    const int second_column = first_column + (GATED ? params.n : S::TILE / 2);
    const int warp = threadIdx.x / WARP;
    const int warp_m = warp / S::WARPS_N * S::WARP_M, warp_n = warp % S::WARPS_N * S::WARP_N;
    const Lines a = {from.a, params.a_stride, first_row, params.m, params.k, params.a_vector != 0};
    const Lines b = {from.b,   params.b_stride,      first_column, GATED ? 2 * params.n : params.n,
                     params.k, params.b_vector != 0, second_column};
    const int own_tiles = (params.k + TILE_K - 1) / TILE_K;
    int tiles = own_tiles;
    if constexpr (LAYOUT == Layout::NT) {
#pragma unroll 1
        for (int i = 0; i < from.terms->count; i++) {
            tiles += lora_tiles<S>(from.terms->term[i], first_row, first_column, second_column);
        }
    }
    const int first = tiles * work.split / work.splits, end = tiles * (work.split + 1) / work.splits;

    const auto fetch_tile = [&](int tile) {
        const unsigned stage = shared_address(shared) + unsigned(tile) % STAGES * S::STAGE_BYTES;
        if (tile < min(end, own_tiles)) {
            fetch<S, A_ALONG_K, VECTOR>(stage, a, tile * TILE_K);
            fetch<S, B_ALONG_K, VECTOR, GATED>(stage + S::OPERAND_BYTES, b, tile * TILE_K);
            if (LAYOUT == Layout::TN && from.row_weight && threadIdx.x < TILE_K) {
                const int k = tile * TILE_K + threadIdx.x;
                copy_async_word(stage + 2 * S::OPERAND_BYTES + threadIdx.x * 4,
                                from.row_weight + min(k, params.k - 1), k < params.k);
            }
        } else if (LAYOUT == Layout::NT && tile < end) {
            fetch_lora<S, GATED>(stage, *from.terms, tile - own_tiles, first_row, first_column,
                                 second_column);
        }
        copy_commit();  // empty groups at the end keep the count of pending groups constant
    };

    typename S::Accumulators acc = {};
    // The prologue: the first STAGES − 1 iterations only prefetch.
    for (int tile = first - (STAGES - 1); tile < end; tile++) {
        unsigned char* stage = shared + unsigned(tile) % STAGES * S::STAGE_BYTES;
        if (tile >= first) {
            copy_wait<STAGES - 2>();
            if (LAYOUT == Layout::TN && from.mask.row_keys) {
                drop_copied<S>(shared_address(stage) + S::OPERAND_BYTES, b, tile * TILE_K, from.mask);
            }
            __syncthreads();  // all threads have this tile, and are done with the one before
        }
        fetch_tile(tile + STAGES - 1);
        if (tile >= first) {
            multiply<S, LAYOUT>(acc, stage, warp_m, warp_n, from.row_weight != nullptr);
        }
    }
    copy_wait<0>();
    __syncthreads();
    float* sums = reinterpret_cast<float*>(shared);
    store_accumulators<S>(sums, acc, warp_m, warp_n);
    __syncthreads();
    const int rows = min(S::TILE, params.m - first_row), columns = GATED ? S::TILE : params.n - first_column;
    if (work.splits > 1 && !reduce_split_k<S>(sums, work, rows, columns)) {
        return;
    }
    if constexpr (GATED) {
        epilogue_store_gated<S>(sums, to, params, first_row, first_column);
    } else {
        epilogue_store<S>(sums, to, params, first_row, first_column);
    }
}
