//! Passes without a backward: over a text, or over the next token of every sample.

use crate::attached::Attached;
use crate::error::{Error, Result};
use crate::guard::{GuardActivations, GuardPass};
use crate::model::activations::{ActivationShape, Activations, Recompute, Rows};
use crate::model::block::{Keys, Pass};
use crate::model::prefix::PrefixPlace;
use crate::model::transformer::Transformer;
use crate::ops::attention::Segment;
use crate::ops::{Arena, Backend, Buffer};

/// Memory of passes over `rows` rows.
pub(super) struct Stage<B: Backend> {
    pub(super) acts: Activations<B>,
    pub(super) guard: Option<GuardActivations<B>>,
    /// `[rows]` tokens to be read.
    pub(super) ids: Buffer<B, u32>,
    /// `[rows]` their positions, as a [`Pass`] has them.
    pub(super) positions: Buffer<B, u32>,
    /// Rows that stand for prefixes.
    prefixes: Vec<PrefixPlace>,
}

impl<B: Backend> Stage<B> {
    pub(super) fn new(
        arena: &mut Arena<B>,
        model: &Transformer<B>,
        attached: Option<&Attached<B>>,
        rows: usize,
    ) -> Result<Self> {
        let shape = ActivationShape {
            rows: Rows::forward_only(rows),
            adapter_rows: rows,
            taps: attached.map_or(0, Attached::taps),
            adapters: attached.map_or(0, Attached::adapters_per_layer),
            rank: attached.map_or(0, Attached::rank),
            recompute: Recompute::Forward,
        };
        let guard = attached.and_then(|a| a.guard.as_ref());
        Ok(Stage {
            acts: Activations::new(arena, &model.config, shape)?,
            guard: guard.map(|guard| GuardActivations::new(arena, guard, rows, false)).transpose()?,
            ids: arena.buffer("ids", &[rows])?,
            positions: arena.buffer("positions", &[rows])?,
            prefixes: Vec::new(),
        })
    }

    /// Reads the ids; hidden states and the taps of the guard, if `tapped`, stay here.
    pub(super) fn run(
        &mut self,
        model: &Transformer<B>,
        attached: Option<&Attached<B>>,
        keys: &mut Keys<'_, B>,
        tapped: bool,
    ) {
        self.run_first(self.ids.len(), model, attached, keys, tapped);
    }

    /// As [`Self::run`], of the first `n` rows.
    pub(super) fn run_first(
        &mut self,
        n: usize,
        model: &Transformer<B>,
        attached: Option<&Attached<B>>,
        keys: &mut Keys<'_, B>,
        tapped: bool,
    ) {
        let adapter = attached.and_then(|attached| attached.adapter(n, None));
        let prefix = attached.and_then(|attached| attached.prefixes(&self.prefixes, None));
        let pass = Pass { rows: Rows::forward_only(n), positions: self.positions.first(n), adapter, prefix };
        let taps = attached.filter(|_| tapped).map_or(0, Attached::taps);
        model.forward(&mut self.acts, self.ids.first(n), pass, keys, taps, n);
    }

    /// Uploads texts to the first rows, each a sequence of its own that begins with the `prefix` rows of a
    /// prefix, and returns where they lie.
    pub(super) fn place(&mut self, backend: &B, texts: &[&[u32]], prefix: usize) -> Vec<Segment> {
        let with_prefix = |text: &&[u32]| [&vec![0; prefix], *text].concat();
        let texts: Vec<Vec<u32>> = texts.iter().map(with_prefix).collect();
        let positions: Vec<u32> = texts.iter().flat_map(|text| 0..text.len() as u32).collect();
        backend.upload(self.ids.first_mut(positions.len()), &texts.concat());
        backend.upload(self.positions.first_mut(positions.len()), &positions);
        let mut start = 0;
        let segment = |text: &Vec<u32>| {
            let segment = Segment { start, len: text.len() as u32, prefix_start: 0, prefix_len: 0 };
            start += segment.len;
            segment
        };
        let segments: Vec<Segment> = texts.iter().map(segment).collect();
        let of_segment = |segment: &Segment| PrefixPlace { row: segment.start as usize, control: 0 };
        self.prefixes = segments.iter().filter(|_| prefix > 0).map(of_segment).collect();
        segments
    }

    /// Scores of the rows of the last pass, which must have been tapped.
    pub(super) fn score(&mut self, model: &Transformer<B>, attached: &Attached<B>) -> Vec<f32> {
        self.score_first(self.ids.len(), model, attached)
    }

    /// As [`Self::score`], of the first rows, which were all of the last pass.
    pub(super) fn score_first(
        &mut self,
        rows: usize,
        model: &Transformer<B>,
        attached: &Attached<B>,
    ) -> Vec<f32> {
        let (Some(guard), Some(acts)) = (&attached.guard, &mut self.guard) else { return Vec::new() };
        let pass = GuardPass {
            backend: &model.backend,
            params: &attached.params,
            taps: self.acts.taps.first(guard.taps * rows * guard.hidden_size()),
            ids: self.ids.first(rows),
            rows,
            dropout: None,
        };
        guard.forward(&pass, acts);
        model.backend.to_host(acts.scores.first(rows))
    }

    /// Makes the guard ready for [`Stage::score`].
    pub(super) fn prepare(&mut self, model: &Transformer<B>, attached: &Attached<B>) {
        if let (Some(guard), Some(acts)) = (&attached.guard, &mut self.guard) {
            guard.prepare(&model.backend, &attached.params, acts);
        }
    }
}

/// What helps where a text does not fit.
fn lacking(error: Error) -> Error {
    error.context("working memory for the text").memory_advice("shorten it, or choose another `device`")
}

/// Reads texts in one pass.
fn read<B: Backend>(
    model: &Transformer<B>,
    attached: Option<&Attached<B>>,
    texts: &[&[u32]],
) -> Result<Stage<B>> {
    let prefix = attached.map_or(0, Attached::prefix_len);
    let rows = texts.iter().map(|text| prefix + text.len()).sum();
    let (mut stage, _) =
        Arena::build(&model.backend, |arena| Stage::new(arena, model, attached, rows)).map_err(lacking)?;
    let segments = stage.place(&model.backend, texts, prefix);
    stage.run(model, attached, &mut Keys::Packed(&segments), true);
    Ok(stage)
}

/// What the guard makes of a text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GuardScores {
    /// `[tokens]` scores in (0, 1); high is secure.
    pub scores: Vec<f32>,
    /// `[tokens, N]` weights of the layers that the guard looks at; empty if it does not attend.
    pub attention: Vec<f32>,
}

/// Scores every token of `tokens` (METHOD §5), in (0, 1); high is secure.
pub fn score<B: Backend>(model: &Transformer<B>, attached: &Attached<B>, tokens: &[u32]) -> Result<Vec<f32>> {
    score_with_attention(model, attached, tokens).map(|found| found.scores)
}

/// As [`score`], with where the guard looked.
///
/// # Errors
/// Kind `Usage` without a guard; kind `Device` where the text does not fit the memory.
pub fn score_with_attention<B: Backend>(
    model: &Transformer<B>,
    attached: &Attached<B>,
    tokens: &[u32],
) -> Result<GuardScores> {
    let found = score_packed(model, attached, &[tokens])?.pop();
    found.ok_or_else(|| Error::internal("no scores of a text"))
}

/// As [`score_with_attention`], of several texts in one pass.
///
/// # Errors
/// As [`score_with_attention`].
pub fn score_packed<B: Backend>(
    model: &Transformer<B>,
    attached: &Attached<B>,
    texts: &[&[u32]],
) -> Result<Vec<GuardScores>> {
    attached.require_guard()?;
    let mut stage = read(model, Some(attached), texts)?;
    stage.prepare(model, attached);
    let scores = stage.score(model, attached);
    let weights = stage.guard.as_ref().and_then(|guard| guard.attention(scores.len()));
    let attention = weights.map(|weights| model.backend.to_host(weights)).unwrap_or_default();
    model.backend.finish()?;
    let taps = attention.len() / scores.len().max(1);
    let (mut scores, mut attention) = (scores.as_slice(), attention.as_slice());
    let mut of_text = |text: &&[u32]| GuardScores {
        scores: take(&mut scores, text.len()),
        attention: take(&mut attention, text.len() * taps),
    };
    Ok(texts.iter().map(&mut of_text).collect())
}

/// The first `n` of `values`, which then begin behind them.
fn take(values: &mut &[f32], n: usize) -> Vec<f32> {
    let (first, rest) = values.split_at(n);
    *values = rest;
    first.to_vec()
}

/// Logits `[tokens, vocab_size]` of a text.
pub fn final_logits<B: Backend>(
    model: &Transformer<B>,
    attached: Option<&Attached<B>>,
    tokens: &[u32],
) -> Result<Vec<f32>> {
    let stage = read(model, attached, &[tokens])?;
    let (n, backend) = (tokens.len(), &model.backend);
    let shape = [n, model.config.vocab_size];
    let (mut logits, _) = Arena::build(backend, |arena| arena.buffer("logits", &shape)).map_err(lacking)?;
    let (first, width) = (attached.map_or(0, Attached::prefix_len), model.config.hidden_size);
    model.head(logits.view_mut(), stage.acts.hidden.slice(first * width..(first + n) * width));
    let logits = backend.download_act(logits.view());
    backend.finish()?;
    Ok(logits)
}
