//! Values of one lane in the register file of a warp.

use crate::numeric::half::{Bf16, F16};
use crate::row::{Kind, LANES, Row};

/// A type that a register operand can have.
pub trait Lane: Copy {
    /// Where such an operand lives.
    const KIND: Kind;
    /// The operand of all lanes, to read from.
    type Source: Copy;
    /// Results of all lanes.
    type Buffer;
    /// A buffer to fill.
    const EMPTY: Self::Buffer;

    /// The operand at `index`.
    ///
    /// # Safety
    /// As for [`crate::row::AluFn`].
    unsafe fn source(rows: *const Row, preds: *const u32, index: u32) -> Self::Source;

    /// The value of one lane.
    ///
    /// # Safety
    /// `lane` is below [`LANES`] and the register file that `source` came from is still borrowed.
    unsafe fn get(source: Self::Source, lane: usize) -> Self;

    /// Sets the result of one lane.
    fn put(buffer: &mut Self::Buffer, lane: usize, value: Self);

    /// Stores the lanes in `mask` to the operand at `index`.
    ///
    /// # Safety
    /// As for [`crate::row::AluFn`].
    unsafe fn store(buffer: &Self::Buffer, rows: *mut Row, preds: *mut u32, index: u32, mask: u32);
}

/// What the rows of an operand consist of.
trait Cell: Copy {
    /// `yes` if `take` is 1, `no` if it is 0, without a branch.
    fn select(take: u32, yes: Self, no: Self) -> Self;
}

macro_rules! cells {
    ($($t:ty)*) => {
        $(impl Cell for $t {
            #[inline(always)]
            fn select(take: u32, yes: Self, no: Self) -> Self {
                no ^ (yes ^ no) & (take as $t).wrapping_neg()
            }
        })*
    };
}

cells! { u32 u64 u128 }

/// Stores the elements of `buffer` whose bit in `mask` is set.
///
/// # Safety
/// `target` points to [`LANES`] elements, exclusively borrowed.
#[inline(always)]
unsafe fn store<T: Cell>(buffer: &[T; LANES], target: *mut T, mask: u32) {
    // SAFETY: the caller vouches for the target; every row is aligned for all element types.
    let target = unsafe { &mut *target.cast::<[T; LANES]>() };
    if mask == u32::MAX {
        *target = *buffer;
        return;
    }
    for lane in 0..LANES {
        target[lane] = T::select(mask >> lane & 1, buffer[lane], target[lane]);
    }
}

macro_rules! lanes {
    ($($t:ty, $kind:ident, $cell:ty, |$x:ident| $get:expr, |$y:ident| $put:expr;)*) => {
        $(impl Lane for $t {
            const KIND: Kind = Kind::$kind;
            type Source = *const $cell;
            type Buffer = [$cell; LANES];
            const EMPTY: Self::Buffer = [0; LANES];

            #[inline(always)]
            unsafe fn source(rows: *const Row, _: *const u32, index: u32) -> Self::Source {
                // SAFETY: the index lies inside the register file, as the caller promises.
                unsafe { rows.add(index as usize) }.cast()
            }

            #[inline(always)]
            unsafe fn get(source: Self::Source, lane: usize) -> Self {
                // SAFETY: the operand has as many elements as a warp has lanes.
                let $x = unsafe { *source.add(lane) };
                $get
            }

            #[inline(always)]
            fn put(buffer: &mut Self::Buffer, lane: usize, $y: Self) {
                buffer[lane] = $put;
            }

            #[inline(always)]
            unsafe fn store(buffer: &Self::Buffer, rows: *mut Row, _: *mut u32, index: u32, mask: u32) {
                // SAFETY: the destination lies inside the register file, as the caller promises.
                unsafe { store(buffer, rows.add(index as usize).cast(), mask) }
            }
        })*
    };
}

lanes! {
    u8, B32, u32, |x| x as u8, |y| y.into();
    u16, B32, u32, |x| x as u16, |y| y.into();
    u32, B32, u32, |x| x, |y| y;
    u64, B64, u64, |x| x, |y| y;
    u128, B128, u128, |x| x, |y| y;
    // No register is narrower than 16 bits, so that is how far an 8-bit result is extended.
    i8, B32, u32, |x| x as i8, |y| u32::from(i16::from(y) as u16);
    i16, B32, u32, |x| x as i16, |y| u32::from(y as u16);
    i32, B32, u32, |x| x as i32, |y| y as u32;
    i64, B64, u64, |x| x as i64, |y| y as u64;
    f32, B32, u32, |x| f32::from_bits(x), |y| y.to_bits();
    f64, B64, u64, |x| f64::from_bits(x), |y| y.to_bits();
    F16, B32, u32, |x| F16(x as u16), |y| y.0.into();
    Bf16, B32, u32, |x| Bf16(x as u16), |y| y.0.into();
}

impl Lane for bool {
    const KIND: Kind = Kind::Pred;
    type Source = u32;
    type Buffer = u32;
    const EMPTY: u32 = 0;

    #[inline(always)]
    unsafe fn source(_: *const Row, preds: *const u32, index: u32) -> u32 {
        // SAFETY: the index lies inside the register file, as the caller promises.
        unsafe { *preds.add(index as usize) }
    }

    #[inline(always)]
    unsafe fn get(source: u32, lane: usize) -> bool {
        source >> lane & 1 == 1
    }

    #[inline(always)]
    fn put(buffer: &mut u32, lane: usize, value: bool) {
        *buffer |= u32::from(value) << lane;
    }

    #[inline(always)]
    unsafe fn store(buffer: &u32, _: *mut Row, preds: *mut u32, index: u32, mask: u32) {
        // SAFETY: the destination lies inside the register file, as the caller promises.
        let target = unsafe { &mut *preds.add(index as usize) };
        *target = *target & !mask | buffer & mask;
    }
}
