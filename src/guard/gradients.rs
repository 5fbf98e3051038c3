//! Gradients of the weights and biases of all linear layers of the guard, together: one by one they are too small.

use crate::guard::analyzer::matrix;
use crate::guard::{EMBEDDING_WIDTH, Guard, GuardActivations, GuardPass, HIDDEN_WIDTHS};
use crate::model::params::{Grads, Param};
use crate::ops::matmul::{BiasGradient, WeightGradient};
use crate::ops::matrix::{Matrix, MatrixMut};
use crate::ops::{Backend, Ref};

/// What a parameter's gradient is made from.
struct Source<'a, B: Backend> {
    param: &'a Param,
    dy: Matrix<'a, B, B::Act>,
    of: Of<'a, B>,
}

enum Of<'a, B: Backend> {
    /// x, the column of the weight that its first column belongs to, and weights of the rows.
    Weight(Matrix<'a, B, B::Act>, usize, Option<Ref<'a, B, f32>>),
    /// Weights of the rows.
    Bias(Ref<'a, B, f32>),
}

impl<'a, B: Backend> Source<'a, B> {
    fn weight(
        param: &'a Param,
        dy: Matrix<'a, B, B::Act>,
        x: Matrix<'a, B, B::Act>,
        row_weight: Option<Ref<'a, B, f32>>,
    ) -> Self {
        Source { param, dy, of: Of::Weight(x, 0, row_weight) }
    }

    fn bias(param: &'a Param, dy: Matrix<'a, B, B::Act>, row_weight: Ref<'a, B, f32>) -> Self {
        Source { param, dy, of: Of::Bias(row_weight) }
    }
}

impl Guard {
    /// Gradients of all linear layers, from what the rest of the backward has left; the first layer's part that reads an
    /// attending aggregate has its own already, and that of `bk` is exactly 0: softmax ignores what all taps share.
    pub(super) fn linear_gradients<B: Backend>(
        &self,
        pass: &GuardPass<'_, B>,
        acts: &GuardActivations<B>,
        dparams: &mut Grads<B>,
        row_weight: Ref<'_, B, f32>,
    ) {
        let (n, hidden, w) = (pass.rows, self.hidden_size, Some(row_weight));
        let [w1, w2, w3] = HIDDEN_WIDTHS;
        let mut sources = self.aggregator_sources(pass, acts, row_weight);
        let [first, second, third] = &self.linear;
        let dz1 = matrix(&acts.dz[0], n, w1);
        if self.aggregator.is_none() {
            let aggregate = self.plain_aggregate(pass, &acts.mean);
            add_gradients(pass.backend, dparams, vec![Source::weight(&first.weight, dz1, aggregate, w)]);
        }
        let embedded = matrix(&acts.embedded, n, EMBEDDING_WIDTH);
        sources.push(Source { param: &first.weight, dy: dz1, of: Of::Weight(embedded, hidden, w) });
        sources.push(Source::bias(&first.bias, dz1, row_weight));
        let (dz2, dz3) = (matrix(&acts.dz[1], n, w2), matrix(&acts.dh[2], n, w3));
        sources.push(Source::weight(&second.weight, dz2, matrix(&acts.h[0], n, w1), w));
        sources.push(Source::bias(&second.bias, dz2, row_weight));
        sources.push(Source::weight(&third.weight, dz3, matrix(&acts.h[1], n, w2), w));
        sources.push(Source::bias(&third.bias, dz3, row_weight));
        add_gradients(pass.backend, dparams, sources);
    }

    /// Gradients of the aggregator; see [`Guard::folded_backward`].
    fn aggregator_sources<'a, B: Backend>(
        &'a self,
        pass: &GuardPass<'a, B>,
        acts: &'a GuardActivations<B>,
        row_weight: Ref<'a, B, f32>,
    ) -> Vec<Source<'a, B>> {
        let (Some(p), Some(a)) = (&self.aggregator, &acts.aggregator) else { return Vec::new() };
        let (n, hidden, w1, w) = (pass.rows, self.hidden_size, HIDDEN_WIDTHS[0], Some(row_weight));
        let (dq, first_output) = (matrix(&a.dq, n, hidden), matrix(&a.first_output, w1, hidden));
        let (first, d) = (self.first_weight(pass.params), a.d.view());
        vec![
            Source::weight(&p.query.weight, dq, matrix(&acts.mean, n, hidden), w),
            Source::bias(&p.query.bias, dq, row_weight),
            Source::weight(&p.key.weight, matrix(&a.q, n, hidden), matrix(&a.du, n, hidden), w),
            Source::weight(&p.value.weight, first_output, matrix(&a.g, w1, hidden), None),
            Source::bias(&p.value.bias, first_output, d),
            Source::weight(&p.output.weight, first, matrix(&a.k, w1, hidden), None),
            Source::bias(&p.output.bias, first, d),
        ]
    }
}

/// Adds the gradients of different parameters, which are in the order of the layout.
fn add_gradients<B: Backend>(backend: &B, dparams: &mut Grads<B>, sources: Vec<Source<'_, B>>) {
    let targets = dparams.each_mut(sources.iter().map(|source| source.param));
    let (mut weights, mut biases) = (Vec::new(), Vec::new());
    for (Source { param, dy, of }, to) in sources.into_iter().zip(targets) {
        match of {
            Of::Weight(x, column, row_weight) => {
                let dw_acc = MatrixMut::new(to, param.shape[0], param.shape[1]).columns(column, x.cols);
                weights.push(WeightGradient { dw_acc, dy, x, row_weight });
            }
            Of::Bias(row_weight) => biases.push(BiasGradient { db_acc: to, dy, row_weight }),
        }
    }
    backend.weight_gradients(weights);
    backend.bias_gradients(biases);
}
