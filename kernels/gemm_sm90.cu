// Warp-specialised, persistent GEMM with TMA, multicast and wgmma: y[m, n] = x[m, k] · w[n, k]ᵀ + bias[n] +
// residual[m, n] with LoRA, also with a SwiGLU epilogue, as gemm_nt.cu; and y = x[m, k] · w[k, n], as
// gemm_nn.cu. Launched by src/cuda/gemm/sm90.rs; gemm_sm90.h has the main loop.

#include "gemm_sm90.h"
#include "swiglu.h"

namespace {

// Extent of a LoRA term: in some columns and the first rows, y += xa[rows, rank] · b[columns, rank]ᵀ.
struct KERNEL_PARAMETER LoraRange {
    int rows;
    int column;  // the first
    int columns;
    int rank;
};

// The LoRA terms of a launch.
struct KERNEL_PARAMETER LoraMaps {
    CUtensorMap xa[GEMM_LORA_TERMS];
    CUtensorMap b[GEMM_LORA_TERMS];
    LoraRange range[GEMM_LORA_TERMS];
    int count;
    int padding[3];
};

// Outputs of the SwiGLU epilogue: h, and the rows of [gate | up] that are kept.
struct KERNEL_PARAMETER GatedMaps {
    CUtensorMap h;
    CUtensorMap gate_up;
};

// Tiles along k of x and w.
__device__ __forceinline__ int tiles_along_k(int k) {
    return (k + TILE_K - 1) / TILE_K;
}

// Tiles along k that a LoRA term adds to a pair of tiles of y, as many to both: they share stages. What one
// of them has no use for is outside of xa or of b, and so zero.
template <bool GATED>
__device__ __forceinline__ int lora_tiles(const LoraRange& term, const Tiles<GATED>& tiles, int pair) {
    const auto meets = [&](int column) {
        return column < term.column + term.columns && column + HALF_N > term.column;
    };
    bool any = false;
    for (int rank = 0; rank < CLUSTER; rank++) {
        const Tile tile = tiles.tile(pair, rank);
        any |= tile.row < term.rows && (meets(tile.columns.first) || meets(tile.columns.second));
    }
    return any ? tiles_along_k(term.rank) : 0;
}

template <bool GATED>
__device__ __forceinline__ int lora_tiles(const LoraMaps& lora, const Tiles<GATED>& tiles, int pair) {
    int sum = 0;
#pragma unroll 1
    for (int i = 0; i < lora.count; i++) {
        sum += lora_tiles(lora.range[i], tiles, pair);
    }
    return sum;
}

// Producer: the tiles of the LoRA terms.
template <bool GATED>
__device__ __forceinline__ void produce_lora(Producer& producer, const LoraMaps& lora,
                                             const Tiles<GATED>& tiles, int pair) {
    const auto [row, columns] = tiles.tile(pair, producer.rank);
#pragma unroll 1
    for (int i = 0; i < lora.count; i++) {
        const int count = lora_tiles(lora.range[i], tiles, pair), before = lora.range[i].column;
#pragma unroll 1
        for (int tile = 0; tile < count; tile++) {
            // A row of b before its first is outside.
            producer.fill<true>(lora.xa[i], lora.b[i], tile * TILE_K, row,
                                {columns.first - before, columns.second - before});
        }
    }
}

// acc + bias + residual, rounded, to y.
struct LinearEpilogue {
    const CUtensorMap& y_map;
    bf16* y;
    const float* bias;                // null for none
    const CUtensorMap* residual_map;  // null for none
    int m, n;

    // Before the products of a tile: prefetches the residual of the first boxes.
    __device__ __forceinline__ void begin(const Boxes& boxes, const Tile& tile) const {
        if (residual_map && boxes.is_leader()) {
            tma_store_wait_read<0>();
            for (int box = 0; box < BOXES; box++) {
                fetch_residual(boxes, tile, box);
            }
        }
    }

    __device__ __forceinline__ void end(Boxes& boxes, const Tile& tile, const float (&acc)[128]) const {
        const int row = tile.row + boxes.consumer * BOX;
#pragma unroll
        for (int i = 0; i < TILE_N / BOX; i++) {
            const int column = tile.columns.first + i * BOX;
            const float2 biases = biases_of_lane(column);
            if (residual_map) {
                await_residual(boxes, tile, i);
            } else {
                boxes.wait();
            }
#pragma unroll
            for (int chunk = 0; chunk < BOX / 8; chunk += 2) {
                fill(boxes.matrices(chunk), acc + i * BOX / 2 + chunk * 4, chunk < 4 ? biases.x : biases.y,
                     chunk);
            }
            if (n % 8 == 0) {
                boxes.store(y_map, column, row, row < m && column < n);
            } else {
                store_elements(boxes, row, column);
            }
        }
    }

    // The bias of this lane's column in either half of a box.
    __device__ __forceinline__ float2 biases_of_lane(int first_column) const {
        const int column = first_column + threadIdx.x % WARP, next = column + WARP;
        return {bias && column < n ? bias[column] : 0.0f, bias && next < n ? bias[next] : 0.0f};
    }

    // 16 rows of a warp and two chunks of 8 columns; lanes have the `biases` of the half of the box.
    __device__ __forceinline__ void fill(unsigned matrices, const float* acc, float biases, int chunk) const {
        unsigned words[4] = {};
        if (residual_map) {
            load_matrices(words, matrices);
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float2 add = {0.0f, 0.0f};
            if (bias) {
                const int lane = (chunk + i) % 4 * 8 + threadIdx.x % 4 * 2;
                add = {__shfl_sync(ALL_LANES, biases, lane), __shfl_sync(ALL_LANES, biases, lane + 1)};
            }
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int word = 2 * i + half;
                const float2 before = unpacked(words[word]);
                words[word] = packed(acc[2 * word] + add.x + before.x, acc[2 * word + 1] + add.y + before.y);
            }
        }
        store_matrices(matrices, words);
    }

    // Leader: the residual of box `i` of a tile. Each of BOXES gets as many of a tile, an even number.
    __device__ __forceinline__ void fetch_residual(const Boxes& boxes, const Tile& tile, int i) const {
        const int number = boxes.consumer * BOXES + i % BOXES;
        const unsigned loaded = boxes.shared.loaded(number);
        barrier_arrive_expect(loaded, BOX_BYTES);
        tma_load(boxes.shared.box(number), *residual_map, tile.columns.first + i * BOX,
                 tile.row + boxes.consumer * BOX, loaded);
    }

    // Waits for the residual of box `i`, and has that of the next follow.
    __device__ __forceinline__ void await_residual(const Boxes& boxes, const Tile& tile, int i) const {
        if (boxes.is_leader() && i > 0 && i + 1 < TILE_N / BOX) {
            tma_store_wait_read<0>();
            fetch_residual(boxes, tile, i + 1);
        }
        barrier_wait(boxes.shared.loaded(boxes.number()), i / BOXES % 2);
    }

    // For rows of y that do not start on multiples of 16 bytes.
    __device__ __forceinline__ void store_elements(Boxes& boxes, int row, int column) const {
        boxes.sync();
        const unsigned box = boxes.box();
        for (int i = threadIdx.x % WARPGROUP; i < BOX * BOX; i += WARPGROUP) {
            const int in_row = i / BOX, in_column = i % BOX;
            if (row + in_row < m && column + in_column < n) {
                const int chunk = (in_column / 8) ^ (in_row % 8);
                y[size_t(row + in_row) * n + column + in_column] =
                    load_shared(box + in_row * 128 + chunk * 16 + in_column % 8 * 2);
            }
        }
        boxes.stored++;
    }
};
static_assert(TILE_N / BOX % (2 * BOXES) == 0,
              "the phases of a box's barrier are those of its place in a tile");

// h = silu(gate) · up for [gate | up] = acc. Both factors are rounded before h is computed, as in `swiglu`.
struct GatedEpilogue {
    const GatedMaps& to;
    int kept, m, n;

    __device__ __forceinline__ void begin(const Boxes&, const Tile&) const {}

    __device__ __forceinline__ void end(Boxes& boxes, const Tile& tile, const float (&acc)[128]) const {
        const int row = tile.row + boxes.consumer * BOX;
#pragma unroll
        for (int i = 0; i < HALF_N / BOX; i++) {
            const int column = tile.columns.first + i * BOX;
            const bool inside = row < m && column < n;
            const float *gate = acc + i * BOX / 2, *up = gate + HALF_N / 2;
            if (row < kept) {
                store(boxes, to.gate_up, column, row, inside,
                      [&](int j) { return packed(gate[j], gate[j + 1]); });
                store(boxes, to.gate_up, n + column, row, inside,
                      [&](int j) { return packed(up[j], up[j + 1]); });
            }
            store(boxes, to.h, column, row, inside, [&](int j) {
                const float2 g = unpacked(packed(gate[j], gate[j + 1]));
                const float2 u = unpacked(packed(up[j], up[j + 1]));
                return packed(swiglu(g.x, u.x), swiglu(g.y, u.y));
            });
        }
    }

    // Fills and stores a box with pairs of sums.
    template <typename F>
    __device__ __forceinline__ void store(Boxes& boxes, const CUtensorMap& map, int column, int row,
                                          bool inside, F pair) const {
        boxes.wait();
#pragma unroll
        for (int chunk = 0; chunk < BOX / 8; chunk += 2) {
            const unsigned words[4] = {pair(chunk * 4), pair(chunk * 4 + 2), pair(chunk * 4 + 4),
                                       pair(chunk * 4 + 6)};
            store_matrices(boxes.matrices(chunk), words);
        }
        boxes.store(map, column, row, inside);
    }
};

// [dgate | dup] from [gate | up] and dh = acc, rounded, as in `swiglu_backward`; n is a multiple of BOX.
struct GatedBackwardEpilogue {
    const CUtensorMap& dgate_up_map;
    const bf16* gate_up;  // [m, 2n]
    int m, n;
    // A warp's 16 rows of a box of gate and of up, on their way to shared memory.
    static constexpr int LOADS = 16 * BOX / 8 / WARP;
    uint4 gate[LOADS], up[LOADS];

    __device__ __forceinline__ void begin(const Boxes& boxes, const Tile& tile) { load(boxes, tile, 0); }

    __device__ __forceinline__ void end(Boxes& boxes, const Tile& tile, const float (&acc)[128]) {
        const int row = tile.row + boxes.consumer * BOX;
        static_assert(BOXES == 2, "one for gate and dgate, the next for up and dup");
#pragma unroll
        for (int i = 0; i < TILE_N / BOX; i++) {
            const int column = tile.columns.first + i * BOX;
            boxes.wait<0>();
            put(boxes.box());
            if (i + 1 < TILE_N / BOX) {
                load(boxes, tile, i + 1);
            }
            __syncwarp();
#pragma unroll
            for (int chunk = 0; chunk < BOX / 8; chunk += 2) {
                replace(boxes.matrices(chunk), acc + i * BOX / 2 + chunk * 4);
            }
            const bool inside = row < m && column < n;
            boxes.store(dgate_up_map, column, row, inside);
            boxes.store(dgate_up_map, n + column, row, inside);
        }
    }

    // Starts to load gate and up of box `i` of a tile: 16 bytes of four rows by a warp.
    __device__ __forceinline__ void load(const Boxes& boxes, const Tile& tile, int i) {
        const int column = tile.columns.first + i * BOX + threadIdx.x % 8 * 8;
#pragma unroll
        for (int part = 0; part < LOADS; part++) {
            const int row = tile.row + boxes.consumer * BOX + row_of(part);
            const bool inside = row < m && column < n;
            const bf16* from = gate_up + size_t(row) * 2 * n + column;
            gate[part] = inside ? *reinterpret_cast<const uint4*>(from) : make_uint4(0, 0, 0, 0);
            up[part] = inside ? *reinterpret_cast<const uint4*>(from + n) : make_uint4(0, 0, 0, 0);
        }
    }

    // Puts them into a box each, swizzled.
    __device__ __forceinline__ void put(unsigned box) const {
#pragma unroll
        for (int part = 0; part < LOADS; part++) {
            const int row = row_of(part);
            const unsigned to = box + row * 128 + ((threadIdx.x % 8) ^ (row % 8)) * 16;
            store_shared(to, gate[part]);
            store_shared(to + BOX_BYTES, up[part]);
        }
    }

    // This thread's row of a part of a warpgroup's box.
    __device__ __forceinline__ static int row_of(int part) {
        return threadIdx.x % WARPGROUP / WARP * 16 + part * 4 + threadIdx.x % WARP / 8;
    }

    // Replaces gate and up of 16 rows and two chunks of columns by their gradients.
    __device__ __forceinline__ static void replace(unsigned matrices, const float* acc) {
        unsigned gates[4], ups[4];
        load_matrices(gates, matrices);
        load_matrices(ups, matrices + BOX_BYTES);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float2 g = unpacked(gates[i]), u = unpacked(ups[i]);
            const float2 dh = unpacked(packed(acc[2 * i], acc[2 * i + 1]));
            const float2 first = swiglu_gradient(dh.x, g.x, u.x), second = swiglu_gradient(dh.y, g.y, u.y);
            gates[i] = packed(first.x, second.x);
            ups[i] = packed(first.y, second.y);
        }
        store_matrices(matrices, gates);
        store_matrices(matrices + BOX_BYTES, ups);
    }
};

// A block: `stages` of a pair of tiles from maps of x and w, and `lora` if it is not null.
template <bool W_ALONG_K, bool GATED, typename Epilogue>
__device__ __forceinline__ void run(const CUtensorMap& x_map, const CUtensorMap& w_map,
                                    const Tiles<GATED>& tiles, int k, const LoraMaps* lora,
                                    Epilogue epilogue) {
    extern __shared__ __align__(GEMM_SM90_ALIGNMENT) unsigned char bytes[];
    const Shared shared{shared_address(bytes)};
    init_barriers(shared);
    const int rank = cluster_rank(), pairs = tiles.pairs();
    const int first = blockIdx.x / CLUSTER, clusters = gridDim.x / CLUSTER;
    // From one lane, so that it is uniform to the compiler.
    const int role = __shfl_sync(ALL_LANES, threadIdx.x / WARPGROUP, 0);
    if (role == CONSUMERS) {
        give_registers<PRODUCER_REGISTERS>();
        if (threadIdx.x % WARPGROUP == 0) {
            tma_prefetch(x_map);
            tma_prefetch(w_map);
            Producer producer = {shared, tiles.share_x, rank};
#pragma unroll 1
            for (int pair = first; pair < pairs; pair += clusters) {
                const auto [row, columns] = tiles.tile(pair, rank);
                for (int at = 0; at < k; at += TILE_K) {
                    producer.fill<W_ALONG_K>(x_map, w_map, at, row, columns);
                }
                if (lora) {
                    produce_lora(producer, *lora, tiles, pair);
                }
            }
        }
    } else {
        take_registers<CONSUMER_REGISTERS>();
        Consumer consumer = {shared, role};
        Boxes boxes = {shared, role};
        float acc[128] = {};
        pin(acc);
#pragma unroll 1
        for (int pair = first; pair < pairs; pair += clusters) {
            const Tile tile = tiles.tile(pair, rank);
            epilogue.begin(boxes, tile);
            consumer.multiply<W_ALONG_K>(acc, tiles_along_k(k) + (lora ? lora_tiles(*lora, tiles, pair) : 0));
            epilogue.end(boxes, tile, acc);
        }
        if (boxes.is_leader()) {
            tma_store_wait_read<0>();
        }
    }
    // A block stays while the other one writes to its memory. Lanes of the producer come from a branch.
    __syncwarp();
    cluster_sync();
}

}  // namespace

// Clusters of two blocks, no more than the device has multiprocessors for; dynamic shared memory as in
// Shared. Boxes of the maps: [HALF_M, TILE_K] of x[m, k] and each xa, [HALF_N, TILE_K] of w[n, k] and each b,
// [BOX, BOX] of y[m, n] and residual, all with the 128-byte swizzle. y_map is only used where n is a multiple
// of 8, which `with_residual` requires. bias may be null.
extern "C" __global__ void __launch_bounds__(THREADS, 1) __cluster_dims__(CLUSTER)
    gemm_nt_sm90(const __grid_constant__ CUtensorMap x_map, const __grid_constant__ CUtensorMap w_map,
                 const __grid_constant__ CUtensorMap y_map, bf16* y, const float* bias, int m, int n, int k,
                 int share_x, const __grid_constant__ CUtensorMap residual_map, int with_residual,
                 const __grid_constant__ LoraMaps lora) {
    const Tiles<false> tiles = {m, n, share_x != 0};
    run<true>(x_map, w_map, tiles, k, &lora,
              LinearEpilogue{y_map, y, bias, with_residual ? &residual_map : nullptr, m, n});
}

// y[m, n] = x[m, k] · w[k, n]: the box of w is [TILE_K, PANEL_N]. All else as above.
extern "C" __global__ void __launch_bounds__(THREADS, 1) __cluster_dims__(CLUSTER)
    gemm_nn_sm90(const __grid_constant__ CUtensorMap x_map, const __grid_constant__ CUtensorMap w_map,
                 const __grid_constant__ CUtensorMap y_map, bf16* y, int m, int n, int k, int share_x) {
    const Tiles<false> tiles = {m, n, share_x != 0};
    run<false>(x_map, w_map, tiles, k, nullptr, LinearEpilogue{y_map, y, nullptr, nullptr, m, n});
}

// h[m, n] = silu(gate) · up for [gate | up] = x[m, k] · w[2n, k]ᵀ, n a multiple of HALF_N. Boxes as above, of
// h[m, n] and gate_up[kept, 2n] like y; the latter's map is not used if `kept` is 0.
extern "C" __global__ void __launch_bounds__(THREADS, 1) __cluster_dims__(CLUSTER)
    gemm_nt_gated_sm90(const __grid_constant__ CUtensorMap x_map, const __grid_constant__ CUtensorMap w_map,
                       const __grid_constant__ GatedMaps to, int kept, int m, int n, int k, int share_x,
                       const __grid_constant__ LoraMaps lora) {
    const Tiles<true> tiles = {m, n, share_x != 0};
    run<true>(x_map, w_map, tiles, k, &lora, GatedEpilogue{to, kept, m, n});
}

// dgate_up[m, 2n] of a feed-forward from the gradient dh[m, n] = x[m, k] · w[k, n] of h and gate_up[m, 2n], n
// a multiple of BOX. Maps as above, that of dgate_up like y.
extern "C" __global__ void __launch_bounds__(THREADS, 1) __cluster_dims__(CLUSTER)
    gemm_nn_gated_sm90(const __grid_constant__ CUtensorMap x_map, const __grid_constant__ CUtensorMap w_map,
                       const __grid_constant__ CUtensorMap dgate_up_map, const bf16* gate_up, int m, int n,
                       int k, int share_x) {
    const Tiles<false> tiles = {m, n, share_x != 0};
    run<false>(x_map, w_map, tiles, k, nullptr, GatedBackwardEpilogue{dgate_up_map, gate_up, m, n});
}
