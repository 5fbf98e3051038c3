//! The layer probe: how well a linear classifier tells secure from vulnerable functions by the states of each layer. It is
//! the diagnostic from which the DeepGuard paper concludes that the upper layers, together, know more than the last.

mod folds;
mod logistic;
mod standard;
mod states;
mod statistics;

use rayon::prelude::*;
use serde::Serialize;

use crate::attached::Attached;
use crate::error::{Error, Result};
use crate::guard::GuardConfig;
use crate::model::transformer::Transformer;
use crate::ops::Backend;
use crate::train::batch::TokenPair;
use folds::folds;
use logistic::Classifier;
use standard::Standard;
use statistics::{Groups, SignFlips};

pub use states::PairStates;
pub use statistics::Share;

/// Weights of the penalty among which the training pairs choose.
const PENALTIES: [f64; 5] = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2];

/// What a share of right answers is without any knowledge: each pair has one function of either kind.
pub const CHANCE: f64 = 0.5;

/// How a probe is made.
#[derive(Clone, Copy, Debug)]
pub struct ProbeOptions {
    /// Parts of the pairs, each of which is held out once; at least 2.
    pub folds: usize,
    /// Of the order in which pairs are dealt, and of the resamples.
    pub seed: u64,
}

/// A probe of one layer, on held-out pairs.
#[derive(Clone, Debug, Serialize)]
pub struct LayerProbe {
    /// The layer, from 1; what is probed of the last one is behind the final norm, as the guard sees it.
    pub layer: usize,
    /// Share of functions that are told rightly.
    pub accuracy: Share,
    /// Share of pairs whose secure function looks more secure; half for one that ties.
    pub pair_accuracy: Share,
    /// How likely any layer would order as many pairs rightly if none knew anything.
    pub p_value: f64,
}

/// What the probes say together.
#[derive(Clone, Debug, Serialize)]
pub struct ProbeReport {
    /// Pairs probed.
    pub pairs: usize,
    /// Sets of pairs that share no function with another set: what is dealt to the folds.
    pub groups: usize,
    /// Parts that were held out in turn.
    pub folds: usize,
    /// Of the deal and of the resamples.
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

/// The layers that tell secure from vulnerable functions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Signal {
    /// The layer with the highest pair accuracy.
    pub best_layer: usize,
    /// The layers around it, first and last, of which none is worse for certain.
    pub band: [usize; 2],
    /// How many upper layers a guard should look at: the fewest that reach into the band, but no fewer than are usual.
    pub guard_layers: usize,
}

/// Probes every layer of `model`, with an adapter if one is given. `watch` gets how many of the pairs have been read.
///
/// # Errors
/// Kind `Data`: fewer groups of pairs than folds.
pub fn probe<B: Backend>(
    model: &Transformer<B>,
    attached: Option<&Attached<B>>,
    pairs: &[TokenPair],
    options: &ProbeOptions,
    watch: &mut dyn FnMut(usize),
) -> Result<ProbeReport> {
    let fold_of = folds(pairs, options)?;
    let states = PairStates::read(model, attached, pairs, watch)?;
    Ok(evaluate(&states, &fold_of, options))
}

/// Which fold and which group each pair is in, and how many groups there are.
struct Deal {
    fold_of: Vec<usize>,
    group_of: Vec<usize>,
    groups: usize,
}

fn evaluate(states: &PairStates, deal: &Deal, options: &ProbeOptions) -> ProbeReport {
    let answers: Vec<Vec<Answer>> = (0..states.layers())
        .into_par_iter()
        .map(|layer| held_out(states, layer, deal, options.folds))
        .collect();
    report(&answers, deal, options)
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
    /// The share of its two functions that are told rightly.
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

/// What probes of `layer` make of every pair, each without having seen the pair's fold. The penalty is chosen on one of
/// the other folds, without the held-out one.
fn held_out(states: &PairStates, layer: usize, deal: &Deal, folds: usize) -> Vec<Answer> {
    let mut answers = vec![Answer { secure: 0.0, vulnerable: 0.0 }; deal.fold_of.len()];
    let members = |keep: &dyn Fn(usize) -> bool| -> Vec<usize> {
        (0..deal.fold_of.len()).filter(|&pair| keep(deal.fold_of[pair])).collect()
    };
    for fold in 0..folds {
        let chooser = (fold + 1) % folds;
        let train = members(&|f| f != fold);
        let inner = if folds > 2 { members(&|f| f != fold && f != chooser) } else { train.clone() };
        let penalty = choose_penalty(states, layer, &inner, &members(&|f| f == chooser));
        let (standard, classifier) = fit(states, layer, &train, penalty);
        for pair in members(&|f| f == fold) {
            answers[pair] = answer(states, layer, pair, &standard, &classifier);
        }
    }
    answers
}

fn fit(states: &PairStates, layer: usize, pairs: &[usize], penalty: f64) -> (Standard, Classifier) {
    let standard = Standard::of(states, layer, pairs);
    let (rows, labels) = standard.rows(states, layer, pairs);
    let classifier = Classifier::fit(&rows, &labels, states.width(), penalty);
    (standard, classifier)
}

fn answer(
    states: &PairStates,
    layer: usize,
    pair: usize,
    standard: &Standard,
    classifier: &Classifier,
) -> Answer {
    let logit = |state: &[f32]| classifier.logit(&standard.apply(state));
    let [secure, vulnerable] = states.pair(layer, pair);
    Answer { secure: logit(secure), vulnerable: logit(vulnerable) }
}

/// The penalty with the lowest cross-entropy on `chooser`.
fn choose_penalty(states: &PairStates, layer: usize, train: &[usize], chooser: &[usize]) -> f64 {
    let standard = Standard::of(states, layer, train);
    let (rows, labels) = standard.rows(states, layer, train);
    let (held_rows, held_labels) = standard.rows(states, layer, chooser);
    let loss = |penalty: f64| {
        Classifier::fit(&rows, &labels, states.width(), penalty).loss(&held_rows, &held_labels)
    };
    let losses = PENALTIES.map(loss);
    let best = (0..PENALTIES.len()).min_by(|&a, &b| losses[a].total_cmp(&losses[b])).unwrap_or(0);
    PENALTIES[best]
}

/// There is a signal if the best layer is above chance for certain. The order of pairs decides, as the guard's margin loss
/// wants it.
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
        "expected at least {folds} groups of pairs that share no function, one for each of --folds, found {groups}; give \
         more pairs, or fewer folds"
    ))
}

#[cfg(test)]
mod tests;
