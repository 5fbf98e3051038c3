//! The batch plan: one packed row matrix `[secure | vulnerable suffixes | base]` for the three passes (METHOD
//! §6).

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::model::activations::Rows;
use crate::model::prefix::PrefixPlace;
use crate::ops::attention::Segment;
use crate::train::changes::{Changes, Marked};

/// A tokenised training pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenPair {
    /// The pair's number in the data set, under which its base hidden states are cached.
    pub id: usize,
    /// Tokens of the secure function.
    pub secure: Vec<u32>,
    /// Tokens of the vulnerable function.
    pub vulnerable: Vec<u32>,
    /// What the fix changed; `None` where nobody has asked yet.
    pub changes: Option<Changes>,
}

impl TokenPair {
    /// A pair of which nobody has asked yet what the fix changed.
    pub fn new(id: usize, secure: Vec<u32>, vulnerable: Vec<u32>) -> Self {
        TokenPair { id, secure, vulnerable, changes: None }
    }

    /// Tokens before the first difference.
    pub fn shared(&self) -> usize {
        self.secure.iter().zip(&self.vulnerable).take_while(|(s, v)| s == v).count()
    }

    /// Tokens of the longer half.
    pub fn longest(&self) -> usize {
        self.secure.len().max(self.vulnerable.len())
    }

    /// About how long a step computes this pair, in forward passes of a token: the secure function has a
    /// backward pass, which takes as long as two, the vulnerable one only what it does not share.
    pub(super) fn cost(&self) -> u64 {
        (3 * self.secure.len() + self.vulnerable.len() - self.shared()) as u64
    }

    /// What this pair adds to the denominators of the losses.
    pub fn totals(&self, ignore_token: Option<u32>) -> Totals {
        let counts = |&&t: &&u32| Some(t) != ignore_token;
        let usable = self.marked(ignore_token).map(Marked::is_usable);
        Totals {
            targets: self.secure.iter().skip(1).filter(counts).count(),
            kl_rows: self.secure.iter().filter(counts).count(),
            secure_tokens: self.secure.len(),
            vulnerable_tokens: self.vulnerable.len(),
            functions: usable.into_iter().map(usize::from).sum(),
            fixed_functions: usize::from(usable[0]),
        }
    }

    /// The secure and the vulnerable function with what the fix changed of them.
    fn marked(&self, ignored: Option<u32>) -> [Marked<'_>; 2] {
        let changes = self.changes.as_ref();
        let secure = changes.map_or(&[][..], |changes| &changes.secure);
        let vulnerable = changes.map_or(&[][..], |changes| &changes.vulnerable);
        [(&self.secure, secure), (&self.vulnerable, vulnerable)].map(|(tokens, changed)| Marked {
            tokens,
            changed,
            ignored,
        })
    }
}

/// Denominators of the losses of one optimiser step, over all its micro-batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Next-token targets of the secure functions.
    pub targets: usize,
    /// Positions of the KL term.
    pub kl_rows: usize,
    /// Tokens of the secure functions.
    pub secure_tokens: usize,
    /// Tokens of the vulnerable functions.
    pub vulnerable_tokens: usize,
    /// Functions of which a part was changed.
    pub functions: usize,
    /// Secure functions among them.
    pub fixed_functions: usize,
}

impl std::iter::Sum for Totals {
    fn sum<I: Iterator<Item = Totals>>(iter: I) -> Totals {
        iter.fold(Totals::default(), |a, b| Totals {
            targets: a.targets + b.targets,
            kl_rows: a.kl_rows + b.kl_rows,
            secure_tokens: a.secure_tokens + b.secure_tokens,
            vulnerable_tokens: a.vulnerable_tokens + b.vulnerable_tokens,
            functions: a.functions + b.functions,
            fixed_functions: a.fixed_functions + b.fixed_functions,
        })
    }
}

/// Which functions a plan reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passes {
    /// The secure functions.
    Secure,
    /// The secure functions and, without a backward pass, the vulnerable ones.
    Compared,
    /// The secure functions, of what the fix brought and of the rest; in an evaluation the vulnerable ones,
    /// too, without a backward pass.
    Fixed,
    /// Both functions, each with a backward pass of its own, of what the fix changed.
    Changed,
    /// Both functions under both of two prefixes of so many rows, each with a backward pass.
    Controls {
        /// Rows of a prefix.
        prefix: usize,
    },
}

/// How a plan is laid out.
#[derive(Clone, Copy, Debug)]
pub struct PlanOptions {
    /// The functions.
    pub passes: Passes,
    /// Let the vulnerable pass reuse the secure pass's keys, values and taps of the common prefix.
    pub share_prefix: bool,
    /// Recompute the last common token with the vulnerable suffix, whose first target it predicts. Evaluation
    /// does, to have the likelihood of the vulnerable function too.
    pub predict_suffix: bool,
    /// Tokens with this id are no targets and do not count for the KL term.
    pub ignore_token: Option<u32>,
    /// The largest number of tokens of a function, which spaces the row keys.
    pub max_seq_len: usize,
}

/// The rows of one pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairRows {
    /// [`TokenPair::id`].
    pub id: usize,
    /// Rows of the secure function.
    pub secure: Range<usize>,
    /// Rows of the vulnerable function after the shared prefix.
    pub suffix: Range<usize>,
    /// Length of the prefix whose rows serve both functions.
    pub shared: usize,
    /// Rows of the base pass, unless its hidden states are cached.
    pub base: Option<Range<usize>>,
    /// Rows that are compared with the base pass, and where in it those begin that they are compared with.
    pub(super) compared: Vec<(Range<usize>, usize)>,
}

/// A packed batch on the host. Row vectors are in the order `[secure | suffixes | base]`.
#[derive(Clone, Debug, Default)]
pub struct BatchPlan {
    /// `[rows]` token ids.
    pub ids: Vec<u32>,
    /// `[rows]` positions.
    pub positions: Vec<u32>,
    /// `[adapter rows]` what each row is, for its dropout masks.
    pub row_keys: Vec<u32>,
    /// `[adapter rows]` next token, −1 where there is none to learn.
    pub targets: Vec<i32>,
    /// `[adapter rows]` weight of each row's cross-entropy.
    pub w_ce: Vec<f32>,
    /// `[adapter rows]` weight of each row's KL divergence; 0 where there is none.
    pub w_kl: Vec<f32>,
    /// Prefixes, if any.
    pub prefixes: Vec<PrefixPlace>,
    /// Rows whose weights depend on how likely their targets are.
    pub(super) swept: Vec<Swept>,
    /// Rows with logits.
    pub(super) heads: Vec<Range<usize>>,
    /// Segments of the functions, one each, those of the secure functions first.
    pub segments: Vec<Segment>,
    /// One entry per pair.
    pub pairs: Vec<PairRows>,
    /// Rows of the secure functions: the first ones.
    pub secure_rows: usize,
    /// Rows with a backward, which are the first ones too.
    pub saved_rows: usize,
    /// Rows of secure functions and suffixes: those with adapters.
    pub adapter_rows: usize,
}

/// Gradient weights of the rows' scores (METHOD §6).
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreWeights {
    /// `[adapter rows]` `w_h`: in the gradient to the taps.
    pub taps: Vec<f32>,
    /// `[adapter rows]` `w_θ`: in the gradients of the guard's parameters.
    pub params: Vec<f32>,
}

impl BatchPlan {
    /// Plans `pairs`, the first of which is pair `first_in_step` of the optimiser step. `needs_base` says for
    /// which pair ids the base pass must run.
    pub fn new(
        pairs: &[&TokenPair],
        first_in_step: usize,
        needs_base: impl Fn(usize) -> bool,
        options: PlanOptions,
    ) -> Self {
        if let Passes::Controls { prefix } = options.passes {
            return Self::of_controls(pairs, first_in_step, needs_base, options, prefix);
        }
        let mut plan = BatchPlan::default();
        for (i, pair) in pairs.iter().enumerate() {
            plan.add_secure(pair, first_in_step + i, options);
        }
        plan.secure_rows = plan.ids.len();
        let compared = match options.passes {
            Passes::Secure => &[],
            Passes::Fixed if !options.predict_suffix => &[],
            _ => pairs,
        };
        for (i, pair) in compared.iter().enumerate() {
            plan.add_suffix(i, pair, first_in_step + i, options);
        }
        plan.adapter_rows = plan.ids.len();
        plan.saved_rows = plan.secure_rows;
        plan.w_ce.resize(plan.adapter_rows, 1.0);
        plan.w_kl.resize(plan.adapter_rows, 0.0);
        match options.passes {
            Passes::Changed => {
                plan.saved_rows = plan.adapter_rows;
                plan.weigh_fixes(pairs, options.ignore_token);
                plan.weigh_removals(pairs, options.ignore_token);
            }
            Passes::Fixed => {
                plan.weigh_fixes(pairs, options.ignore_token);
                plan.weigh_rest(pairs, options.ignore_token);
            }
            _ => {}
        }
        plan.choose_heads(options);
        for (i, pair) in pairs.iter().enumerate().filter(|(_, pair)| needs_base(pair.id)) {
            plan.pairs[i].base = Some(plan.add_sequence(&pair.secure, 0, 0..0));
        }
        plan
    }

    /// The plan of [`Passes::Controls`]: `[secure | vulnerable]` functions under the secure control's prefix,
    /// then under the other's, then without any.
    fn of_controls(
        pairs: &[&TokenPair],
        first_in_step: usize,
        needs_base: impl Fn(usize) -> bool,
        options: PlanOptions,
        prefix: usize,
    ) -> Self {
        let mut plan = BatchPlan::default();
        let mut rows = vec![[[0..0, 0..0], [0..0, 0..0]]; pairs.len()];
        for (control, function) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            for (i, pair) in pairs.iter().enumerate() {
                let first_key =
                    (4 * (first_in_step + i) + 2 * control + function) * (prefix + options.max_seq_len);
                let tokens = if function == 0 { &pair.secure } else { &pair.vulnerable };
                rows[i][control][function] = plan.add_controlled(tokens, control, prefix, first_key, options);
            }
            if (control, function) == (0, 0) {
                plan.secure_rows = plan.ids.len();
            }
        }
        (plan.saved_rows, plan.adapter_rows) = (plan.ids.len(), plan.ids.len());
        plan.w_ce.resize(plan.adapter_rows, 0.0);
        plan.w_kl.resize(plan.adapter_rows, 0.0);
        for (pair, rows) in pairs.iter().zip(&rows) {
            let [secure, vulnerable] = pair.marked(options.ignore_token);
            plan.weigh_control(secure, [&rows[0][0], &rows[1][0]]);
            plan.weigh_control(vulnerable, [&rows[1][1], &rows[0][1]]);
            let base = needs_base(pair.id).then(|| {
                let first = plan.add_sequence(&pair.secure, 0, 0..0);
                first.start..plan.add_sequence(&pair.vulnerable, 0, 0..0).end
            });
            let of_control = |control: usize| {
                let [secure, vulnerable] = rows[control].clone();
                [(secure, 0), (vulnerable, pair.secure.len())]
            };
            let compared = [0, 1].into_iter().flat_map(of_control).collect();
            let [secure, suffix] = rows[0].clone();
            plan.pairs.push(PairRows { id: pair.id, secure, suffix, shared: 0, base, compared });
        }
        plan.heads = rows.into_iter().flatten().flatten().collect();
        plan
    }

    /// A function behind a prefix; returns its own rows.
    fn add_controlled(
        &mut self,
        tokens: &[u32],
        control: usize,
        prefix: usize,
        first_key: usize,
        options: PlanOptions,
    ) -> Range<usize> {
        self.prefixes.push(PrefixPlace { row: self.ids.len(), control });
        // What these tokens are does not matter: their keys and values are those of the prefix.
        let rows = self.add_sequence(&[&vec![0; prefix], tokens].concat(), 0, 0..0);
        self.row_keys.extend((0..rows.len()).map(|i| (first_key + i) as u32));
        self.targets.extend(vec![-1; prefix]);
        self.add_targets(tokens, options);
        rows.start + prefix..rows.end
    }

    /// The losses of SVEN for one function, whose rows under its own control and under the other are given:
    /// cross-entropy and contrast over its changed targets, KL divergences over the others.
    fn weigh_control(&mut self, function: Marked<'_>, [own, other]: [&Range<usize>; 2]) {
        for (target, weight) in function.weights(true) {
            let (row, rival) = (predicting(target, own), predicting(target, other));
            self.w_ce[row] = weight;
            self.swept.push(Swept { row, rival: Some(rival), weight });
        }
        for (target, weight) in function.weights(false) {
            for rows in [own, other] {
                self.w_kl[predicting(target, rows)] = weight;
            }
        }
    }

    /// Total, saved and adapter rows a plan of these pairs can need at most.
    pub fn capacity<'a>(pairs: impl Iterator<Item = &'a TokenPair>, batch_size: usize) -> (Rows, usize) {
        Self::capacity_of(pairs, batch_size, |s, v| [s, s + v, 2 * s + v])
    }

    /// The same, where the pass of a pair whose functions have `s` and `v` tokens needs `rows(s, v)`: saved
    /// ones, those with adapters, and all.
    pub(super) fn capacity_of<'a>(
        pairs: impl Iterator<Item = &'a TokenPair>,
        batch_size: usize,
        rows: impl Fn(usize, usize) -> [usize; 3],
    ) -> (Rows, usize) {
        let needs: Vec<[usize; 3]> = pairs.map(|p| rows(p.secure.len(), p.vulnerable.len())).collect();
        let largest = |which: usize| {
            let mut all: Vec<usize> = needs.iter().map(|rows| rows[which]).collect();
            all.sort_unstable_by(|a, b| b.cmp(a));
            all.iter().take(batch_size).sum::<usize>()
        };
        let batch_size = batch_size.min(needs.len());
        let [saved, adapter_rows, total] = [0, 1, 2].map(largest);
        // Evaluation repeats one row of every pair.
        (Rows { total: total + batch_size, saved }, adapter_rows + batch_size)
    }

    /// Rows of the batch, and those with a backward pass.
    pub fn rows(&self) -> Rows {
        Rows { total: self.ids.len(), saved: self.saved_rows }
    }

    /// The sequences with a backward.
    pub fn saved_segments(&self) -> &[Segment] {
        let saved = self.segments.partition_point(|segment| (segment.start as usize) < self.saved_rows);
        &self.segments[..saved]
    }

    fn add_sequence(&mut self, ids: &[u32], first_position: usize, prefix: Range<usize>) -> Range<usize> {
        let start = self.ids.len();
        self.ids.extend_from_slice(ids);
        self.positions.extend((0..ids.len()).map(|i| (first_position + i) as u32));
        self.segments.push(Segment {
            start: start as u32,
            len: ids.len() as u32,
            prefix_start: prefix.start as u32,
            prefix_len: prefix.len() as u32,
        });
        start..start + ids.len()
    }

    fn add_secure(&mut self, pair: &TokenPair, in_step: usize, options: PlanOptions) {
        let secure = self.add_sequence(&pair.secure, 0, 0..0);
        self.row_keys.extend((0..pair.secure.len()).map(|t| row_key(in_step, t, false, options)));
        self.add_targets(&pair.secure, options);
        let counts = |&t: &u32| if Some(t) == options.ignore_token { 0.0 } else { 1.0 };
        self.w_kl.extend(pair.secure.iter().map(counts));
        let compared = vec![(secure.clone(), 0)];
        self.pairs.push(PairRows { id: pair.id, secure, suffix: 0..0, shared: 0, base: None, compared });
    }

    fn add_suffix(&mut self, i: usize, pair: &TokenPair, in_step: usize, options: PlanOptions) {
        let shares = options.share_prefix && options.passes != Passes::Changed;
        let shared = if shares { pair.shared() } else { 0 };
        let shared = if options.predict_suffix { shared.saturating_sub(1) } else { shared };
        let prefix_start = self.pairs[i].secure.start;
        let prefix = prefix_start..prefix_start + shared;
        let suffix = &pair.vulnerable[shared..];
        self.pairs[i].shared = shared;
        self.pairs[i].suffix = self.add_sequence(suffix, shared, prefix);
        self.row_keys.extend((shared..pair.vulnerable.len()).map(|t| row_key(in_step, t, true, options)));
        self.add_targets(suffix, options);
    }

    fn add_targets(&mut self, ids: &[u32], options: PlanOptions) {
        let target = |&t: &u32| if Some(t) == options.ignore_token { -1 } else { t as i32 };
        self.targets.extend(ids.iter().skip(1).map(target));
        self.targets.extend(ids.first().map(|_| -1));
    }

    /// For every secure function that has such, the mean cross-entropy of its changed targets, and nothing of
    /// other rows.
    fn weigh_fixes(&mut self, pairs: &[&TokenPair], ignore_token: Option<u32>) {
        self.w_ce.fill(0.0);
        self.w_kl.fill(0.0);
        for (rows, pair) in self.pairs.iter().zip(pairs) {
            let [secure, _] = pair.marked(ignore_token);
            for (target, weight) in secure.weights(true) {
                self.w_ce[predicting(target, &rows.secure)] = weight;
            }
        }
    }

    /// The other loss of [`Passes::Changed`]: for every vulnerable function that has such, the mean
    /// unlikelihood of its changed targets.
    fn weigh_removals(&mut self, pairs: &[&TokenPair], ignore_token: Option<u32>) {
        for (rows, pair) in self.pairs.iter().zip(pairs) {
            let [_, vulnerable] = pair.marked(ignore_token);
            for (target, weight) in vulnerable.weights(true) {
                self.swept.push(Swept { row: predicting(target, &rows.suffix), rival: None, weight });
            }
        }
    }

    /// The other loss of [`Passes::Fixed`]: for every secure function that has such, the mean KL divergence
    /// of its other targets.
    fn weigh_rest(&mut self, pairs: &[&TokenPair], ignore_token: Option<u32>) {
        for (rows, pair) in self.pairs.iter().zip(pairs) {
            let [secure, _] = pair.marked(ignore_token);
            for (target, weight) in secure.weights(false) {
                self.w_kl[predicting(target, &rows.secure)] = weight;
            }
        }
    }

    /// In training the rows with a weight; in an evaluation all that have a target.
    fn choose_heads(&mut self, options: PlanOptions) {
        let (secure, all) = (self.secure_rows, self.adapter_rows);
        self.heads = match options.passes {
            Passes::Changed | Passes::Fixed if !options.predict_suffix => {
                let swept = self.swept.iter().map(|swept| swept.row);
                let weighted = (0..all).filter(|&row| self.w_ce[row] != 0.0 || self.w_kl[row] != 0.0);
                ranges(swept.chain(weighted))
            }
            _ if options.predict_suffix => vec![0..secure, secure..all],
            _ => vec![0..secure; 1],
        };
    }

    /// Rows whose targets' likelihoods must be known before the gradient: runs of them.
    pub(super) fn swept_rows(&self) -> Vec<Range<usize>> {
        ranges(self.swept.iter().flat_map(|swept| [swept.row].into_iter().chain(swept.rival)))
    }

    /// The rows of a pair's vulnerable function: the shared prefix's, then the suffix's.
    pub fn vulnerable_rows(&self, pair: &PairRows) -> impl Iterator<Item = usize> + use<> {
        (pair.secure.start..pair.secure.start + pair.shared).chain(pair.suffix.clone())
    }

    /// Weights that make the guard's backward that of `−weight · (mean score_secure − mean score_vulnerable)`
    /// over the step. A shared prefix counts in both means but reaches the language model through the secure
    /// one only.
    pub fn score_weights(&self, totals: Totals, weight: f64) -> ScoreWeights {
        let secure = (-weight / totals.secure_tokens.max(1) as f64) as f32;
        let vulnerable = (weight / totals.vulnerable_tokens.max(1) as f64) as f32;
        let mut taps = vec![0.0; self.adapter_rows];
        taps[..self.secure_rows].fill(secure);
        let mut params = taps.clone();
        for pair in &self.pairs {
            self.vulnerable_rows(pair).for_each(|row| params[row] += vulnerable);
        }
        ScoreWeights { taps, params }
    }
}

/// A row whose target's probability p has a loss of its own: `−weight · ln(1 − p)`, or, where there is a
/// rival with the probability q of the same target, `−weight · ln(p / (p + q))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Swept {
    row: usize,
    rival: Option<usize>,
    weight: f32,
}

/// A target that is certain is as unlikely as one of this distance to certainty, and has no gradient.
const CERTAIN: f64 = 1e-5;

impl Swept {
    /// The loss, given every row's negative log-likelihood.
    pub(super) fn loss(&self, nll: &[f32]) -> f64 {
        let weight = f64::from(self.weight);
        match self.rival {
            None => {
                let distance = self.distance(nll);
                // Not `max`, which would turn a NaN into a number.
                let limited = if distance < CERTAIN { CERTAIN } else { distance };
                -weight * limited.ln()
            }
            // ln(1 + e^x) of either sign without overflow.
            Some(rival) => {
                let x = self.behind(rival, nll);
                weight * (x.max(0.0) + (-x.abs()).exp().ln_1p())
            }
        }
    }

    /// Adds the slope of `factor` times the loss to the weights of the cross-entropy.
    pub(super) fn weigh(&self, w_ce: &mut [f32], nll: &[f32], factor: f64) {
        let weight = factor * f64::from(self.weight);
        match self.rival {
            None => {
                let distance = self.distance(nll);
                if distance >= CERTAIN {
                    w_ce[self.row] -= (weight * (1.0 - distance) / distance) as f32;
                }
            }
            Some(rival) => {
                let slope = (weight / (1.0 + (-self.behind(rival, nll)).exp())) as f32;
                w_ce[self.row] += slope;
                w_ce[rival] -= slope;
            }
        }
    }

    /// 1 − p, exact where p is close to 1.
    fn distance(&self, nll: &[f32]) -> f64 {
        -(-f64::from(nll[self.row])).exp_m1()
    }

    /// ln(q / p).
    fn behind(&self, rival: usize, nll: &[f32]) -> f64 {
        f64::from(nll[self.row]) - f64::from(nll[rival])
    }
}

/// Of a function's rows, the one that predicts its token `target`.
fn predicting(target: usize, rows: &Range<usize>) -> usize {
    rows.start + target - 1
}

/// Rows as runs, across gaps of a few.
fn ranges(rows: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    const GAP: usize = 8;
    let mut rows: Vec<usize> = rows.collect();
    rows.sort_unstable();
    let mut runs: Vec<Range<usize>> = Vec::new();
    for row in rows {
        match runs.last_mut().filter(|run| row < run.end + GAP) {
            Some(run) => run.end = run.end.max(row + 1),
            None => runs.push(row..row + 1),
        }
    }
    runs
}

/// A number for (pair of the step, function, position), the same however a step is cut into micro-batches.
fn row_key(in_step: usize, position: usize, vulnerable: bool, options: PlanOptions) -> u32 {
    ((2 * in_step + usize::from(vulnerable)) * options.max_seq_len + position) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: PlanOptions = PlanOptions {
        passes: Passes::Compared,
        share_prefix: true,
        predict_suffix: false,
        ignore_token: None,
        max_seq_len: 16,
    };

    fn pair(id: usize, secure: &[u32], vulnerable: &[u32]) -> TokenPair {
        TokenPair::new(id, secure.to_vec(), vulnerable.to_vec())
    }

    #[test]
    fn packs_secure_suffix_and_base() {
        let (a, b) = (pair(0, &[1, 2, 3], &[1, 2, 4, 5]), pair(1, &[7, 8], &[9]));
        let plan = BatchPlan::new(&[&a, &b], 0, |id| id == 1, OPTIONS);
        assert_eq!(plan.ids, [1, 2, 3, 7, 8, 4, 5, 9, 7, 8]);
        assert_eq!(plan.positions, [0, 1, 2, 0, 1, 2, 3, 0, 0, 1]);
        assert_eq!(plan.targets, [2, 3, -1, 8, -1, 5, -1, -1]);
        assert_eq!((plan.secure_rows, plan.adapter_rows, plan.rows().total), (5, 8, 10));
        assert_eq!(plan.segments[2], Segment { start: 5, len: 2, prefix_start: 0, prefix_len: 2 });
        assert_eq!(plan.pairs[0].base, None);
        assert_eq!(plan.pairs[1].base, Some(8..10));
    }

    #[test]
    fn weights_of_shared_rows_meet_in_the_parameters_only() {
        let a = pair(0, &[1, 2, 3], &[1, 2, 4, 5]);
        let plan = BatchPlan::new(&[&a], 0, |_| false, OPTIONS);
        let weights = plan.score_weights(a.totals(None), 0.5);
        let (s, v) = (-0.5 / 3.0, 0.5 / 4.0);
        assert_eq!(weights.taps, [s, s, s, 0.0, 0.0]);
        assert_eq!(weights.params, [s + v, s + v, s, v, v]);
    }

    #[test]
    fn a_vulnerable_function_that_is_a_prefix_adds_no_rows() {
        let a = pair(0, &[1, 2, 3], &[1, 2]);
        let plan = BatchPlan::new(&[&a], 0, |_| false, OPTIONS);
        assert_eq!(plan.pairs[0].suffix, 3..3);
        assert_eq!(plan.vulnerable_rows(&plan.pairs[0]).collect::<Vec<_>>(), [0, 1]);
    }

    /// So that a step whose likelihoods are no numbers is left out.
    #[test]
    fn a_likelihood_that_is_no_number_is_no_loss() {
        for rival in [None, Some(1)] {
            let swept = Swept { row: 0, rival, weight: 1.0 };
            assert!(swept.loss(&[f32::NAN, 1.0]).is_nan(), "{rival:?}");
            assert!(swept.loss(&[0.0, 1.0]).is_finite(), "{rival:?}");
        }
    }
}
