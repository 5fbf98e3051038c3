//! Tensor cores, matrix loads and stores, and the tensor memory accelerator.
