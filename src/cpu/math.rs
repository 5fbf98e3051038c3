//! Vector arithmetic on slices, compiled for the widest vectors the processor has.

use multiversion::multiversion;

/// Partial sums kept side by side, so that a sum vectorises and its order is fixed.
const LANES: usize = 16;

/// eˣ with a relative error below 2e-7; 0 below −87.3, saturating above 88; NaN stays NaN.
///
/// x = n·ln2 + r, |r| ≤ ln2/2; eʳ by a degree-6 Taylor polynomial (remainder < 1.3e-7), 2ⁿ by its exponent
/// bits.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5·2²³: adding it rounds to an integer
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Comparisons written so that NaN passes through.
    let x = if x < -87.3 { -87.3 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let n = (x * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let p = 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = p * r + 1.0;
    let p = p * r + 1.0;
    // `n` is within ±127 here, and for NaN `as` gives 0, leaving p = NaN.
    p * f32::from_bits((((n as i32) + 127) as u32) << 23)
}

/// 1/(1 + e⁻ˣ).
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[inline(always)]
fn lanes_sum(a: [f32; LANES]) -> f32 {
    a.iter().sum()
}

/// Σ f(aᵢ, bᵢ) in a fixed order.
#[inline(always)]
fn fold2(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut acc = [0.0; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(&x, &y)| f(x, y)).sum();
    for (x, y) in a_chunks.zip(b_chunks) {
        for i in 0..LANES {
            acc[i] += f(x[i], y[i]);
        }
    }
    lanes_sum(acc) + tail
}

/// Σ aᵢ bᵢ.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2+fma"))]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    fold2(a, b, |x, y| x * y)
}

/// Σ aᵢ².
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2+fma"))]
pub fn sum_of_squares(a: &[f32]) -> f32 {
    fold2(a, a, |x, _| x * x)
}

/// Mean and variance of `a`.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2+fma"))]
pub fn mean_variance(a: &[f32]) -> (f32, f32) {
    let n = a.len() as f32;
    let mean = fold2(a, a, |x, _| x) / n;
    (mean, fold2(a, a, |x, _| (x - mean) * (x - mean)) / n)
}

/// y += s·x.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2+fma"))]
pub fn axpy(y: &mut [f32], s: f32, x: &[f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y += s * x;
    }
}

/// The largest element; −∞ for none. NaN elements may be ignored: the sums that follow catch them.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2+fma"))]
pub fn max(a: &[f32]) -> f32 {
    let mut acc = [f32::NEG_INFINITY; LANES];
    let chunks = a.chunks_exact(LANES);
    let tail = chunks.remainder().iter().fold(f32::NEG_INFINITY, |m, &x| if x > m { x } else { m });
    for x in chunks {
        for i in 0..LANES {
            acc[i] = if x[i] > acc[i] { x[i] } else { acc[i] };
        }
    }
    acc.iter().fold(tail, |m, &x| if x > m { x } else { m })
}

/// a ← exp(scale·a − shift); returns the sum.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2+fma"))]
pub fn exp_in_place(a: &mut [f32], scale: f32, shift: f32) -> f32 {
    let mut acc = [0.0; LANES];
    let mut chunks = a.chunks_exact_mut(LANES);
    for x in &mut chunks {
        for i in 0..LANES {
            x[i] = exp(scale * x[i] - shift);
            acc[i] += x[i];
        }
    }
    let mut tail = 0.0;
    for x in chunks.into_remainder() {
        *x = exp(scale * *x - shift);
        tail += *x;
    }
    lanes_sum(acc) + tail
}

/// a ← s·a.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2+fma"))]
pub fn scale(a: &mut [f32], s: f32) {
    for x in a {
        *x *= s;
    }
}

/// In one pass over two rows of logits: z ← exp(z − z_max), y ← exp(y − y_max).
/// Returns (Σ exp z, Σ exp y, Σ exp(y)·(y − z)) with the original z and y in the last.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2+fma"))]
pub fn exp_pair(z: &mut [f32], z_max: f32, y: &mut [f32], y_max: f32) -> (f32, f32, f32) {
    let (mut sum_z, mut sum_y, mut cross) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
    let mut tail = (0.0, 0.0, 0.0);
    let mut zs = z.chunks_exact_mut(LANES);
    let mut ys = y.chunks_exact_mut(LANES);
    for (z, y) in (&mut zs).zip(&mut ys) {
        for i in 0..LANES {
            let difference = y[i] - z[i];
            z[i] = exp(z[i] - z_max);
            y[i] = exp(y[i] - y_max);
            sum_z[i] += z[i];
            sum_y[i] += y[i];
            cross[i] += y[i] * difference;
        }
    }
    for (z, y) in zs.into_remainder().iter_mut().zip(ys.into_remainder()) {
        let difference = *y - *z;
        *z = exp(*z - z_max);
        *y = exp(*y - y_max);
        tail = (tail.0 + *z, tail.1 + *y, tail.2 + *y * difference);
    }
    (lanes_sum(sum_z) + tail.0, lanes_sum(sum_y) + tail.1, lanes_sum(cross) + tail.2)
}

/// z ← a·z − b·y.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2+fma"))]
pub fn combine(z: &mut [f32], a: f32, y: &[f32], b: f32) {
    for (z, &y) in z.iter_mut().zip(y) {
        *z = a * *z - b * y;
    }
}

/// ds ← scale · p ∘ (ds − delta): the softmax's gradient from that of its output.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2+fma"))]
pub fn softmax_backward(ds: &mut [f32], p: &[f32], delta: f32, scale: f32) {
    for (ds, &p) in ds.iter_mut().zip(p) {
        *ds = scale * p * (*ds - delta);
    }
}

/// max(x, 0), NaN staying NaN.
#[inline(always)]
pub fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate() {
        for i in -87_000..88_000 {
            let x = i as f32 * 1e-3;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error < 3e-7, "exp({x}): relative error {error:e}");
        }
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(-1e9) < 1.3e-38);
        assert_eq!(exp(0.0), 1.0);
    }
}
