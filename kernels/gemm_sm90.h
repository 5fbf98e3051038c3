// The main loop of gemm_sm90.cu: a thread of the producer warpgroup issues TMA loads of tiles of x and w into
// a ring of STAGES, two consumer warpgroups multiply 64 rows of a tile of y each, straight from shared
// memory.
//
// Each stage has two mbarriers: `full` completes when its bytes have arrived, `empty` when all consumers of
// the cluster have released it. The two blocks of a cluster compute neighbouring tiles of y at the same time
// and share the operand that these have in common: each loads a half of it into the memory of both. Blocks
// stay for all their tiles, and the producer goes on to the next while consumers store theirs. The TMA fills
// elements outside of a matrix with zeros, and does not store them.
#pragma once

#include "cluster.h"
#include "hopper.h"
#include "raster.h"

constexpr int TILE_M = GEMM_SM90_TILE_M, TILE_N = GEMM_SM90_TILE_N, TILE_K = GEMM_SM90_TILE_K;
constexpr int STAGES = GEMM_SM90_STAGES, CLUSTER = GEMM_SM90_CLUSTER;
constexpr int CONSUMERS = GEMM_SM90_CONSUMERS, THREADS = GEMM_SM90_THREADS;
constexpr int BOX = GEMM_SM90_BOX, BOX_BYTES = BOX * BOX * 2, BOXES = GEMM_SM90_BOXES;
constexpr int X_BYTES = TILE_M * TILE_K * 2, W_BYTES = TILE_N * TILE_K * 2;
constexpr int STAGE_BYTES = X_BYTES + W_BYTES;
// Halves of a tile: what one block loads of an operand that is shared, and for w what may lie apart.
constexpr int HALF_M = TILE_M / 2, HALF_N = TILE_N / 2;
// 64 lines of w where a row is a k.
constexpr int PANEL_N = 64, PANEL_BYTES = PANEL_N * TILE_K * 2;
constexpr int K_OF_WGMMA = 16;
// Registers of a thread, of 65,536 for all.
constexpr int PRODUCER_REGISTERS = 40, CONSUMER_REGISTERS = 232;

static_assert(THREADS == (CONSUMERS + 1) * WARPGROUP, "the last warpgroup is the producer");
static_assert(TILE_M == CONSUMERS * 64 && BOX == 64 && TILE_N == 256, "a wgmma is 64 by 256");
static_assert(TILE_K * 2 == 128 && BOX * 2 == 128, "rows of the 128-byte swizzle");
static_assert(CLUSTER == 2, "each block loads half of what is shared");
static_assert((PRODUCER_REGISTERS + CONSUMERS * CONSUMER_REGISTERS) * WARPGROUP <= 65536);

// Shared memory: STAGES of x and w, BOXES of y for each consumer, the barriers.
struct Shared {
    unsigned base;

    __device__ unsigned x(int stage) const { return base + stage * STAGE_BYTES; }
    __device__ unsigned w(int stage) const { return x(stage) + X_BYTES; }
    __device__ unsigned box(int number) const { return x(STAGES) + number * BOX_BYTES; }
    __device__ unsigned full(int stage) const { return box(CONSUMERS * BOXES) + stage * 8; }
    __device__ unsigned empty(int stage) const { return full(STAGES + stage); }
    // The mbarrier for the bytes of a box that the TMA loads.
    __device__ unsigned loaded(int box) const { return full(2 * STAGES + box); }
};

__device__ __forceinline__ void init_barriers(const Shared& shared) {
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < STAGES; stage++) {
            barrier_init(shared.full(stage), 1);
            barrier_init(shared.empty(stage), CLUSTER * CONSUMERS * WARPGROUP / WARP);
        }
        for (int box = 0; box < CONSUMERS * BOXES; box++) {
            barrier_init(shared.loaded(box), 1);
        }
        barrier_init_fence();
    }
    cluster_sync();
}

// First lines of the halves of a tile of w: adjacent, or one in gate and one in up.
struct Halves {
    int first;
    int second;
};

// A tile of y.
struct Tile {
    int row;  // the first
    Halves columns;
};

// The tiles of y[m, n], in pairs of neighbours, of which a cluster takes one after another. A GATED tile has
// columns of gate and of up, of which there are n each.
template <bool GATED>
struct Tiles {
    int m, n;
    bool share_x;  // blocks of a cluster are neighbours along n and not along m

    static constexpr int COLUMNS = GATED ? HALF_N : TILE_N;

    __device__ int along_m() const {
        const int tiles = (m + TILE_M - 1) / TILE_M;
        return share_x ? tiles : (tiles + 1) / 2;
    }
    __device__ int along_n() const {
        const int tiles = (n + COLUMNS - 1) / COLUMNS;
        return share_x ? (tiles + 1) / 2 : tiles;
    }
    __device__ int pairs() const { return along_m() * along_n(); }

    // The tile of block `rank` of a cluster; it may be outside of y.
    __device__ Tile tile(int pair, int rank) const {
        const int height = share_x ? GEMM_RASTER : GEMM_RASTER / CLUSTER;
        const int2 at = tile_of_block(pair, along_m(), along_n(), height);
        const int row = share_x ? at.x : CLUSTER * at.x + rank;
        const int column = (share_x ? CLUSTER * at.y + rank : at.y) * COLUMNS;
        return {row * TILE_M, {column, GATED ? n + column : column + HALF_N}};
    }
};

// The role of one thread: it loads what consumers multiply.
struct Producer {
    const Shared& shared;
    bool share_x;
    int rank;
    unsigned step = 0;  // stages filled so far

    // Fills the next stage, once it is empty: x at (row, k), w at the halves' lines and k. W_ALONG_K says
    // whether a row of w is a line or a k.
    template <bool W_ALONG_K>
    __device__ __forceinline__ void fill(const CUtensorMap& x_map, const CUtensorMap& w_map, int k, int row,
                                         const Halves& lines) {
        const int stage = step % STAGES, round = step / STAGES;
        if (round > 0) {
            barrier_wait(shared.empty(stage), (round - 1) % 2);
        }
        const unsigned full = shared.full(stage);
        barrier_arrive_expect(full, STAGE_BYTES);
#pragma unroll 1
        for (int half = 0; half < 2; half++) {
            const unsigned x = shared.x(stage) + half * (X_BYTES / 2);
            load(share_x, half, x, x_map, k, row + half * HALF_M, full);
            const unsigned w = shared.w(stage) + half * (W_BYTES / 2);
            const int line = half == 0 ? lines.first : lines.second;
            if (W_ALONG_K) {
                load(!share_x, half, w, w_map, k, line, full);
            } else {
                load(!share_x, half, w, w_map, line, k, full);
                load(!share_x, half, w + PANEL_BYTES, w_map, line + PANEL_N, k, full);
            }
        }
        step++;
    }

    // A box of a half: for both blocks if it is of this block's half of what they share, and none of the
    // other half.
    __device__ __forceinline__ void load(bool is_shared, int half, unsigned to, const CUtensorMap& map,
                                         int column, int row, unsigned full) const {
        if (!is_shared) {
            tma_load(to, map, column, row, full);
        } else if (half == rank) {
            tma_load_multicast(to, map, column, row, full, (1 << CLUSTER) - 1);
        }
    }
};

// The role of a warpgroup: it multiplies its rows of a tile.
struct Consumer {
    const Shared& shared;
    int number;
    unsigned step = 0;  // stages multiplied so far

    // acc = the sum over `stages`. A stage is released once the wgmmas of the next have been issued, so that
    // the tensor cores always have work in flight.
    template <bool W_ALONG_K>
    __device__ __forceinline__ void multiply(float (&acc)[128], int stages) {
        const unsigned last = step + stages;
#pragma unroll 1
        for (bool add = false; step != last; add = true) {
            const int stage = step % STAGES;
            barrier_wait(shared.full(stage), step / STAGES % 2);
            const Operand x(shared.x(stage) + number * 64 * TILE_K * 2);
            const Operand w(shared.w(stage), W_ALONG_K ? 16 : PANEL_BYTES);
            wgmma_fence();
#pragma unroll
            for (int k = 0; k < TILE_K; k += K_OF_WGMMA) {
                const int of_w = W_ALONG_K ? k * 2 : k * PANEL_N * 2;
                wgmma<!W_ALONG_K>(acc, x.at(k * 2), w.at(of_w), add || k > 0);
            }
            wgmma_commit();
            wgmma_wait<1>();
            if (add) {
                release(step - 1);
            }
            step++;
        }
        wgmma_wait<0>();
        pin(acc);
        release(step - 1);
    }

    // Each warp tells both producers.
    __device__ __forceinline__ void release(unsigned step) const {
        if (threadIdx.x % WARP < CLUSTER) {
            barrier_arrive(shared.empty(step % STAGES), threadIdx.x % WARP);
        }
    }
};

// The boxes of y of a consumer, which are filled and stored in turns.
struct Boxes {
    const Shared& shared;
    int consumer;
    unsigned stored = 0;

    __device__ bool is_leader() const { return threadIdx.x % WARPGROUP == 0; }
    __device__ int number() const { return consumer * BOXES + stored % BOXES; }
    __device__ void sync() const { named_barrier(1 + consumer, WARPGROUP); }

    // Waits until the TMA reads at most `PENDING` boxes: the next one may be filled, or all.
    template <int PENDING = BOXES - 1>
    __device__ __forceinline__ void wait() const {
        if (is_leader()) {
            tma_store_wait_read<PENDING>();
        }
        sync();
    }

    __device__ unsigned box() const { return shared.box(number()); }

    // Address of this lane's row of four 8×8 matrices: 16 rows of the warp and two chunks of 8 columns, with
    // the 128-byte swizzle that the TMA undoes.
    __device__ __forceinline__ unsigned matrices(int chunk) const {
        const int lane = threadIdx.x % WARP;
        const int row = threadIdx.x % WARPGROUP / WARP * 16 + lane % 16;
        return box() + row * 128 + ((chunk + lane / 16) ^ (row % 8)) * 16;
    }

    // Stores what all threads have filled at (column, row) of the map, if it is not outside.
    __device__ __forceinline__ void store(const CUtensorMap& map, int column, int row, bool inside) {
        fence_for_tma();
        sync();
        if (is_leader()) {
            if (inside) {
                tma_store(map, column, row, box());
            }
            tma_store_commit();
        }
        stored++;
    }
};
