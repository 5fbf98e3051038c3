//! What is added to a base model: adapters and, where one was trained, a guard, with one set of parameters.

use crate::error::{Error, Result};
use crate::guard::{Guard, GuardConfig, TokenSecurityStats};
use crate::model::block::{Adapter, AdapterDropout, PrefixPass};
use crate::model::config::Config;
use crate::model::lora::{Lora, LoraConfig};
use crate::model::params::{Layout, Params};
use crate::model::prefix::{PrefixConfig, PrefixPlace, PrefixTuning};
use crate::ops::{Backend, Device};

/// What is added to one model; each part is optional. A plain PEFT adapter has LoRA or a prefix alone.
pub struct Attached<D: Device> {
    /// Where the adapters' parameters lie.
    pub lora: Option<Lora>,
    /// Where the prefixes' parameters lie; the first is the one that is generated with.
    pub prefix: Option<PrefixTuning>,
    /// Where the guard's parameters lie.
    pub guard: Option<Guard>,
    /// The values of all.
    pub params: Params<D>,
    /// Token security statistics gathered while the guard was trained.
    pub stats: Option<TokenSecurityStats>,
}

impl<D: Device> Attached<D> {
    /// Room for the parameters, all zero; see [`crate::init`] and [`crate::adapter`] for values. Without a
    /// `guard`, these are the adapters alone.
    pub fn new(
        device: &D,
        model: &Config,
        lora: LoraConfig,
        guard: impl Into<Option<GuardConfig>>,
    ) -> Result<Self> {
        let mut layout = Layout::default();
        let lora = Some(Lora::new(lora, model, &mut layout)?);
        let guard = guard.into().map(|guard| Guard::new(guard, model, &mut layout)).transpose()?;
        let params = Params::new(device, layout)?;
        let stats = guard.is_some().then(|| TokenSecurityStats::new(model.vocab_size));
        Ok(Attached { lora, prefix: None, guard, params, stats })
    }

    /// Room for the prefixes of so many controls, all zero, and nothing else.
    pub fn with_prefixes(device: &D, model: &Config, config: PrefixConfig, controls: usize) -> Result<Self> {
        let mut layout = Layout::default();
        let prefix = Some(PrefixTuning::new(config, controls, model, &mut layout)?);
        Ok(Attached { lora: None, prefix, guard: None, params: Params::new(device, layout)?, stats: None })
    }

    /// Refuses a prefix where an adapter has to change weights or states by itself.
    ///
    /// # Errors
    /// Kind `Usage` for a prefix.
    pub fn refuse_prefix(&self, what: &str) -> Result<()> {
        match &self.prefix {
            Some(_) => Err(Error::usage(format!("{what} needs a LoRA adapter; this one is a prefix"))),
            None => Ok(()),
        }
    }

    /// Adapters of a block; 0 without LoRA.
    pub fn adapters_per_layer(&self) -> usize {
        self.lora.as_ref().map_or(0, Lora::per_layer)
    }

    /// LoRA's rank; 0 without LoRA.
    pub fn rank(&self) -> usize {
        self.lora.as_ref().map_or(0, |lora| lora.config.rank)
    }

    /// Rows of a prefix; 0 without one.
    pub fn prefix_len(&self) -> usize {
        self.prefix.as_ref().map_or(0, |prefix| prefix.config.len)
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

impl<B: Backend> Attached<B> {
    /// The adapters in a pass over `rows` rows.
    pub fn adapter<'a>(
        &'a self,
        rows: usize,
        dropout: Option<AdapterDropout<'a, B>>,
    ) -> Option<Adapter<'a, B>> {
        self.lora.as_ref().map(|lora| Adapter { lora, params: &self.params, rows, dropout })
    }

    /// The prefixes in a pass.
    pub fn prefixes<'a>(
        &'a self,
        places: &'a [PrefixPlace],
        dropout: Option<AdapterDropout<'a, B>>,
    ) -> Option<PrefixPass<'a, B>> {
        self.prefix.as_ref().map(|prefix| PrefixPass { prefix, params: &self.params, places, dropout })
    }
}

/// What is missing where something needs a guard.
pub(crate) const NO_GUARD: &str = "this is a plain adapter, without a guard; a guard is what training adds to LoRA \
                                   weights: an analyzer that scores tokens, and token statistics that guide generation";
