//! What kind of work an instruction is.

/// Classes of instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Class {
    /// Integer and logic arithmetic, moves, conversions, comparisons.
    Integer,
    /// Floating-point arithmetic outside tensor cores.
    Float,
    /// Special functions: `ex2`, `lg2`, `rcp`, `sqrt`, `sin`, …
    Special,
    /// Tensor cores.
    Tensor,
    /// Loads and stores of global memory, copies included.
    Global,
    /// Loads and stores of shared memory.
    Shared,
    /// Loads and stores of local memory.
    Local,
    /// Atomics and reductions.
    Atomic,
    /// Barriers, fences and waits.
    Sync,
    /// Shuffles, votes, matches.
    Shuffle,
    /// Branches, calls, exits.
    Control,
}

/// Number of classes.
pub const CLASSES: usize = Class::Control as usize + 1;
