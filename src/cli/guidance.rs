//! Options of the guidance towards secure tokens.

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::decode::GenerateOptions;
use crate::deepguard::DeepGuard;
use crate::error::Error;
use crate::ops::Backend;

/// How an adapter with a guard guides what is generated.
#[derive(Args, Clone, Debug, Serialize)]
pub(super) struct GuidanceArgs {
    /// Do not guide towards secure tokens, which is the default: it was measured to be better.
    #[arg(long, conflicts_with = "guidance_strength", help_heading = "Guidance")]
    no_guard: bool,
    /// Guide towards secure tokens, by an adapter with a guard; multiplies what is added to logits. 1 is the
    /// publication's strength.
    #[arg(long, value_name = "FACTOR", help_heading = "Guidance")]
    guidance_strength: Option<f32>,
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

/// Whether an adapter is attached that can guide.
pub(super) fn has_guard<B: Backend>(guard: &DeepGuard<B>) -> bool {
    guard.attached.as_ref().is_some_and(|attached| attached.guard.is_some())
}

impl GuidanceArgs {
    /// Whether what is generated is guided.
    pub(super) fn guides(&self) -> bool {
        self.guidance_strength.is_some_and(|strength| strength != 0.0)
    }

    /// Puts them into the options of a generation.
    pub(super) fn apply<B: Backend>(
        &self,
        guard: &DeepGuard<B>,
        options: &mut GenerateOptions,
    ) -> Result<()> {
        options.guided = self.guides();
        if options.guided && !has_guard(guard) {
            let text = "`guidance_strength`: expected an adapter with a guard, such as the run of the method deepguard";
            return Err(Error::usage(text).into());
        }
        options.rescore_every = self.rescore_every;
        if let Some(strength) = self.guidance_strength.filter(|_| options.guided) {
            options.guidance_strength = strength;
        }
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
