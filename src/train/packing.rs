//! Which pairs are computed at once: the micro-batches of a step, or of a validation.

use crate::error::{Error, Result};
use crate::model::activations::Rows;
use crate::train::batch::{BatchPlan, TokenPair};
use crate::train::objective::Objective;

/// How pairs are cut into micro-batches, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// So many pairs each.
    Pairs(usize),
    /// As many pairs as have at most so many rows with adapters: tokens of the secure functions, and of the
    /// vulnerable ones after what both share.
    Rows(usize),
}

/// Rows of a pair in a micro-batch.
#[derive(Clone, Copy)]
struct PairSize {
    saved: usize,
    adapter: usize,
    /// Those of the base pass.
    base: usize,
}

impl PairSize {
    fn new(pair: &TokenPair, objective: &Objective, evaluation: bool) -> Self {
        let needs_base = |_| objective.kl_weight != 0.0;
        let plan = BatchPlan::new(&[pair], 0, needs_base, objective.plan_options(evaluation));
        let Rows { total, saved } = plan.rows();
        PairSize { saved, adapter: plan.adapter_rows, base: total - plan.adapter_rows }
    }
}

impl Packing {
    /// The micro-batches of a step of `pairs`, or of their evaluation.
    pub fn cut<'a>(
        self,
        pairs: impl IntoIterator<Item = &'a TokenPair>,
        objective: &Objective,
        evaluation: bool,
    ) -> Vec<Vec<&'a TokenPair>> {
        let size = |pair: &TokenPair| match self {
            Packing::Pairs(_) => 1,
            Packing::Rows(_) => PairSize::new(pair, objective, evaluation).adapter,
        };
        let (Packing::Pairs(most) | Packing::Rows(most)) = self;
        let (mut batches, mut filled): (Vec<Vec<&TokenPair>>, usize) = (Vec::new(), 0);
        for pair in pairs {
            let size = size(pair);
            match batches.last_mut() {
                Some(batch) if filled + size <= most => batch.push(pair),
                _ => {
                    batches.push(vec![pair]);
                    filled = 0;
                }
            }
            filled += size;
        }
        batches
    }

    /// Refuses a number of rows that a pair has more of.
    pub(super) fn require_room(
        self,
        pairs: &[TokenPair],
        objective: &Objective,
        evaluation: bool,
    ) -> Result<()> {
        let Packing::Rows(most) = self else { return Ok(()) };
        let rows = |pair: &&TokenPair| PairSize::new(pair, objective, evaluation).adapter;
        let Some(longest) = pairs.iter().max_by_key(rows) else { return Ok(()) };
        let needed = rows(&longest);
        if needed <= most {
            return Ok(());
        }
        let (split, id) = (if evaluation { "validation" } else { "training" }, longest.id);
        let (secure, vulnerable, shared) = (longest.secure.len(), longest.vulnerable.len(), longest.shared());
        Err(Error::usage(format!(
            "`micro_batch_tokens`: expected at least {needed}, the rows of {split} pair {id} ({secure} tokens of the \
             secure function, {vulnerable} of the vulnerable one, {shared} of them shared), found {most}; raise it, or \
             lower `max_seq_len`"
        )))
    }

    /// Rows of each kind that some micro-batch has, of `training` steps or of the evaluation of `validation`:
    /// all, those with a backward pass, and those with adapters. Base states are computed in the first
    /// `with_base` steps, and in an evaluation.
    pub(super) fn largest<'a>(
        self,
        training: impl Iterator<Item = Vec<&'a TokenPair>>,
        with_base: usize,
        validation: &[TokenPair],
        objective: &Objective,
    ) -> (Rows, usize) {
        let mut most = (Rows { total: 0, saved: 0 }, 0);
        let mut see = |batch: &[&TokenPair], base: bool, evaluation: bool| {
            let sizes = batch.iter().map(|pair| PairSize::new(pair, objective, evaluation));
            let none = PairSize { saved: 0, adapter: 0, base: 0 };
            let sum = sizes.fold(none, |a, b| PairSize {
                saved: a.saved + b.saved,
                adapter: a.adapter + b.adapter,
                base: a.base + b.base,
            });
            let total = sum.adapter + if base { sum.base } else { 0 };
            let (rows, adapter) = &mut most;
            rows.total = rows.total.max(total);
            rows.saved = rows.saved.max(sum.saved);
            *adapter = (*adapter).max(sum.adapter);
        };
        for (step, pairs) in training.enumerate() {
            let batches = self.cut(pairs, objective, false);
            batches.iter().for_each(|batch| see(batch, step < with_base, false));
        }
        self.cut(validation, objective, true).iter().for_each(|batch| see(batch, true, true));
        most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(id: usize, secure: u32, shared: u32, vulnerable: u32) -> TokenPair {
        let rest = (shared..vulnerable).map(|i| 100 + i);
        TokenPair::new(id, (0..secure).collect(), (0..shared).chain(rest).collect())
    }

    /// Rows 12, 8, 5 and 20, of which 10, 6, 5 and 10 have a backward pass.
    fn pairs() -> Vec<TokenPair> {
        vec![pair(0, 10, 4, 6), pair(1, 6, 6, 8), pair(2, 5, 3, 3), pair(3, 10, 0, 10)]
    }

    fn ids(packing: Packing, pairs: &[TokenPair]) -> Vec<Vec<usize>> {
        let batches = packing.cut(pairs, &Objective::default(), false);
        batches.iter().map(|batch| batch.iter().map(|pair| pair.id).collect()).collect()
    }

    #[test]
    fn pairs_are_packed_by_rows_in_their_order() {
        let pairs = pairs();
        assert_eq!(ids(Packing::Rows(20), &pairs), [vec![0, 1], vec![2], vec![3]]);
        assert_eq!(ids(Packing::Rows(25), &pairs), [vec![0, 1, 2], vec![3]]);
        assert_eq!(ids(Packing::Rows(45), &pairs), [vec![0, 1, 2, 3]]);
        assert_eq!(ids(Packing::Pairs(3), &pairs), [vec![0, 1, 2], vec![3]]);
        assert!(ids(Packing::Rows(45), &[]).is_empty());
    }

    #[test]
    fn rows_are_those_of_the_plans() {
        let (pairs, objective) = (pairs(), Objective::default());
        let packing = Packing::Rows(25);
        let with_base = |base| packing.largest([pairs.iter().collect()].into_iter(), base, &[], &objective);
        assert_eq!(with_base(1), (Rows { total: 25 + 21, saved: 21 }, 25));
        assert_eq!(with_base(0), (Rows { total: 25, saved: 21 }, 25));
        // An evaluation repeats the last shared row of a pair.
        let evaluated = packing.largest(std::iter::empty(), 0, &pairs[..1], &objective);
        assert_eq!(evaluated, (Rows { total: 13 + 10, saved: 10 }, 13));
    }

    #[test]
    fn a_pair_that_does_not_fit_is_named() {
        let (pairs, objective) = (pairs(), Objective::default());
        Packing::Rows(20).require_room(&pairs, &objective, false).unwrap();
        let error = Packing::Rows(19).require_room(&pairs, &objective, false).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("at least 20, the rows of training pair 3") && text.contains("found 19"),
            "{text}"
        );
        assert_eq!(error.kind(), crate::error::ErrorKind::Usage);
    }
}
