//! Mean states of functions, layer by layer.

use crate::attached::Attached;
use crate::error::Result;
use crate::model::activations::{ActivationShape, Activations, Recompute, Rows};
use crate::model::block::{Adapter, Keys, Pass};
use crate::model::transformer::Transformer;
use crate::ops::attention::Segment;
use crate::ops::{Arena, Backend, Buffer};
use crate::train::batch::TokenPair;

/// The mean over its tokens of every layer's states of every function.
pub struct PairStates {
    /// `[layers][pairs, 2, width]`, the secure function first.
    values: Vec<Vec<f32>>,
    width: usize,
}

impl PairStates {
    /// Of states that are already there: `[layers][pairs, 2, width]`.
    pub fn new(values: Vec<Vec<f32>>, width: usize) -> Self {
        PairStates { values, width }
    }

    /// Reads every function of `pairs` in a pass of its own. `watch` gets the number of pairs read.
    pub fn read<B: Backend>(
        model: &Transformer<B>,
        attached: Option<&Attached<B>>,
        pairs: &[TokenPair],
        watch: &mut dyn FnMut(usize),
    ) -> Result<Self> {
        let longest =
            pairs.iter().map(|pair| pair.secure.len().max(pair.vulnerable.len())).max().unwrap_or(1);
        let mut reader = Reader::new(model, attached, longest)?;
        let (layers, width) = (model.config.num_hidden_layers, model.config.hidden_size);
        let mut values = vec![Vec::with_capacity(pairs.len() * 2 * width); layers];
        for (number, pair) in pairs.iter().enumerate() {
            watch(number);
            for function in [&pair.secure, &pair.vulnerable] {
                reader.read(function, &mut values)?;
            }
        }
        watch(pairs.len());
        Ok(PairStates { values, width })
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.values.len()
    }

    /// Numbers in a state.
    pub fn width(&self) -> usize {
        self.width
    }

    /// States of the secure and the vulnerable function of a pair; `layer` from 0.
    pub fn pair(&self, layer: usize, pair: usize) -> [&[f32]; 2] {
        let at = |half: usize| (2 * pair + half) * self.width;
        [0, 1].map(|half| &self.values[layer][at(half)..at(half + 1)])
    }
}

/// A model with memory for texts of a limited length.
struct Reader<'a, B: Backend> {
    model: &'a Transformer<B>,
    attached: Option<&'a Attached<B>>,
    acts: Activations<B>,
    ids: Buffer<B, u32>,
    positions: Buffer<B, u32>,
}

impl<'a, B: Backend> Reader<'a, B> {
    fn new(model: &'a Transformer<B>, attached: Option<&'a Attached<B>>, rows: usize) -> Result<Self> {
        let shape = ActivationShape {
            rows: Rows::forward_only(rows),
            adapter_rows: rows,
            taps: model.config.num_hidden_layers,
            adapters: attached.map_or(0, |a| a.lora.per_layer()),
            rank: attached.map_or(0, |a| a.lora.config.rank),
            recompute: Recompute::Forward,
        };
        let ((acts, ids, mut positions), _) = Arena::build(&model.backend, |arena| {
            let acts = Activations::new(arena, &model.config, shape)?;
            Ok((acts, arena.buffer("ids", &[rows])?, arena.buffer("positions", &[rows])?))
        })?;
        let counted: Vec<u32> = (0..rows as u32).collect();
        model.backend.upload(positions.view_mut(), &counted);
        Ok(Reader { model, attached, acts, ids, positions })
    }

    /// Appends the mean states of `tokens` to those of each layer.
    fn read(&mut self, tokens: &[u32], values: &mut [Vec<f32>]) -> Result<()> {
        let (backend, n, width) = (&self.model.backend, tokens.len(), self.model.config.hidden_size);
        backend.upload(self.ids.first_mut(n), tokens);
        let adapter =
            self.attached.map(|a| Adapter { lora: &a.lora, params: &a.params, rows: n, dropout: None });
        let pass = Pass { rows: Rows::forward_only(n), positions: self.positions.slice(0..n), adapter };
        let segments = [Segment { start: 0, len: n as u32, prefix_start: 0, prefix_len: 0 }];
        let (mut keys, layers) = (Keys::Packed(&segments), values.len());
        self.model.forward(&mut self.acts, self.ids.first(n), pass, &mut keys, layers, n);
        for (layer, means) in values.iter_mut().enumerate() {
            let tap = self.acts.taps.slice(layer * n * width..(layer + 1) * n * width);
            means.extend(mean_of_rows(&backend.download_act(tap), width));
        }
        backend.finish()
    }
}

fn mean_of_rows(rows: &[f32], width: usize) -> Vec<f32> {
    let mut sums = vec![0.0f64; width];
    for row in rows.chunks_exact(width) {
        sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
    }
    let count = (rows.len() / width) as f64;
    sums.iter().map(|sum| (sum / count) as f32).collect()
}
