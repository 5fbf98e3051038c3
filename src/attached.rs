//! What is added to a base model: adapters and, where one was trained, a guard, with one set of parameters.

use crate::error::{Error, Result};
use crate::guard::{Guard, GuardConfig, TokenSecurityStats};
use crate::model::config::Config;
use crate::model::lora::{Lora, LoraConfig};
use crate::model::params::{Layout, Params};
use crate::ops::Device;

/// LoRA adapters of one model and, unless they are those of a plain PEFT adapter, its guard and token security statistics.
pub struct Attached<D: Device> {
    /// Where the adapters' parameters lie.
    pub lora: Lora,
    /// Where the guard's parameters lie.
    pub guard: Option<Guard>,
    /// The values of both.
    pub params: Params<D>,
    /// Token security statistics gathered while the guard was trained.
    pub stats: Option<TokenSecurityStats>,
}

impl<D: Device> Attached<D> {
    /// Room for the parameters, all zero; see [`crate::init`] and [`crate::adapter`] for values. Without a `guard`, these
    /// are the adapters alone.
    pub fn new(
        device: &D,
        model: &Config,
        lora: LoraConfig,
        guard: impl Into<Option<GuardConfig>>,
    ) -> Result<Self> {
        let mut layout = Layout::default();
        let lora = Lora::new(lora, model, &mut layout)?;
        let guard = guard.into().map(|guard| Guard::new(guard, model, &mut layout)).transpose()?;
        let params = Params::new(device, layout)?;
        let stats = guard.is_some().then(|| TokenSecurityStats::new(model.vocab_size));
        Ok(Attached { lora, guard, params, stats })
    }

    /// The guard.
    ///
    /// # Errors
    /// Kind `Usage` where there is none.
    pub fn require_guard(&self) -> Result<&Guard> {
        self.guard.as_ref().ok_or_else(|| Error::usage(NO_GUARD))
    }

    /// Number of taps of the guard; 0 where there is none.
    pub fn taps(&self) -> usize {
        self.guard.as_ref().map_or(0, |guard| guard.taps)
    }

    /// The layers that the guard looks at, counted from 1; see [`Guard::tapped_layers`].
    pub fn tapped_layers(&self, num_hidden_layers: usize) -> Vec<usize> {
        self.guard.iter().flat_map(|guard| guard.tapped_layers(num_hidden_layers)).collect()
    }
}

/// What is missing where something needs a guard.
pub(crate) const NO_GUARD: &str = "this is a plain adapter, LoRA weights without a guard; a guard is what training adds \
                                   to them: an analyzer that scores tokens, and token statistics that guide generation";
