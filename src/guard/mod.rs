//! The security guard: aggregator and analyzer over the taps of the language model (METHOD §§4–5).

pub mod activations;
mod aggregator;
mod analyzer;
mod gradients;
pub mod stats;

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

pub use activations::GuardActivations;
use serde::{Deserialize, Serialize};
pub use stats::TokenSecurityStats;

use crate::error::{Error, Result};
use crate::model::config::Config;
use crate::model::params::{Grads, Layout, Param, Params};
use crate::ops::aggregate::TapShape;
use crate::ops::{Backend, Ref};

/// Width of the analyzer's security embedding.
pub const EMBEDDING_WIDTH: usize = 128;
/// Widths of the analyzer's hidden layers.
pub const HIDDEN_WIDTHS: [usize; 3] = [512, 256, 128];

/// How the taps of a token become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// Attention over the taps.
    Attention,
    /// The mean of the taps.
    Average,
    /// The last tap.
    #[serde(alias = "last-layer")]
    LastLayer,
}

impl Aggregation {
    /// All methods.
    pub const ALL: [Aggregation; 3] = [Aggregation::Attention, Aggregation::Average, Aggregation::LastLayer];

    /// The method's name in options and files.
    pub fn name(self) -> &'static str {
        match self {
            Aggregation::Attention => "attention",
            Aggregation::Average => "average",
            Aggregation::LastLayer => "last_layer",
        }
    }
}

impl fmt::Display for Aggregation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Aggregation {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Aggregation::ALL.into_iter().find(|a| a.name() == name).ok_or_else(|| {
            let known = Aggregation::ALL.map(Aggregation::name).join(", ");
            Error::usage(format!("aggregation `{name}` is unknown; expected one of: {known}"))
        })
    }
}

/// Hyper-parameters of the guard.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct GuardConfig {
    /// How taps are aggregated.
    pub aggregation: Aggregation,
    /// Number of taps asked for; a model with fewer layers gives fewer.
    pub layers: usize,
    /// Dropout inside the analyzer while training.
    pub dropout: f32,
}

impl Default for GuardConfig {
    /// The published defaults.
    fn default() -> Self {
        GuardConfig { aggregation: Aggregation::Attention, layers: 4, dropout: 0.1 }
    }
}

/// A linear layer's parameters.
#[derive(Clone, Debug)]
pub(crate) struct LinearParams {
    pub weight: Param,
    pub bias: Param,
}

/// A LayerNorm's parameters.
#[derive(Clone, Debug)]
pub(crate) struct NormParams {
    pub gamma: Param,
    pub beta: Param,
}

/// The aggregator's parameters; all matrices `[hidden_size, hidden_size]`.
#[derive(Clone, Debug)]
pub(crate) struct AggregatorParams {
    pub query: LinearParams,
    pub key: LinearParams,
    pub value: LinearParams,
    pub output: LinearParams,
}

/// The guard of a model: where its parameters lie.
#[derive(Clone, Debug)]
pub struct Guard {
    /// Hyper-parameters.
    pub config: GuardConfig,
    /// Number of taps N.
    pub taps: usize,
    hidden_size: usize,
    aggregator: Option<AggregatorParams>,
    embedding: Param,
    linear: [LinearParams; 3],
    norm: [NormParams; 2],
    score: LinearParams,
}

/// Dropout of the analyzer in one pass.
pub type GuardDropout<'a, B> = crate::model::block::AdapterDropout<'a, B>;

/// Dropout sites of the analyzer; those of adapters count up from 0.
const ANALYZER_SITES: [u32; 2] = [u32::MAX - 1, u32::MAX];

/// What a pass of the guard reads.
pub struct GuardPass<'a, B: Backend> {
    /// The device that the pass runs on.
    pub backend: &'a B,
    /// Parameter values.
    pub params: &'a Params<B>,
    /// `[N, rows, hidden_size]`.
    pub taps: Ref<'a, B, B::Act>,
    /// `[rows]` token ids.
    pub ids: Ref<'a, B, u32>,
    /// Number of rows.
    pub rows: usize,
    /// Dropout; none when not training.
    pub dropout: Option<GuardDropout<'a, B>>,
}

impl Guard {
    /// Adds the guard's parameters to `layout`.
    pub fn new(config: GuardConfig, model: &Config, layout: &mut Layout) -> Result<Self> {
        if config.layers == 0 {
            return Err(Error::usage("the guard needs at least 1 layer to look at; found 0"));
        }
        let (hidden, [w1, w2, w3]) = (model.hidden_size, HIDDEN_WIDTHS);
        let mut linear = |name: &str, out: usize, input: usize| LinearParams {
            weight: layout.add(format!("security_analyzer.{name}.weight"), &[out, input]),
            bias: layout.add(format!("security_analyzer.{name}.bias"), &[out]),
        };
        let aggregator = (config.aggregation == Aggregation::Attention).then(|| AggregatorParams {
            query: linear("layer_aggregator.query", hidden, hidden),
            key: linear("layer_aggregator.key", hidden, hidden),
            value: linear("layer_aggregator.value", hidden, hidden),
            output: linear("layer_aggregator.output_proj", hidden, hidden),
        });
        let layers = [
            linear("context_processor.0", w1, hidden + EMBEDDING_WIDTH),
            linear("context_processor.4", w2, w1),
            linear("context_processor.8", w3, w2),
        ];
        let score = linear("context_processor.10", 1, w3);
        let mut norm = |index: usize, width: usize| NormParams {
            gamma: layout.add(format!("security_analyzer.context_processor.{index}.weight"), &[width]),
            beta: layout.add(format!("security_analyzer.context_processor.{index}.bias"), &[width]),
        };
        let norm = [norm(1, w1), norm(5, w2)];
        let embedding =
            layout.add("security_analyzer.security_embeddings.weight", &[model.vocab_size, EMBEDDING_WIDTH]);
        let taps = config.layers.min(model.num_hidden_layers);
        Ok(Guard { config, taps, hidden_size: hidden, aggregator, embedding, linear: layers, norm, score })
    }

    /// The layers of a model of `num_hidden_layers` that the taps are the outputs of, counted from 1: the
    /// last N. The last tap has the model's final norm behind it.
    pub fn tapped_layers(&self, num_hidden_layers: usize) -> RangeInclusive<usize> {
        num_hidden_layers + 1 - self.taps..=num_hidden_layers
    }

    /// Width of a tap.
    pub fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    fn tap_shape(&self, rows: usize) -> TapShape {
        TapShape { taps: self.taps, rows, hidden_size: self.hidden_size }
    }

    /// Prepares what depends on the parameters only. Call after every change of the parameters.
    pub fn prepare<B: Backend>(&self, backend: &B, params: &Params<B>, acts: &mut GuardActivations<B>) {
        if let Some(aggregator) = &self.aggregator {
            self.fold_first_layer(backend, params, aggregator, acts);
        }
    }

    /// Scores every row: `acts.scores` `[rows]`.
    pub fn forward<B: Backend>(&self, pass: &GuardPass<'_, B>, acts: &mut GuardActivations<B>) {
        self.aggregate(pass, acts);
        self.analyze(pass, acts);
    }

    /// Gradients after [`Guard::forward`] of `Σ_i w_i score_i`, with `row_weight_params` `[rows]` as w for
    /// the guard's parameters and `row_weight_taps` `[rows]` for the taps, whose gradient for the first
    /// `dtap_rows` rows goes to `dtaps` `[N, dtap_rows, hidden_size]`.
    pub fn backward<B: Backend>(
        &self,
        pass: &GuardPass<'_, B>,
        acts: &mut GuardActivations<B>,
        dparams: &mut Grads<B>,
        upstream: GuardUpstream<'_, B>,
    ) {
        self.analyzer_backward(pass, acts, dparams, upstream.row_weight_params);
        let row_weight = upstream.row_weight_params;
        self.aggregator_backward(pass, acts, dparams, upstream);
        self.linear_gradients(pass, acts, dparams, row_weight);
    }
}

/// Where the guard's gradients go.
pub struct GuardUpstream<'a, B: Backend> {
    /// `[N, dtap_rows, hidden_size]`.
    pub dtaps: crate::ops::Mut<'a, B, B::Act>,
    /// Rows that get a gradient.
    pub dtap_rows: usize,
    /// `[rows]`, `w_θ` of METHOD §6.
    pub row_weight_params: Ref<'a, B, f32>,
    /// `[rows]`, `w_h` of METHOD §6.
    pub row_weight_taps: Ref<'a, B, f32>,
}
