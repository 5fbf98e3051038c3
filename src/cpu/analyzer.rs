//! Element-wise parts of the analyzer, as written in `ops/analyzer.rs`.

use super::dropout::apply_dropout;
use super::{Cpu, math, parallel};
use crate::ops::analyzer::{Analyzer, LAYER_NORM_EPS, LayerNormBackward, check_gradients};
use crate::ops::{Dropout, Mut, Ref};

impl Analyzer for Cpu {
    fn layer_norm_relu(
        &self,
        h: Mut<'_, Self, f32>,
        z: Mut<'_, Self, f32>,
        stats: Mut<'_, Self, f32>,
        bias: Ref<'_, Self, f32>,
        gamma: Ref<'_, Self, f32>,
        beta: Ref<'_, Self, f32>,
        dropout: Option<Dropout<'_, Self>>,
    ) {
        let (bias, gamma, beta) = (bias.as_slice(), gamma.as_slice(), beta.as_slice());
        let (width, z, stats) = (bias.len(), z.into_slice(), stats.into_slice());
        parallel::rows2(z, width, stats, 2, |_, z, stats| {
            math::axpy(z, 1.0, bias);
            let (mean, variance) = math::mean_variance(z);
            stats.copy_from_slice(&[mean, 1.0 / (variance + LAYER_NORM_EPS).sqrt()]);
        });
        let (z, stats) = (&*z, &*stats);
        parallel::rows(h.into_slice(), width, |i, h| {
            let (mean, rstd) = (stats[2 * i], stats[2 * i + 1]);
            let z = &z[i * width..][..width];
            for (j, h) in h.iter_mut().enumerate() {
                *h = math::relu((z[j] - mean) * rstd * gamma[j] + beta[j]);
            }
            apply_dropout(h, i, dropout);
        });
    }

    fn layer_norm_relu_backward(&self, args: LayerNormBackward<'_, Self>) {
        if !self.accepts(args.check()) {
            return;
        }
        let (gamma, beta) = (args.gamma.as_slice(), args.beta.as_slice());
        let (z, dh, stats) = (args.z.as_slice(), args.dh.as_slice(), args.stats.as_slice());
        let width = gamma.len();
        let dz = args.dz.into_slice();
        // First the gradient of the normalised value times γ's factor, kept in dz for the parameter
        // gradients.
        parallel::rows(dz, width, |i, dn| {
            let (mean, rstd) = (stats[2 * i], stats[2 * i + 1]);
            dn.copy_from_slice(&dh[i * width..][..width]);
            apply_dropout(dn, i, args.dropout);
            for (j, dn) in dn.iter_mut().enumerate() {
                let active = (z[i * width + j] - mean) * rstd * gamma[j] + beta[j] > 0.0;
                *dn = if active { *dn } else { 0.0 };
            }
        });
        let (dgamma, dbeta) = (args.dgamma_acc.into_slice(), args.dbeta_acc.into_slice());
        for (i, (dn, &weight)) in dz.chunks_exact(width).zip(args.row_weight.as_slice()).enumerate() {
            let (mean, rstd) = (stats[2 * i], stats[2 * i + 1]);
            for j in 0..width {
                dgamma[j] += weight * dn[j] * (z[i * width + j] - mean) * rstd;
                dbeta[j] += weight * dn[j];
            }
        }
        parallel::rows(dz, width, |i, dn| {
            let (mean, rstd) = (stats[2 * i], stats[2 * i + 1]);
            let z = &z[i * width..][..width];
            let (mut sum, mut projection) = (0.0, 0.0);
            for (j, dn) in dn.iter_mut().enumerate() {
                *dn *= gamma[j];
                sum += *dn;
                projection += *dn * (z[j] - mean) * rstd;
            }
            let n = width as f32;
            for (j, dn) in dn.iter_mut().enumerate() {
                *dn = rstd * (*dn - sum / n - (z[j] - mean) * rstd * projection / n);
            }
        });
    }

    fn bias_relu(&self, h: Mut<'_, Self, f32>, bias: Ref<'_, Self, f32>) {
        let bias = bias.as_slice();
        parallel::rows(h.into_slice(), bias.len(), |_, h| {
            for (h, b) in h.iter_mut().zip(bias) {
                *h = math::relu(*h + b);
            }
        });
    }

    fn score(
        &self,
        scores: Mut<'_, Self, f32>,
        h: Ref<'_, Self, f32>,
        w: Ref<'_, Self, f32>,
        b: Ref<'_, Self, f32>,
    ) {
        let (h, w, b) = (h.as_slice(), w.as_slice(), b.as_slice()[0]);
        for (score, h) in scores.into_slice().iter_mut().zip(h.chunks_exact(w.len())) {
            *score = math::sigmoid(math::dot(h, w) + b);
        }
    }

    fn score_backward(
        &self,
        dz: Mut<'_, Self, f32>,
        dw_acc: Mut<'_, Self, f32>,
        db_acc: Mut<'_, Self, f32>,
        scores: Ref<'_, Self, f32>,
        h: Ref<'_, Self, f32>,
        w: Ref<'_, Self, f32>,
        row_weight: Ref<'_, Self, f32>,
    ) {
        let gradients = [("dw", dw_acc.len()), ("db", db_acc.len())];
        if !self.accepts(check_gradients("score_backward", gradients, [w.len(), 1])) {
            return;
        }
        let (h, w, dw, db) = (h.as_slice(), w.as_slice(), dw_acc.into_slice(), db_acc.into_slice());
        let width = w.len();
        let rows = dz.into_slice().chunks_exact_mut(width).zip(h.chunks_exact(width));
        for (((dz, h), &s), &weight) in rows.zip(scores.as_slice()).zip(row_weight.as_slice()) {
            let slope = s * (1.0 - s);
            for ((dz, &h), &w) in dz.iter_mut().zip(h).zip(w) {
                *dz = if h > 0.0 { slope * w } else { 0.0 };
            }
            math::axpy(dw, weight * slope, h);
            db[0] += weight * slope;
        }
    }
}
