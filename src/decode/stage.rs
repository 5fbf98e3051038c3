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
    /// prefix, and returns where they lie. All of them have the same first `shared` rows, those of the prefix
    /// included, which the others read from the first.
    pub(super) fn place(
        &mut self,
        backend: &B,
        texts: &[&[u32]],
        prefix: usize,
        shared: usize,
    ) -> Vec<Segment> {
        let (mut ids, mut positions, mut segments) = (Vec::new(), Vec::new(), Vec::new());
        for (i, text) in texts.iter().enumerate() {
            let before = if i == 0 { 0 } else { shared };
            let own = &[&vec![0; prefix], *text].concat()[before..];
            if own.is_empty() {
                continue;
            }
            let (start, len) = (ids.len() as u32, own.len() as u32);
            segments.push(Segment { start, len, prefix_start: 0, prefix_len: before as u32 });
            positions.extend(before as u32..before as u32 + len);
            ids.extend_from_slice(own);
        }
        backend.upload(self.ids.first_mut(ids.len()), &ids);
        backend.upload(self.positions.first_mut(ids.len()), &positions);
        let with_prefix = segments.iter().filter(|segment| prefix > 0 && segment.prefix_len == 0);
        let of_segment = |segment: &Segment| PrefixPlace { row: segment.start as usize, control: 0 };
        self.prefixes = with_prefix.map(of_segment).collect();
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
        self.guard_first(rows, model, attached);
        self.scores_of_first(rows, &model.backend)
    }

    /// Computes scores of the first rows, which were all of the last pass.
    pub(super) fn guard_first(&mut self, rows: usize, model: &Transformer<B>, attached: &Attached<B>) {
        let (Some(guard), Some(acts)) = (&attached.guard, &mut self.guard) else { return };
        let pass = GuardPass {
            backend: &model.backend,
            params: &attached.params,
            taps: self.acts.taps.first(guard.taps * rows * guard.hidden_size()),
            ids: self.ids.first(rows),
            rows,
            dropout: None,
        };
        guard.forward(&pass, acts);
    }

    /// Scores of the first rows, which were computed last; none without a guard.
    pub(super) fn scores_of_first(&self, rows: usize, backend: &B) -> Vec<f32> {
        self.guard.as_ref().map_or_else(Vec::new, |acts| backend.to_host(acts.scores.first(rows)))
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

/// Texts that have been read in one pass.
struct Read<B: Backend> {
    stage: Stage<B>,
    /// The rows of every text's tokens. Those with which all texts begin are read once.
    rows: Vec<Vec<usize>>,
}

/// Reads texts in one pass.
fn read<B: Backend>(
    model: &Transformer<B>,
    attached: Option<&Attached<B>>,
    texts: &[&[u32]],
) -> Result<Read<B>> {
    let prefix = attached.map_or(0, Attached::prefix_len);
    let shared = if texts.len() > 1 { prefix + same_beginning(texts) } else { 0 };
    let rows = rows_of(texts, prefix, shared);
    let all = rows.iter().flatten().max().map_or(prefix, |last| last + 1);
    let (mut stage, _) =
        Arena::build(&model.backend, |arena| Stage::new(arena, model, attached, all)).map_err(lacking)?;
    let segments = stage.place(&model.backend, texts, prefix, shared);
    stage.run(model, attached, &mut Keys::Packed(&segments), true);
    Ok(Read { stage, rows })
}

/// Tokens with which all texts begin.
fn same_beginning(texts: &[&[u32]]) -> usize {
    let [first, others @ ..] = texts else { return 0 };
    let with = |text: &&[u32]| first.iter().zip(*text).take_while(|(one, other)| one == other).count();
    others.iter().map(with).min().unwrap_or(first.len())
}

/// The rows of every text's tokens, as [`Stage::place`] has them.
fn rows_of(texts: &[&[u32]], prefix: usize, shared: usize) -> Vec<Vec<usize>> {
    let mut next = 0;
    let mut rows = Vec::with_capacity(texts.len());
    for (i, text) in texts.iter().enumerate() {
        let before = if i == 0 { 0 } else { shared };
        let own = next..next + prefix + text.len() - before;
        next = own.end;
        rows.push((0..before).chain(own).skip(prefix).collect());
    }
    rows
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

/// As [`score_with_attention`], of several texts in one pass. What all of them begin with is read once.
///
/// # Errors
/// As [`score_with_attention`].
pub fn score_packed<B: Backend>(
    model: &Transformer<B>,
    attached: &Attached<B>,
    texts: &[&[u32]],
) -> Result<Vec<GuardScores>> {
    attached.require_guard()?;
    let Read { mut stage, rows } = read(model, Some(attached), texts)?;
    stage.prepare(model, attached);
    let scores = stage.score(model, attached);
    let weights = stage.guard.as_ref().and_then(|guard| guard.attention(scores.len()));
    let attention = weights.map(|weights| model.backend.to_host(weights)).unwrap_or_default();
    model.backend.finish()?;
    let taps = attention.len() / scores.len().max(1);
    let of_text = |rows: Vec<usize>| GuardScores {
        scores: rows.iter().map(|&row| scores[row]).collect(),
        attention: rows.iter().flat_map(|&row| &attention[row * taps..][..taps]).copied().collect(),
    };
    Ok(rows.into_iter().map(of_text).collect())
}

/// Logits `[tokens, vocab_size]` of a text.
pub fn final_logits<B: Backend>(
    model: &Transformer<B>,
    attached: Option<&Attached<B>>,
    tokens: &[u32],
) -> Result<Vec<f32>> {
    let Read { stage, .. } = read(model, attached, &[tokens])?;
    let (n, backend) = (tokens.len(), &model.backend);
    let shape = [n, model.config.vocab_size];
    let (mut logits, _) = Arena::build(backend, |arena| arena.buffer("logits", &shape)).map_err(lacking)?;
    let (first, width) = (attached.map_or(0, Attached::prefix_len), model.config.hidden_size);
    model.head(logits.view_mut(), stage.acts.hidden.slice(first * width..(first + n) * width));
    let logits = backend.download_act(logits.view());
    backend.finish()?;
    Ok(logits)
}
