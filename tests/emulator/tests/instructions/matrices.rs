//! matrices
