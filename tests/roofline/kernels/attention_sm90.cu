// softmax(q · kᵀ / √d) · v for heads of 128, in the design of FlashAttention-3: wgmma, a producer warpgroup,
// two consumers that take turns, and products that run beside the softmax. q, k, v and o are [heads, rows,
// 128]; all rows see all rows.

#include "softmax.h"
#include "wgmma.h"

namespace {

constexpr int CONSUMERS = 2, ROWS = 64 * CONSUMERS, KEYS = 128, STAGES = 2;
// Tiles are two panels of 64 columns.
constexpr int PANEL = 64, KEY_PANEL_BYTES = KEYS * PANEL * 2, KEY_BYTES = 2 * KEY_PANEL_BYTES;
constexpr int Q_PANEL_BYTES = ROWS * PANEL * 2, Q_BYTES = 2 * Q_PANEL_BYTES;

struct Attention {
    unsigned base;
    int tiles;

    __device__ unsigned q() const { return base; }
    __device__ unsigned k(int stage) const { return base + Q_BYTES + stage * KEY_BYTES; }
    __device__ unsigned v(int stage) const { return k(STAGES + stage); }
    __device__ unsigned q_full() const { return v(STAGES); }
    __device__ unsigned k_full(int stage) const { return q_full() + 8 + stage * 8; }
    __device__ unsigned v_full(int stage) const { return k_full(STAGES + stage); }
    __device__ unsigned k_empty(int stage) const { return v_full(STAGES + stage); }
    __device__ unsigned v_empty(int stage) const { return k_empty(STAGES + stage); }

    __device__ void init_barriers() const {
        if (threadIdx.x == 0) {
            barrier_init(q_full(), 1);
            for (int stage = 0; stage < STAGES; stage++) {
                barrier_init(k_full(stage), 1);
                barrier_init(v_full(stage), 1);
                barrier_init(k_empty(stage), CONSUMERS * WARPGROUP / WARP);
                barrier_init(v_empty(stage), CONSUMERS * WARPGROUP / WARP);
            }
            barrier_init_fence();
        }
        __syncthreads();
    }

    __device__ static void load(unsigned to, int panel_bytes, const CUtensorMap& map, int row,
                                unsigned full) {
        barrier_arrive_expect(full, 2 * panel_bytes);
        tma_load(to, map, 0, row, full);
        tma_load(to + panel_bytes, map, PANEL, row, full);
    }

    __device__ void produce(const CUtensorMap& q_map, const CUtensorMap& k_map, const CUtensorMap& v_map,
                            int q_row, int first_key) const {
        load(q(), Q_PANEL_BYTES, q_map, q_row, q_full());
        for (int tile = 0; tile < tiles; tile++) {
            const int stage = tile % STAGES, round = tile / STAGES, key = first_key + tile * KEYS;
            if (round > 0) {
                barrier_wait(k_empty(stage), (round - 1) % 2);
            }
            load(k(stage), KEY_PANEL_BYTES, k_map, key, k_full(stage));
            if (round > 0) {
                barrier_wait(v_empty(stage), (round - 1) % 2);
            }
            load(v(stage), KEY_PANEL_BYTES, v_map, key, v_full(stage));
        }
    }

    __device__ static void release(unsigned empty) {
        if (threadIdx.x % WARP == 0) {
            barrier_arrive(empty);
        }
    }

    // Starts the scores of a tile.
    __device__ void multiply_keys(float (&s)[64], int consumer, int tile) const {
        const int stage = tile % STAGES;
        barrier_wait(k_full(stage), tile / STAGES % 2);
        wgmma_fence();
#pragma unroll
        for (int d = 0; d < DIM; d += 16) {
            const int panel = d / PANEL, in_panel = d % PANEL * 2;
            const unsigned rows = q() + panel * Q_PANEL_BYTES + consumer * 64 * PANEL * 2;
            const unsigned keys = k(stage) + panel * KEY_PANEL_BYTES;
            wgmma_128(s, Operand(rows).at(in_panel), Operand(keys).at(in_panel));
        }
        wgmma_commit();
    }

    // Starts the sums over a tile's values.
    __device__ void multiply_values(float (&o)[64], const unsigned (&p)[KEYS / 16][4], int tile) const {
        const int stage = tile % STAGES;
        barrier_wait(v_full(stage), tile / STAGES % 2);
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < KEYS / 16; i++) {
            wgmma<true>(o, p[i], Operand(v(stage), KEY_PANEL_BYTES).at(i * 16 * PANEL * 2), true);
        }
        wgmma_commit();
    }

    __device__ void consume(bf16* to, int consumer) const {
        float o[64] = {}, s[64] = {};
        unsigned p[KEYS / 16][4];
        Softmax softmax;
        const auto weigh = [&] {
#pragma unroll
            for (int i = 0; i < KEYS / 16; i++) {
                as_operand(p[i], s + i * 8);
            }
        };
        barrier_wait(q_full(), 0);
        pin(s);
        multiply_keys(s, consumer, 0);
        wgmma_wait<0>();
        pin(s);
        release(k_empty(0));
        softmax.step(s);
        weigh();
        // Consumers start their products in turns, so that one's softmax runs beside the other's products.
        if (consumer == 1) {
            pass_turn(0);
        }
#pragma unroll 1
        for (int tile = 1; tile < tiles; tile++) {
            await_turn(consumer);
#pragma unroll
            for (int i = 0; i < 64; i++) {
                s[i] = 0.0f;
            }
            pin(s);
            multiply_keys(s, consumer, tile);
            multiply_values(o, p, tile - 1);
            pass_turn(1 - consumer);
            wgmma_wait<1>();
            pin(s);
            release(k_empty(tile % STAGES));
            const float2 factor = softmax.step(s);
            wgmma_wait<0>();
            pin(o);
            release(v_empty((tile - 1) % STAGES));
            weigh();
            scale(o, factor);
        }
        if (consumer == 0) {
            await_turn(0);
        }
        multiply_values(o, p, tiles - 1);
        wgmma_wait<0>();
        pin(o);
        scale(o, softmax.finish());
        write(to + (consumer * 64 + threadIdx.x % WARPGROUP / WARP * 16) * DIM, o);
    }

    // Consumers wait at a named barrier each, at which the other arrives.
    __device__ static void await_turn(int consumer) { named_barrier(1 + consumer, 2 * WARPGROUP); }

    __device__ static void pass_turn(int consumer) {
        asm volatile("bar.arrive %0, %1;" ::"r"(1 + consumer), "n"(2 * WARPGROUP) : "memory");
    }
};

}  // namespace

extern "C" __global__ void __launch_bounds__(384, 1)
    attention_warpgroups(const __grid_constant__ CUtensorMap q_map, const __grid_constant__ CUtensorMap k_map,
                         const __grid_constant__ CUtensorMap v_map, bf16* o, int rows) {
    extern __shared__ __align__(1024) unsigned char bytes[];
    const Attention self = {shared_address(bytes), rows / KEYS};
    const int head = blockIdx.y * rows, row = head + blockIdx.x * ROWS;
    self.init_barriers();
    const int warpgroup = threadIdx.x / WARPGROUP;
    if (warpgroup == CONSUMERS) {
        give_registers<24>();
        if (threadIdx.x % WARPGROUP == 0) {
            self.produce(q_map, k_map, v_map, row, head);
        }
    } else {
        take_registers<240>();
        self.consume(o + size_t(row) * DIM, warpgroup);
    }
}
