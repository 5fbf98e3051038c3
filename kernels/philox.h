// Philox4x32-10, as src/ops/philox.rs: counter-based random numbers, functions of (seed, counter), and the
// dropout masks derived from them.
#pragma once

#include "common.h"

// Four random words.
__device__ __forceinline__ uint4 philox(unsigned long long seed, uint4 counter) {
    unsigned key0 = static_cast<unsigned>(seed), key1 = static_cast<unsigned>(seed >> 32);
    uint4 c = counter;
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const unsigned long long p0 = 0xD2511F53ull * c.x, p1 = 0xCD9E8D57ull * c.z;
        c = make_uint4(static_cast<unsigned>(p1 >> 32) ^ c.y ^ key0, static_cast<unsigned>(p1),
                       static_cast<unsigned>(p0 >> 32) ^ c.w ^ key1, static_cast<unsigned>(p0));
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return c;
}

// A uniform number in [0, 1) with 24 random bits.
__device__ __forceinline__ float unit(unsigned word) {
    return float(word >> 8) * (1.0f / (1 << 24));
}

// A dropout, as the launching code passes it (src/cuda/dropout.rs).
struct KERNEL_PARAMETER DropoutKey {
    unsigned long long seed;
    unsigned step;
    unsigned site;
    unsigned threshold;  // an element is dropped where its 16 random bits are below this; 0 drops nothing
    float scale;         // factor of kept elements
};

// A dropout of a matrix.
struct KERNEL_PARAMETER Mask {
    DropoutKey key;
    const unsigned* row_keys;  // a key for each row, or null: nothing is dropped
};

// The random bits of columns 8 · group … of the row with this key: column i has half i % 2 of word i / 2.
__device__ __forceinline__ uint4 dropout_bits(const DropoutKey& key, unsigned row_key, unsigned group) {
    return philox(key.seed, make_uint4(row_key, group, key.site, key.step));
}

// Whether the even (half 0) or odd (half 1) column of a word is kept.
__device__ __forceinline__ bool kept(const DropoutKey& key, unsigned word, int half) {
    return (half == 0 ? word & 0xffffu : word >> 16) >= key.threshold;
}

// Applies a mask to two bf16: dropped elements become zero.
__device__ __forceinline__ unsigned drop(const DropoutKey& key, unsigned pair, unsigned word) {
    return (kept(key, word, 0) ? pair & 0xffffu : 0u) | (kept(key, word, 1) ? pair & 0xffff0000u : 0u);
}

// Applies a mask to eight bf16, the columns of a group.
__device__ __forceinline__ uint4 drop(const DropoutKey& key, uint4 eight, unsigned row_key, unsigned group) {
    const uint4 bits = dropout_bits(key, row_key, group);
    return make_uint4(drop(key, eight.x, bits.x), drop(key, eight.y, bits.y), drop(key, eight.z, bits.z),
                      drop(key, eight.w, bits.w));
}
