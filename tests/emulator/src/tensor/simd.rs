//! The same code compiled twice: for any processor, and for processors with AVX2, FMA and their companions.
//!
//! Both give the same bits, because the code says `mul_add` where it means a fused multiply-add: compiled
//! without FMA that is a call of the (slow, correct) library function.

/// Work that is compiled once for every set of instructions. `run` must be `#[inline(always)]` down to its
/// loops.
pub(super) trait Task {
    /// What it computes.
    type Output;

    /// Does the work.
    fn run(self) -> Self::Output;
}

/// Runs `task` with the best instructions that this processor has.
#[inline]
pub(super) fn dispatch<T: Task>(task: T) -> T::Output {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the processor has AVX2 and FMA, as just asked.
        return unsafe { with_avx2(task) };
    }
    task.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn with_avx2<T: Task>(task: T) -> T::Output {
    task.run()
}
