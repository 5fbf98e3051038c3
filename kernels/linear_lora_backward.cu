// The second half of the backward of the adapters that read one input. A grouped GEMM (gemm_grouped.cu)
// computes the gradient of each lora_B, and t = scale · dy B; here, another one computes from t the gradient
// of each lora_A, and further blocks of the same launch the gradient of the input. Launched by
// src/cuda/linear/lora.rs.

#include "gemm_grouped.h"

namespace {

// The term of an adapter in the gradient of the input: factor · mask ∘ (t A), the factor being that of the
// dropout.
struct KERNEL_PARAMETER LoraInputTerm {
    const bf16* t;  // [rows, rank]
    const bf16* a;  // [rank, width]
    Mask mask;
    int rank;
    int vector;  // whether rows of both start on multiples of 16 bytes
};

struct KERNEL_PARAMETER LoraInputTerms {
    LoraInputTerm term[GEMM_LORA_TERMS];
    bf16* dx;  // [rows, width]
    int count;
    int rows;
    int width;
    int vector;  // whether rows of dx start on multiples of 16 bytes
};

using S = Small;

__device__ __forceinline__ void drop(const DropoutKey& key, Vector<8>& x, unsigned row_key, unsigned group) {
    const uint4 bits = dropout_bits(key, row_key, group);
    const unsigned words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 8; i++) {
        x.v[i] = kept(key, words[i / 2], i % 2) ? x.v[i] : 0.0f;
    }
}

// A tile of dx: its own values, plus the term of each adapter, in their order. The tiles of one adapter along
// its rank follow those of the one before; while one is multiplied, the next is prefetched. The sums of an
// adapter lie behind the two stages, so that every thread masks eight columns of a row, a group of the mask.
template <bool VECTOR>
__device__ __forceinline__ void input_gradient(const LoraInputTerms& terms, int block) {
    extern __shared__ __align__(128) unsigned char shared[];
    constexpr int GROUPS = S::TILE / 8, ROWS = S::THREADS / GROUPS, OWN = S::TILE / ROWS;
    static_assert(2 * S::STAGE_BYTES + S::TILE * S::TILE * 4 <= STAGES * S::STAGE_BYTES,
                  "no more than a grouped GEMM needs");
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
            const LoraInputTerm& term = terms.term[to_fetch];
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
            total[i] = load_partial(place_of(i), valid, terms.vector);
        }
    }
    int stage = 0;
#pragma unroll 1
    for (int adapter = 0; adapter < terms.count; adapter++) {
        const LoraInputTerm& term = terms.term[adapter];
        typename S::Accumulators acc = {};
#pragma unroll 1
        for (int k = 0; k < term.rank; k += TILE_K, stage ^= 1) {
            fetch_next(stage ^ 1);
            copy_wait<1>();
            __syncthreads();  // all threads have this tile, and have read the sums of the adapter before
            multiply<S, Layout::NN>(acc, shared + stage * S::STAGE_BYTES, warp_m, warp_n, false);
            if (k + TILE_K < term.rank) {
                __syncthreads();  // the stage may be overwritten
            }
        }
        store_accumulators<S>(sums, acc, warp_m, warp_n);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            if (is_inside(i)) {
                const int row = own_row + i * ROWS;
                Vector<8> sum;
                load_sums<S>(sum, sums, row - first_row, group * 8);
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
            store_partial(place_of(i), total[i], valid, terms.vector);
        }
    }
}

}  // namespace

// dx[rows, width] += Σ factor · mask ∘ (t A) over the adapters, and the products of a group, all of them aᵀ
// b. A block for each tile of a product, then one for each tile of dx; shared memory as in gemm_grouped.cu.
#define LORA_INPUTS(NAME, VECTOR)                                                                     \
    extern "C" __global__ void __launch_bounds__(S::THREADS, 4)                                       \
        NAME(const __grid_constant__ GemmGroup group, const __grid_constant__ LoraInputTerms terms) { \
        if (int(blockIdx.x) < group.blocks) {                                                         \
            grouped_gemm_block<VECTOR, true>(group, blockIdx.x);                                      \
        } else {                                                                                      \
            input_gradient<VECTOR>(terms, blockIdx.x - group.blocks);                                 \
        }                                                                                             \
    }

LORA_INPUTS(lora_inputs, true)
LORA_INPUTS(lora_inputs_any, false)
