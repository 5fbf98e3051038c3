// Adjustment of marked tokens, guidance, sampling and the verification of drafts. Contract:
// src/ops/sample.rs.
//
// Sampling does not sort the logits. A block reads its row once, keeping it in registers and shared memory,
// and finds the largest logit and the sum of all weights e^((x − largest) / temperature). Candidates are the
// tokens whose logit is not below the c-th largest of the threads' maxima: the likeliest ones, at least c of
// them, and hardly more as the threads have stripes of the row. They are sorted, and top-k, top-p and the
// draw are computed among them in f64, as on the CPU. Where more are needed or there are too many, `search`
// finds the same cuts by bisection over the 65536 values of a bf16, with repeated passes over the row, which
// is in L2.

#include "philox.h"
#include "row.h"

namespace {

constexpr int WARPS = SAMPLE_THREADS / WARP;
constexpr unsigned NO_TOKEN = 0xffffffffu;
constexpr unsigned NEGATIVE_INFINITY = 0xff80, NOTHING = 0xffff;  // bits of bf16; the key of the latter is 0

// How a row is sampled, as src/cuda/sample.rs passes it.
struct KERNEL_PARAMETER SampleArguments {
    unsigned long long seed;
    unsigned site;
    float temperature;
    float top_p;
    int top_k;
    int kept;  // vectors of a row that fit shared memory
    int width;
};

// The bits of a bf16 as an integer with the same order.
__device__ __forceinline__ unsigned key_of(unsigned bits) {
    return bits & 0x8000u ? ~bits & 0xffffu : bits | 0x8000u;
}

// The inverse of key_of.
__device__ __forceinline__ float value_of(unsigned key) {
    return __uint_as_float((key & 0x8000u ? key ^ 0x8000u : ~key & 0xffffu) << 16);
}

// f(bits, column) for the elements of a vector.
template <typename F>
__device__ __forceinline__ void for_each_element(const Row& row, int vector, const uint4& packed, F f) {
    const unsigned words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
    for (int i = 0; i < 8; i++) {
        f(i % 2 == 0 ? words[i / 2] & 0xffffu : words[i / 2] >> 16, row.column(vector, i));
    }
}

// A row, of which each thread caches its own vectors in registers and shared memory.
struct KeptRow {
    Row row;
    uint4* memory;
    int in_memory;
    uint4 registers[SAMPLE_VECTORS];

    static constexpr int FIRST_IN_MEMORY = SAMPLE_VECTORS * SAMPLE_THREADS;

    // f(vector, elements) for this thread's vectors, which are loaded and cached.
    template <typename F>
    __device__ __forceinline__ void read(F f) {
        const int vectors = row.vectors();
#pragma unroll
        for (int slot = 0; slot < SAMPLE_VECTORS; slot++) {
            const int vector = slot * SAMPLE_THREADS + threadIdx.x;
            registers[slot] = make_uint4(0, 0, 0, 0);
            if (vector < vectors) {
                registers[slot] = row.get(vector, NEGATIVE_INFINITY);
                f(vector, registers[slot]);
            }
        }
#pragma unroll 1
        for (int vector = FIRST_IN_MEMORY + threadIdx.x; vector < vectors; vector += SAMPLE_THREADS) {
            const uint4 packed = row.get(vector, NEGATIVE_INFINITY);
            if (vector - FIRST_IN_MEMORY < in_memory) {
                memory[vector - FIRST_IN_MEMORY] = packed;
            }
            f(vector, packed);
        }
    }

    // f(vector, elements) for this thread's vectors, from the cache.
    template <typename F>
    __device__ __forceinline__ void again(F f) const {
        const int vectors = row.vectors();
#pragma unroll
        for (int slot = 0; slot < SAMPLE_VECTORS; slot++) {
            int vector = slot * SAMPLE_THREADS + threadIdx.x;
            if (vector < vectors) {
                // Hides that these are loop-invariant: the compiler would hoist values derived from them,
                // more than there are registers for.
                uint4 here = registers[slot];
                asm volatile("" : "+r"(vector), "+r"(here.x), "+r"(here.y), "+r"(here.z), "+r"(here.w));
                f(vector, here);
            }
        }
#pragma unroll 1
        for (int vector = FIRST_IN_MEMORY + threadIdx.x; vector < vectors; vector += SAMPLE_THREADS) {
            const bool here = vector - FIRST_IN_MEMORY < in_memory;
            f(vector, here ? memory[vector - FIRST_IN_MEMORY] : row.get(vector, NEGATIVE_INFINITY));
        }
    }
};

// Σ x over the block, for all threads, in a fixed order. May be called repeatedly.
__device__ __forceinline__ double sum_of_block(double x) {
    __shared__ double of_warp[WARPS];
    x = warp_sum(x);
    __syncthreads();
    if (threadIdx.x % WARP == 0) {
        of_warp[threadIdx.x / WARP] = x;
    }
    __syncthreads();
    const int lane = threadIdx.x % WARP;
    return warp_sum(lane < WARPS ? of_warp[lane] : 0.0);
}

// The largest x of the block, for all threads. Called once per kernel.
__device__ __forceinline__ unsigned long long largest_of_block(unsigned long long x) {
    __shared__ unsigned long long of_warp[WARPS];
    const auto largest_of_warp = [](unsigned long long x) {
#pragma unroll
        for (int lanes = WARP / 2; lanes > 0; lanes /= 2) {
            x = max(x, __shfl_xor_sync(ALL_LANES, x, lanes));
        }
        return x;
    };
    x = largest_of_warp(x);
    if (threadIdx.x % WARP == 0) {
        of_warp[threadIdx.x / WARP] = x;
    }
    __syncthreads();
    const int lane = threadIdx.x % WARP;
    return largest_of_warp(lane < WARPS ? of_warp[lane] : 0);
}

// Inclusive prefix sum of x over the block. Called once per kernel.
__device__ __forceinline__ double running_sum(double x) {
    __shared__ double of_warp[WARPS];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
#pragma unroll
    for (int lanes = 1; lanes < WARP; lanes *= 2) {
        const double before = __shfl_up_sync(ALL_LANES, x, lanes);
        x += lane >= lanes ? before : 0.0;
    }
    if (lane == WARP - 1) {
        of_warp[warp] = x;
    }
    __syncthreads();
    double before = 0.0;
#pragma unroll 1
    for (int i = 0; i < warp; i++) {
        before += of_warp[i];
    }
    return before + x;
}

// Parameters of a draw.
struct Draw {
    int k;  // tokens kept by top-k
    double top_p;
    double random;  // in [0, 1)
    float largest, temperature, inverse;

    // e^((x − largest) / temperature), approximately.
    __device__ __forceinline__ float weight(float x) const { return exp_fast((x - largest) * inverse); }
};

// Σ f(key, column) over the row, for all threads, in a fixed order.
template <typename F>
__device__ __forceinline__ double sum_of_row(const Row& row, F f) {
    float sum = 0.0f;
    const int vectors = row.vectors();
#pragma unroll 1
    for (int vector = threadIdx.x; vector < vectors; vector += SAMPLE_THREADS) {
        for_each_element(row, vector, row.get(vector, NOTHING),
                         [&](unsigned bits, int column) { sum += f(key_of(bits), column); });
    }
    return sum_of_block(sum);
}

// A token, or NO_TOKEN, and the probability with which it was drawn.
struct Drawn {
    unsigned token;
    float probability;
};

// The drawn token of any row. Three cuts are found by the same bisection, each the largest key from which on
// there is enough: tokens for top-k, mass for top-p, mass for the draw.
__device__ __forceinline__ Drawn search(const Row& row, const Draw& draw) {
    unsigned kth = 0, last = 0, drawn = 0;  // keys at the cuts
    double kth_ties = 0.0, last_ties = 0.0,
           drawn_before = 0.0;  // tokens of that key that are in, or before the one drawn
    double total = 0.0, mass = 0.0;
    const auto key_weight = [&](unsigned key) { return double(draw.weight(value_of(key))); };
#pragma unroll 1
    for (int stage = draw.k < row.width ? 0 : 1; stage < 3; stage++) {
        const bool counts = stage == 0;
        // Tokens or mass from a key on, as far as top-k keeps it.
        const auto measure = [&](unsigned from) {
            const unsigned first = counts ? from : max(from, kth + 1);
            const double sum = sum_of_row(row, [&](unsigned key, int) {
                return key < first ? 0.0f : counts ? 1.0f : draw.weight(value_of(key));
            });
            return !counts && kth > 0 && from <= kth ? sum + kth_ties * key_weight(kth) : sum;
        };
        double enough = draw.k;
        if (stage == 1) {
            total = mass = measure(0);
            if (draw.top_p >= 1.0) {
                continue;
            }
            enough = max(draw.top_p * total, 1e-30);
        } else if (stage == 2) {
            enough = draw.random * mass;
        }
        unsigned cut = 0;
        double above = 0.0;
#pragma unroll 1
        for (unsigned bit = 0x8000; bit > 0; bit /= 2) {
            const double found = measure(cut | bit);
            if (stage == 2 ? found > enough : found >= enough) {
                cut |= bit;
            } else {
                above = found;  // in the end, of cut + 1
            }
        }
        if (stage == 0) {
            kth = cut;
            kth_ties = draw.k - above;
        } else if (stage == 1) {
            last = cut;
            last_ties = max(ceil((enough - above) / key_weight(cut)), 1.0);
            mass = above + last_ties * key_weight(cut);
        } else {
            drawn = cut;
            drawn_before = max(floor((enough - above) / key_weight(cut)), 0.0);
        }
    }
    if (last > 0 && drawn <= last) {
        drawn = last;
        drawn_before = min(drawn_before, last_ties - 1.0);
    }
    // Bisection for the token with `drawn_before` tokens of the same key before it.
    const auto up_to = [&](unsigned token) {
        return sum_of_row(
            row, [&](unsigned key, int column) { return key == drawn && column <= token ? 1.0f : 0.0f; });
    };
    const double wanted = min(drawn_before + 1.0, up_to(row.width));
    unsigned low = 0, high = row.width - 1;
#pragma unroll 1
    while (low < high) {
        const unsigned middle = (low + high) / 2;
        if (up_to(middle) >= wanted) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return {low, float(key_weight(drawn) / mass)};
}

// Candidates in shared memory: 65535 − key above the token, so that the likeliest is the smallest.
struct Candidates {
    unsigned long long found[SAMPLE_CANDIDATES];
    unsigned long long sorted[SAMPLE_CANDIDATES];
    int count;
};
static_assert(SAMPLE_CANDIDATES == SAMPLE_THREADS);

// The drawn token, if the candidates decide it; else NO_TOKEN. `total` is the weight of the whole row.
__device__ __forceinline__ Drawn draw_from(Candidates& candidates, int width, const Draw& draw,
                                           double total) {
    const int count = candidates.count, i = threadIdx.x;
    if (count > SAMPLE_CANDIDATES || (count < draw.k && draw.k < width)) {
        return {NO_TOKEN, 0.0f};
    }
    if (i < count) {
        const unsigned long long mine = candidates.found[i];
        int rank = 0;
        for (int other = 0; other < count; other++) {
            rank += candidates.found[other] < mine;
        }
        candidates.sorted[rank] = mine;
    }
    __syncthreads();
    double weight = 0.0;
    if (i < min(count, draw.k)) {
        const float value = value_of(0xffffu - unsigned(candidates.sorted[i] >> 32));
        weight = exp((double(value) - double(draw.largest)) / double(draw.temperature));
    }
    const double through = running_sum(weight);
    __shared__ double of_candidates;
    if (i == SAMPLE_THREADS - 1) {
        of_candidates = through;
    }
    __syncthreads();
    const int known = min(count, draw.k);
    const bool complete = known == draw.k;
    total = complete ? of_candidates : max(total, of_candidates);
    const double limit = draw.top_p * total;
    // A token is kept while those before it have less than the limit: the one that crosses it is in.
    const int kept = max(__syncthreads_count(i < known && through - weight < limit), 1);
    const bool ends = complete || kept < known || of_candidates >= limit;
    if (!ends && draw.top_p < 1.0) {
        return {NO_TOKEN, 0.0f};
    }
    __shared__ double of_kept, of_drawn;
    if (i == kept - 1) {
        of_kept = through;
    }
    __syncthreads();
    const double mass = ends ? of_kept : total;
    const int drawn = __syncthreads_count(i < kept && through <= draw.random * mass);
    if (drawn >= kept && !ends) {
        return {NO_TOKEN, 0.0f};
    }
    const int place = min(drawn, kept - 1);
    if (i == place) {
        of_drawn = weight;
    }
    __syncthreads();
    return {unsigned(candidates.sorted[place]), float(of_drawn / mass)};
}

// The largest key that is reached by at least `wanted` threads.
__device__ __forceinline__ unsigned reached_by(int wanted, unsigned key) {
    unsigned cut = 0;
#pragma unroll 1
    for (unsigned bit = 0x8000; bit > 0; bit /= 2) {
        if (__syncthreads_count(key >= (cut | bit)) >= wanted) {
            cut |= bit;
        }
    }
    return cut;
}

template <int N>
__device__ __forceinline__ void guide_rows(bf16* logits, const float* stats, const float* strength,
                                           float boost, int rows, int width) {
    const int at = (blockIdx.x * blockDim.x + threadIdx.x) * N;
    if (at >= width) {
        return;
    }
    const Vector<N> s = load<N>(stats + at);
    const int first = blockIdx.y * GUIDE_ROWS, end = min(first + GUIDE_ROWS, rows);
    for (int row = first; row < end; row++) {
        bf16* to = logits + size_t(row) * width + at;
        Vector<N> x = load<N>(to);
        const float factor = strength[row];
#pragma unroll
        for (int i = 0; i < N; i++) {
            x.v[i] += s.v[i] * factor + boost * fmaxf(s.v[i], 0.0f);
        }
        store(to, x);
    }
}

// Adjusts N tokens of a row. Most threads return at once, as few tokens are marked.
template <int N>
__device__ __forceinline__ void adjust_row(bf16* logits, unsigned char* marks, unsigned last, float penalty,
                                           unsigned seen, unsigned suppressed, int width) {
    const unsigned at = (blockIdx.x * blockDim.x + threadIdx.x) * N;
    if (at >= width) {
        return;
    }
    const size_t start = size_t(blockIdx.y) * width + at;
    if constexpr (N == 8) {
        const uint2 all = *reinterpret_cast<const uint2*>(marks + start);
        if ((all.x | all.y) == 0 && last - at >= N) {
            return;
        }
    }
#pragma unroll 1
    for (int i = 0; i < N; i++) {
        unsigned mark = marks[start + i];
        if (at + i == last) {
            mark |= seen;
            marks[start + i] = mark;
        }
        if (mark == 0) {
            continue;
        }
        float x = __bfloat162float(logits[start + i]);
        if (mark & seen) {
            x = x < 0.0f ? x * penalty : x / penalty;
        }
        if (mark & suppressed) {
            x = __uint_as_float(NEGATIVE_INFINITY << 16);
        }
        logits[start + i] = __float2bfloat16_rn(x);
    }
}

}  // namespace

// Adjusts logits[rows, width] by marks[rows, width], in which last[rows] become `seen`. Blocks along x share
// the columns, along y the rows. With width a multiple of 8, marks start on a multiple of 8 bytes.
extern "C" __global__ void __launch_bounds__(GUIDE_THREADS)
    adjust(bf16* logits, unsigned char* marks, const unsigned* last, float penalty, unsigned seen,
           unsigned suppressed, int width) {
    const unsigned token = last[blockIdx.y];
    if (width % 8 == 0) {
        adjust_row<8>(logits, marks, token, penalty, seen, suppressed, width);
    } else {
        adjust_row<1>(logits, marks, token, penalty, seen, suppressed, width);
    }
}

// logits[rows, width] += …, stats[width], strength[rows]. Blocks along x share the columns, along y the rows,
// GUIDE_ROWS each. With width a multiple of 8, logits and stats start on multiples of 16 bytes.
extern "C" __global__ void __launch_bounds__(GUIDE_THREADS)
    guide(bf16* logits, const float* stats, const float* strength, float boost, int rows, int width) {
    if (width % 8 == 0) {
        guide_rows<8>(logits, stats, strength, boost, rows, width);
    } else {
        guide_rows<1>(logits, stats, strength, boost, rows, width);
    }
}

// tokens[rows] and, unless null, probabilities[rows] from logits[rows, width], which start on a multiple of
// 16 bytes, and numbers[rows] of their samples; positions[rows], where the tokens stand, become one more. One
// block per row; 16 · kept bytes of dynamic shared memory.
extern "C" __global__ void __launch_bounds__(SAMPLE_THREADS)
    sample(unsigned* tokens, float* probabilities, unsigned* positions, bf16* logits, const unsigned* numbers,
           SampleArguments a) {
    extern __shared__ uint4 memory[];
    __shared__ Candidates candidates;
    __shared__ unsigned number, position;
    const int width = a.width;
    if (threadIdx.x == 0) {
        number = numbers[blockIdx.x];
        position = positions[blockIdx.x];
    }
    KeptRow kept = {Row(logits, blockIdx.x, width), memory, a.kept, {}};
    const auto put = [&](const Drawn& drawn) {
        if (threadIdx.x == 0) {
            tokens[blockIdx.x] = drawn.token;
            positions[blockIdx.x] = position + 1;
            if (probabilities != nullptr) {
                probabilities[blockIdx.x] = drawn.probability;
            }
        }
    };
    Draw draw;
    draw.temperature = a.temperature;
    draw.inverse = fminf(1.0f / a.temperature, 3e38f);

    // The first of the largest logits, where ±0 are equal.
    unsigned best = 0, best_token = 0, largest_key = 0;
    float largest = -3.402823466e38f, sum = 0.0f;
    bool nan = false;
    kept.read([&](int vector, const uint4& packed) {
        const Vector<8> x = unpacked(packed);
        float new_largest = largest;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            new_largest = fmaxf(new_largest, x.v[i]);
        }
        sum *= exp_fast((largest - new_largest) * draw.inverse);
        largest = new_largest;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            sum += exp_fast((x.v[i] - largest) * draw.inverse);
            nan |= x.v[i] != x.v[i];
        }
        for_each_element(kept.row, vector, packed, [&](unsigned bits, int column) {
            const unsigned key = key_of(bits), of_value = key_of(bits == 0x8000u ? 0 : bits);
            largest_key = max(largest_key, key);
            if (of_value > best && kept.row.inside(column)) {
                best = of_value;
                best_token = column;
            }
        });
    });
    const unsigned long long first_best =
        static_cast<unsigned long long>(best) << 32 | (NO_TOKEN - best_token);
    const unsigned long long best_of_all = largest_of_block(first_best);
    draw.largest = value_of(unsigned(best_of_all >> 32));
    const bool any_nan = __syncthreads_or(nan);
    if (any_nan || a.temperature == 0.0f || isinf(draw.largest)) {
        put({any_nan ? NO_TOKEN : NO_TOKEN - unsigned(best_of_all), 1.0f});
        return;
    }
    const double total = sum_of_block(double(sum) * draw.weight(largest));

    draw.k = a.top_k == 0 ? width : min(a.top_k, width);
    draw.top_p = a.top_p;
    draw.random = unit(philox(a.seed, make_uint4(number, position, a.site, 0)).x);
    // The fewer stripes have to reach the bound, the fewer tokens do. Fewer than top-k only help where equal
    // logits made the candidates too many.
    const int stripes = min(kept.row.vectors(), SAMPLE_THREADS);
    int wanted = a.top_k == 0 ? stripes / 4 : min(draw.k, stripes / 2);
#pragma unroll 1
    do {
        const unsigned bound = width > SAMPLE_CANDIDATES ? reached_by(wanted, largest_key) : 0;
        if (threadIdx.x == 0) {
            candidates.count = 0;
        }
        __syncthreads();
        if (largest_key >= bound) {
            kept.again([&](int vector, const uint4& packed) {
                for_each_element(kept.row, vector, packed, [&](unsigned bits, int column) {
                    const unsigned key = key_of(bits);
                    if (key >= bound && kept.row.inside(column)) {
                        const int place = atomicAdd(&candidates.count, 1);
                        if (place < SAMPLE_CANDIDATES) {
                            candidates.found[place] =
                                static_cast<unsigned long long>(0xffffu - key) << 32 | column;
                        }
                    }
                });
            });
        }
        __syncthreads();
        wanted /= 4;
    } while (candidates.count > SAMPLE_CANDIDATES && wanted > 0);
    Drawn drawn = draw_from(candidates, width, draw, total);
    if (drawn.token == NO_TOKEN) {
        drawn = search(kept.row, draw);
    }
    put(drawn);
}

// Puts drafts[rows] in the place of tokens[rows] where their probabilities by logits[rows, width], which
// start on a multiple of 16 bytes, are more than `threshold` of probabilities[rows]. One block per row.
extern "C" __global__ void __launch_bounds__(SAMPLE_THREADS)
    verify(unsigned* tokens, const unsigned* drafts, const float* probabilities, bf16* logits,
           float threshold, int width) {
    const Row row(logits, blockIdx.x, width);
    const int vectors = row.vectors();
    float largest = -3.402823466e38f, sum = 0.0f;
#pragma unroll 4
    for (int vector = threadIdx.x; vector < vectors; vector += SAMPLE_THREADS) {
        const Vector<8> x = unpacked(row.get(vector, NEGATIVE_INFINITY));
        float new_largest = largest;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            new_largest = fmaxf(new_largest, x.v[i]);
        }
        sum *= exp_fast(largest - new_largest);
        largest = new_largest;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            sum += exp_fast(x.v[i] - largest);
        }
    }
    const unsigned key = key_of(__float_as_uint(largest) >> 16);
    const float of_all = value_of(unsigned(largest_of_block(key)));
    const double total = sum_of_block(double(sum) * exp_fast(largest - of_all));
    if (threadIdx.x != 0) {
        return;
    }
    const unsigned token = tokens[blockIdx.x], draft = drafts[blockIdx.x];
    if (token == NO_TOKEN || draft == NO_TOKEN) {
        tokens[blockIdx.x] = NO_TOKEN;
    } else if (draft < width) {
        const float x = __bfloat162float(logits[size_t(blockIdx.x) * width + draft]);
        const double p = exp(double(x) - double(of_all)) / total;
        if (p > 0.0 && fmin(p / double(probabilities[blockIdx.x]), 1.0) > double(threshold)) {
            tokens[blockIdx.x] = draft;
        }
    }
}
