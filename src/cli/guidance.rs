//! Options of the guidance towards secure tokens.

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::say::note;
use crate::decode::GenerateOptions;
use crate::deepguard::DeepGuard;
use crate::ops::Backend;

/// How an adapter with a guard guides what is generated.
#[derive(Args, Clone, Debug, Serialize)]
pub(super) struct GuidanceArgs {
    /// Do not guide towards secure tokens. An adapter without a guard never does.
    #[arg(long, help_heading = "Guidance")]
    no_guard: bool,
    /// Multiply what the guidance adds to logits; 1 is the publication's.
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR", help_heading = "Guidance")]
    guidance_strength: f32,
    /// Most that the token statistics, which are at most 1, are multiplied with; without, they are divided by
    /// the mean score whatever that is.
    #[arg(long, value_name = "FACTOR", help_heading = "Guidance")]
    guidance_cap: Option<f32>,
    /// A text whose tokens the guidance leaves alone; may be given several times.
    #[arg(long = "unguided-tokens", value_name = "TEXT", help_heading = "Guidance")]
    unguided_tokens: Vec<String>,
    /// Recompute the guidance's strength every so many tokens; 0 keeps that of the prompt.
    #[arg(long, default_value_t = 0, help_heading = "Guidance")]
    rescore_every: usize,
}

impl GuidanceArgs {
    /// Whether what `guard` generates is guided.
    pub(super) fn guides<B: Backend>(&self, guard: &DeepGuard<B>) -> bool {
        !self.no_guard && guard.attached.as_ref().is_some_and(|attached| attached.guard.is_some())
    }

    /// Puts them into the options of a generation.
    pub(super) fn apply<B: Backend>(
        &self,
        guard: &DeepGuard<B>,
        options: &mut GenerateOptions,
    ) -> Result<()> {
        options.guided = self.guides(guard);
        if guard.attached.is_some() && !options.guided && !self.no_guard {
            note("the adapter has no guard: generation is not guided");
        }
        options.rescore_every = self.rescore_every;
        options.guidance_strength = self.guidance_strength;
        options.guidance_cap = self.guidance_cap;
        for text in &self.unguided_tokens {
            let tokens = guard.tokenizer.encode_with_offsets(text)?;
            // A mark of a text's beginning or end stands for none of its bytes.
            let of_text = tokens.into_iter().filter(|(_, bytes)| !bytes.is_empty());
            options.unguided_tokens.extend(of_text.map(|(token, _)| token));
        }
        Ok(())
    }
}
