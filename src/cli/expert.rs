//! Options of a security expert that drafts what is generated.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use super::ModelArgs;
use crate::adapter::AdapterFolder;
use crate::decode::CoDecoding;
use crate::deepguard::DeepGuard;
use crate::hub::download::Need;
use crate::ops::Backend;

/// A security expert, and which of its tokens are taken.
#[derive(Args)]
pub(super) struct ExpertArgs {
    /// Let a security expert draft every token: adapter folder, or finished run folder, of the method cosec.
    #[arg(long, value_name = "DIR", help_heading = "Security expert")]
    expert_adapter: Option<PathBuf>,
    /// Base model of the expert, with the same vocabulary, if it is another one than the model: a Hugging
    /// Face directory, or a hub id.
    #[arg(long, value_name = "MODEL", requires = "expert_adapter", help_heading = "Security expert")]
    expert_model: Option<String>,
    /// Temperature of the drafts; 0 drafts the likeliest token.
    #[arg(long, requires = "expert_adapter", default_value_t = CoDecoding::default().temperature, help_heading = "Security expert")]
    expert_temperature: f32,
    /// Take a draft if its probability by the model is more than this share of that by the expert, which
    /// counts at most as much; else the model draws its own token. 0 takes every possible draft, 1 none.
    #[arg(long, requires = "expert_adapter", default_value_t = CoDecoding::default().threshold, help_heading = "Security expert")]
    expert_threshold: f32,
}

/// An expert whose files have been found.
pub(super) struct FoundExpert {
    pub(super) adapter: PathBuf,
    model: Option<PathBuf>,
    options: CoDecoding,
}

impl ExpertArgs {
    /// Looks for the expert, if one is asked for, before any model is loaded.
    pub(super) fn find(&self, model: &ModelArgs) -> Result<Option<FoundExpert>> {
        let Some(adapter) = &self.expert_adapter else { return Ok(None) };
        let mut options = CoDecoding::default();
        (options.temperature, options.threshold) = (self.expert_temperature, self.expert_threshold);
        options.validate()?;
        let adapter = AdapterFolder::find(adapter)?.path().to_owned();
        let obtain = |id: &String| model.device.hub.obtain(id, None, Need::Model);
        let model = self.expert_model.as_ref().map(obtain).transpose()?;
        Ok(Some(FoundExpert { adapter, model, options }))
    }
}

impl FoundExpert {
    pub(super) fn attach<B: Backend>(&self, guard: &mut DeepGuard<B>) -> Result<()> {
        let named = || format!("cannot attach the expert {}", self.adapter.display());
        guard.attach_expert(self.model.as_deref(), &self.adapter, self.options).with_context(named)
    }
}
