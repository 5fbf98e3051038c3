//! RMSNorm, as written in `ops/norm.rs`.

use multiversion::multiversion;

use super::{Cpu, math, parallel};
use crate::ops::norm::Norm;
use crate::ops::{Mut, Ref};

#[multiversion(targets("x86_64+avx512f", "x86_64+avx2+fma"))]
fn forward_row(y: &mut [f32], x: &[f32], weight: &[f32], rstd: f32) {
    for ((y, &x), &w) in y.iter_mut().zip(x).zip(weight) {
        *y = w * (x * rstd);
    }
}

#[multiversion(targets("x86_64+avx512f", "x86_64+avx2+fma"))]
fn backward_row(dx: &mut [f32], dy: &[f32], x: &[f32], weight: &[f32], rstd: f32, projection: f32) {
    for (((dx, &dy), &x), &w) in dx.iter_mut().zip(dy).zip(x).zip(weight) {
        *dx += rstd * (w * dy) - projection * x;
    }
}

/// Σ w·dy·x.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2+fma"))]
fn dot3(dy: &[f32], x: &[f32], weight: &[f32]) -> f32 {
    let mut acc = [0.0f32; 16];
    let chunks = dy.chunks_exact(16).zip(x.chunks_exact(16)).zip(weight.chunks_exact(16));
    for ((d, x), w) in chunks {
        for i in 0..16 {
            acc[i] += w[i] * d[i] * x[i];
        }
    }
    let tail = dy.len() / 16 * 16;
    acc.iter().sum::<f32>() + (tail..dy.len()).map(|i| weight[i] * dy[i] * x[i]).sum::<f32>()
}

impl Norm for Cpu {
    fn rms_norm(
        &self,
        y: Mut<'_, Self, f32>,
        rstd: Mut<'_, Self, f32>,
        x: Ref<'_, Self, f32>,
        weight: Ref<'_, Self, f32>,
        eps: f32,
    ) {
        let (x, weight) = (x.as_slice(), weight.as_slice());
        let width = weight.len();
        parallel::rows2(y.into_slice(), width, rstd.into_slice(), 1, |i, y, rstd| {
            let x = &x[i * width..][..width];
            rstd[0] = 1.0 / (math::sum_of_squares(x) / width as f32 + eps).sqrt();
            forward_row(y, x, weight, rstd[0]);
        });
    }

    fn rms_norm_backward(
        &self,
        dx_acc: Mut<'_, Self, f32>,
        dy: Ref<'_, Self, f32>,
        x: Ref<'_, Self, f32>,
        rstd: Ref<'_, Self, f32>,
        weight: Ref<'_, Self, f32>,
    ) {
        let (dy, x, rstd, weight) = (dy.as_slice(), x.as_slice(), rstd.as_slice(), weight.as_slice());
        let width = weight.len();
        parallel::rows(dx_acc.into_slice(), width, |i, dx| {
            let (dy, x) = (&dy[i * width..][..width], &x[i * width..][..width]);
            let projection = rstd[i].powi(3) * dot3(dy, x, weight) / width as f32;
            backward_row(dx, dy, x, weight, rstd[i], projection);
        });
    }
}
