// The LoRA terms of a product, as src/cuda/gemm/lora_terms.rs passes them.
#pragma once

#include "common.h"

// LoRA of some columns and the first rows of y: there, y += xa · bᵀ.
struct KERNEL_PARAMETER LoraTerm {
    const bf16* xa;  // [rows, rank]
    const bf16* b;   // [columns, rank]
    int rows;
    int column;  // the first
    int columns;
    int rank;
    int vector;  // whether rows of both start on multiples of 16 bytes
    int padding;
};

struct KERNEL_PARAMETER LoraTerms {
    LoraTerm term[GEMM_LORA_TERMS];
    int count;
    int padding;
};
