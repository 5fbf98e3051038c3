//! From a function of one lane to the execution of an instruction for a warp.

use super::lane::Lane;
use crate::row::{AluArgs, AluFn, AluOp, Kind, LANES, Row};

/// Operands of an instruction, as a tuple of what each lane reads.
pub trait Sources: Copy {
    /// Where they live.
    const KINDS: [Kind; 4];
    /// Them for all lanes.
    type All: Copy;

    /// Finds them.
    ///
    /// # Safety
    /// As for [`AluFn`].
    unsafe fn all(rows: *const Row, preds: *const u32, args: &AluArgs) -> Self::All;

    /// Reads one lane.
    ///
    /// # Safety
    /// As for [`Lane::get`].
    unsafe fn get(all: Self::All, lane: usize) -> Self;
}

macro_rules! sources {
    ($($t:ident $i:tt),*; $($none:ident),*) => {
        impl<$($t: Lane),*> Sources for ($($t,)*) {
            const KINDS: [Kind; 4] = [$($t::KIND,)* $(Kind::$none),*];
            type All = ($($t::Source,)*);

            #[inline(always)]
            unsafe fn all(rows: *const Row, preds: *const u32, args: &AluArgs) -> Self::All {
                // SAFETY: the caller's promise covers every source.
                ($(unsafe { $t::source(rows, preds, args.src[$i]) },)*)
            }

            #[inline(always)]
            unsafe fn get(all: Self::All, lane: usize) -> Self {
                // SAFETY: the caller's promise covers every source.
                ($(unsafe { $t::get(all.$i, lane) },)*)
            }
        }

        impl<Body, Out, $($t: Lane),*> LaneFn<($($t,)*)> for Body
        where
            Body: Fn($($t),*) -> Out + Copy,
            Out: Results,
        {
            type Out = Out;

            #[inline(always)]
            fn call(self, arguments: ($($t,)*)) -> Out {
                self($(arguments.$i),*)
            }
        }
    };
}

sources! { A 0; None, None, None }
sources! { A 0, B 1; None, None }
sources! { A 0, B 1, C 2; None }
sources! { A 0, B 1, C 2, D 3; }

/// What an instruction writes.
pub trait Results {
    /// Where it goes.
    const KINDS: [Kind; 2];
    /// The results of all lanes.
    type Buffer;
    /// A buffer to fill.
    const EMPTY: Self::Buffer;

    /// Sets the result of one lane.
    fn put(self, buffer: &mut Self::Buffer, lane: usize);

    /// Stores the lanes in `mask`.
    ///
    /// # Safety
    /// As for [`AluFn`].
    unsafe fn store(buffer: &Self::Buffer, rows: *mut Row, preds: *mut u32, args: &AluArgs, mask: u32);
}

impl<R: Lane> Results for R {
    const KINDS: [Kind; 2] = [R::KIND, Kind::None];
    type Buffer = R::Buffer;
    const EMPTY: R::Buffer = R::EMPTY;

    #[inline(always)]
    fn put(self, buffer: &mut R::Buffer, lane: usize) {
        R::put(buffer, lane, self);
    }

    #[inline(always)]
    unsafe fn store(buffer: &R::Buffer, rows: *mut Row, preds: *mut u32, args: &AluArgs, mask: u32) {
        // SAFETY: the caller's promise covers the destination.
        unsafe { R::store(buffer, rows, preds, args.dst[0], mask) }
    }
}

impl<R: Lane, S: Lane> Results for (R, S) {
    const KINDS: [Kind; 2] = [R::KIND, S::KIND];
    type Buffer = (R::Buffer, S::Buffer);
    const EMPTY: Self::Buffer = (R::EMPTY, S::EMPTY);

    #[inline(always)]
    fn put(self, buffer: &mut Self::Buffer, lane: usize) {
        R::put(&mut buffer.0, lane, self.0);
        S::put(&mut buffer.1, lane, self.1);
    }

    #[inline(always)]
    unsafe fn store(buffer: &Self::Buffer, rows: *mut Row, preds: *mut u32, args: &AluArgs, mask: u32) {
        // SAFETY: the caller's promise covers both destinations.
        unsafe {
            R::store(&buffer.0, rows, preds, args.dst[0], mask);
            S::store(&buffer.1, rows, preds, args.dst[1], mask);
        }
    }
}

/// A function of one lane.
pub trait LaneFn<S: Sources>: Copy {
    /// What it computes.
    type Out: Results;

    /// Computes it.
    fn call(self, arguments: S) -> Self::Out;
}

/// [`op`] for a body too large to be inlined as a closure, without which its loop is not vectorized: the body
/// becomes a method, which can be told to be inlined. It sees items, type aliases and constants, but no
/// generic parameters.
macro_rules! inlined {
    (|$($a:ident: $t:ty),*| -> $out:ty { $body:expr }) => {{
        #[derive(Clone, Copy)]
        struct Inlined;

        impl $crate::execute::LaneFn<($($t,)*)> for Inlined {
            type Out = $out;

            #[inline(always)]
            fn call(self, ($($a,)*): ($($t,)*)) -> $out {
                $body
            }
        }

        $crate::execute::op(Inlined)
    }};
}

pub(crate) use inlined;

/// The instruction that applies `body` to every lane.
pub fn op<S: Sources, F: LaneFn<S>>(body: F) -> Option<AluOp> {
    Some(describe(body, if vectorized() { executor(body) } else { portable_executor(body) }))
}

/// The instruction that applies `body` to every lane, for what is rare: compiled once and not for speed.
pub fn rare<S: Sources, F: LaneFn<S>>(body: F) -> Option<AluOp> {
    Some(describe(body, portable_executor(body)))
}

fn describe<S: Sources, F: LaneFn<S>>(_: F, run: AluFn) -> AluOp {
    AluOp { run, dst: F::Out::KINDS, src: S::KINDS }
}

/// What executes such an instruction on any processor.
pub fn portable_executor<S: Sources, F: LaneFn<S>>(_: F) -> AluFn {
    portable::<S, F>
}

/// Whether this processor has the vectors that [`executor`] is compiled for.
#[cfg(target_arch = "x86_64")]
pub fn vectorized() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("popcnt")
        && is_x86_feature_detected!("lzcnt")
}

/// There are no vectors that [`executor`] is compiled for.
#[cfg(not(target_arch = "x86_64"))]
pub fn vectorized() -> bool {
    false
}

/// What executes such an instruction where the processor is [`vectorized`].
#[cfg(target_arch = "x86_64")]
pub fn executor<S: Sources, F: LaneFn<S>>(_: F) -> AluFn {
    /// # Safety
    /// As for [`AluFn`], and the processor has the features.
    #[target_feature(enable = "avx2,fma,f16c,bmi2,popcnt,lzcnt")]
    unsafe fn vector<S: Sources, F: LaneFn<S>>(rows: *mut Row, preds: *mut u32, args: &AluArgs, mask: u32) {
        // SAFETY: the caller's promise is the same.
        unsafe { execute::<S, F>(rows, preds, args, mask, |lane| lane) }
    }
    vector::<S, F>
}

/// What executes such an instruction, the same as anywhere.
#[cfg(not(target_arch = "x86_64"))]
pub fn executor<S: Sources, F: LaneFn<S>>(body: F) -> AluFn {
    portable_executor(body)
}

/// # Safety
/// As for [`AluFn`].
unsafe fn portable<S: Sources, F: LaneFn<S>>(rows: *mut Row, preds: *mut u32, args: &AluArgs, mask: u32) {
    // A lane that the compiler cannot know: the loop stays a loop, which keeps two thousand of these small
    // and quick to compile.
    // SAFETY: the caller's promise is the same.
    unsafe { execute::<S, F>(rows, preds, args, mask, std::hint::black_box) }
}

/// Computes all lanes, active or not, before anything is stored: sources may be destinations too, and a loop
/// without branches becomes vector instructions.
///
/// # Safety
/// As for [`AluFn`].
#[inline(always)]
unsafe fn execute<S: Sources, F: LaneFn<S>>(
    rows: *mut Row,
    preds: *mut u32,
    args: &AluArgs,
    mask: u32,
    lane_of: impl Fn(usize) -> usize,
) {
    const { assert!(size_of::<F>() == 0, "a function of lanes must not capture") };
    // SAFETY: a value of this type without size existed where the instruction was made, and it is `Copy`.
    let body = unsafe { std::ptr::NonNull::<F>::dangling().read() };
    // SAFETY: the caller's promise is the same.
    let all = unsafe { S::all(rows, preds, args) };
    let mut results = F::Out::EMPTY;
    for i in 0..LANES {
        let lane = lane_of(i);
        // SAFETY: the register file is borrowed until the end of this function.
        body.call(unsafe { S::get(all, lane) }).put(&mut results, lane);
    }
    // SAFETY: the caller's promise is the same.
    unsafe { F::Out::store(&results, rows, preds, args, mask) }
}
