//! AVX2 with FMA and F16C, and AVX-512F.

use super::tile::{MicroTile, micro_tile};
use super::{Kernel, Narrow, RowGroup, Simd};
use half::{bf16, f16};
use std::arch::x86_64::*;
use std::ops::Range;

pub(super) fn has_avx2() -> bool {
    std::is_x86_feature_detected!("avx2")
        && std::is_x86_feature_detected!("fma")
        && std::is_x86_feature_detected!("f16c")
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn run_avx2<R>(kernel: impl Kernel<R>) -> R {
    // SAFETY: this function's target features are the ones `Avx2` needs.
    unsafe { kernel.run::<Avx2>() }
}

#[target_feature(enable = "avx512f,avx2,fma,f16c")]
pub(super) fn run_avx512<R>(kernel: impl Kernel<R>) -> R {
    // SAFETY: this function's target features are the ones `Avx512` and its `Narrow` need.
    unsafe { kernel.run::<Avx512>() }
}

/// Sixteen registers: 6×2 sums, two of B, one of A.
#[derive(Clone, Copy)]
pub(super) struct Avx2;

// SAFETY: the intrinsics are those of AVX, AVX2 and FMA, which `run_avx2` and `run_avx512` enable.
unsafe impl Simd for Avx2 {
    type V = __m256;
    type Narrow = Self;
    const LANES: usize = 8;
    const MR: usize = 6;
    const NR: usize = 16;
    const DOT_ROWS: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        // SAFETY: see the impl.
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::V {
        // SAFETY: see the impl; the caller vouches for eight elements.
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::V) {
        // SAFETY: see the impl; the caller vouches for eight elements.
        unsafe { _mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: see the impl.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const f32) {
        // SAFETY: a hint that cannot fault.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const bf16) -> Self::V {
        // SAFETY: see the impl; the caller vouches for eight elements, 16 bytes.
        unsafe {
            let halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves))
        }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const f16) -> Self::V {
        // SAFETY: see the impl; the caller vouches for eight elements, 16 bytes.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn sums(v: [Self::V; 4]) -> [f32; 4] {
        // SAFETY: see the impl; `sums` has four elements.
        unsafe {
            // Adds neighbours, then pairs of them: register i ends up in lane i of both halves.
            let pairs = [_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3])];
            let halves = _mm256_hadd_ps(pairs[0], pairs[1]);
            let mut sums = [0.0; 4];
            let (low, high) = (_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves));
            _mm_storeu_ps(sums.as_mut_ptr(), _mm_add_ps(low, high));
            sums
        }
    }
    #[inline(always)]
    unsafe fn micro_tile(tile: &MicroTile) {
        // SAFETY: the caller's promise is the callee's.
        unsafe { micro_tile::<Self, 6, 2>(tile) }
    }
    #[inline(always)]
    unsafe fn dots(group: &impl RowGroup, cols: Range<usize>) {
        // 4×3 sums, three weights and a row fill sixteen registers.
        // SAFETY: the caller's promise is the callee's.
        unsafe {
            match group.len() {
                1 => group.dots::<Self, 1, 3>(cols),
                2 => group.dots::<Self, 2, 3>(cols),
                3 => group.dots::<Self, 3, 3>(cols),
                _ => group.dots::<Self, 4, 3>(cols),
            }
        }
    }
}

// SAFETY: the intrinsics are those of AVX2 and F16C, which `run_avx2` and `run_avx512` enable.
unsafe impl Narrow for Avx2 {
    #[inline(always)]
    unsafe fn transpose(r: [Self::V; 8]) -> [Self::V; 8] {
        // SAFETY: see the impl.
        unsafe {
            // Interleave pairs of rows, then pairs of pairs, then exchange 128-bit halves.
            let t0 = _mm256_castps_pd(_mm256_unpacklo_ps(r[0], r[1]));
            let t1 = _mm256_castps_pd(_mm256_unpackhi_ps(r[0], r[1]));
            let t2 = _mm256_castps_pd(_mm256_unpacklo_ps(r[2], r[3]));
            let t3 = _mm256_castps_pd(_mm256_unpackhi_ps(r[2], r[3]));
            let t4 = _mm256_castps_pd(_mm256_unpacklo_ps(r[4], r[5]));
            let t5 = _mm256_castps_pd(_mm256_unpackhi_ps(r[4], r[5]));
            let t6 = _mm256_castps_pd(_mm256_unpacklo_ps(r[6], r[7]));
            let t7 = _mm256_castps_pd(_mm256_unpackhi_ps(r[6], r[7]));
            let u0 = _mm256_castpd_ps(_mm256_unpacklo_pd(t0, t2));
            let u1 = _mm256_castpd_ps(_mm256_unpackhi_pd(t0, t2));
            let u2 = _mm256_castpd_ps(_mm256_unpacklo_pd(t1, t3));
            let u3 = _mm256_castpd_ps(_mm256_unpackhi_pd(t1, t3));
            let u4 = _mm256_castpd_ps(_mm256_unpacklo_pd(t4, t6));
            let u5 = _mm256_castpd_ps(_mm256_unpackhi_pd(t4, t6));
            let u6 = _mm256_castpd_ps(_mm256_unpacklo_pd(t5, t7));
            let u7 = _mm256_castpd_ps(_mm256_unpackhi_pd(t5, t7));
            [
                _mm256_permute2f128_ps::<0x20>(u0, u4),
                _mm256_permute2f128_ps::<0x20>(u1, u5),
                _mm256_permute2f128_ps::<0x20>(u2, u6),
                _mm256_permute2f128_ps::<0x20>(u3, u7),
                _mm256_permute2f128_ps::<0x31>(u0, u4),
                _mm256_permute2f128_ps::<0x31>(u1, u5),
                _mm256_permute2f128_ps::<0x31>(u2, u6),
                _mm256_permute2f128_ps::<0x31>(u3, u7),
            ]
        }
    }
    #[inline(always)]
    unsafe fn store_first(p: *mut f32, v: Self::V, count: usize) {
        // SAFETY: see the impl; each arm stores exactly `count` elements, which the caller vouches for.
        unsafe {
            match count {
                4 => _mm_storeu_ps(p, _mm256_castps256_ps128(v)),
                6 => {
                    _mm_storeu_ps(p, _mm256_castps256_ps128(v));
                    let pair = _mm_castps_pd(_mm256_extractf128_ps::<1>(v));
                    _mm_storel_pd(p.add(4).cast(), pair);
                }
                _ => {
                    let mut lanes = [0.0; 8];
                    _mm256_storeu_ps(lanes.as_mut_ptr(), v);
                    p.copy_from_nonoverlapping(lanes.as_ptr(), count.min(8));
                }
            }
        }
    }
}

/// Thirty-two registers: 14×2 sums, two of B, one of A.
#[derive(Clone, Copy)]
pub(super) struct Avx512;

// SAFETY: the intrinsics are those of AVX-512F, which `run_avx512` enables.
unsafe impl Simd for Avx512 {
    type V = __m512;
    type Narrow = Avx2;
    const LANES: usize = 16;
    const MR: usize = 14;
    const NR: usize = 32;
    const DOT_ROWS: usize = 12;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        // SAFETY: see the impl.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::V {
        // SAFETY: see the impl; the caller vouches for sixteen elements.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::V) {
        // SAFETY: see the impl; the caller vouches for sixteen elements.
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: see the impl.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const f32) {
        // SAFETY: a hint that cannot fault.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const bf16) -> Self::V {
        // SAFETY: see the impl; the caller vouches for sixteen elements, 32 bytes.
        unsafe {
            let halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves))
        }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const f16) -> Self::V {
        // SAFETY: see the impl; the caller vouches for sixteen elements, 32 bytes.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn sums(v: [Self::V; 4]) -> [f32; 4] {
        // SAFETY: see the impl; `sums` has four elements.
        unsafe {
            // Two transposing additions within 128 bits: register i ends up in lane i of all four quarters.
            let ab = _mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
            let cd = _mm512_add_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
            let (ab, cd) = (_mm512_castps_pd(ab), _mm512_castps_pd(cd));
            let (low, high) = (_mm512_unpacklo_pd(ab, cd), _mm512_unpackhi_pd(ab, cd));
            let quarters = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
            let upper = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(quarters)));
            let halves = _mm256_add_ps(_mm512_castps512_ps256(quarters), upper);
            let (low, high) = (_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves));
            let mut sums = [0.0; 4];
            _mm_storeu_ps(sums.as_mut_ptr(), _mm_add_ps(low, high));
            sums
        }
    }
    #[inline(always)]
    unsafe fn micro_tile(tile: &MicroTile) {
        // SAFETY: the caller's promise is the callee's.
        unsafe { micro_tile::<Self, 14, 2>(tile) }
    }
    #[inline(always)]
    unsafe fn dots(group: &impl RowGroup, cols: Range<usize>) {
        // 6×4 or 12×2 sums, the weights and a row take at most 29 of 32 registers.
        // SAFETY: the caller's promise is the callee's.
        unsafe {
            match group.len() {
                1 => group.dots::<Self, 1, 4>(cols),
                2 => group.dots::<Self, 2, 4>(cols),
                3 => group.dots::<Self, 3, 4>(cols),
                4 => group.dots::<Self, 4, 4>(cols),
                5 => group.dots::<Self, 5, 4>(cols),
                6 => group.dots::<Self, 6, 4>(cols),
                7 => group.dots::<Self, 7, 2>(cols),
                8 => group.dots::<Self, 8, 2>(cols),
                9 => group.dots::<Self, 9, 2>(cols),
                10 => group.dots::<Self, 10, 2>(cols),
                11 => group.dots::<Self, 11, 2>(cols),
                _ => group.dots::<Self, 12, 2>(cols),
            }
        }
    }
}
