// softmax(q · kᵀ / √d) · v for heads of 128, in the design of FlashAttention-2: mma.sync, asynchronous
// copies, keys and values in one buffer each, of which one is loaded while the other is used. q, k, v and o
// are [heads, rows, 128]; all rows see all rows.

#include "softmax.h"

namespace {

constexpr int ROWS = 128, KEYS = 64, THREADS = 128, ROW_BYTES = DIM * 2;

// Address of a 16-byte chunk of a tile whose rows are swizzled.
__device__ __forceinline__ unsigned chunk(unsigned tile, int row, int chunk) {
    return tile + row * ROW_BYTES + (chunk ^ row % 8) * 16;
}

// The same of chunk 2 · pair + low: one register serves all pairs.
__device__ __forceinline__ unsigned chunk(unsigned tile, int row, int low, int pair) {
    return chunk(tile, row, low) ^ pair * 32;
}

template <int COUNT>
__device__ __forceinline__ void fetch(unsigned tile, const bf16* from) {
#pragma unroll
    for (int i = 0; i < COUNT * DIM / 8 / THREADS; i++) {
        const int number = i * THREADS + threadIdx.x;
        copy_async(chunk(tile, number / 16, number % 16), from + number * 8, true);
    }
    copy_commit();
}

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS)
    attention_warps(bf16* o, const bf16* q, const bf16* k, const bf16* v, int rows) {
    extern __shared__ __align__(1024) unsigned char bytes[];
    const unsigned q_tile = shared_address(bytes), k_tile = q_tile + ROWS * ROW_BYTES,
                   v_tile = k_tile + KEYS * ROW_BYTES;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const size_t head = size_t(blockIdx.y) * rows * DIM, first = head + size_t(blockIdx.x) * ROWS * DIM;
    fetch<ROWS>(q_tile, q + first);
    fetch<KEYS>(k_tile, k + head);
    float sums[2][64] = {};
    Softmax softmax[2];
    for (int key = 0; key < rows; key += KEYS) {
        copy_wait<0>();
        __syncthreads();
        fetch<KEYS>(v_tile, v + head + size_t(key) * DIM);
        float s[2][KEYS / 2] = {};
#pragma unroll
        for (int d = 0; d < DIM / 16; d++) {
            unsigned a[2][4];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                load_matrices(a[i], chunk(q_tile, warp * 32 + i * 16 + lane % 16, lane / 16, d));
            }
#pragma unroll
            for (int j = 0; j < KEYS / 16; j++) {
                unsigned b[4];
                load_matrices(b, chunk(k_tile, j * 16 + lane % 8 + lane / 16 * 8, lane / 8 % 2, d));
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    mma(reinterpret_cast<float (&)[4]>(s[i][j * 8]), a[i], b[0], b[1]);
                    mma(reinterpret_cast<float (&)[4]>(s[i][j * 8 + 4]), a[i], b[2], b[3]);
                }
            }
        }
        copy_wait<0>();
        __syncthreads();
        if (key + KEYS < rows) {
            fetch<KEYS>(k_tile, k + head + size_t(key + KEYS) * DIM);
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            scale(sums[i], softmax[i].step(s[i]));
        }
#pragma unroll
        for (int j = 0; j < KEYS / 16; j++) {
            unsigned a[2][4];
            as_operand(a[0], s[0] + j * 8);
            as_operand(a[1], s[1] + j * 8);
#pragma unroll
            for (int d = 0; d < DIM / 16; d++) {
                unsigned b[4];
                load_matrices_transposed(b, chunk(v_tile, j * 16 + lane % 16, lane / 16, d));
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    mma(reinterpret_cast<float (&)[4]>(sums[i][d * 8]), a[i], b[0], b[1]);
                    mma(reinterpret_cast<float (&)[4]>(sums[i][d * 8 + 4]), a[i], b[2], b[3]);
                }
            }
        }
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        scale(sums[i], softmax[i].finish());
        write(o + first + (warp * 32 + i * 16) * DIM, sums[i]);
    }
}
