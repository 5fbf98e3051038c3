//! The analyzer: two normed hidden layers, a third one and a sigmoid (METHOD §5), forward and backward.

use crate::guard::{
    ANALYZER_SITES, Aggregation, EMBEDDING_WIDTH, Guard, GuardActivations, GuardPass, HIDDEN_WIDTHS,
};
use crate::model::params::Grads;
use crate::ops::analyzer::LayerNormBackward;
use crate::ops::matmul::Transpose;
use crate::ops::matrix::{Matrix, MatrixMut};
use crate::ops::philox::DropoutKey;
use crate::ops::{Backend, Buffer, Dropout, Element, Ref};

/// `rows` rows of a buffer as a matrix.
pub(super) fn matrix<B: Backend, T: Element>(
    buffer: &Buffer<B, T>,
    rows: usize,
    cols: usize,
) -> Matrix<'_, B, T> {
    Matrix::new(buffer.first(rows * cols), rows, cols)
}

/// `rows` rows of a buffer as a matrix to write.
pub(super) fn matrix_mut<B: Backend, T: Element>(
    buffer: &mut Buffer<B, T>,
    rows: usize,
    cols: usize,
) -> MatrixMut<'_, B, T> {
    MatrixMut::new(buffer.first_mut(rows * cols), rows, cols)
}

impl<'a, B: Backend> GuardPass<'a, B> {
    fn dropout_at(&self, guard: &Guard, layer: usize) -> Option<Dropout<'a, B>> {
        let d = self.dropout?;
        let key = DropoutKey::new(guard.config.dropout, d.seed, d.step, ANALYZER_SITES[layer])?;
        Some(Dropout { key, row_keys: d.row_keys.slice(0..self.rows) })
    }
}

impl Guard {
    /// The aggregate and the security embedding → scores.
    pub(super) fn analyze<B: Backend>(&self, pass: &GuardPass<'_, B>, acts: &mut GuardActivations<B>) {
        let (backend, params, n) = (pass.backend, pass.params, pass.rows);
        let [w1, w2, w3] = HIDDEN_WIDTHS;
        self.first_layer(pass, acts);
        self.norm_layer(pass, acts, 0);

        let h1 = matrix(&acts.h[0], n, w1);
        let z2 = matrix_mut(&mut acts.z[1], n, w2);
        backend.matmul(z2, h1, params.matrix(&self.linear[1].weight), Transpose::Second, 1.0, 0.0);
        self.norm_layer(pass, acts, 1);

        let [_, h2, h3] = &mut acts.h;
        let third = params.matrix(&self.linear[2].weight);
        backend.matmul(matrix_mut(h3, n, w3), matrix(h2, n, w2), third, Transpose::Second, 1.0, 0.0);
        backend.bias_relu(h3.first_mut(n * w3), params.value(&self.linear[2].bias));
        let (w, b) = (params.value(&self.score.weight), params.value(&self.score.bias));
        backend.score(acts.scores.first_mut(n), h3.first(n * w3), w, b);
    }

    /// `z1 = W1h agg + W1e e` without the bias; collapsed with the aggregator's last two products when it
    /// attends.
    fn first_layer<B: Backend>(&self, pass: &GuardPass<'_, B>, acts: &mut GuardActivations<B>) {
        let (backend, n, w1, hidden) = (pass.backend, pass.rows, HIDDEN_WIDTHS[0], self.hidden_size);
        let weight = pass.params.matrix(&self.linear[0].weight);
        let embedded = acts.embedded.first_mut(n * EMBEDDING_WIDTH);
        backend.gather(embedded, pass.params.value(&self.embedding), pass.ids, EMBEDDING_WIDTH);
        let embedded = matrix(&acts.embedded, n, EMBEDDING_WIDTH);
        let by_embedding = weight.columns(hidden, EMBEDDING_WIDTH);
        let z = matrix_mut(&mut acts.z[0], n, w1);
        backend.matmul(z, embedded, by_embedding, Transpose::Second, 1.0, 0.0);
        let (aggregate, factor) = match &acts.aggregator {
            Some(a) => (matrix(&a.context, n, hidden), matrix(&a.folded, w1, hidden)),
            None => (self.plain_aggregate(pass, &acts.mean), weight.columns(0, hidden)),
        };
        let z = matrix_mut(&mut acts.z[0], n, w1);
        backend.matmul(z, aggregate, factor, Transpose::Second, 1.0, 1.0);
    }

    /// The aggregate where it has no parameters.
    pub(super) fn plain_aggregate<'x, B: Backend>(
        &self,
        pass: &GuardPass<'x, B>,
        mean: &'x Buffer<B, B::Act>,
    ) -> Matrix<'x, B, B::Act> {
        let (n, hidden) = (pass.rows, self.hidden_size);
        match self.config.aggregation {
            Aggregation::LastLayer => {
                let last = pass.taps.slice((self.taps - 1) * n * hidden..self.taps * n * hidden);
                Matrix::new(last, n, hidden)
            }
            Aggregation::Average | Aggregation::Attention => matrix(mean, n, hidden),
        }
    }

    fn norm_layer<B: Backend>(&self, pass: &GuardPass<'_, B>, acts: &mut GuardActivations<B>, layer: usize) {
        let (n, width, params) = (pass.rows, HIDDEN_WIDTHS[layer], pass.params);
        let bias = match &acts.aggregator {
            Some(a) if layer == 0 => a.folded_bias.view(),
            _ => params.operand(&self.linear[layer].bias),
        };
        let (h, z) = (acts.h[layer].first_mut(n * width), acts.z[layer].first_mut(n * width));
        let stats = acts.stats[layer].first_mut(2 * n);
        let norm = &self.norm[layer];
        let (gamma, beta) = (params.value(&norm.gamma), params.value(&norm.beta));
        pass.backend.layer_norm_relu(h, z, stats, bias, gamma, beta, pass.dropout_at(self, layer));
    }

    /// Reverses [`Guard::analyze`] with upstream 1 for every score: leaves `dz[0]`, the gradients of the
    /// norms and of the score, and what [`Guard::linear_gradients`] needs.
    pub(super) fn analyzer_backward<B: Backend>(
        &self,
        pass: &GuardPass<'_, B>,
        acts: &mut GuardActivations<B>,
        dparams: &mut Grads<B>,
        row_weight: Ref<'_, B, f32>,
    ) {
        let (backend, params, n) = (pass.backend, pass.params, pass.rows);
        let [w1, w2, w3] = HIDDEN_WIDTHS;
        let (dw, db) = dparams.pair_mut(&self.score.weight, &self.score.bias);
        let (h3, w) = (acts.h[2].first(n * w3), params.value(&self.score.weight));
        backend.score_backward(acts.dh[2].first_mut(n * w3), dw, db, acts.scores.first(n), h3, w, row_weight);

        let [_, dh2, dh3] = &mut acts.dh;
        let third = params.matrix(&self.linear[2].weight);
        backend.matmul(matrix_mut(dh2, n, w2), matrix(dh3, n, w3), third, Transpose::None, 1.0, 0.0);
        self.norm_layer_backward(pass, acts, dparams, 1, row_weight);

        let dz2 = matrix(&acts.dz[1], n, w2);
        let second = params.matrix(&self.linear[1].weight);
        backend.matmul(matrix_mut(&mut acts.dh[0], n, w1), dz2, second, Transpose::None, 1.0, 0.0);
        self.norm_layer_backward(pass, acts, dparams, 0, row_weight);
    }

    fn norm_layer_backward<B: Backend>(
        &self,
        pass: &GuardPass<'_, B>,
        acts: &mut GuardActivations<B>,
        dparams: &mut Grads<B>,
        layer: usize,
        row_weight: Ref<'_, B, f32>,
    ) {
        let (n, width, norm) = (pass.rows, HIDDEN_WIDTHS[layer], &self.norm[layer]);
        let (dgamma_acc, dbeta_acc) = dparams.pair_mut(&norm.gamma, &norm.beta);
        pass.backend.layer_norm_relu_backward(LayerNormBackward {
            dz: acts.dz[layer].first_mut(n * width),
            dgamma_acc,
            dbeta_acc,
            dh: acts.dh[layer].first(n * width),
            z: acts.z[layer].first(n * width),
            stats: acts.stats[layer].first(2 * n),
            gamma: pass.params.value(&norm.gamma),
            beta: pass.params.value(&norm.beta),
            row_weight,
            dropout: pass.dropout_at(self, layer),
        });
    }

    /// The gradient of the embedding, from `dz[0]`.
    pub(super) fn embedding_backward<B: Backend>(
        &self,
        pass: &GuardPass<'_, B>,
        acts: &mut GuardActivations<B>,
        dparams: &mut Grads<B>,
        row_weight: Ref<'_, B, f32>,
    ) {
        let (backend, n, hidden) = (pass.backend, pass.rows, self.hidden_size);
        let dz = matrix(&acts.dz[0], n, HIDDEN_WIDTHS[0]);
        let by_embedding = pass.params.matrix(&self.linear[0].weight).columns(hidden, EMBEDDING_WIDTH);
        let dembedded = matrix_mut(&mut acts.dembedded, n, EMBEDDING_WIDTH);
        backend.matmul(dembedded, dz, by_embedding, Transpose::None, 1.0, 0.0);
        let dembedded = acts.dembedded.first(n * EMBEDDING_WIDTH);
        backend.scatter_add(
            dparams.get_mut(&self.embedding),
            dembedded,
            pass.ids,
            row_weight,
            EMBEDDING_WIDTH,
        );
    }
}
