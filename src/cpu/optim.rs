//! AdamW, the gradient norm and exact sums, as written in `ops/optim.rs`.

use multiversion::multiversion;

use super::{Cpu, parallel};
use crate::ops::optim::{AdamW, EXACT_SCALE, Optim, check_exact_add, check_exact_take, exact_limit};
use crate::ops::{Mut, Ref};

/// Elements per task; fixed, so that sums do not depend on the number of threads.
const CHUNK: usize = 1 << 15;

#[multiversion(targets("x86_64+avx512f", "x86_64+avx2+fma"))]
fn update(params: &mut [f32], m: &mut [f32], v: &mut [f32], grads: &[f32], s: AdamW) {
    // Constants in f64, as 1 − 0.999 has only four good digits in f32.
    let keep = (1.0 - s.lr * s.weight_decay) as f32;
    let step = (s.lr / (1.0 - s.beta1.powi(s.t as i32))) as f32;
    let root_correction = (1.0 / (1.0 - s.beta2.powi(s.t as i32)).sqrt()) as f32;
    let (beta1, beta2, eps, grad_scale) = (s.beta1 as f32, s.beta2 as f32, s.eps as f32, s.grad_scale as f32);
    let (gain1, gain2) = ((1.0 - s.beta1) as f32, (1.0 - s.beta2) as f32);
    for (((p, m), v), &g) in params.iter_mut().zip(m).zip(v).zip(grads) {
        let g = g * grad_scale;
        *m = beta1 * *m + gain1 * g;
        *v = beta2 * *v + gain2 * g * g;
        *p = *p * keep - step * *m / (v.sqrt() * root_correction + eps);
    }
}

/// Σ xᵢ² in f64, in a fixed order.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2+fma"))]
fn sum_of_squares(x: &[f32]) -> f64 {
    const LANES: usize = 16;
    let mut sums = [0.0; LANES];
    for chunk in x.chunks(LANES) {
        for (sum, &x) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(x) * f64::from(x);
        }
    }
    sums.iter().sum()
}

/// Adds x to the sums and clears it; the number of elements that are not below the limit, which add nothing.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2+fma"))]
fn exact_add(sums: &mut [i64], x: &mut [f32], limit: f32) -> i64 {
    let mut left_out = 0;
    for (sum, x) in sums.iter_mut().zip(x) {
        let x = std::mem::take(x);
        let fits = x.abs() < limit;
        left_out += i64::from(!fits);
        // The product is exact: a power of two times what is far from the largest f32.
        let units = if fits { x * EXACT_SCALE } else { 0.0 };
        *sum = sum.wrapping_add(units.round_ties_even() as i64);
    }
    left_out
}

#[multiversion(targets("x86_64+avx512f", "x86_64+avx2+fma"))]
fn exact_take(x: &mut [f32], sums: &[i64]) {
    for (x, &sum) in x.iter_mut().zip(sums) {
        *x = sum as f32 * (1.0 / EXACT_SCALE);
    }
}

impl Optim for Cpu {
    fn adamw(
        &self,
        params: Mut<'_, Self, f32>,
        m: Mut<'_, Self, f32>,
        v: Mut<'_, Self, f32>,
        grads: Ref<'_, Self, f32>,
        step: AdamW,
    ) {
        let moments = m.into_slice().chunks_mut(CHUNK).zip(v.into_slice().chunks_mut(CHUNK));
        let params = params.into_slice().chunks_mut(CHUNK).zip(grads.as_slice().chunks(CHUNK));
        parallel::items(&mut params.zip(moments).collect::<Vec<_>>(), |_, ((p, g), (m, v))| {
            update(p, m, v, g, step);
        });
    }

    fn sum_of_squares(&self, sum: Mut<'_, Self, f64>, x: Ref<'_, Self, f32>) {
        let mut sums: Vec<(&[f32], f64)> = x.as_slice().chunks(CHUNK).map(|chunk| (chunk, 0.0)).collect();
        parallel::items(&mut sums, |_, (chunk, sum)| *sum = sum_of_squares(chunk));
        sum.into_slice()[0] = sums.iter().map(|(_, sum)| sum).sum();
    }

    fn exact_add(&self, sums: Mut<'_, Self, i64>, x: Mut<'_, Self, f32>, addends: usize) {
        if !self.accepts(check_exact_add(sums.len(), x.len(), addends)) {
            return;
        }
        let limit = exact_limit(addends);
        let (sums, left_out) = sums.into_slice().split_at_mut(x.len());
        let chunks = sums.chunks_mut(CHUNK).zip(x.into_slice().chunks_mut(CHUNK));
        let mut chunks: Vec<_> = chunks.map(|(sums, x)| (sums, x, 0)).collect();
        parallel::items(&mut chunks, |_, (sums, x, left_out)| *left_out = exact_add(sums, x, limit));
        left_out[0] = left_out[0].wrapping_add(chunks.iter().map(|(.., left_out)| left_out).sum());
    }

    fn exact_take(&self, x: Mut<'_, Self, f32>, sums: Ref<'_, Self, i64>) {
        if !self.accepts(check_exact_take(x.len(), sums.len())) {
            return;
        }
        let (x, (sums, left_out)) = (x.into_slice(), sums.as_slice().split_at(sums.len() - 1));
        let chunks = x.chunks_mut(CHUNK).zip(sums.chunks(CHUNK));
        parallel::items(&mut chunks.collect::<Vec<_>>(), |_, (x, sums)| exact_take(x, sums));
        if left_out != [0] {
            x.iter_mut().take(1).for_each(|x| *x = f32::NAN);
        }
    }
}
