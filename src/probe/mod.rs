//! The layer probe: how well a linear classifier tells secure from vulnerable functions by the states of each
//! layer. It is the diagnostic from which the DeepGuard paper concludes that the upper layers, together, know
//! more than the last.

mod folds;
mod logistic;
mod standard;
mod states;
mod statistics;

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::Serialize;

use crate::attached::Attached;
use crate::error::{Error, Result};
use crate::guard::GuardConfig;
use crate::model::transformer::Transformer;
use crate::ops::Backend;
use crate::train::batch::TokenPair;
use folds::folds;
use logistic::{Classifier, Examples};
use standard::Standard;
use statistics::{Groups, SignFlips};

pub use states::PairStates;
pub use statistics::Share;

/// Weights of the penalty among which the training pairs choose.
const PENALTIES: [f64; 5] = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2];

/// Fewest folds: one is held out, one chooses the penalty, and one is learnt from.
pub const FEWEST_FOLDS: usize = 3;

/// What a share of right answers is without any knowledge: each pair has one function of either kind.
pub const CHANCE: f64 = 0.5;

/// How a probe is made.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ProbeOptions {
    /// Parts of the pairs, each of which is held out once; at least [`FEWEST_FOLDS`].
    pub folds: usize,
    /// Seed of the order in which pairs are dealt, and of the ways that a test draws.
    pub seed: u64,
    /// Bytes of the system's memory that may be taken for the states of all pairs.
    pub free_memory: usize,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        ProbeOptions { folds: 5, seed: 42, free_memory: usize::MAX }
    }
}

impl ProbeOptions {
    /// Whether a probe can be made so.
    ///
    /// # Errors
    /// Kind `Usage`: fewer than [`FEWEST_FOLDS`].
    pub fn check(&self) -> Result<()> {
        if self.folds >= FEWEST_FOLDS {
            return Ok(());
        }
        Err(Error::usage(format!(
            "`folds`: expected at least {FEWEST_FOLDS} (one is held out, one chooses the penalty, the others are \
             learnt from), found {}",
            self.folds
        )))
    }
}

/// A probe of one layer, on held-out pairs.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct LayerProbe {
    /// The layer, from 1; what is probed of the last one is behind the final norm, as the guard sees it.
    pub layer: usize,
    /// Share of functions that are classified correctly.
    pub accuracy: Share,
    /// Share of pairs whose secure function looks more secure; half for one that ties.
    pub pair_accuracy: Share,
    /// How likely any layer would order as many pairs correctly if none knew anything.
    pub p_value: f64,
}

/// What the probes say together.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ProbeReport {
    /// Pairs probed.
    pub pairs: usize,
    /// Sets of pairs that share no function with another set: what is dealt to the folds.
    pub groups: usize,
    /// Parts that were held out in turn.
    pub folds: usize,
    /// Seed of the deal and of what tests draw.
    pub seed: u64,
    /// What a share is without knowledge.
    pub chance: f64,
    /// Confidence of all intervals.
    pub confidence: f64,
    /// What the p value of the best layer has to be below for a signal.
    pub significance: f64,
    /// One entry per layer.
    pub layers: Vec<LayerProbe>,
    /// What carries the signal; `None` where no layer does for certain.
    pub signal: Option<Signal>,
}

impl ProbeReport {
    /// How likely the best layer would be as good if none knew anything.
    pub fn p_value(&self) -> f64 {
        self.layers.iter().map(|probe| probe.p_value).fold(1.0, f64::min)
    }
}

/// The layers that tell secure from vulnerable functions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Signal {
    /// The layer with the highest pair accuracy.
    pub best_layer: usize,
    /// The layers around it, first and last, of which none is worse for certain.
    pub band: [usize; 2],
    /// How many upper layers a guard should look at: the fewest that reach into the band, but no fewer than
    /// are usual.
    pub guard_layers: usize,
}

/// How far a probe has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many of so many pairs have been read.
    Read(usize, usize),
    /// So many of so many classifiers, one per layer and fold, have been fitted.
    Fitted(usize, usize),
}

/// Probes every layer of `model`, with an adapter if one is given. `watch` gets the progress and ends the
/// probe by returning `false`.
///
/// # Errors
/// Kind `Usage`: fewer than [`FEWEST_FOLDS`]. Kind `Data`: fewer groups of pairs than folds. Kind `Device`:
/// the states do not fit the free memory. Kind `Model`: a state is not finite. Kind `Interrupted`: `watch`
/// has ended it.
pub fn probe<B: Backend>(
    model: &Transformer<B>,
    attached: Option<&Attached<B>>,
    pairs: &[TokenPair],
    options: &ProbeOptions,
    watch: &Watch<'_>,
) -> Result<ProbeReport> {
    let read = |tell: &mut (dyn FnMut(usize) -> Result<()> + Send)| {
        PairStates::read(model, attached, pairs, options.free_memory, tell)
    };
    probe_states(pairs, options, watch, read)
}

/// [`probe`] with states that `read` gets, wherever they are read. It is to tell how many pairs it has, and
/// to end with the error that it may get for that.
///
/// # Errors
/// Those of [`probe`], and of `read`.
pub fn probe_states(
    pairs: &[TokenPair],
    options: &ProbeOptions,
    watch: &Watch<'_>,
    read: impl FnOnce(&mut (dyn FnMut(usize) -> Result<()> + Send)) -> Result<PairStates>,
) -> Result<ProbeReport> {
    let deal = folds(pairs, options)?;
    let states = read(&mut |read| tell(watch, Progress::Read(read, pairs.len())))?;
    evaluate(&states, &deal, options, watch)
}

/// Which fold and which group each pair is in, and how many groups there are.
struct Deal {
    fold_of: Vec<usize>,
    group_of: Vec<usize>,
    groups: usize,
}

fn evaluate(
    states: &PairStates,
    deal: &Deal,
    options: &ProbeOptions,
    watch: &Watch<'_>,
) -> Result<ProbeReport> {
    let (folds, fits) = (options.folds, states.layers() * options.folds);
    tell(watch, Progress::Fitted(0, fits))?;
    let done = AtomicUsize::new(0);
    let fit = |number: usize| {
        let answers = held_out(states, number / folds, deal, number % folds, folds);
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        tell(watch, Progress::Fitted(done, fits)).map(|()| answers)
    };
    let by_fold: Vec<Vec<(usize, Answer)>> = (0..fits).into_par_iter().map(fit).collect::<Result<_>>()?;
    let of_layer = |folds: &[Vec<(usize, Answer)>]| {
        let mut answers = vec![Answer { secure: 0.0, vulnerable: 0.0 }; deal.fold_of.len()];
        folds.iter().flatten().for_each(|&(pair, answer)| answers[pair] = answer);
        answers
    };
    Ok(report(&by_fold.chunks(folds).map(of_layer).collect::<Vec<_>>(), deal, options))
}

/// Who gets the progress of a probe and says whether to go on.
pub type Watch<'a> = dyn Fn(Progress) -> bool + Sync + 'a;

/// Tells the progress; an error of kind `Interrupted` where it is not to go on.
fn tell(watch: &Watch<'_>, progress: Progress) -> Result<()> {
    if watch(progress) { Ok(()) } else { Err(Error::interrupted()) }
}

fn report(answers: &[Vec<Answer>], deal: &Deal, options: &ProbeOptions) -> ProbeReport {
    let groups = Groups::new(&deal.group_of, deal.groups);
    let above_chance = |of: &Vec<Answer>| groups.sums(of.iter().map(|answer| answer.ordered() - CHANCE));
    let above_chance: Vec<Vec<f64>> = answers.iter().map(above_chance).collect();
    let flips = SignFlips::new(&above_chance, options.seed);
    let layers: Vec<LayerProbe> = answers
        .iter()
        .zip(flips.p_values())
        .enumerate()
        .map(|(i, (of, p_value))| summary(i + 1, of, p_value, &groups))
        .collect();
    ProbeReport {
        pairs: deal.fold_of.len(),
        groups: deal.groups,
        folds: options.folds,
        seed: options.seed,
        chance: CHANCE,
        confidence: statistics::CONFIDENCE,
        significance: statistics::SIGNIFICANCE,
        signal: signal(&layers, &flips),
        layers,
    }
}

fn summary(layer: usize, answers: &[Answer], p_value: f64, groups: &Groups<'_>) -> LayerProbe {
    let share = |of: fn(&Answer) -> f64| groups.share(&answers.iter().map(of).collect::<Vec<_>>());
    LayerProbe { layer, accuracy: share(Answer::right), pair_accuracy: share(Answer::ordered), p_value }
}

/// What a probe that has not seen a pair makes of it: log-odds of being secure.
#[derive(Clone, Copy, Debug)]
struct Answer {
    secure: f64,
    vulnerable: f64,
}

impl Answer {
    /// The share of the pair's two functions that are classified correctly.
    fn right(&self) -> f64 {
        0.5 * f64::from(u8::from(self.secure > 0.0) + u8::from(self.vulnerable < 0.0))
    }

    /// Whether the secure one looks more secure.
    fn ordered(&self) -> f64 {
        match self.secure.partial_cmp(&self.vulnerable) {
            Some(std::cmp::Ordering::Greater) => 1.0,
            Some(std::cmp::Ordering::Less) => 0.0,
            _ => 0.5,
        }
    }
}

/// What a probe of `layer` that has not seen the pairs of `fold` makes of them. The penalty is chosen on one
/// of the other folds, by probes that have seen neither.
fn held_out(
    states: &PairStates,
    layer: usize,
    deal: &Deal,
    fold: usize,
    folds: usize,
) -> Vec<(usize, Answer)> {
    let chooser = (fold + 1) % folds;
    let members = |keep: &dyn Fn(usize) -> bool| -> Vec<usize> {
        (0..deal.fold_of.len()).filter(|&pair| keep(deal.fold_of[pair])).collect()
    };
    let examples = |pairs: &[usize]| states.examples(layer, pairs);
    let penalty = choose_penalty(
        &examples(&members(&|f| f != fold && f != chooser)),
        &examples(&members(&|f| f == chooser)),
    );
    let (rows, labels) = examples(&members(&|f| f != fold));
    let standard = Standard::of(&rows);
    let classifier = Classifier::fit(Examples { rows: &rows, labels: &labels, standard: &standard }, penalty);
    let answer = |pair: usize| {
        let [secure, vulnerable] = states.pair(layer, pair).map(|state| classifier.logit(state));
        (pair, Answer { secure, vulnerable })
    };
    members(&|f| f == fold).into_iter().map(answer).collect()
}

/// States and labels.
type Labelled<'a> = (Vec<&'a [f32]>, Vec<f64>);

/// The penalty with the lowest cross-entropy on `chooser`.
fn choose_penalty((rows, labels): &Labelled<'_>, (held_rows, held_labels): &Labelled<'_>) -> f64 {
    let standard = Standard::of(rows);
    let examples = Examples { rows, labels, standard: &standard };
    let losses = PENALTIES.map(|penalty| Classifier::fit(examples, penalty).loss(held_rows, held_labels));
    let best = (0..PENALTIES.len()).min_by(|&a, &b| losses[a].total_cmp(&losses[b])).unwrap_or(0);
    PENALTIES[best]
}

/// There is a signal if the best layer is above chance for certain. The order of pairs decides, as the
/// guard's margin loss wants it.
fn signal(layers: &[LayerProbe], flips: &SignFlips<'_>) -> Option<Signal> {
    let share = |layer: usize| layers[layer].pair_accuracy.value;
    let best = (0..layers.len()).max_by(|&a, &b| share(a).total_cmp(&share(b)).then(b.cmp(&a)))?;
    if layers[best].p_value >= statistics::SIGNIFICANCE {
        return None;
    }
    let below_none = flips.below_none();
    let as_good = |layer: usize| layer == best || below_none[layer];
    let first = (0..=best).rev().take_while(|&layer| as_good(layer)).last().unwrap_or(best);
    let last = (best..layers.len()).take_while(|&layer| as_good(layer)).last().unwrap_or(best);
    let usual = GuardConfig::default().layers.min(layers.len());
    Some(Signal {
        best_layer: best + 1,
        band: [first + 1, last + 1],
        guard_layers: usual.max(layers.len() - last),
    })
}

/// Refuses what cannot be dealt.
fn too_few(groups: usize, folds: usize) -> Error {
    Error::data(format!(
        "expected at least {folds} groups of pairs that share no function, one for each of `folds`, found {groups}; \
         give more pairs, or fewer folds"
    ))
}

#[cfg(test)]
mod tests;
