// Causal varlen attention, forward, with TMA and wgmma. Contract: src/ops/attention.rs. Launched by
// src/cuda/attention/sm90.rs.
//
// A tile is as many queries of a sequence, with all heads of a group, as two consumer warpgroups have rows
// for (packed rows, attention.h). A producer loads the tile's queries, and then keys and values into a ring
// of STAGES: those of the shared prefix, then the sequence's own. Blocks stay for a share of all tiles. While
// the products of weights and values run, a consumer turns the next scores into weights; the two consumers
// wait for nothing of each other.
//
// Tensor maps end where the keys of a tile end: what lies behind them, in another sequence or in none, is
// loaded as zeros (`load_rows`).

#include "attention.h"
#include "hopper.h"

namespace {

constexpr int ROWS = ATTENTION_SM90_ROWS, KEYS = ATTENTION_SM90_KEYS, STAGES = ATTENTION_SM90_STAGES;
constexpr int CONSUMERS = ATTENTION_SM90_CONSUMERS, THREADS = ATTENTION_SM90_THREADS;
// Tiles in shared memory are panels of 64 columns: rows of the 128-byte swizzle.
constexpr int PANEL = 64, PANEL_BYTES = 64 * PANEL * 2;
constexpr int K_OF_WGMMA = 16;
constexpr int PRODUCER_REGISTERS = 24, CONSUMER_REGISTERS = 240;

static_assert(THREADS == (CONSUMERS + 1) * WARPGROUP, "the last warpgroup is the producer");
static_assert(ROWS == 64 && KEYS == 64, "a wgmma of scores is 64 by 64");
static_assert((PRODUCER_REGISTERS + CONSUMERS * CONSUMER_REGISTERS) * WARPGROUP <= 65536);

// Tensor maps of queries, keys and values.
struct KERNEL_PARAMETER QkvMaps {
    CUtensorMap q;
    CUtensorMap k;
    CUtensorMap v;
};

// The tiles of a launch, in the order of heads, sequences and queries, and what each block has of them.
struct KERNEL_PARAMETER TileShares {
    int of_head;  // tiles of a key/value head
    int queries;  // of a consumer
    int end[ATTENTION_SM90_BLOCKS];
};

// A tile: queries of a sequence and the tiles of keys that they see.
struct Tile {
    Sequence sequence;
    int kv_head;
    int query;  // the first
    int prefix_tiles;
    int own_tiles;

    __device__ int key_tiles() const { return prefix_tiles + own_tiles; }
};

__device__ __forceinline__ int key_tiles(int keys) {
    return (keys + KEYS - 1) / KEYS;
}

__device__ __forceinline__ Tile find_tile(const Sequences& sequences, const TileShares& shares, int number) {
    const int kv_head = number / shares.of_head, in_head = number - kv_head * shares.of_head;
    const Sequence sequence = sequences.find(in_head);
    const int queries = CONSUMERS * shares.queries, query = (in_head - sequence.first_tile) * queries;
    return {sequence, kv_head, query, key_tiles(sequence.prefix_len),
            key_tiles(min(query + queries, sequence.len))};
}

// Shared memory: queries and outputs of each consumer, STAGES of keys and values, the barriers.
template <int D>
struct Shared {
    static constexpr int PANELS = D / PANEL, TILE_BYTES = PANELS * PANEL_BYTES;
    unsigned base;

    __device__ unsigned q(int consumer) const { return base + consumer * TILE_BYTES; }
    __device__ unsigned o(int consumer) const { return q(CONSUMERS + consumer); }
    __device__ unsigned k(int stage) const { return o(CONSUMERS) + stage * TILE_BYTES; }
    __device__ unsigned v(int stage) const { return k(STAGES + stage); }
    __device__ unsigned q_full() const { return v(STAGES); }
    __device__ unsigned q_empty() const { return q_full() + 8; }
    __device__ unsigned k_full(int stage) const { return q_empty() + 8 + stage * 8; }
    __device__ unsigned v_full(int stage) const { return k_full(STAGES + stage); }
    __device__ unsigned k_empty(int stage) const { return v_full(STAGES + stage); }
    __device__ unsigned v_empty(int stage) const { return k_empty(STAGES + stage); }
};

template <int D>
__device__ __forceinline__ void init_barriers(const Shared<D>& shared) {
    if (threadIdx.x == 0) {
        constexpr int WARPS = CONSUMERS * WARPGROUP / WARP;
        barrier_init(shared.q_full(), 1);
        barrier_init(shared.q_empty(), WARPS);
        for (int stage = 0; stage < STAGES; stage++) {
            barrier_init(shared.k_full(stage), 1);
            barrier_init(shared.v_full(stage), 1);
            barrier_init(shared.k_empty(stage), WARPS);
            barrier_init(shared.v_empty(stage), WARPS);
        }
        barrier_init_fence();
    }
    __syncthreads();
}

// The role of one thread: it loads what consumers multiply.
template <int D>
struct Producer {
    const Shared<D>& shared;
    const QkvMaps& maps;
    unsigned step = 0;  // stages filled so far
    unsigned tiles = 0;

    __device__ __forceinline__ void load(const Tile& tile, const TileShares& shares, const HeadShape& heads) {
        load_queries(tile, shares.queries, heads);
        const Sequence& sequence = tile.sequence;
        load_keys(tile.kv_head, sequence.prefix_start, sequence.prefix_len);
        load_keys(tile.kv_head, sequence.start, min(tile.query + CONSUMERS * shares.queries, sequence.len));
    }

    __device__ __forceinline__ void load_queries(const Tile& tile, int queries, const HeadShape& heads) {
        if (tiles > 0) {
            barrier_wait(shared.q_empty(), (tiles - 1) % 2);
        }
        barrier_arrive_expect(shared.q_full(),
                              CONSUMERS * Shared<D>::PANELS * queries * heads.group * PANEL * 2);
#pragma unroll 1
        for (int consumer = 0; consumer < CONSUMERS; consumer++) {
            const int query = tile.query + consumer * queries;
            load_rows(shared.q(consumer), maps.q, tile.kv_head * heads.group, tile.sequence.start + query,
                      min(max(tile.sequence.len - query, 0), queries), queries, shared.q_full());
        }
        tiles++;
    }

    // Keys and values of rows `start .. start + len`.
    __device__ __forceinline__ void load_keys(int kv_head, int start, int len) {
#pragma unroll 1
        for (int first = 0; first < len; first += KEYS) {
            const int stage = step % STAGES, round = step / STAGES, valid = min(len - first, KEYS);
            if (round > 0) {
                barrier_wait(shared.k_empty(stage), (round - 1) % 2);
            }
            barrier_arrive_expect(shared.k_full(stage), Shared<D>::TILE_BYTES);
            load_rows(shared.k(stage), maps.k, kv_head, start + first, valid, KEYS, shared.k_full(stage));
            if (round > 0) {
                barrier_wait(shared.v_empty(stage), (round - 1) % 2);
            }
            barrier_arrive_expect(shared.v_full(stage), Shared<D>::TILE_BYTES);
            load_rows(shared.v(stage), maps.v, kv_head, start + first, valid, KEYS, shared.v_full(stage));
            step++;
        }
    }

    // Loads `valid` rows from `row` on, and zeros instead of the rest of a box of `rows`. The maps' third
    // dimension has as many as a box and the same stride as the fourth, which begins as many rows before the
    // matrix: rows are found by the sum of both, and end where the third does.
    __device__ __forceinline__ void load_rows(unsigned to, const CUtensorMap& map, int head, int row,
                                              int valid, int rows, unsigned full) const {
#pragma unroll
        for (int panel = 0; panel < Shared<D>::PANELS; panel++) {
            tma_load(to + panel * PANEL_BYTES, map, {panel * PANEL, head, rows - valid, row + valid}, full);
        }
    }
};

// The running softmax of the two rows of a thread: `weigh` as in attention.h, but the outputs are scaled by
// who has them.
struct RunningSoftmax {
    static constexpr float SLACK = 8.0f;

    float max[2];
    float sum[2];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            max[half] = -INFINITY;
            sum[half] = 0.0f;
        }
    }

    // Turns scores into weights and adds them to the sums. Whether what was summed before has to be
    // multiplied by `factor`.
    __device__ __forceinline__ bool weigh(float (&s)[KEYS / 2], float scale, float (&factor)[2]) {
        float largest[2];
        bool raise = false;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float here = -INFINITY;
#pragma unroll
            for (int i = 2 * half; i < KEYS / 2; i += 4) {
                here = fmaxf(here, fmaxf(s[i], s[i + 1]));
            }
            here = fmaxf(here, __shfl_xor_sync(ALL_LANES, here, 1));
            largest[half] = scale * fmaxf(here, __shfl_xor_sync(ALL_LANES, here, 2));
            raise |= largest[half] > max[half] + SLACK;
        }
        raise = __any_sync(ALL_LANES, raise);
        if (raise) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const float raised = fmaxf(max[half], largest[half]);
                factor[half] = exp2_fast(max[half] - raised);
                max[half] = raised;
                sum[half] *= factor[half];
            }
        }
#pragma unroll
        for (int i = 0; i < KEYS / 2; i++) {
            const int half = i % 4 / 2;
            s[i] = exp2_fast(fmaf(s[i], scale, -max[half]));
            sum[half] += s[i];
        }
        return raise;
    }

    // Reduces the sums over the lanes of a row.
    __device__ __forceinline__ void reduce_sums() {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            sum[half] += __shfl_xor_sync(ALL_LANES, sum[half], 1);
            sum[half] += __shfl_xor_sync(ALL_LANES, sum[half], 2);
        }
    }
};

// The role of a warpgroup: attention of its rows of a tile.
template <int D>
struct Consumer {
    const Shared<D>& shared;
    int number;
    float scale;        // of scores, to units of ln 2
    unsigned step = 0;  // stages released so far
    unsigned tiles = 0;

    RunningSoftmax softmax;
    unsigned q[D / K_OF_WGMMA][4];
    float s[KEYS / 2];
    unsigned p[KEYS / K_OF_WGMMA][4];
    float o[D / 2];

    __device__ static int lane() { return threadIdx.x % WARP; }
    __device__ static int warp() { return threadIdx.x % WARPGROUP / WARP; }

    // One lane of each warp tells the producer.
    __device__ __forceinline__ static void release(unsigned empty) {
        if (lane() == 0) {
            barrier_arrive(empty);
        }
    }

    // Address of a lane's row of four 8×8 matrices: 16 rows and two chunks of 8 columns from `chunk` on.
    __device__ __forceinline__ static unsigned matrices(unsigned tile, int row, int chunk) {
        return tile + chunk / 8 * PANEL_BYTES + row * 128 + ((chunk % 8 + lane() / 16) ^ (row % 8)) * 16;
    }

    // Queries of the next tile. Rows beyond the last of a box, of which there are `rows`, repeat it.
    __device__ __forceinline__ void load_queries(int rows) {
        barrier_wait(shared.q_full(), tiles % 2);
        const int row = min(warp() * 16 + lane() % 16, rows - 1);
#pragma unroll
        for (int i = 0; i < D / K_OF_WGMMA; i++) {
            load_matrices(q[i], matrices(shared.q(number), row, 2 * i));
        }
        release(shared.q_empty());
        tiles++;
    }

    // Starts the scores of the keys of a step.
    __device__ __forceinline__ void multiply_keys(unsigned step) {
        const int stage = step % STAGES;
        barrier_wait(shared.k_full(stage), step / STAGES % 2);
        const Operand keys(shared.k(stage));
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < D / K_OF_WGMMA; i++) {
            const int d = i * K_OF_WGMMA;
            wgmma<false>(s, q[i], keys.at(d / PANEL * PANEL_BYTES + d % PANEL * 2), i > 0);
        }
        wgmma_commit();
    }

    // Starts to add the weighted values of a step, or to begin with them.
    __device__ __forceinline__ void multiply_values(unsigned step, bool add) {
        const int stage = step % STAGES;
        barrier_wait(shared.v_full(stage), step / STAGES % 2);
        const Operand values(shared.v(stage), PANEL_BYTES);
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < KEYS / K_OF_WGMMA; i++) {
            wgmma<true>(o, p[i], values.at(i * K_OF_WGMMA * PANEL * 2), add || i > 0);
        }
        wgmma_commit();
    }

    // Hides keys from the scores of a tile: the rows of this thread see the first `sees[..]`.
    __device__ __forceinline__ void mask(const int (&sees)[2]) {
        const int column = lane() % 4 * 2;
#pragma unroll
        for (int i = 0; i < KEYS / 2; i++) {
            s[i] = i / 4 * 8 + i % 2 + column < sees[i % 4 / 2] ? s[i] : -INFINITY;
        }
    }

    __device__ __forceinline__ void round_weights() {
#pragma unroll
        for (int i = 0; i < KEYS / K_OF_WGMMA; i++) {
#pragma unroll
            for (int j = 0; j < 4; j++) {
                p[i][j] = packed(s[i * 8 + 2 * j], s[i * 8 + 2 * j + 1]);
            }
        }
    }

    // A tile of queries.
    __device__ __forceinline__ void attend(const Tile& tile, int queries, const HeadShape& heads, bf16* to,
                                           float* lse) {
        load_queries(queries * heads.group);
        const Sequence& sequence = tile.sequence;
        const int first = tile.query + number * queries, end = min(first + queries, sequence.len);
        const PackedRows rows = {sequence.start, tile.kv_head, first * heads.group + warp() * 16,
                                 end * heads.group};
        int own[2];  // keys of the sequence's own that the rows of this thread see
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int row = rows.first + half * 8 + lane() / 4;
            own[half] = heads.query_of(min(row, rows.end - 1)) + 1;
        }
        const auto mask_tile = [&](int i) {
            const int before = (i - tile.prefix_tiles) * KEYS;  // own keys before those of the tile
            const int in_prefix = sequence.prefix_len - i * KEYS;
            if ((before < 0 ? in_prefix : first + 1 - before) < KEYS) {
                const int sees[2] = {before < 0 ? in_prefix : own[0] - before,
                                     before < 0 ? in_prefix : own[1] - before};
                mask(sees);
            }
        };
        // A consumer whose queries see fewer keys than those of the other leaves the last ones out.
        const int all = tile.key_tiles(), seen = first < end ? tile.prefix_tiles + key_tiles(end) : 0;
        if (seen > 0) {
            accumulate(seen, mask_tile);
        }
#pragma unroll 1
        for (int i = seen; i < all; i++, step++) {
            const int stage = step % STAGES, parity = step / STAGES % 2;
            barrier_wait(shared.k_full(stage), parity);
            release(shared.k_empty(stage));
            barrier_wait(shared.v_full(stage), parity);
            release(shared.v_empty(stage));
        }
        if (seen > 0) {
            store(rows, heads, to, lse);
        }
    }

    // Softmax and sums over `count` tiles of keys.
    template <typename Mask>
    __device__ __forceinline__ void accumulate(int count, const Mask& mask_tile) {
        float factor[2];
        softmax.clear();
        multiply_keys(step);
        wgmma_wait<0>();
        pin(s);
        release(shared.k_empty(step % STAGES));
        mask_tile(0);
        softmax.weigh(s, scale, factor);
        round_weights();
#pragma unroll 1
        for (int i = 1; i < count; i++) {
            multiply_keys(step + 1);
            multiply_values(step, i > 1);
            wgmma_wait<1>();
            pin(s);
            release(shared.k_empty((step + 1) % STAGES));
            mask_tile(i);
            const bool raised = softmax.weigh(s, scale, factor);
            wgmma_wait<0>();
            pin(o);
            release(shared.v_empty(step % STAGES));
            if (raised) {
                scale_outputs(factor);
            }
            round_weights();
            step++;
        }
        multiply_values(step, count > 1);
        wgmma_wait<0>();
        pin(o);
        release(shared.v_empty(step % STAGES));
        step++;
    }

    __device__ __forceinline__ void scale_outputs(const float (&by)[2]) {
#pragma unroll
        for (int i = 0; i < D / 2; i++) {
            o[i] *= by[i % 4 / 2];
        }
    }

    // Divides by the sums and writes the outputs, by way of the warp's part of shared memory so that whole
    // rows are written 16 bytes at a time.
    __device__ __forceinline__ void store(const PackedRows& rows, const HeadShape& heads, bf16* to,
                                          float* lse) {
        softmax.reduce_sums();
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const long long at = rows.number(half * 8 + lane() / 4, heads);
            if (lane() % 4 == 0 && at >= 0) {
                lse[at] = LN_2 * softmax.max[half] + logf(softmax.sum[half]);
            }
        }
        scale_outputs({1.0f / softmax.sum[0], 1.0f / softmax.sum[1]});
        const unsigned tile = shared.o(number) + warp() * 16 * 128;
        __syncwarp();  // all lanes have read the last outputs
#pragma unroll
        for (int chunk = 0; chunk < D / CHUNK; chunk += 2) {
            const float* pairs = o + chunk * 4;
            const unsigned words[4] = {packed(pairs[0], pairs[1]), packed(pairs[2], pairs[3]),
                                       packed(pairs[4], pairs[5]), packed(pairs[6], pairs[7])};
            store_matrices(matrices(tile, lane() % 16, chunk), words);
        }
        __syncwarp();
#pragma unroll 2
        for (int i = lane(); i < 16 * D / CHUNK; i += WARP) {
            const int row = i / (D / CHUNK), chunk = i % (D / CHUNK);
            const long long at = rows.at(row, heads.q_width(), heads);
            const uint4 values =
                load_shared_vector(tile + chunk / 8 * PANEL_BYTES + row * 128 + ((chunk ^ row) % 8) * 16);
            if (at >= 0 && chunk * CHUNK < heads.dim) {
                *reinterpret_cast<uint4*>(to + at + chunk * CHUNK) = values;
            }
        }
    }
};

template <int D>
__device__ __forceinline__ void forward(bf16* o, float* lse, const QkvMaps& maps, const Sequences& sequences,
                                        const TileShares& shares, const HeadShape& heads) {
    extern __shared__ __align__(1024) unsigned char bytes[];
    const Shared<D> shared = {shared_address(bytes)};
    init_barriers(shared);
    const int first = blockIdx.x == 0 ? 0 : shares.end[blockIdx.x - 1], end = shares.end[blockIdx.x];
    // From one lane, so that it is uniform to the compiler.
    const int role = __shfl_sync(ALL_LANES, threadIdx.x / WARPGROUP, 0);
    if (role == CONSUMERS) {
        give_registers<PRODUCER_REGISTERS>();
        if (threadIdx.x % WARPGROUP == 0) {
            Producer<D> producer = {shared, maps};
#pragma unroll 1
            for (int number = first; number < end; number++) {
                producer.load(find_tile(sequences, shares, number), shares, heads);
            }
        }
    } else {
        take_registers<CONSUMER_REGISTERS>();
        Consumer<D> consumer = {shared, role, heads.scale * LOG2_E};
#pragma unroll 1
        for (int number = first; number < end; number++) {
            consumer.attend(find_tile(sequences, shares, number), shares.queries, heads, o, lse);
        }
    }
}

}  // namespace

// o[.., q_width], lse[.., query heads] of the tiles from shares.end[blockIdx.x − 1] to the next end.
// Maps have the 128-byte swizzle and four dimensions: elements of a head; heads; rows, as many as a box has;
// and rows of the matrix, and as many before it. Boxes are of 64 elements; for queries of a group's heads and
// shares.queries rows, for keys and values of one head and KEYS rows. Dynamic shared memory as in Shared. o
// starts on multiples of 16 bytes, the head's dimension is a multiple of 8, at most D, a group at most ROWS.
#define FORWARD(D)                                                                               \
    extern "C" __global__ void __launch_bounds__(THREADS, 1)                                     \
        attention_##D##_sm90(bf16* o, float* lse, const __grid_constant__ QkvMaps maps,          \
                             const __grid_constant__ Sequences sequences,                        \
                             const __grid_constant__ TileShares shares, const HeadShape heads) { \
        forward<D>(o, lse, maps, sequences, shares, heads);                                      \
    }
FORWARD(64)
FORWARD(128)
