// Cross-entropy and KL divergence of rows of logits, with their gradient. Contract: src/ops/loss.rs.
//
// Online softmax: one pass over a row finds the sums of both softmaxes, relative to the running maximum; a
// second pass computes the gradient. Between them the row stays in shared memory, as far as it fits: then z
// and y are read once and dz is written once, the minimum of traffic. A thread visits the same elements in
// both passes, so that no barrier is needed between them.
#pragma once

#include "refusal.h"
#include "row.h"

// Arguments of the kernels.
struct LossArguments {
    float* nll;
    float* kl;
    bf16* z;
    bf16* y;  // null: no KL
    const int* targets;
    const float* w_ce;  // of either sign, as are those of
    const float* w_kl;  // the KL divergence, which a row with 0 does not have
    Refusal* refusal;
    float cross_entropy, kl_weight;
    int width;
    int kept;  // vectors of a row that a block keeps in shared memory
};

// Softmax sums over a part of a row.
struct LossSums {
    float z_max, z_sum;  // Σ exp(z − z_max)
    float y_max, y_sum;
    float cross;  // Σ exp(y − y_max) · (y − z)
};

// The sums of no logits. The maximum is finite, so that differences of it are no NaN, and no logit is
// smaller, except −∞.
__device__ __forceinline__ LossSums no_logits() {
    constexpr float LOWEST = -3.402823466e38f;
    return {LOWEST, 0.0f, LOWEST, 0.0f, 0.0f};
}

// The sums of two parts of a row.
__device__ __forceinline__ LossSums merged(const LossSums& a, const LossSums& b) {
    LossSums sums;
    sums.z_max = fmaxf(a.z_max, b.z_max);
    sums.y_max = fmaxf(a.y_max, b.y_max);
    sums.z_sum = a.z_sum * exp_fast(a.z_max - sums.z_max) + b.z_sum * exp_fast(b.z_max - sums.z_max);
    const float a_factor = exp_fast(a.y_max - sums.y_max), b_factor = exp_fast(b.y_max - sums.y_max);
    sums.y_sum = a.y_sum * a_factor + b.y_sum * b_factor;
    sums.cross = a.cross * a_factor + b.cross * b_factor;
    return sums;
}

// Reduces sums over the warp, in a fixed order, for lane 0.
__device__ __forceinline__ LossSums warp_merged(LossSums sums) {
#pragma unroll
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2) {
        const LossSums other = {
            __shfl_xor_sync(ALL_LANES, sums.z_max, lanes), __shfl_xor_sync(ALL_LANES, sums.z_sum, lanes),
            __shfl_xor_sync(ALL_LANES, sums.y_max, lanes), __shfl_xor_sync(ALL_LANES, sums.y_sum, lanes),
            __shfl_xor_sync(ALL_LANES, sums.cross, lanes)};
        sums = merged(sums, other);
    }
    return sums;
}

// Reduces sums over the LOSS_THREADS threads of a block, for all of them.
__device__ __forceinline__ LossSums block_merged(LossSums sums) {
    __shared__ LossSums of_warp[LOSS_THREADS / WARP];
    __shared__ LossSums of_block;
    static_assert(LOSS_THREADS == WARP * WARP);
    sums = warp_merged(sums);
    if (threadIdx.x % WARP == 0) {
        of_warp[threadIdx.x / WARP] = sums;
    }
    __syncthreads();
    if (threadIdx.x < WARP) {
        sums = warp_merged(of_warp[threadIdx.x]);
        if (threadIdx.x == 0) {
            of_block = sums;
        }
    }
    __syncthreads();
    return of_block;
}

// A block's part of a row: vectors [begin, end). `all_reduce` turns the block's sums into those of the row.
// `writes` is true for the one block that writes the losses; `target` is negative for none, and `w_kl` is the
// row's.
template <bool WITH_Y, typename F>
__device__ __forceinline__ void loss_row(const LossArguments& a, int index, int target, float w_kl, int begin,
                                         int end, bool writes, uint4* memory, F all_reduce) {
    constexpr unsigned LOWEST = 0xff7f;  // the lowest finite bf16
    const Row z(a.z, index, a.width);
    const Row y(WITH_Y ? a.y : a.z, index, a.width);
    const int kept = min(a.kept, end - begin);
    const auto get = [&](const Row& row, int vector) { return row.get(vector, LOWEST); };
    const bool needs_target = writes && threadIdx.x == 0 && target >= 0;
    const float target_logit = needs_target ? __bfloat162float(z.base[z.shift + target]) : 0.0f;

    LossSums sums = no_logits();
    for (int vector = begin + threadIdx.x; vector < end; vector += blockDim.x) {
        const uint4 z_packed = get(z, vector);
        uint4 y_packed = make_uint4(0, 0, 0, 0);
        if (WITH_Y) {
            y_packed = get(y, vector);
        }
        if (vector - begin < kept) {
            memory[vector - begin] = z_packed;
            if (WITH_Y) {
                memory[a.kept + vector - begin] = y_packed;
            }
        }
        const Vector<8> z_here = unpacked(z_packed), y_here = unpacked(y_packed);
        float z_max = sums.z_max, y_max = sums.y_max;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            z_max = fmaxf(z_max, z_here.v[i]);
            y_max = fmaxf(y_max, y_here.v[i]);
        }
        sums.z_sum *= exp_fast(sums.z_max - z_max);
        if (WITH_Y) {
            const float factor = exp_fast(sums.y_max - y_max);
            sums.y_sum *= factor;
            sums.cross *= factor;
        }
#pragma unroll
        for (int i = 0; i < 8; i++) {
            sums.z_sum += exp_fast(z_here.v[i] - z_max);
            if (WITH_Y) {
                const float weight = exp_fast(y_here.v[i] - y_max);
                sums.y_sum += weight;
                sums.cross += weight * (y_here.v[i] - z_here.v[i]);
            }
        }
        sums.z_max = z_max;
        sums.y_max = y_max;
    }
    sums = all_reduce(block_merged(sums));

    const float cross_entropy = target >= 0 ? a.cross_entropy * a.w_ce[index] : 0.0f;
    const float kl_weight = WITH_Y ? a.kl_weight * w_kl : 0.0f;
    if (writes && threadIdx.x == 0) {
        const float lse_z = sums.z_max + logf(sums.z_sum), lse_y = sums.y_max + logf(sums.y_sum);
        a.nll[index] = target >= 0 ? lse_z - target_logit : 0.0f;
        a.kl[index] = WITH_Y ? sums.cross / sums.y_sum - (lse_y - lse_z) : 0.0f;
    }
    const float z_factor = (cross_entropy + kl_weight) / sums.z_sum;
    const float y_factor = WITH_Y ? kl_weight / sums.y_sum : 0.0f;
    for (int vector = begin + threadIdx.x; vector < end; vector += blockDim.x) {
        const bool here = vector - begin < kept;
        Vector<8> d = unpacked(here ? memory[vector - begin] : get(z, vector));
        Vector<8> y_here = {};
        if (WITH_Y) {
            y_here = unpacked(here ? memory[a.kept + vector - begin] : get(y, vector));
        }
#pragma unroll
        for (int i = 0; i < 8; i++) {
            d.v[i] = z_factor * exp_fast(d.v[i] - sums.z_max);
            if (WITH_Y) {
                d.v[i] -= y_factor * exp_fast(y_here.v[i] - sums.y_max);
            }
            if (z.column(vector, i) == target) {
                d.v[i] -= cross_entropy;
            }
        }
        z.set(vector, d);
    }
}

// A row that is in neither loss: its gradient is zero.
__device__ __forceinline__ void no_loss_row(const LossArguments& a, int index, int begin, int end,
                                            bool writes) {
    const Row z(a.z, index, a.width);
    for (int vector = begin + threadIdx.x; vector < end; vector += blockDim.x) {
        z.set(vector, Vector<8>{});
    }
    if (writes && threadIdx.x == 0) {
        a.nll[index] = 0.0f;
        a.kl[index] = 0.0f;
    }
}

// The part of row `index` of block `rank` of `ranks`.
template <typename F>
__device__ __forceinline__ void loss_of_row(const LossArguments& a, int index, int rank, int ranks,
                                            uint4* memory, F all_reduce) {
    const int vectors = Row(a.z, index, a.width).vectors();
    const int each = (vectors + ranks - 1) / ranks;
    const int begin = min(rank * each, vectors), end = min(begin + each, vectors);
    const int given = a.targets[index];
    if (rank == 0 && threadIdx.x == 0 && given >= a.width) {
        refuse(a.refusal, REFUSED_CROSS_ENTROPY, index, given, a.width);
    }
    // A target beyond the row is none.
    const int target = given < a.width ? given : -1;
    const float w_kl = a.y != nullptr ? a.w_kl[index] : 0.0f;
    if (w_kl != 0.0f) {
        loss_row<true>(a, index, target, w_kl, begin, end, rank == 0, memory, all_reduce);
    } else if (target >= 0) {
        loss_row<false>(a, index, target, 0.0f, begin, end, rank == 0, memory, all_reduce);
    } else {
        no_loss_row(a, index, begin, end, rank == 0);
    }
}
