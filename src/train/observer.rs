//! What a run tells while it goes on, and whether it goes on.

use std::ops::ControlFlow;
use std::path::Path;

use serde::Serialize;

use crate::model::activations::Recompute;
use crate::ops::PlanRow;
use crate::train::data::TokenizedPairs;
use crate::train::evaluation::Evaluation;

/// What a step looked like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct StepLog {
    /// Optimiser steps done, this one included.
    pub step: usize,
    /// Steps of the whole run.
    pub total_steps: usize,
    /// Passes over the training pairs.
    pub epoch: f64,
    /// What is minimised.
    pub total: f64,
    /// Cross-entropy, nats per token: of the secure functions, or of what the fixes changed, as
    /// [`Losses::generation`](crate::train::step::Losses) has it.
    pub generation: f64,
    /// Margin loss, SafeCoder's unlikelihood or SVEN's contrastive loss; `None`, as other terms below, where
    /// the method has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security: Option<f64>,
    /// KL divergence to the base model, nats per token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl: Option<f64>,
    /// Mean analyzer score of secure functions' tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_score_secure: Option<f64>,
    /// Mean analyzer score of vulnerable functions' tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_score_vulnerable: Option<f64>,
    /// Norm of the gradients before clipping.
    pub grad_norm: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Tokens of secure and vulnerable functions per second.
    pub tokens_per_second: f64,
    /// Seconds the step took.
    pub seconds: f64,
    /// Whether the update was left out because a gradient was not finite.
    pub skipped: bool,
}

/// What happens during a run, for progress bars and experiments, and whether it goes on.
pub trait Observer {
    /// Something begins that may take long, before the first step or between steps.
    fn on_stage(&mut self, _stage: Stage) {}
    /// Training is about to start.
    fn on_start(&mut self, _start: &RunStart<'_>) {}
    /// Whether the run shall end, asked before every micro-batch of training and validation. What has begun
    /// is abandoned; the run ends with a checkpoint of its last whole step, from which it continues as if it
    /// had never ended. Of several ranks any one may say so; all of them finish the step first.
    fn should_stop(&mut self) -> bool {
        false
    }
    /// A step is done. `Break` ends the run after the validation and the checkpoint that follow it; one of
    /// several ranks ends all of them after the next step.
    fn on_step(&mut self, _log: &StepLog) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
    /// An evaluation is done.
    fn on_evaluation(&mut self, _step: usize, _evaluation: &Evaluation) {}
    /// A checkpoint was written.
    fn on_checkpoint(&mut self, _dir: &Path) {}
}

/// What a run is at when it is not at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// The run reads pairs.
    Reading,
    /// The run tokenises so many pairs.
    Tokenizing {
        /// Pairs of both splits.
        pairs: usize,
    },
    /// The run reads the base model's weights for their hash.
    Fingerprint,
    /// The run evaluates so many validation pairs.
    Validating {
        /// Validation pairs.
        pairs: usize,
    },
    /// The run computes hidden states of the base model that it had before it was resumed.
    BaseStates,
}

/// No observer.
impl Observer for () {}

/// What a run starts with.
#[non_exhaustive]
pub struct RunStart<'a> {
    /// Training pairs, and what was left out.
    pub train: &'a TokenizedPairs,
    /// Validation pairs, and what was left out.
    pub validation: &'a TokenizedPairs,
    /// The memory plan.
    pub plan: &'a [PlanRow],
    /// Bytes of a device's own memory that the run takes
    /// ([`Stepper::device_bytes`](crate::train::step::Stepper::device_bytes)).
    pub device_bytes: Option<usize>,
    /// What the backward pass recomputes.
    pub recompute: Recompute,
    /// Trainable values.
    pub parameters: usize,
    /// Steps of the whole run.
    pub total_steps: usize,
    /// Step from which the run continues.
    pub resumed_at: Option<usize>,
    /// Seconds of a step, as the run took so far; `None` for a new one.
    pub seconds_per_step: Option<f64>,
    /// How evenly several ranks share the work, and what would help; `None` where nothing needs to.
    pub balance: Option<String>,
}
