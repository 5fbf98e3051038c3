//! The attention aggregator in its fused form, folded into the analyzer's first layer (METHOD §4).
//!
//! Forward: `u = Wkᵀ(Wq m + bq)`, `c = Σ softmax(u·h_l/√H) h_l`, `z1 = P c + …` with `P = W1h Wo Wv`. The aggregate
//! `Wo (Wv c + bv) + bo` itself is never made while training.

use crate::guard::analyzer::{matrix, matrix_mut};
use crate::guard::{
    Aggregation, AggregatorParams, Guard, GuardActivations, GuardPass, GuardUpstream, HIDDEN_WIDTHS,
    LinearParams,
};
use crate::model::params::{Grads, Params};
use crate::ops::aggregate::TapGradient;
use crate::ops::matmul::{BiasGradient, Transpose};
use crate::ops::matrix::{Matrix, MatrixMut};
use crate::ops::{Backend, Mut, Ref};

/// A vector as a matrix of one row.
fn row<B: Backend>(x: Ref<'_, B, B::Act>) -> Matrix<'_, B, B::Act> {
    Matrix::new(x, 1, x.len())
}

impl Guard {
    /// `W1h`, the part of the analyzer's first layer that reads the aggregate.
    pub(super) fn first_weight<'a, B: Backend>(&self, params: &'a Params<B>) -> Matrix<'a, B, B::Act> {
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
        let bo = Some(params.value(&aggregator.output.bias));
        backend.affine(matrix_mut(&mut a.constant, 1, hidden), bv, wo, bo, None);
        let (constant, b1) = (row(a.constant.view()), Some(params.value(&self.linear[0].bias)));
        backend.affine(matrix_mut(&mut a.folded_bias, 1, w1), constant, first, b1, None);
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
        let bq = Some(params.value(&p.query.bias));
        backend.affine(matrix_mut(&mut a.q, n, hidden), mean, wq, bq, None);
        let q = matrix(&a.q, n, hidden);
        backend.matmul(matrix_mut(&mut a.u, n, hidden), q, wk, Transpose::None, 1.0, 0.0);
        let (context, weights) = (a.context.first_mut(n * hidden), a.weights.first_mut(n * self.taps));
        backend.aggregate(context, weights, pass.taps, a.u.first(n * hidden), shape);
    }

    /// The aggregate of every row as the paper writes it, `[rows, hidden_size]`, after [`Guard::forward`], which never
    /// computes it: for the test against the published code.
    #[doc(hidden)]
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
        let affine = |to: Mut<'_, B, B::Act>, x: Matrix<'_, B, B::Act>, linear: &LinearParams| {
            let (weight, bias) = (params.matrix(&linear.weight), Some(params.value(&linear.bias)));
            backend.affine(MatrixMut::new(to, n, hidden), x, weight, bias, None);
        };
        affine(value.reborrow(), matrix(&a.context, n, hidden), &p.value);
        affine(out.reborrow(), Matrix::new(value.view(), n, hidden), &p.output);
        backend.download_act(out.view())
    }

    /// Computes, from `dz[0]`, gradients of the embedding and of the taps, and all that [`Guard::linear_gradients`] needs.
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
                self.query_key_backward(pass, acts, aggregator, upstream);
            }
            None => self.plain_backward(pass, acts, upstream),
        }
    }

    /// The gradient of the taps where the aggregate has no parameters.
    fn plain_backward<B: Backend>(
        &self,
        pass: &GuardPass<'_, B>,
        acts: &mut GuardActivations<B>,
        upstream: GuardUpstream<'_, B>,
    ) {
        let (backend, n, hidden) = (pass.backend, pass.rows, self.hidden_size);
        let dz = matrix(&acts.dz[0], n, HIDDEN_WIDTHS[0]);
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

    /// Makes of the rows two sums, `G = Σ w δ cᵀ` and `d = Σ w δ`, from which all gradients of `W1h`, `b1`, `Wo`, `bo`, `Wv`,
    /// `bv` follow: with `A = W1h Wo` and `K = G Wvᵀ + d bvᵀ`, `dWv = AᵀG`, `dbv = Aᵀd`, `dWo = W1hᵀK`, `dbo = W1hᵀd`,
    /// `dW1h = K Woᵀ + d boᵀ`, `db1 = d`. Leaves G, d and K, and adds `dW1h`.
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
        let (dz, context) = (matrix(&acts.dz[0], n, w1), matrix(&a.context, n, hidden));
        backend.weighted_product(matrix_mut(&mut a.g, w1, hidden), dz, context, row_weight);
        backend.zero(a.d.view_mut());
        backend.bias_gradients(vec![BiasGradient { db_acc: a.d.view_mut(), dy: dz, row_weight }]);
        backend.cast(a.d_operand.view_mut(), a.d.view());

        let (g, d) = (matrix(&a.g, w1, hidden), a.d_operand.view());
        let (wv, bv) = (params.matrix(&p.value.weight), params.operand(&p.value.bias));
        backend.affine(matrix_mut(&mut a.k, w1, hidden), g, wv, None, Some([d, bv]));
        let (wo, bo) = (params.matrix(&p.output.weight), params.operand(&p.output.bias));
        let dfirst = dparams.matrix_mut(&self.linear[0].weight).columns(0, hidden);
        backend.affine_gradient(dfirst, matrix(&a.k, w1, hidden), wo, [d, bo]);
    }

    /// The gradients of what lies between the taps and the context, and of the taps.
    fn query_key_backward<B: Backend>(
        &self,
        pass: &GuardPass<'_, B>,
        acts: &mut GuardActivations<B>,
        p: &AggregatorParams,
        upstream: GuardUpstream<'_, B>,
    ) {
        let Some(a) = &mut acts.aggregator else { return };
        let (backend, params, n, hidden) = (pass.backend, pass.params, pass.rows, self.hidden_size);
        let shape = self.tap_shape(n);
        let dz = matrix(&acts.dz[0], n, HIDDEN_WIDTHS[0]);
        let folded = matrix(&a.folded, HIDDEN_WIDTHS[0], hidden);
        backend.matmul(matrix_mut(&mut acts.daggregate, n, hidden), dz, folded, Transpose::None, 1.0, 0.0);

        let (dcontext, weights) = (acts.daggregate.first(n * hidden), a.weights.first(n * self.taps));
        let (du, dscores) = (a.du.first_mut(n * hidden), a.dscores.first_mut(n * self.taps));
        backend.aggregate_backward(du, dscores, dcontext, pass.taps, weights, shape);

        let (du, wk) = (matrix(&a.du, n, hidden), params.matrix(&p.key.weight));
        backend.matmul(matrix_mut(&mut a.dq, n, hidden), du, wk, Transpose::Second, 1.0, 0.0);
        let dq = matrix(&a.dq, n, hidden);
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
