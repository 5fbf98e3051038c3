//! Loads and stores of one lane, as untearable as the hardware's up to eight bytes.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// Bytes of an access by one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Width {
    /// One byte.
    B1,
    /// Two bytes.
    B2,
    /// Four bytes.
    B4,
    /// Eight bytes.
    B8,
    /// Sixteen bytes.
    B16,
}

impl Width {
    /// The number of bytes.
    #[inline(always)]
    pub fn bytes(self) -> usize {
        1 << self as usize
    }

    /// The width of that many bytes.
    pub fn of(bytes: usize) -> Option<Width> {
        [Width::B1, Width::B2, Width::B4, Width::B8, Width::B16].into_iter().find(|w| w.bytes() == bytes)
    }
}

/// Loads, zero-extended.
///
/// # Safety
/// `pointer` is aligned to the width and points to that many bytes, which are accessed by atomics or raw
/// copies only.
#[inline(always)]
pub unsafe fn load(pointer: *const u8, width: Width) -> u128 {
    // SAFETY: by the caller.
    unsafe {
        match width {
            Width::B1 => u128::from((*pointer.cast::<AtomicU8>()).load(Ordering::Relaxed)),
            Width::B2 => u128::from((*pointer.cast::<AtomicU16>()).load(Ordering::Relaxed)),
            Width::B4 => u128::from((*pointer.cast::<AtomicU32>()).load(Ordering::Relaxed)),
            Width::B8 => u128::from((*pointer.cast::<AtomicU64>()).load(Ordering::Relaxed)),
            Width::B16 => {
                let low = (*pointer.cast::<AtomicU64>()).load(Ordering::Relaxed);
                let high = (*pointer.add(8).cast::<AtomicU64>()).load(Ordering::Relaxed);
                u128::from(low) | u128::from(high) << 64
            }
        }
    }
}

/// Stores the low bytes of `value`.
///
/// # Safety
/// As for [`load`].
#[inline(always)]
pub unsafe fn store(pointer: *mut u8, width: Width, value: u128) {
    // SAFETY: by the caller.
    unsafe {
        match width {
            Width::B1 => (*pointer.cast::<AtomicU8>()).store(value as u8, Ordering::Relaxed),
            Width::B2 => (*pointer.cast::<AtomicU16>()).store(value as u16, Ordering::Relaxed),
            Width::B4 => (*pointer.cast::<AtomicU32>()).store(value as u32, Ordering::Relaxed),
            Width::B8 => (*pointer.cast::<AtomicU64>()).store(value as u64, Ordering::Relaxed),
            Width::B16 => {
                (*pointer.cast::<AtomicU64>()).store(value as u64, Ordering::Relaxed);
                (*pointer.add(8).cast::<AtomicU64>()).store((value >> 64) as u64, Ordering::Relaxed);
            }
        }
    }
}
