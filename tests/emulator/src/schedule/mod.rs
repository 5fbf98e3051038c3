//! Blocks, warps and the order they run in.
