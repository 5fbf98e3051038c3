//! What deepguard adds to a base model: adapters, guard and token statistics, with one set of parameters.

use crate::error::Result;
use crate::guard::{Guard, GuardConfig, TokenSecurityStats};
use crate::model::config::Config;
use crate::model::lora::{Lora, LoraConfig};
use crate::model::params::{Layout, Params};
use crate::ops::Device;

/// LoRA adapters, guard and token security statistics of one model.
pub struct Attached<D: Device> {
    /// Where the adapters' parameters lie.
    pub lora: Lora,
    /// Where the guard's parameters lie.
    pub guard: Guard,
    /// The values of both.
    pub params: Params<D>,
    /// Token security statistics gathered while training.
    pub stats: TokenSecurityStats,
}

impl<D: Device> Attached<D> {
    /// Room for the parameters, all zero; see [`crate::init`] and [`crate::adapter`] for values.
    pub fn new(device: &D, model: &Config, lora: LoraConfig, guard: GuardConfig) -> Result<Self> {
        let mut layout = Layout::default();
        let lora = Lora::new(lora, model, &mut layout)?;
        let guard = Guard::new(guard, model, &mut layout)?;
        let params = Params::new(device, layout)?;
        Ok(Attached { lora, guard, params, stats: TokenSecurityStats::new(model.vocab_size) })
    }
}
