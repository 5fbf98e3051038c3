//! Vectors of f32 behind one trait, so that packing, micro-kernel and dot products are written once.
//!
//! Every function here is `inline(always)`: it takes on the target features of the [`Kernel`] entry point it
//! is inlined into, which is what makes the intrinsics single instructions.

mod tile;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(super) use tile::MicroTile;

use half::{bf16, f16};
use std::ops::Range;

/// Widest micro-tile of any instruction set, in rows and columns.
pub(super) const MAX_MR: usize = 14;
pub(super) const MAX_NR: usize = 32;

/// A register of f32 and the micro-tile shape that suits its register file.
///
/// # Safety
/// Methods may only run where the instruction set is available; [`run_wide`] and [`run_narrow`] see to that.
/// Pointers must be valid for as many elements as the method names.
pub(super) unsafe trait Simd: Copy {
    /// One register.
    type V: Copy;
    /// The eight-lane companion that packs for this one.
    type Narrow: Narrow;
    /// f32 per register.
    const LANES: usize;
    /// Rows of the micro-tile.
    const MR: usize;
    /// Columns of the micro-tile.
    const NR: usize;
    /// Most rows of dot products at a time.
    const DOT_ROWS: usize;

    unsafe fn splat(x: f32) -> Self::V;
    /// Loads `LANES` elements, unaligned.
    unsafe fn load(p: *const f32) -> Self::V;
    /// Stores `LANES` elements, unaligned.
    unsafe fn store(p: *mut f32, v: Self::V);
    /// `a · b + c`.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Hints that the line at `p` will be written soon; never faults.
    unsafe fn prefetch(p: *const f32);
    /// Loads and widens `LANES` bf16.
    unsafe fn load_bf16(p: *const bf16) -> Self::V;
    /// Loads and widens `LANES` f16.
    unsafe fn load_f16(p: *const f16) -> Self::V;
    /// The sum of each register's lanes, in a fixed order that is the same for all four.
    unsafe fn sums(v: [Self::V; 4]) -> [f32; 4];
    /// Computes one micro-tile: [`tile::micro_tile`] with this set's `MR` and registers per row.
    unsafe fn micro_tile(tile: &MicroTile);
    /// Computes the dot products of a group of at most `DOT_ROWS` rows with some columns: [`RowGroup::dots`]
    /// with as many columns at a time as the register file has room for.
    unsafe fn dots(group: &impl RowGroup, cols: Range<usize>);
}

/// Rows whose dot products with columns are computed together.
pub(super) trait RowGroup {
    /// Number of rows.
    fn len(&self) -> usize;

    /// The dot products of the group's `ROWS` rows with a range of columns, `COLS` at a time.
    ///
    /// # Safety
    /// `S` is available, the group has `ROWS` rows, and the columns are the caller's to write.
    unsafe fn dots<S: Simd, const ROWS: usize, const COLS: usize>(&self, cols: Range<usize>);
}

/// Eight lanes, with what packing needs besides arithmetic.
///
/// # Safety
/// As [`Simd`].
pub(super) unsafe trait Narrow: Simd {
    /// Lane `j` of register `i` becomes lane `i` of register `j`.
    unsafe fn transpose(rows: [Self::V; 8]) -> [Self::V; 8];
    /// Stores the first `count ≤ 8` lanes.
    unsafe fn store_first(p: *mut f32, v: Self::V, count: usize);
}

/// A stored element type.
pub(super) trait Element: Copy + Send + Sync + 'static {
    fn to_f32(self) -> f32;
    /// Loads and widens `LANES` elements.
    ///
    /// # Safety
    /// As [`Simd`].
    unsafe fn load<S: Simd>(p: *const Self) -> S::V;
}

impl Element for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::V {
        // SAFETY: the caller's promise is the callee's.
        unsafe { S::load(p) }
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::V {
        // SAFETY: the caller's promise is the callee's.
        unsafe { S::load_bf16(p) }
    }
}

impl Element for f16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self.to_f32()
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::V {
        // SAFETY: the caller's promise is the callee's.
        unsafe { S::load_f16(p) }
    }
}

/// Work written over any instruction set.
pub(super) trait Kernel<R> {
    /// Does the work; implementations are `inline(always)`.
    ///
    /// # Safety
    /// `S` must be available on this machine.
    unsafe fn run<S: Simd>(self) -> R;
}

/// Micro-tile shape `(MR, NR)` of the set that [`run_wide`] picks.
pub(super) fn wide_tile() -> (usize, usize) {
    struct Shape;
    impl Kernel<(usize, usize)> for Shape {
        #[inline(always)]
        unsafe fn run<S: Simd>(self) -> (usize, usize) {
            (S::MR, S::NR)
        }
    }
    run_wide(Shape)
}

/// Runs `kernel` with the widest vectors of this machine.
pub(super) fn run_wide<R>(kernel: impl Kernel<R>) -> R {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx512f") && x86::has_avx2() {
        // SAFETY: both feature sets were just detected.
        return unsafe { x86::run_avx512(kernel) };
    }
    run_narrow(kernel)
}

/// Runs `kernel` with eight-lane vectors.
pub(super) fn run_narrow<R>(kernel: impl Kernel<R>) -> R {
    #[cfg(target_arch = "x86_64")]
    if x86::has_avx2() {
        // SAFETY: the features were just detected.
        return unsafe { x86::run_avx2(kernel) };
    }
    // SAFETY: `Portable` needs no feature.
    unsafe { kernel.run::<Portable>() }
}

/// Plain Rust that the compiler vectorises for the target's baseline.
#[derive(Clone, Copy)]
pub(super) struct Portable;

/// Sixteen 128-bit registers (x86 baseline) hold 4×8 sums; thirty-two (aarch64) hold 6×16.
const PORTABLE_MR: usize = if cfg!(target_arch = "aarch64") { 6 } else { 4 };
const PORTABLE_REGISTERS: usize = if cfg!(target_arch = "aarch64") { 2 } else { 1 };

// SAFETY: plain Rust, available everywhere.
unsafe impl Simd for Portable {
    type V = [f32; 8];
    type Narrow = Self;
    const LANES: usize = 8;
    const MR: usize = PORTABLE_MR;
    const NR: usize = 8 * PORTABLE_REGISTERS;
    const DOT_ROWS: usize = 2;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::V {
        // SAFETY: the caller vouches for eight elements.
        unsafe { p.cast::<Self::V>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::V) {
        // SAFETY: the caller vouches for eight elements.
        unsafe { p.cast::<Self::V>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // Without the instruction, `mul_add` would call the maths library for every lane.
        let fused = cfg!(any(target_arch = "aarch64", target_feature = "fma"));
        std::array::from_fn(|i| if fused { a[i].mul_add(b[i], c[i]) } else { a[i] * b[i] + c[i] })
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const f32) {}
    #[inline(always)]
    unsafe fn load_bf16(p: *const bf16) -> Self::V {
        // SAFETY: the caller vouches for eight elements.
        unsafe { p.cast::<[bf16; 8]>().read_unaligned() }.map(Element::to_f32)
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const f16) -> Self::V {
        // SAFETY: the caller vouches for eight elements.
        unsafe { p.cast::<[f16; 8]>().read_unaligned() }.map(Element::to_f32)
    }
    #[inline(always)]
    unsafe fn sums(v: [Self::V; 4]) -> [f32; 4] {
        v.map(|v| {
            let quad: [f32; 4] = std::array::from_fn(|i| v[i] + v[i + 4]);
            (quad[0] + quad[2]) + (quad[1] + quad[3])
        })
    }
    #[inline(always)]
    unsafe fn micro_tile(tile: &MicroTile) {
        // SAFETY: the caller's promise is the callee's.
        unsafe { tile::micro_tile::<Self, PORTABLE_MR, PORTABLE_REGISTERS>(tile) }
    }
    #[inline(always)]
    unsafe fn dots(group: &impl RowGroup, cols: Range<usize>) {
        // SAFETY: the caller's promise is the callee's.
        unsafe {
            match group.len() {
                1 => group.dots::<Self, 1, 2>(cols),
                _ => group.dots::<Self, 2, 2>(cols),
            }
        }
    }
}

// SAFETY: plain Rust, available everywhere.
unsafe impl Narrow for Portable {
    #[inline(always)]
    unsafe fn transpose(rows: [Self::V; 8]) -> [Self::V; 8] {
        std::array::from_fn(|j| std::array::from_fn(|i| rows[i][j]))
    }
    #[inline(always)]
    unsafe fn store_first(p: *mut f32, v: Self::V, count: usize) {
        // SAFETY: the caller vouches for `count` elements at `p`, and `v` has eight.
        unsafe { p.copy_from_nonoverlapping(v.as_ptr(), count.min(8)) }
    }
}
