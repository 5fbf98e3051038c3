// The LoRA of a linear layer, as src/cuda/linear.rs passes it.
#pragma once

#include "common.h"

// LoRA of some columns and the first rows of y: y += xa · bᵀ there.
struct LoraTerm {
    const bf16* xa;  // [rows, rank]
    const bf16* b;   // [columns, rank]
    int rows;
    int column;      // the first
    int columns;
    int rank;
    int vector;      // whether rows of both start on multiples of 16 bytes
    int padding;
};

struct LoraTerms {
    LoraTerm term[GEMM_TERMS];
    int count;
    int padding;
};
