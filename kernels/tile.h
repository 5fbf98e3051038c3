// Shapes that a kernel and the code that launches it have to agree on. The build script makes a Rust constant
// of every `#define NAME number` here (`deepguard::cuda::tile`), so that they are written down once.
#pragma once

// Row kernels: at most this many threads share a row.
#define ROW_THREADS 256

// Rotary embedding: threads of a row; no fewer than pairs in a head.
#define ROPE_THREADS 128

// The aggregator: the most taps.
#define AGGREGATE_TAPS 16

// Element-wise kernels.
#define ELEMENT_THREADS 256

// The analyzer: rows and threads of a block in the forward and in the backward, and the most of shared memory
// that the sums of its warps may take. The order of those sums depends on these alone.
#define ANALYZER_ROWS 64
#define ANALYZER_THREADS 256
#define ANALYZER_BACKWARD_ROWS 128
#define ANALYZER_BACKWARD_THREADS 512
#define ANALYZER_SUMS 98304

// Losses: threads of a block; blocks of a cluster, which share a row too long for the shared memory of one;
// and, where a group of blocks shares it, room for the sums of one of them in global memory, in floats.
#define LOSS_THREADS 1024
#define LOSS_CLUSTER 4
#define LOSS_SUMS 8

// Sampling: threads of a block, vectors of a row that each keeps in registers, and the most tokens among
// which a token is drawn without going over the row again.
#define SAMPLE_THREADS 512
#define SAMPLE_VECTORS 20
#define SAMPLE_CANDIDATES 512

// Guidance: threads of a block, and rows that it adds the same statistics to.
#define GUIDE_THREADS 128
#define GUIDE_ROWS 64

// Gradients of a table: threads of the block that sorts their rows, and bits that it sorts by at a time; rows
// that a warp of the sum begins with, and threads of its blocks.
#define SORT_THREADS 1024
#define SORT_BITS 8
#define SCATTER_ROWS 8
#define SCATTER_THREADS 128

// Sum of squares: elements that one block adds up, and threads that do it.
#define SUM_CHUNK 16384
#define SUM_THREADS 256

// Attention: threads of a block; the most sequences of a launch, whose table is a parameter; packed rows of a
// block in the forward pass, the gradient of queries and decoding; keys of a block in the gradient of keys
// and values. Loops visit LONG keys (or packed rows) at once for heads up to NARROW, SHORT for wider ones.
#define ATTENTION_THREADS 128
#define ATTENTION_SEQUENCES 128
#define ATTENTION_ROWS 128
#define ATTENTION_QUERY_ROWS 64
#define ATTENTION_KEYS 64
#define ATTENTION_DECODE_ROWS 64
#define ATTENTION_NARROW 64
#define ATTENTION_LONG 64
#define ATTENTION_SHORT 32

// Attention of attention_sm90.cu: rows of a consumer warpgroup, as many whole queries as they hold; keys that
// loops visit at once; stages of keys and of values; and the most blocks, each of which takes a share of the
// tiles.
#define ATTENTION_SM90_ROWS 64
#define ATTENTION_SM90_KEYS 64
#define ATTENTION_SM90_STAGES 4
#define ATTENTION_SM90_CONSUMERS 2
#define ATTENTION_SM90_THREADS 384
#define ATTENTION_SM90_BLOCKS 256

// Split-KV decoding: the most tiles of LONG keys of a split, a power of two; and the blocks that splits are
// halved for. Each block has two tiles in flight, 32 KiB with heads of 128: all together have as many bytes
// in flight as an H100's memory delivers within its latency. More splits mean more partial results.
#define ATTENTION_DECODE_TILES 64
#define ATTENTION_DECODE_BLOCKS 64

// Tiled GEMM: a block computes a TILE by TILE tile of y, TILE_K of the inner dimension at a time, with STAGES
// tiles of both operands in shared memory. A large tile is for many tiles, a small one for few.
#define GEMM_LARGE_TILE 128
#define GEMM_LARGE_THREADS 256
#define GEMM_SMALL_TILE 64
#define GEMM_SMALL_THREADS 128
#define GEMM_TILE_K 32
#define GEMM_STAGES 4
// Threadblock swizzle: tiles along m of a band.
#define GEMM_RASTER 16
// The most LoRA terms of one product.
#define GEMM_LORA_TERMS 7
// The most products of a grouped GEMM: in the backward of LoRA, two for each term.
#define GROUPED_GEMMS 14

// Skinny GEMM: lines of the m operand of a block, in linear layers and in lora_down; there, the most adapters
// of 16 ranks of a block; and threads of a block, whose warps share k.
#define SKINNY_LINES 16
#define SKINNY_DOWN_LINES 32
#define SKINNY_DOWN_ADAPTERS 3
#define SKINNY_THREADS 256

// Column sums: columns of a block, its threads, and the most matrices of one launch.
#define COLUMN_SUM_WIDTH 128
#define COLUMN_SUM_THREADS 256
#define COLUMN_SUMS 8

// GEMM of gemm_sm90.cu: the same, by two blocks of a cluster with a tile each; TILE_K elements are one
// 128-byte row of the hardware's swizzle. A warpgroup stores a box of y with one TMA instruction, and has
// BOXES.
#define GEMM_SM90_TILE_M 128
#define GEMM_SM90_TILE_N 256
#define GEMM_SM90_TILE_K 64
#define GEMM_SM90_STAGES 4
#define GEMM_SM90_CLUSTER 2
#define GEMM_SM90_CONSUMERS 2
#define GEMM_SM90_THREADS 384
#define GEMM_SM90_BOX 64
#define GEMM_SM90_BOXES 2
#define GEMM_SM90_ALIGNMENT 1024

// Operations that can refuse what is in their data (refusal.h).
#define REFUSED_EMBED 1
#define REFUSED_GATHER 2
#define REFUSED_SCATTER_ADD 3
#define REFUSED_CROSS_ENTROPY 4
#define REFUSED_ATTENTION_DECODE 5
#define REFUSED_ROPE_INTO_CACHE 6
