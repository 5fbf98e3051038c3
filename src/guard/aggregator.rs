//! The attention aggregator in its fused form, folded into the analyzer's first layer (METHOD §4).
//!
//! Forward: `u = Wkᵀ(Wq m + bq)`, `c = Σ softmax(u·h_l/√H) h_l`, `z1 = P c + …` with `P = W1h Wo Wv`. The aggregate
//! `Wo (Wv c + bv) + bo` itself is never made while training.

use crate::guard::activations::AggregatorActivations;
use crate::guard::analyzer::{matrix, matrix_mut};
use crate::guard::{
    Aggregation, AggregatorParams, Guard, GuardActivations, GuardPass, GuardUpstream, HIDDEN_WIDTHS,
};
use crate::model::params::{Grads, Param, Params};
use crate::ops::aggregate::TapGradient;
use crate::ops::gemm::{Matrix, MatrixMut, Transpose};
use crate::ops::{Backend, Mut, Ref};

/// A vector as a matrix of one row.
fn row<B: Backend>(x: Ref<'_, B, B::Act>) -> Matrix<'_, B, B::Act> {
    Matrix::new(x, 1, x.len())
}

/// A vector as a matrix of one column.
fn column<B: Backend>(x: Ref<'_, B, B::Act>) -> Matrix<'_, B, B::Act> {
    Matrix::new(x, x.len(), 1)
}

/// The gradient of a vector as a matrix of one column.
fn column_grad<'a, B: Backend>(dparams: &'a mut Grads<B>, param: &Param) -> MatrixMut<'a, B, f32> {
    MatrixMut::new(dparams.get_mut(param), param.range.len(), 1)
}

impl Guard {
    /// `W1h`, the part of the analyzer's first layer that reads the aggregate.
    fn first_weight<'a, B: Backend>(&self, params: &'a Params<B>) -> Matrix<'a, B, B::Act> {
        params.matrix(&self.linear[0].weight).columns(0, self.hidden_size)
    }

    /// `W1h Wo`, `P = W1h Wo Wv` and the constant `W1h (Wo bv + bo) + b1`.
    pub(super) fn fold_first_layer<B: Backend>(
        &self,
        backend: &B,
        params: &Params<B>,
        aggregator: &AggregatorParams,
        acts: &mut GuardActivations<B>,
    ) {
        let Some(a) = &mut acts.aggregator else { return };
        let (w1, hidden) = (HIDDEN_WIDTHS[0], self.hidden_size);
        let (wo, wv) = (params.matrix(&aggregator.output.weight), params.matrix(&aggregator.value.weight));
        let first = self.first_weight(params);
        backend.matmul(matrix_mut(&mut a.first_output, w1, hidden), first, wo, Transpose::None, 1.0, 0.0);
        let first_output = matrix(&a.first_output, w1, hidden);
        backend.matmul(matrix_mut(&mut a.folded, w1, hidden), first_output, wv, Transpose::None, 1.0, 0.0);

        let bv = row(params.operand(&aggregator.value.bias));
        backend.matmul(matrix_mut(&mut a.constant, 1, hidden), bv, wo, Transpose::Second, 1.0, 0.0);
        backend.add_bias(a.constant.view_mut(), params.operand(&aggregator.output.bias));
        let constant = row(a.constant.view());
        backend.matmul(matrix_mut(&mut a.folded_bias, 1, w1), constant, first, Transpose::Second, 1.0, 0.0);
        backend.add_bias(a.folded_bias.view_mut(), params.operand(&self.linear[0].bias));
    }

    /// Taps → context (or mean).
    pub(super) fn aggregate<B: Backend>(&self, pass: &GuardPass<'_, B>, acts: &mut GuardActivations<B>) {
        let (backend, params, n, hidden) = (pass.backend, pass.params, pass.rows, self.hidden_size);
        let shape = self.tap_shape(n);
        if self.config.aggregation != Aggregation::LastLayer {
            backend.tap_mean(acts.mean.first_mut(n * hidden), pass.taps, shape);
        }
        let (Some(p), Some(a)) = (&self.aggregator, &mut acts.aggregator) else { return };
        let (wq, wk) = (params.matrix(&p.query.weight), params.matrix(&p.key.weight));
        let mean = matrix(&acts.mean, n, hidden);
        backend.matmul(matrix_mut(&mut a.q, n, hidden), mean, wq, Transpose::Second, 1.0, 0.0);
        backend.add_bias(a.q.first_mut(n * hidden), params.operand(&p.query.bias));
        let q = matrix(&a.q, n, hidden);
        backend.matmul(matrix_mut(&mut a.u, n, hidden), q, wk, Transpose::None, 1.0, 0.0);
        let (context, weights) = (a.context.first_mut(n * hidden), a.weights.first_mut(n * self.taps));
        backend.aggregate(context, weights, pass.taps, a.u.first(n * hidden), shape);
    }

    /// The aggregate of every row as the paper writes it, `[rows, hidden_size]`, after [`Guard::forward`].
    pub fn explicit_aggregate<B: Backend>(
        &self,
        pass: &GuardPass<'_, B>,
        acts: &GuardActivations<B>,
    ) -> Vec<f32> {
        let (backend, params, n, hidden) = (pass.backend, pass.params, pass.rows, self.hidden_size);
        let (Some(p), Some(a)) = (&self.aggregator, &acts.aggregator) else {
            return backend.download_act(self.plain_aggregate(pass, &acts.mean).data);
        };
        let Ok((mut value, _)) =
            crate::ops::Arena::build(backend, |arena| arena.buffer("value", &[2, n * hidden]))
        else {
            return Vec::new();
        };
        let (mut value, mut out) = value.view_mut().split_at(n * hidden);
        let context = matrix(&a.context, n, hidden);
        let product =
            |to: Mut<'_, B, B::Act>, x: Matrix<'_, B, B::Act>, linear: &crate::guard::LinearParams| {
                let weight = params.matrix(&linear.weight);
                backend.matmul(MatrixMut::new(to, n, hidden), x, weight, Transpose::Second, 1.0, 0.0);
            };
        product(value.reborrow(), context, &p.value);
        backend.add_bias(value.reborrow(), params.operand(&p.value.bias));
        product(out.reborrow(), Matrix::new(value.view(), n, hidden), &p.output);
        backend.add_bias(out.reborrow(), params.operand(&p.output.bias));
        backend.download_act(out.view())
    }

    /// From `dz[0]`: gradients of the first layer, of the aggregator and of the taps.
    pub(super) fn aggregator_backward<B: Backend>(
        &self,
        pass: &GuardPass<'_, B>,
        acts: &mut GuardActivations<B>,
        dparams: &mut Grads<B>,
        upstream: GuardUpstream<'_, B>,
    ) {
        self.embedding_backward(pass, acts, dparams, upstream.row_weight_params);
        match &self.aggregator {
            Some(aggregator) => {
                self.folded_backward(pass, acts, dparams, aggregator, upstream.row_weight_params);
                self.query_key_backward(pass, acts, dparams, aggregator, upstream);
            }
            None => self.plain_backward(pass, acts, dparams, upstream),
        }
    }

    /// Gradients of `W1h`, `b1` and the taps where the aggregate has no parameters.
    fn plain_backward<B: Backend>(
        &self,
        pass: &GuardPass<'_, B>,
        acts: &mut GuardActivations<B>,
        dparams: &mut Grads<B>,
        upstream: GuardUpstream<'_, B>,
    ) {
        let (backend, n, hidden) = (pass.backend, pass.rows, self.hidden_size);
        let dz = matrix(&acts.dz[0], n, HIDDEN_WIDTHS[0]);
        let aggregate = self.plain_aggregate(pass, &acts.mean);
        let first = dparams.matrix_mut(&self.linear[0].weight).columns(0, hidden);
        backend.weight_gradient(first, dz, aggregate, Some(upstream.row_weight_params));
        backend.bias_gradient(dparams.get_mut(&self.linear[0].bias), dz.data, upstream.row_weight_params);

        let daggregate = matrix_mut(&mut acts.daggregate, n, hidden);
        backend.matmul(daggregate, dz, self.first_weight(pass.params), Transpose::None, 1.0, 0.0);
        let rows = upstream.dtap_rows;
        let daggregate = acts.daggregate.first(rows * hidden);
        let row_weight = upstream.row_weight_taps.slice(0..rows);
        let mut dtaps = upstream.dtaps;
        let (first, scale) = match self.config.aggregation {
            Aggregation::LastLayer => (self.taps - 1, 1.0),
            Aggregation::Average | Aggregation::Attention => (0, 1.0 / self.taps as f32),
        };
        backend.zero(dtaps.reborrow().slice(0..first * rows * hidden));
        for tap in first..self.taps {
            let dtap = dtaps.reborrow().slice(tap * rows * hidden..(tap + 1) * rows * hidden);
            backend.scale_rows(dtap, daggregate, row_weight, scale);
        }
    }

    /// Gradients of `W1h`, `b1`, `Wo`, `bo`, `Wv`, `bv` from two sums over the rows, `G = Σ w δ cᵀ` and `d = Σ w δ`:
    /// with `A = W1h Wo` and `K = G Wvᵀ + d bvᵀ`, `dWv = AᵀG`, `dbv = Aᵀd`, `dWo = W1hᵀK`, `dbo = W1hᵀd`,
    /// `dW1h = K Woᵀ + d boᵀ`, `db1 = d`.
    fn folded_backward<B: Backend>(
        &self,
        pass: &GuardPass<'_, B>,
        acts: &mut GuardActivations<B>,
        dparams: &mut Grads<B>,
        p: &AggregatorParams,
        row_weight: Ref<'_, B, f32>,
    ) {
        let Some(a) = &mut acts.aggregator else { return };
        let (backend, params, n) = (pass.backend, pass.params, pass.rows);
        let (w1, hidden) = (HIDDEN_WIDTHS[0], self.hidden_size);
        self.row_sums(backend, matrix(&acts.dz[0], n, w1), n, a, row_weight);
        let (g, d) = (matrix(&a.g_operand, w1, hidden), column(a.d_operand.view()));
        let wv = params.matrix(&p.value.weight);
        let bv = row(params.operand(&p.value.bias));
        backend.matmul(matrix_mut(&mut a.k, w1, hidden), g, wv, Transpose::Second, 1.0, 0.0);
        backend.matmul(matrix_mut(&mut a.k, w1, hidden), d, bv, Transpose::None, 1.0, 1.0);

        let (first_output, first) = (matrix(&a.first_output, w1, hidden), self.first_weight(params));
        let k = matrix(&a.k, w1, hidden);
        backend.weight_gradient(dparams.matrix_mut(&p.value.weight), first_output, g, None);
        backend.weight_gradient(column_grad(dparams, &p.value.bias), first_output, d, None);
        backend.weight_gradient(dparams.matrix_mut(&p.output.weight), first, k, None);
        backend.weight_gradient(column_grad(dparams, &p.output.bias), first, d, None);

        let wo = params.matrix(&p.output.weight);
        let bo = row(params.operand(&p.output.bias));
        // G has served: its place takes dW1h.
        backend.matmul(matrix_mut(&mut a.g_operand, w1, hidden), k, wo, Transpose::Second, 1.0, 0.0);
        backend.matmul(matrix_mut(&mut a.g_operand, w1, hidden), d, bo, Transpose::None, 1.0, 1.0);
        let dfirst = dparams.matrix_mut(&self.linear[0].weight).columns(0, hidden);
        backend.accumulate(dfirst, matrix(&a.g_operand, w1, hidden));
        backend.accumulate(column_grad(dparams, &self.linear[0].bias), column(a.d_operand.view()));
    }

    fn row_sums<B: Backend>(
        &self,
        backend: &B,
        dz: Matrix<'_, B, B::Act>,
        n: usize,
        a: &mut AggregatorActivations<B>,
        row_weight: Ref<'_, B, f32>,
    ) {
        let (w1, hidden) = (HIDDEN_WIDTHS[0], self.hidden_size);
        backend.zero(a.g.view_mut());
        backend.zero(a.d.view_mut());
        let context = matrix(&a.context, n, hidden);
        backend.weight_gradient(matrix_mut(&mut a.g, w1, hidden), dz, context, Some(row_weight));
        backend.bias_gradient(a.d.view_mut(), dz.data, row_weight);
        backend.refresh(a.g_operand.view_mut(), a.g.view());
        backend.refresh(a.d_operand.view_mut(), a.d.view());
    }

    /// Gradients of `Wq`, `bq`, `Wk` and the taps. That of `bk` is exactly 0: softmax ignores what all taps share.
    fn query_key_backward<B: Backend>(
        &self,
        pass: &GuardPass<'_, B>,
        acts: &mut GuardActivations<B>,
        dparams: &mut Grads<B>,
        p: &AggregatorParams,
        upstream: GuardUpstream<'_, B>,
    ) {
        let Some(a) = &mut acts.aggregator else { return };
        let (backend, params, n, hidden) = (pass.backend, pass.params, pass.rows, self.hidden_size);
        let (shape, w) = (self.tap_shape(n), upstream.row_weight_params);
        let dz = matrix(&acts.dz[0], n, HIDDEN_WIDTHS[0]);
        let folded = matrix(&a.folded, HIDDEN_WIDTHS[0], hidden);
        backend.matmul(matrix_mut(&mut acts.daggregate, n, hidden), dz, folded, Transpose::None, 1.0, 0.0);

        let (dcontext, weights) = (acts.daggregate.first(n * hidden), a.weights.first(n * self.taps));
        let (du, dscores) = (a.du.first_mut(n * hidden), a.dscores.first_mut(n * self.taps));
        backend.aggregate_backward(du, dscores, dcontext, pass.taps, weights, shape);

        let (q, du) = (matrix(&a.q, n, hidden), matrix(&a.du, n, hidden));
        backend.weight_gradient(dparams.matrix_mut(&p.key.weight), q, du, Some(w));
        let wk = params.matrix(&p.key.weight);
        backend.matmul(matrix_mut(&mut a.dq, n, hidden), du, wk, Transpose::Second, 1.0, 0.0);
        let (dq, mean) = (matrix(&a.dq, n, hidden), matrix(&acts.mean, n, hidden));
        backend.weight_gradient(dparams.matrix_mut(&p.query.weight), dq, mean, Some(w));
        backend.bias_gradient(dparams.get_mut(&p.query.bias), dq.data, w);
        let wq = params.matrix(&p.query.weight);
        backend.matmul(matrix_mut(&mut a.dmean, n, hidden), dq, wq, Transpose::None, 1.0, 0.0);

        let args = TapGradient {
            weights,
            dscores: a.dscores.first(n * self.taps),
            dcontext,
            u: a.u.first(n * hidden),
            dmean: a.dmean.first(n * hidden),
            row_weight: upstream.row_weight_taps,
        };
        backend.tap_gradient(upstream.dtaps, upstream.dtap_rows, args, shape);
    }
}
