// Element-wise parts of the security analyzer. Contract: src/ops/analyzer.rs. Rows are short (512, 256 and
// 128 elements), so a warp takes a row, and a block takes many rows: vectors that all rows share (γ, β,
// biases, w) are copied to shared memory once for all of them.
//
// Gradients of these shared vectors are sums over rows. Every warp sums its rows in shared memory of its own,
// the block reduces its warps in order and writes one partial sum, and `add_partials` reduces the blocks in
// order. The rows of a block do not depend on the device, and so neither does the result.

#include "philox.h"
#include "shared_vector.h"

namespace {

// Vectors of a row that a lane keeps in registers; further ones are read again.
constexpr int KEPT = 2;

// f(at, slot) for a lane's vectors of a row; slot KEPT stands for vectors that are not kept.
template <int N, typename F>
__device__ __forceinline__ void for_each_lane_vector(int width, F f) {
    int at = threadIdx.x % WARP * N;
#pragma unroll
    for (int slot = 0; slot < KEPT; slot++, at += WARP * N) {
        if (at < width) {
            f(at, slot);
        }
    }
#pragma unroll 1
    for (; at < width; at += WARP * N) {
        f(at, KEPT);
    }
}

// This warp's rows of the block's `rows_of_block`: consecutive ones, so that scalars of up to 32 rows are
// moved by a lane each, coalesced.
struct Rows {
    int begin, end;

    __device__ __forceinline__ Rows(int rows, int rows_of_block) {
        const int warps = blockDim.x / WARP, each = (rows_of_block + warps - 1) / warps;
        const int first = blockIdx.x * rows_of_block, last = min(rows, first + rows_of_block);
        begin = min(first + int(threadIdx.x) / WARP * each, last);
        end = min(begin + each, last);
    }

    template <typename F>
    __device__ __forceinline__ void for_each(F f) const {
#pragma unroll 1
        for (int row = begin; row < end; row++) {
            f(row);
        }
    }

    // f(first, count) for up to 32 rows at a time.
    template <typename F>
    __device__ __forceinline__ void for_each_group(F f) const {
#pragma unroll 1
        for (int first = begin; first < end; first += WARP) {
            f(first, min(end - first, WARP));
        }
    }
};

// Dropout's factors of N elements: 0 or `scale` each.
template <int N>
__device__ __forceinline__ Vector<N> dropout_factors(const DropoutKey& key, unsigned row_key, int at) {
    const uint4 bits = dropout_bits(key, row_key, at / 8);
    const unsigned words[4] = {bits.x, bits.y, bits.z, bits.w};
    Vector<N> factors = {};
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float factor = kept(key, words[i / 2], i % 2) ? key.scale : 0.0f;
        if constexpr (N == 8) {
            factors.v[i] = factor;
        } else if (at % 8 == i) {
            factors.v[0] = factor;
        }
    }
    return factors;
}

__device__ __forceinline__ float relu(float x) {
    return x < 0.0f ? 0.0f : x;  // NaN stays
}

// Vectors that all rows of the layer share.
template <int N>
struct Layer {
    Shared<N> gamma, beta;

    __device__ __forceinline__ Layer(float* base, int width)
        : gamma(base, width), beta(base + Shared<N>::size(width), width) {}

    // Called by all threads of the block; a barrier has to follow.
    __device__ __forceinline__ void fill(const float* from_gamma, const float* from_beta, int width) const {
        gamma.fill(from_gamma, width);
        beta.fill(from_beta, width);
    }
};

struct ForwardArguments {
    bf16* h;
    bf16* z;
    float* stats;
    const bf16* bias;
    const float* gamma;
    const float* beta;
    const unsigned* row_keys;
    DropoutKey dropout;
    int rows, width;
};

template <int N>
__device__ __forceinline__ void forward_rows(const ForwardArguments& a, float* memory) {
    const int width = a.width;
    const Layer<N> layer(memory, width);
    bf16* bias = reinterpret_cast<bf16*>(memory + 2 * Shared<N>::size(width));
    layer.fill(a.gamma, a.beta, width);
    for (int at = threadIdx.x * N; at < width; at += blockDim.x * N) {
        store(bias + at, load<N>(a.bias + at));  // exact: these are bf16
    }
    __syncthreads();
    Rows(a.rows, ANALYZER_ROWS).for_each([&](int row) {
        bf16* z = a.z + size_t(row) * width;
        // z + bias, which is rounded only where it is stored.
        Vector<N> kept_z[KEPT] = {};
        const auto summed = [&](int at) {
            Vector<N> here = load<N>(z + at);
            const Vector<N> b = load<N>(bias + at);
#pragma unroll
            for (int i = 0; i < N; i++) {
                here.v[i] += b.v[i];
            }
            return here;
        };
        const auto z_at = [&](int at, int slot) { return slot < KEPT ? kept_z[slot] : summed(at); };
        float sum = 0.0f;
        for_each_lane_vector<N>(width, [&](int at, int slot) {
            const Vector<N> here = summed(at);
#pragma unroll
            for (int i = 0; i < N; i++) {
                sum += here.v[i];
            }
            if (slot < KEPT) {
                kept_z[slot] = here;
            }
        });
        const float mean = warp_sum(sum) / width;
        float squares = 0.0f;
        for_each_lane_vector<N>(width, [&](int at, int slot) {
            const Vector<N> here = z_at(at, slot);
#pragma unroll
            for (int i = 0; i < N; i++) {
                squares += (here.v[i] - mean) * (here.v[i] - mean);
            }
        });
        const float rstd = 1.0f / sqrtf(warp_sum(squares) / width + 1e-5f);
        if (threadIdx.x % WARP == 0) {
            reinterpret_cast<float2*>(a.stats)[row] = make_float2(mean, rstd);
        }
        const unsigned row_key = a.row_keys ? a.row_keys[row] : 0;
        for_each_lane_vector<N>(width, [&](int at, int slot) {
            Vector<N> out = z_at(at, slot);
            store(z + at, out);
            const Vector<N> gamma = layer.gamma.get(at), beta = layer.beta.get(at);
#pragma unroll
            for (int i = 0; i < N; i++) {
                out.v[i] = relu((out.v[i] - mean) * rstd * gamma.v[i] + beta.v[i]);
            }
            if (a.row_keys) {
                const Vector<N> factors = dropout_factors<N>(a.dropout, row_key, at);
#pragma unroll
                for (int i = 0; i < N; i++) {
                    out.v[i] *= factors.v[i];
                }
            }
            store(a.h + size_t(row) * width + at, out);
        });
    });
}

// The sums of every warp over its rows: `vectors` vectors of `width`, zero at first.
template <int N>
struct WarpSums {
    float* base;
    int width, vectors;

    __device__ __forceinline__ Shared<N> of_warp(int warp, int vector) const {
        return Shared<N>(base + (warp * vectors + vector) * Shared<N>::size(width), width);
    }

    // Called by all threads of the block; a barrier has to follow.
    __device__ __forceinline__ void clear() const {
        const int n = blockDim.x / WARP * vectors * Shared<N>::size(width);
        for (int i = threadIdx.x; i < n; i += blockDim.x) {
            base[i] = 0.0f;
        }
    }

    // sum[at] += factor · x
    __device__ __forceinline__ void add(int vector, int at, const Vector<N>& x, float factor) const {
        const Shared<N> mine = of_warp(threadIdx.x / WARP, vector);
        Vector<N> sum = mine.get(at);
#pragma unroll
        for (int i = 0; i < N; i++) {
            sum.v[i] += factor * x.v[i];
        }
        mine.set(at, sum);
    }

    // partial[vector · width + i] = Σ over the warps, after a barrier.
    __device__ __forceinline__ void write(float* partial) const {
        const int warps = blockDim.x / WARP;
        for (int vector = 0; vector < vectors; vector++) {
            for (int i = threadIdx.x; i < width; i += blockDim.x) {
                float sum = 0.0f;
#pragma unroll 1
                for (int warp = 0; warp < warps; warp++) {
                    sum += of_warp(warp, vector).element(i);
                }
                partial[vector * width + i] = sum;
            }
        }
    }
};

struct BackwardArguments {
    bf16* dz;
    float* partial;
    const bf16* dh;
    const bf16* z;
    const float* stats;
    const float* gamma;
    const float* beta;
    const float* row_weight;
    const unsigned* row_keys;
    DropoutKey dropout;
    int rows, width;
};

template <int N>
__device__ __forceinline__ void backward_rows(const BackwardArguments& a, float* memory) {
    const int width = a.width;
    const Layer<N> layer(memory, width);
    const WarpSums<N> sums = {memory + 2 * Shared<N>::size(width), width, 2};
    layer.fill(a.gamma, a.beta, width);
    sums.clear();
    __syncthreads();
    Rows(a.rows, ANALYZER_BACKWARD_ROWS).for_each([&](int row) {
        const bf16* z = a.z + size_t(row) * width;
        const bf16* dh = a.dh + size_t(row) * width;
        const float2 stats = reinterpret_cast<const float2*>(a.stats)[row];
        const float mean = stats.x, rstd = stats.y, weight = a.row_weight[row];
        const unsigned row_key = a.row_keys ? a.row_keys[row] : 0;
        // The normalised value, and the gradient of γ times it.
        Vector<N> kept_normal[KEPT] = {}, kept_scaled[KEPT] = {};
        float sum = 0.0f, projection = 0.0f;
        const auto at_vector = [&](int at, bool first, Vector<N>& normal, Vector<N>& scaled) {
            Vector<N> dn = load<N>(dh + at);
            if (a.row_keys) {
                const Vector<N> factors = dropout_factors<N>(a.dropout, row_key, at);
#pragma unroll
                for (int i = 0; i < N; i++) {
                    dn.v[i] *= factors.v[i];
                }
            }
            normal = load<N>(z + at);
            const Vector<N> gamma = layer.gamma.get(at), beta = layer.beta.get(at);
            Vector<N> gain;
#pragma unroll
            for (int i = 0; i < N; i++) {
                normal.v[i] = (normal.v[i] - mean) * rstd;
                dn.v[i] = normal.v[i] * gamma.v[i] + beta.v[i] > 0.0f ? dn.v[i] : 0.0f;
                gain.v[i] = dn.v[i] * normal.v[i];
                scaled.v[i] = dn.v[i] * gamma.v[i];
            }
            if (first) {
                sums.add(0, at, gain, weight);
                sums.add(1, at, dn, weight);
            }
        };
        for_each_lane_vector<N>(width, [&](int at, int slot) {
            Vector<N> normal, scaled;
            at_vector(at, true, normal, scaled);
#pragma unroll
            for (int i = 0; i < N; i++) {
                sum += scaled.v[i];
                projection += scaled.v[i] * normal.v[i];
            }
            if (slot < KEPT) {
                kept_normal[slot] = normal;
                kept_scaled[slot] = scaled;
            }
        });
        sum = warp_sum(sum) / width;
        projection = warp_sum(projection) / width;
        for_each_lane_vector<N>(width, [&](int at, int slot) {
            Vector<N> normal, scaled;
            if (slot < KEPT) {
                normal = kept_normal[slot];
                scaled = kept_scaled[slot];
            } else {
                at_vector(at, false, normal, scaled);
            }
#pragma unroll
            for (int i = 0; i < N; i++) {
                scaled.v[i] = rstd * (scaled.v[i] - sum - normal.v[i] * projection);
            }
            store(a.dz + size_t(row) * width + at, scaled);
        });
    });
    __syncthreads();
    sums.write(a.partial + size_t(blockIdx.x) * 2 * width);
}

template <int N>
__device__ __forceinline__ void bias_relu_rows(bf16* h, const float* bias, int rows, int width,
                                               float* memory) {
    const Shared<N> shared(memory, width);
    shared.fill(bias, width);
    __syncthreads();
    Rows(rows, ANALYZER_ROWS).for_each([&](int row) {
        bf16* to = h + size_t(row) * width;
        for_each_lane_vector<N>(width, [&](int at, int) {
            Vector<N> x = load<N>(to + at);
            const Vector<N> b = shared.get(at);
#pragma unroll
            for (int i = 0; i < N; i++) {
                x.v[i] = relu(x.v[i] + b.v[i]);
            }
            store(to + at, x);
        });
    });
}

template <int N>
__device__ __forceinline__ void score_rows(float* scores, const bf16* h, const float* w, float b, int rows,
                                           int width, float* memory) {
    const Shared<N> shared(memory, width);
    shared.fill(w, width);
    __syncthreads();
    Rows(rows, ANALYZER_BACKWARD_ROWS).for_each_group([&](int first, int count) {
        const int lane = threadIdx.x % WARP;
        float mine = 0.0f;  // the sum of row first + lane
#pragma unroll 1
        for (int i = 0; i < count; i++) {
            float sum = 0.0f;
            for_each_lane_vector<N>(width, [&](int at, int) {
                const Vector<N> x = load<N>(h + size_t(first + i) * width + at), w_here = shared.get(at);
#pragma unroll
                for (int j = 0; j < N; j++) {
                    sum += x.v[j] * w_here.v[j];
                }
            });
            sum = warp_sum(sum);
            mine = i == lane ? sum : mine;
        }
        if (lane < count) {
            scores[first + lane] = 1.0f / (1.0f + expf(-(mine + b)));
        }
    });
}

template <int N>
__device__ __forceinline__ void score_backward_rows(bf16* dz, float* partial, const float* scores,
                                                    const bf16* h, const float* w, const float* row_weight,
                                                    int rows, int width, float* memory) {
    __shared__ float db[ANALYZER_BACKWARD_THREADS / WARP];
    const Shared<N> shared(memory, width);
    const WarpSums<N> sums = {memory + Shared<N>::size(width), width, 1};
    shared.fill(w, width);
    sums.clear();
    __syncthreads();
    float slopes = 0.0f;
    Rows(rows, ANALYZER_BACKWARD_ROWS).for_each_group([&](int first, int count) {
        const int lane = threadIdx.x % WARP;
        // Slope of the score of row first + lane, and its weight.
        const float score = lane < count ? scores[first + lane] : 0.0f,
                    slope_of_lane = score * (1.0f - score);
        const float weight_of_lane = lane < count ? row_weight[first + lane] * slope_of_lane : 0.0f;
        slopes += warp_sum(weight_of_lane);
#pragma unroll 1
        for (int i = 0; i < count; i++) {
            const float slope = __shfl_sync(ALL_LANES, slope_of_lane, i);
            const float weight = __shfl_sync(ALL_LANES, weight_of_lane, i);
            const size_t row = size_t(first + i) * width;
            for_each_lane_vector<N>(width, [&](int at, int) {
                const Vector<N> x = load<N>(h + row + at);
                Vector<N> d = shared.get(at);
#pragma unroll
                for (int j = 0; j < N; j++) {
                    d.v[j] = x.v[j] > 0.0f ? d.v[j] * slope : 0.0f;
                }
                store(dz + row + at, d);
                sums.add(0, at, x, weight);
            });
        }
    });
    if (threadIdx.x % WARP == 0) {
        db[threadIdx.x / WARP] = slopes;
    }
    __syncthreads();
    float* of_block = partial + size_t(blockIdx.x) * (width + 1);
    sums.write(of_block);
    if (threadIdx.x == 0) {
        float sum = 0.0f;
        for (int warp = 0; warp < blockDim.x / WARP; warp++) {
            sum += db[warp];
        }
        of_block[width] = sum;
    }
}

}  // namespace

// All below: with width a multiple of 8, matrices and vectors start on multiples of 16 bytes. Blocks take
// ANALYZER_ROWS rows; those of `score` and those that write partial sums, ANALYZER_BACKWARD_ROWS. A vector in
// shared memory takes width + 32 floats.

// h, z [rows, width], stats[rows, 2], bias, gamma, beta [width], row_keys[rows] or null for no dropout. Three
// vectors in dynamic shared memory.
extern "C" __global__ void __launch_bounds__(ANALYZER_THREADS)
    layer_norm_relu(bf16* h, bf16* z, float* stats, const bf16* bias, const float* gamma, const float* beta,
                    const unsigned* row_keys, DropoutKey dropout, int rows, int width) {
    extern __shared__ __align__(16) float memory[];
    const ForwardArguments arguments = {h, z, stats, bias, gamma, beta, row_keys, dropout, rows, width};
    if (width % 8 == 0) {
        forward_rows<8>(arguments, memory);
    } else {
        forward_rows<1>(arguments, memory);
    }
}

// dz[rows, width] and partial[blocks, 2, width] of dγ and dβ from dh, z [rows, width], stats[rows, 2], gamma,
// beta [width], row_weight[rows], and row_keys as above. Two vectors in dynamic shared memory, and two more
// for each warp.
extern "C" __global__ void __launch_bounds__(ANALYZER_BACKWARD_THREADS)
    layer_norm_relu_backward(bf16* dz, float* partial, const bf16* dh, const bf16* z, const float* stats,
                             const float* gamma, const float* beta, const float* row_weight,
                             const unsigned* row_keys, DropoutKey dropout, int rows, int width) {
    extern __shared__ __align__(16) float memory[];
    const BackwardArguments arguments = {dz,   partial,    dh,       z,       stats, gamma,
                                         beta, row_weight, row_keys, dropout, rows,  width};
    if (width % 8 == 0) {
        backward_rows<8>(arguments, memory);
    } else {
        backward_rows<1>(arguments, memory);
    }
}

// first[n1] and second[n2] += Σ partial[blocks, n1 + n2] over the blocks, in order.
extern "C" __global__ void __launch_bounds__(ELEMENT_THREADS)
    add_partials(float* first, float* second, const float* partial, int blocks, int n1, int n2) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n1 + n2) {
        return;
    }
    float* to = i < n1 ? first + i : second + (i - n1);
    float sum = *to;
    for (int block = 0; block < blocks; block++) {
        sum += partial[size_t(block) * (n1 + n2) + i];
    }
    *to = sum;
}

// h[rows, width] = relu(h + bias[width]). One vector in dynamic shared memory.
extern "C" __global__ void __launch_bounds__(ANALYZER_THREADS)
    bias_relu(bf16* h, const float* bias, int rows, int width) {
    extern __shared__ __align__(16) float memory[];
    if (width % 8 == 0) {
        bias_relu_rows<8>(h, bias, rows, width, memory);
    } else {
        bias_relu_rows<1>(h, bias, rows, width, memory);
    }
}

// scores[rows] = sigmoid(h[rows, width] · w[width] + b[1]). One vector in dynamic shared memory.
extern "C" __global__ void __launch_bounds__(ANALYZER_THREADS)
    score(float* scores, const bf16* h, const float* w, const float* b, int rows, int width) {
    extern __shared__ __align__(16) float memory[];
    if (width % 8 == 0) {
        score_rows<8>(scores, h, w, *b, rows, width, memory);
    } else {
        score_rows<1>(scores, h, w, *b, rows, width, memory);
    }
}

// dz[rows, width], before the ReLU, and partial[blocks, width + 1] of dw and db from scores[rows], h,
// w[width], row_weight[rows]. One vector in dynamic shared memory, and one more for each warp.
extern "C" __global__ void __launch_bounds__(ANALYZER_BACKWARD_THREADS, 2)
    score_backward(bf16* dz, float* partial, const float* scores, const bf16* h, const float* w,
                   const float* row_weight, int rows, int width) {
    extern __shared__ __align__(16) float memory[];
    if (width % 8 == 0) {
        score_backward_rows<8>(dz, partial, scores, h, w, row_weight, rows, width, memory);
    } else {
        score_backward_rows<1>(dz, partial, scores, h, w, row_weight, rows, width, memory);
    }
}
