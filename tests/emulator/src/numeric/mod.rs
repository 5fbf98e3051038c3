//! Arithmetic of single values, as the PTX ISA defines it.
