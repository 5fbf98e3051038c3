//! Registers of a warp: one row of 32 lanes per 32 bits.

/// Lanes of a warp.
pub const LANES: usize = 32;

/// One 32-bit register of all lanes of a warp.
///
/// Narrower registers (`.b8`, `.b16`) keep their value zero-extended in the low bits. A 64-bit register is
/// two consecutive rows seen as `[u64; 32]` (lane `i` is element `i`, not low and high rows); a 128-bit
/// register is four rows seen as `[u128; 32]`. Predicates are not rows but one `u32` each, bit `i` being lane
/// `i`.
#[repr(C, align(128))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row(pub [u32; LANES]);

impl Row {
    /// All lanes zero.
    pub const ZERO: Row = Row([0; LANES]);
}

/// Where an operand lives and how wide it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No such operand.
    None,
    /// One row: 8, 16 or 32 bits.
    B32,
    /// Two rows.
    B64,
    /// Four rows.
    B128,
    /// A predicate.
    Pred,
}

/// Operands of an arithmetic instruction: indices of the first row of each, or of a predicate, by its
/// [`Kind`]. Immediates and special registers have rows of their own, so that every operand is an index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AluArgs {
    /// Destinations; the second is the second predicate of `setp`, or the carry-less predicate output of
    /// others.
    pub dst: [u32; 2],
    /// Sources in the order PTX writes them.
    pub src: [u32; 4],
}

/// Executes one arithmetic instruction for the lanes in `mask`; other lanes of the destinations keep their
/// values.
///
/// # Safety
/// `rows` and `preds` point to the register file of one warp, exclusively borrowed, and every index in `args`
/// together with the width of its operand lies inside it.
pub type AluFn = unsafe fn(rows: *mut Row, preds: *mut u32, args: &AluArgs, mask: u32);

/// An arithmetic instruction, decoded.
#[derive(Clone, Copy)]
pub struct AluOp {
    /// Executes it.
    pub run: AluFn,
    /// Destinations.
    pub dst: [Kind; 2],
    /// Sources.
    pub src: [Kind; 4],
}
