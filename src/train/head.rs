//! The head in a step: logits a chunk at a time, their losses, and the gradient of the hidden states.

use std::ops::Range;

use crate::error::Result;
use crate::ops::Backend;
use crate::ops::loss::HeadWeights;
use crate::train::batch::Totals;
use crate::train::memory::Memory;
use crate::train::results::{Pending, Slot};
use crate::train::step::Stepper;

/// No loss has a gradient.
const UNWEIGHTED: HeadWeights = HeadWeights { cross_entropy: 0.0, kl: 0.0 };

impl<B: Backend> Stepper<'_, B> {
    /// Where the gradient of a loss depends on how likely targets are: finds that, and weighs the rows'
    /// cross-entropy by it.
    pub(super) fn sweep(&mut self, batch: &Pending) -> Result<()> {
        let plan = &batch.plan;
        if plan.swept.is_empty() {
            return Ok(());
        }
        for rows in plan.swept_rows() {
            pieces(rows, self.chunk).for_each(|rows| self.losses_of_rows(batch, rows, UNWEIGHTED, false));
        }
        let backend = &self.model.backend;
        let mut nll = vec![0.0; plan.adapter_rows];
        backend.fetch(&mut nll, self.memory.results.slot(batch).nll.view())?;
        let (mut w_ce, factor) = (plan.w_ce.clone(), self.objective.security_weight);
        plan.swept.iter().for_each(|swept| swept.weigh(&mut w_ce, &nll, factor));
        backend.upload(self.memory.plan.w_ce.first_mut(plan.adapter_rows), &w_ce);
        Ok(())
    }

    /// Losses of the rows that have logits and, where asked, the gradient of their hidden states.
    pub(super) fn head(&mut self, batch: &Pending, totals: Totals, backward: bool) {
        let weights = self.objective.head_weights(totals, self.expected.kl_active);
        let (model, saved) = (self.model, batch.plan.saved_rows);
        let width = model.config.hidden_size;
        let has_gaps = batch.plan.heads.iter().map(Range::len).sum::<usize>() < saved;
        if backward && has_gaps {
            model.backend.zero(self.memory.grads.dhidden.first_mut(saved * width));
        }
        let chunk = self.chunk;
        for rows in batch.plan.heads.iter().flat_map(|rows| pieces(rows.clone(), chunk)) {
            self.losses_of_rows(batch, rows.clone(), weights, rows.start < saved);
            if backward {
                let Memory { grads, logits, .. } = &mut self.memory;
                let dlogits = logits.first(rows.len() * model.config.vocab_size);
                model.head_backward(grads.dhidden.slice_mut(rows.start * width..rows.end * width), dlogits);
            }
        }
    }

    /// Logits of some rows, then their losses and the logits' gradient in their place. The base model is
    /// compared with if there is a KL term and the rows `may_compare`.
    fn losses_of_rows(
        &mut self,
        batch: &Pending,
        rows: Range<usize>,
        weights: HeadWeights,
        may_compare: bool,
    ) {
        let (model, width) = (self.model, self.model.config.hidden_size);
        let (vocab_size, n) = (model.config.vocab_size, rows.len());
        let Memory { plan: b, acts, results, base, logits, .. } = &mut self.memory;
        let hidden = rows.start * width..rows.end * width;
        model.head(logits.first_mut(n * vocab_size), acts.hidden.slice(hidden.clone()));
        let y = base.as_mut().filter(|_| may_compare).map(|base| {
            model.head(base.logits.first_mut(n * vocab_size), base.hidden.slice(hidden));
            base.logits.first_mut(n * vocab_size)
        });
        let Slot { nll, kl, .. } = results.slot(batch);
        model.backend.cross_entropy_kl(
            nll.slice(rows.clone()),
            kl.slice(rows.clone()),
            logits.first_mut(n * vocab_size),
            y,
            b.targets.slice(rows.clone()),
            b.w_ce.slice(rows.clone()),
            b.w_kl.slice(rows),
            weights,
        );
    }
}

/// Rows in pieces of at most `most`.
fn pieces(rows: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> {
    let end = rows.end;
    rows.step_by(most).map(move |start| start..end.min(start + most))
}
