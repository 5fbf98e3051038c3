//! Mean states of functions, layer by layer.

use crate::attached::Attached;
use crate::error::{Error, Result};
use crate::model::activations::{ActivationShape, Activations, Recompute, Rows};
use crate::model::block::{Keys, Pass};
use crate::model::config::Config;
use crate::model::transformer::Transformer;
use crate::ops::matmul::BiasGradient;
use crate::ops::matrix::Matrix;
use crate::ops::{Arena, Backend, Buffer, PlanRow};
use crate::train::batch::{BatchPlan, Passes, PlanOptions, TokenPair};

/// The mean over its tokens of every layer's states of every function.
pub struct PairStates {
    /// `[layers][pairs, 2, width]`, the secure function first.
    values: Vec<Vec<f32>>,
    width: usize,
}

impl PairStates {
    /// States that are already there: `[layers][pairs, 2, width]`.
    pub fn new(values: Vec<Vec<f32>>, width: usize) -> Self {
        PairStates { values, width }
    }

    /// Reads each of `pairs` in one pass, in which the second function goes on from what both have in common.
    /// `watch` gets the number of pairs read and may end the reading; `free` are the bytes of the system's
    /// memory that the states may take.
    ///
    /// # Errors
    /// Kind `Device`: the states do not fit the free memory. Kind `Model`: a state is not finite. Kind
    /// `Usage`: a prefix, which the two functions of a pair cannot share.
    pub fn read<B: Backend>(
        model: &Transformer<B>,
        attached: Option<&Attached<B>>,
        pairs: &[TokenPair],
        free: usize,
        watch: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Self> {
        attached.map_or(Ok(()), |attached| attached.refuse_prefix("a probe"))?;
        let working = if B::IN_SYSTEM_MEMORY { Reader::memory(model, attached, pairs)? } else { 0 };
        check_memory(&model.config, pairs.len(), working, free)?;
        let mut reader = Reader::new(model, attached, pairs)?;
        let (layers, width) = (model.config.num_hidden_layers, model.config.hidden_size);
        let mut values: Vec<_> = (0..layers).map(|_| Vec::with_capacity(pairs.len() * 2 * width)).collect();
        for (number, pair) in pairs.iter().enumerate() {
            watch(number)?;
            let means = reader.read(pair)?;
            check_finite(&means, width, pair)?;
            values.iter_mut().zip(means.chunks(2 * width)).for_each(|(of, means)| of.extend(means));
        }
        watch(pairs.len())?;
        Ok(PairStates { values, width })
    }

    /// Room for the states of so many pairs, which others read.
    ///
    /// # Errors
    /// Kind `Device`: they do not fit the free memory.
    pub fn with_room(config: &Config, pairs: usize, free: usize) -> Result<Self> {
        check_memory(config, pairs, 0, free)?;
        let (layers, width) = (config.num_hidden_layers, config.hidden_size);
        let values = (0..layers).map(|_| Vec::with_capacity(pairs * 2 * width)).collect();
        Ok(PairStates { values, width })
    }

    /// The states as bytes, layer by layer.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.values.iter().flatten().flat_map(|value| value.to_le_bytes()).collect()
    }

    /// Adds states of `pairs` more pairs that [`PairStates::to_bytes`] has made.
    ///
    /// # Errors
    /// Kind `Internal`: there are more bytes, or fewer.
    pub fn add_bytes(&mut self, pairs: usize, bytes: &[u8]) -> Result<()> {
        let of_layer = pairs * 2 * self.width * size_of::<f32>();
        if of_layer == 0 || bytes.len() != of_layer * self.layers() {
            return Err(Error::internal(format!("states of {pairs} pairs in {} bytes", bytes.len())));
        }
        for (values, bytes) in self.values.iter_mut().zip(bytes.chunks(of_layer)) {
            values.extend(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
        }
        Ok(())
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.values.len()
    }

    /// Numbers in a state.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The functions of `pairs`, and 1 for a secure one, −1 for a vulnerable one.
    pub(super) fn examples(&self, layer: usize, pairs: &[usize]) -> (Vec<&[f32]>, Vec<f64>) {
        let rows = pairs.iter().flat_map(|&pair| self.pair(layer, pair)).collect();
        (rows, pairs.iter().flat_map(|_| [1.0, -1.0]).collect())
    }

    /// States of the secure and the vulnerable function of a pair; `layer` from 0.
    pub fn pair(&self, layer: usize, pair: usize) -> [&[f32]; 2] {
        let at = |half: usize| (2 * pair + half) * self.width;
        [0, 1].map(|half| &self.values[layer][at(half)..at(half + 1)])
    }
}

/// Refuses more pairs than there is memory for.
fn check_memory(config: &Config, pairs: usize, working: usize, free: usize) -> Result<()> {
    let of_pair = config.num_hidden_layers * 2 * config.hidden_size * size_of::<f32>();
    let needed = pairs.saturating_mul(of_pair).saturating_add(working);
    if needed <= free {
        return Ok(());
    }
    let fitting = free.saturating_sub(working) / of_pair;
    Err(Error::device(format!(
        "probing {pairs} pairs needs {} MiB of memory, {} MiB are free; give fewer pairs (there is room for \
         {fitting}), or lower `max_seq_len`",
        needed.div_ceil(1 << 20),
        free >> 20
    )))
}

/// Refuses mean states `[layers, 2, width]` of which nothing could be learnt.
fn check_finite(means: &[f32], width: usize, pair: &TokenPair) -> Result<()> {
    let Some(at) = means.iter().position(|value| !value.is_finite()) else { return Ok(()) };
    Err(Error::model(format!(
        "layer {}, pair {} of the data: expected states of finite numbers, found {}; look for values in the model's \
         (and the adapter's) weights that are not finite or far too large",
        at / (2 * width) + 1,
        pair.id + 1,
        means[at]
    )))
}

/// Rows of the longest pair.
fn longest(pairs: &[TokenPair]) -> usize {
    let rows = |pair: &TokenPair| pair.secure.len() + pair.vulnerable.len() - pair.shared();
    pairs.iter().map(rows).max().unwrap_or(1)
}

/// A model with memory for the longest pair.
struct Reader<'a, B: Backend> {
    model: &'a Transformer<B>,
    attached: Option<&'a Attached<B>>,
    options: PlanOptions,
    memory: Memory<B>,
}

struct Memory<B: Backend> {
    acts: Activations<B>,
    ids: Buffer<B, u32>,
    positions: Buffer<B, u32>,
    /// `[rows]` what part of each function's mean a row is: 1 / length, or 0 where it is not of the function.
    parts: [Buffer<B, f32>; 2],
    /// `[layers, 2, width]`
    means: Buffer<B, f32>,
}

impl<'a, B: Backend> Reader<'a, B> {
    fn new(
        model: &'a Transformer<B>,
        attached: Option<&'a Attached<B>>,
        pairs: &[TokenPair],
    ) -> Result<Self> {
        let lengths = pairs.iter().flat_map(|pair| [pair.secure.len(), pair.vulnerable.len()]);
        let options = PlanOptions {
            passes: Passes::Compared,
            share_prefix: true,
            predict_suffix: false,
            ignore_token: None,
            max_seq_len: lengths.max().unwrap_or(1),
        };
        let rows = longest(pairs);
        let (memory, _) =
            Arena::build(&model.backend, |arena| Memory::plan(arena, &model.config, attached, rows))
                .map_err(|e| {
                    e.context("working memory for the longest pair")
                        .memory_advice("lower `max_seq_len`, or choose another `device`")
                })?;
        Ok(Reader { model, attached, options, memory })
    }

    /// Bytes that reading takes on the device.
    fn memory(model: &Transformer<B>, attached: Option<&Attached<B>>, pairs: &[TokenPair]) -> Result<usize> {
        let rows = longest(pairs);
        let plan = Arena::<B>::plan(|arena| Memory::plan(arena, &model.config, attached, rows))?;
        Ok(PlanRow::total(&plan))
    }

    /// The mean states of a pair's functions, `[layers, 2, width]`.
    fn read(&mut self, pair: &TokenPair) -> Result<Vec<f32>> {
        let (backend, memory) = (&self.model.backend, &mut self.memory);
        let plan = BatchPlan::new(&[pair], 0, |_| false, self.options);
        let n = plan.ids.len();
        memory.upload(backend, &plan);
        let adapter = self.attached.and_then(|attached| attached.adapter(n, None));
        let positions = memory.positions.first(n);
        let pass = Pass { rows: Rows::forward_only(n), positions, adapter, prefix: None };
        let (mut keys, layers) = (Keys::Packed(&plan.segments), self.model.config.num_hidden_layers);
        self.model.forward(&mut memory.acts, memory.ids.first(n), pass, &mut keys, layers, n);
        memory.average(backend, n, self.model.config.hidden_size);
        let means = backend.to_host(memory.means.view());
        backend.finish().map(|()| means)
    }
}

impl<B: Backend> Memory<B> {
    fn plan(
        arena: &mut Arena<B>,
        config: &Config,
        attached: Option<&Attached<B>>,
        rows: usize,
    ) -> Result<Self> {
        let layers = config.num_hidden_layers;
        let shape = ActivationShape {
            rows: Rows::forward_only(rows),
            adapter_rows: rows,
            taps: layers,
            adapters: attached.map_or(0, Attached::adapters_per_layer),
            rank: attached.map_or(0, Attached::rank),
            recompute: Recompute::Forward,
        };
        Ok(Memory {
            acts: Activations::new(arena, config, shape)?,
            ids: arena.buffer("ids", &[rows])?,
            positions: arena.buffer("positions", &[rows])?,
            parts: [arena.buffer("parts of secure", &[rows])?, arena.buffer("parts of vulnerable", &[rows])?],
            means: arena.buffer("means", &[layers, 2, config.hidden_size])?,
        })
    }

    /// A plan of one pair.
    fn upload(&mut self, backend: &B, plan: &BatchPlan) {
        let (n, pair) = (plan.ids.len(), &plan.pairs[0]);
        let (secure, vulnerable) = (pair.secure.clone(), plan.vulnerable_rows(pair).collect());
        for (to, rows) in self.parts.iter_mut().zip([secure.collect::<Vec<_>>(), vulnerable]) {
            let mut parts = vec![0.0; n];
            rows.iter().for_each(|&row| parts[row] = 1.0 / rows.len() as f32);
            backend.upload(to.first_mut(n), &parts);
        }
        backend.upload(self.ids.first_mut(n), &plan.ids);
        backend.upload(self.positions.first_mut(n), &plan.positions);
    }

    /// Leaves the means of both functions over the taps of `n` rows.
    fn average(&mut self, backend: &B, n: usize, width: usize) {
        backend.zero(self.means.view_mut());
        let count = self.means.len() / width;
        let means = self.means.view_mut().ranges((0..count).map(|i| i * width..(i + 1) * width));
        let mut sums = Vec::with_capacity(count);
        for (i, db_acc) in means.into_iter().enumerate() {
            let tap = self.acts.taps.slice(i / 2 * n * width..(i / 2 + 1) * n * width);
            let row_weight = self.parts[i % 2].first(n);
            sums.push(BiasGradient { db_acc, dy: Matrix::new(tap, n, width), row_weight });
        }
        backend.bias_gradients(sums);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cpu::Cpu;
    use crate::error::ErrorKind;

    #[test]
    fn states_that_do_not_fit_are_refused_before_any_is_read() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models/llama-tiny");
        let model = Transformer::load(Cpu::new(), &dir).unwrap();
        let pairs = [1, 2, 3].map(|id| TokenPair::new(id, vec![3, id as u32], vec![4]));
        let working = Reader::memory(&model, None, &pairs).unwrap();
        let of_pair = model.config.num_hidden_layers * 2 * model.config.hidden_size * 4;
        let read = |free: usize| {
            let mut seen = 0;
            let mut watch = |pairs| {
                seen = pairs;
                Ok(())
            };
            let read = PairStates::read(&model, None, &pairs, free, &mut watch);
            (read.map(|states| states.layers()), seen)
        };
        let (states, seen) = read(working + 3 * of_pair);
        assert_eq!((states.unwrap(), seen), (model.config.num_hidden_layers, 3));
        let (refused, seen) = read(working + 3 * of_pair - 1);
        let error = refused.unwrap_err();
        assert_eq!((error.kind(), seen), (ErrorKind::Device, 0));
        let message = error.to_string();
        assert!(message.contains("3 pairs") && message.contains("room for 2"), "{message}");
    }
}
