//! Prefix tuning: for each control, keys and values of every layer that all tokens see before their own. They
//! are what PEFT calls `prompt_embeddings`: not rotated, as they are never anywhere but in front.

use crate::error::{Error, Result};
use crate::model::config::Config;
use crate::model::params::{Layout, Param, Params};
use crate::ops::Device;
use crate::ops::attention::Heads;
use crate::ops::matrix::Matrix;

/// Hyper-parameters of prefixes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrefixConfig {
    /// Rows of each prefix.
    pub len: usize,
    /// Dropout on the prefixes while training, anew in every pass of every function.
    pub dropout: f32,
}

/// Names of the controls that SVEN has.
pub const CONTROLS: [&str; 2] = ["secure", "vulnerable"];

/// Where the parameters of a model's prefixes lie.
#[derive(Clone, Debug)]
pub struct PrefixTuning {
    /// Hyper-parameters.
    pub config: PrefixConfig,
    /// Of each control `[len, 2 · layers · kv_width]`: in a row, layer after layer, the key and the value.
    pub controls: Vec<Param>,
}

/// A prefix in front of a sequence of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixPlace {
    /// The first of the rows that stand for it.
    pub row: usize,
    /// Which control's it is.
    pub control: usize,
}

impl PrefixTuning {
    /// Adds prefixes of so many controls to `layout`.
    pub fn new(config: PrefixConfig, controls: usize, model: &Config, layout: &mut Layout) -> Result<Self> {
        if config.len == 0 {
            return Err(Error::usage("a prefix needs at least 1 row; found 0"));
        }
        if config.len >= model.max_position_embeddings {
            return Err(Error::usage(format!(
                "a prefix of {} rows leaves no room for tokens in the model's context of {}",
                config.len, model.max_position_embeddings
            )));
        }
        let width = 2 * model.num_hidden_layers * model.heads().kv_width();
        let add = |name: &&str| layout.add(format!("prefix.{name}.prompt_embeddings"), &[config.len, width]);
        Ok(PrefixTuning { config, controls: CONTROLS[..controls].iter().map(add).collect() })
    }

    /// Keys and values of a layer, `[len, 2 · kv_width]`.
    pub fn of_layer<'a, D: Device>(
        &self,
        params: &'a Params<D>,
        control: usize,
        layer: usize,
        heads: Heads,
    ) -> Matrix<'a, D, D::Act> {
        let width = 2 * heads.kv_width();
        params.matrix(&self.controls[control]).columns(layer * width, width)
    }
}
