// The backward of the adapters that read one input, in two launches. The first makes of the output's gradient the
// gradient of each lora_B and t = scale · dy B; the second makes of t the gradient of each lora_A and of the input. All
// adapters of a layer are in a table that is a parameter; a block finds its product there. Launched by src/cuda/lora.rs;
// gradients of the guard's weights are such a group too, which src/cuda/gradient.rs launches.

#include "gemm_tile.h"

namespace {

// A product of a launch with several.
struct GroupedProduct {
    const bf16* a;
    const bf16* b;
    void* y;
    const float* row_weight;  // [k] or null, TN only
    Mask mask;                // of b, TN only
    Parts memory;             // if k is in parts
    Product product;
    int first_block;
    int parts;                // of k
    int transposed;           // aᵀ b instead of a b
};

struct ProductGroup {
    GroupedProduct of[GROUP_PRODUCTS];
    int count;
    int blocks;
};

// What an adapter adds to the gradient of the input: factor · mask ∘ (t A), the factor being that of the dropout.
struct InputTerm {
    const bf16* t;  // [rows, rank]
    const bf16* a;  // [rank, width]
    Mask mask;
    int rank;
    int vector;     // whether rows of both start on multiples of 16 bytes
};

struct InputTerms {
    InputTerm term[GEMM_TERMS];
    bf16* dx;       // [rows, width]
    int count;
    int rows;
    int width;
    int vector;     // whether rows of dx start on multiples of 16 bytes
};

using S = Small;

template <bool VECTOR, bool ALL_TRANSPOSED>
__device__ __forceinline__ void product_of_group(const ProductGroup& group, int block) {
    int i = group.count - 1;
    while (block < group.of[i].first_block) {
        i--;
    }
    const GroupedProduct& own = group.of[i];
    const int tiles_m = (own.product.m + S::TILE - 1) / S::TILE, tiles_n = (own.product.n + S::TILE - 1) / S::TILE;
    const int tiles = tiles_m * tiles_n;
    const Place place = {(block - own.first_block) % tiles, (block - own.first_block) / tiles, own.parts, own.memory};
    const Operands from = {own.a, own.b, own.row_weight, nullptr, own.mask};
    const Epilogue to = {own.y, nullptr, nullptr};
    if (ALL_TRANSPOSED || own.transposed) {
        product_of_block<S, Layout::TN, VECTOR>(from, to, own.product, place);
    } else {
        product_of_block<S, Layout::NN, VECTOR>(from, to, own.product, place);
    }
}

__device__ __forceinline__ void drop(const DropoutKey& key, Vector<8>& x, unsigned row_key, unsigned group) {
    const uint4 bits = dropout_bits(key, row_key, group);
    const unsigned words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 8; i++) {
        x.v[i] = kept(key, words[i / 2], i % 2) ? x.v[i] : 0.0f;
    }
}

// A tile of dx: what it holds, and what each adapter adds, in their order. The tiles of one adapter along its rank come
// after those of the one before; while one is multiplied, the next is fetched. The sums of an adapter lie behind the two
// stages, so that every thread masks eight columns of a row, a group of the mask.
template <bool VECTOR>
__device__ __forceinline__ void input_gradient(const InputTerms& terms, int block) {
    extern __shared__ __align__(128) unsigned char shared[];
    constexpr int GROUPS = S::TILE / 8, ROWS = S::THREADS / GROUPS, OWN = S::TILE / ROWS;
    static_assert(2 * S::STAGE_BYTES + S::TILE * S::TILE * 4 <= STAGES * S::STAGE_BYTES, "as much as a product needs");
    static_assert(2 * S::STAGE_BYTES % 16 == 0);
    float* sums = reinterpret_cast<float*>(shared + 2 * S::STAGE_BYTES);
    const int2 tile_of_dx =
        tile_of_block(block, (terms.rows + S::TILE - 1) / S::TILE, (terms.width + S::TILE - 1) / S::TILE);
    const int first_row = tile_of_dx.x * S::TILE, first_column = tile_of_dx.y * S::TILE;
    const int warp = threadIdx.x / WARP;
    const int warp_m = warp / S::WARPS_N * S::WARP_M, warp_n = warp % S::WARPS_N * S::WARP_N;
    const int group = threadIdx.x % GROUPS, column = first_column + group * 8;
    const int own_row = first_row + threadIdx.x / GROUPS, valid = max(0, min(8, terms.width - column));
    const auto is_inside = [&](int i) { return valid > 0 && own_row + i * ROWS < terms.rows; };
    const auto place_of = [&](int i) { return terms.dx + size_t(own_row + i * ROWS) * terms.width + column; };

    int to_fetch = 0, fetched = 0;  // the adapter of the next tile, and where along its rank it starts
    const auto fetch_next = [&](int stage) {
        if (to_fetch < terms.count) {
            const InputTerm& term = terms.term[to_fetch];
            const unsigned at = shared_address(shared) + stage * S::STAGE_BYTES;
            const Lines t = {term.t, term.rank, first_row, terms.rows, term.rank, term.vector != 0};
            const Lines a = {term.a, terms.width, first_column, terms.width, term.rank, term.vector != 0};
            fetch<S, true, VECTOR>(at, t, fetched);
            fetch<S, false, VECTOR>(at + S::OPERAND_BYTES, a, fetched);
            fetched += TILE_K;
            if (fetched >= term.rank) {
                to_fetch++;
                fetched = 0;
            }
        }
        copy_commit();
    };
    fetch_next(0);
    Vector<8> total[OWN];
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        total[i] = {};
        if (is_inside(i)) {
            total[i] = load_some(place_of(i), valid, terms.vector);
        }
    }
    int stage = 0;
#pragma unroll 1
    for (int adapter = 0; adapter < terms.count; adapter++) {
        const InputTerm& term = terms.term[adapter];
        typename S::Accumulators acc = {};
#pragma unroll 1
        for (int k = 0; k < term.rank; k += TILE_K, stage ^= 1) {
            fetch_next(stage ^ 1);
            copy_wait<1>();
            __syncthreads();  // this tile has arrived for all, and all have taken the sums of the adapter before
            multiply<S, Layout::NN>(acc, shared + stage * S::STAGE_BYTES, warp_m, warp_n, false);
            if (k + TILE_K < term.rank) {
                __syncthreads();  // the stage may be overwritten
            }
        }
        put_down<S>(sums, acc, warp_m, warp_n);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            if (is_inside(i)) {
                const int row = own_row + i * ROWS;
                Vector<8> sum;
                take_up<S>(sum, sums, row - first_row, group * 8);
                if (term.mask.row_keys) {
                    drop(term.mask.key, sum, term.mask.row_keys[row], column / 8);
                }
#pragma unroll
                for (int j = 0; j < 8; j++) {
                    total[i].v[j] += term.mask.key.scale * sum.v[j];
                }
            }
        }
    }
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        if (is_inside(i)) {
            store_some(place_of(i), total[i], valid, terms.vector);
        }
    }
}

}  // namespace

// The products of a group, each [m, n] of bf16, or f32 that is added to. A block for a tile of 64 by 64 of a part of k;
// STAGES · STAGE_BYTES of dynamic shared memory. `grouped_products_any` does for operands that start anywhere.
#define GROUPED_PRODUCTS(NAME, VECTOR)                                                                                \
    extern "C" __global__ void __launch_bounds__(S::THREADS, 4) NAME(const __grid_constant__ ProductGroup group) {    \
        product_of_group<VECTOR, false>(group, blockIdx.x);                                                           \
    }

GROUPED_PRODUCTS(grouped_products, true)
GROUPED_PRODUCTS(grouped_products_any, false)

// dx[rows, width] += Σ factor · mask ∘ (t A) over the adapters, and the products of a group, all of them aᵀ b. A block for
// a tile of a product, then one for each tile of dx; shared memory as above.
#define LORA_INPUTS(NAME, VECTOR)                                                                                     \
    extern "C" __global__ void __launch_bounds__(S::THREADS, 4)                                                       \
    NAME(const __grid_constant__ ProductGroup group, const __grid_constant__ InputTerms terms) {                      \
        if (int(blockIdx.x) < group.blocks) {                                                                         \
            product_of_group<VECTOR, true>(group, blockIdx.x);                                                        \
        } else {                                                                                                      \
            input_gradient<VECTOR>(terms, blockIdx.x - group.blocks);                                                 \
        }                                                                                                             \
    }

LORA_INPUTS(lora_inputs, true)
LORA_INPUTS(lora_inputs_any, false)
