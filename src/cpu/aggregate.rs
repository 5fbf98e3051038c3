//! The aggregator's passes over the taps, as written in `ops/aggregate.rs`.

use super::{Cpu, math, parallel};
use crate::ops::aggregate::{Aggregate, TapGradient, TapShape};
use crate::ops::{Mut, Ref};

impl TapShape {
    /// Row `row` of tap `tap` in `[N, rows, hidden_size]`.
    fn row(self, taps: &[f32], tap: usize, row: usize) -> &[f32] {
        &taps[(tap * self.rows + row) * self.hidden_size..][..self.hidden_size]
    }
}

/// Softmax in place.
fn softmax(scores: &mut [f32]) {
    let max = math::max(scores);
    let sum = math::exp_in_place(scores, 1.0, max);
    math::scale(scores, 1.0 / sum);
}

impl Aggregate for Cpu {
    fn tap_mean(&self, mean: Mut<'_, Self, f32>, taps: Ref<'_, Self, f32>, shape: TapShape) {
        if !self.accepts(shape.check("tap_mean")) {
            return;
        }
        let taps = taps.as_slice();
        parallel::rows(mean.into_slice(), shape.hidden_size, |i, mean| {
            mean.copy_from_slice(shape.row(taps, 0, i));
            for l in 1..shape.taps {
                math::axpy(mean, 1.0, shape.row(taps, l, i));
            }
            math::scale(mean, 1.0 / shape.taps as f32);
        });
    }

    fn aggregate(
        &self,
        context: Mut<'_, Self, f32>,
        weights: Mut<'_, Self, f32>,
        taps: Ref<'_, Self, f32>,
        u: Ref<'_, Self, f32>,
        shape: TapShape,
    ) {
        if !self.accepts(shape.check("aggregate")) {
            return;
        }
        let (taps, u) = (taps.as_slice(), u.as_slice());
        let (width, scale) = (shape.hidden_size, 1.0 / (shape.hidden_size as f32).sqrt());
        parallel::rows2(
            context.into_slice(),
            width,
            weights.into_slice(),
            shape.taps,
            |i, context, weights| {
                let u = &u[i * width..][..width];
                for (l, w) in weights.iter_mut().enumerate() {
                    *w = scale * math::dot(u, shape.row(taps, l, i));
                }
                softmax(weights);
                context.fill(0.0);
                for (l, &w) in weights.iter().enumerate() {
                    math::axpy(context, w, shape.row(taps, l, i));
                }
            },
        );
    }

    fn aggregate_backward(
        &self,
        du: Mut<'_, Self, f32>,
        dscores: Mut<'_, Self, f32>,
        dcontext: Ref<'_, Self, f32>,
        taps: Ref<'_, Self, f32>,
        weights: Ref<'_, Self, f32>,
        shape: TapShape,
    ) {
        if !self.accepts(shape.check("aggregate_backward")) {
            return;
        }
        let (taps, dcontext, weights) = (taps.as_slice(), dcontext.as_slice(), weights.as_slice());
        let (width, scale) = (shape.hidden_size, 1.0 / (shape.hidden_size as f32).sqrt());
        parallel::rows2(du.into_slice(), width, dscores.into_slice(), shape.taps, |i, du, dscores| {
            let (g, a) = (&dcontext[i * width..][..width], &weights[i * shape.taps..][..shape.taps]);
            for (l, ds) in dscores.iter_mut().enumerate() {
                *ds = math::dot(g, shape.row(taps, l, i));
            }
            let mean: f32 = dscores.iter().zip(a).map(|(ds, a)| ds * a).sum();
            for (ds, a) in dscores.iter_mut().zip(a) {
                *ds = a * (*ds - mean) * scale;
            }
            du.fill(0.0);
            for (l, &ds) in dscores.iter().enumerate() {
                math::axpy(du, ds, shape.row(taps, l, i));
            }
        });
    }

    fn tap_gradient(
        &self,
        dtaps: Mut<'_, Self, f32>,
        dtap_rows: usize,
        args: TapGradient<'_, Self>,
        shape: TapShape,
    ) {
        if !self.accepts(TapShape { rows: dtap_rows, ..shape }.check("tap_gradient")) {
            return;
        }
        let width = shape.hidden_size;
        let (dcontext, u, dmean) = (args.dcontext.as_slice(), args.u.as_slice(), args.dmean.as_slice());
        let (weights, dscores) = (args.weights.as_slice(), args.dscores.as_slice());
        let row_weight = args.row_weight.as_slice();
        parallel::rows(dtaps.into_slice(), width, |at, dtap| {
            let (l, i) = (at / dtap_rows, at % dtap_rows);
            dtap.fill(0.0);
            math::axpy(dtap, row_weight[i] * weights[i * shape.taps + l], &dcontext[i * width..][..width]);
            math::axpy(dtap, row_weight[i] * dscores[i * shape.taps + l], &u[i * width..][..width]);
            math::axpy(dtap, row_weight[i] / shape.taps as f32, &dmean[i * width..][..width]);
        });
    }
}
