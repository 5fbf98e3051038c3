//! Progress of a training run on standard error: a bar on a terminal, lines elsewhere.

use std::ops::ControlFlow;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};

use super::signals::Signals;
use super::terminal::{bar, note};
use crate::train::evaluation::Evaluation;
use crate::train::trainer::{Observer, RunStart, StepLog};

/// Shows steps, evaluations and checkpoints.
pub struct Progress<'a> {
    bar: Option<ProgressBar>,
    signals: &'a Signals,
    /// Whether it has been said that the run is stopping.
    stopping: bool,
}

impl<'a> Progress<'a> {
    /// Decides by what standard error is. The run stops on a signal.
    pub fn new(signals: &'a Signals) -> Self {
        Progress { bar: bar(), signals, stopping: false }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => note(text),
        }
    }
}

fn step_text(log: &StepLog) -> String {
    format!(
        "loss {:.4} = lm {:.4} + sec {:.4} + kl {:.4} | scores {:.3}/{:.3} | lr {:.1e} | {:.0} tok/s{}",
        log.total,
        log.generation,
        log.security,
        log.kl,
        log.mean_score_secure,
        log.mean_score_vulnerable,
        log.learning_rate,
        log.tokens_per_second,
        if log.skipped { " | skipped: gradient not finite" } else { "" }
    )
}

impl Observer for Progress<'_> {
    fn on_start(&mut self, start: &RunStart<'_>) {
        self.signals.request();
        for (name, pairs) in [("training", start.train), ("validation", start.validation)] {
            let bad = match pairs.bad_records {
                0 => String::new(),
                n => format!("; {n} records left out: see dg-run data check"),
            };
            self.line(&format!(
                "{name}: {} pairs ({} cut to the length limit, {} dropped as identical within it{bad})",
                pairs.pairs.len(),
                pairs.truncated,
                pairs.identical
            ));
        }
        let bytes: usize = start.plan.iter().map(|row| row.bytes).sum();
        let on_device =
            start.device_bytes.map(|bytes| format!("; {} MiB on the device", bytes.div_ceil(1 << 20)));
        self.line(&format!(
            "{} trainable values; {} MiB of working memory planned in {} tensors{}; {} steps{}",
            start.parameters,
            bytes >> 20,
            start.plan.len(),
            on_device.unwrap_or_default(),
            start.total_steps,
            start.resumed_at.map_or(String::new(), |step| format!(", continuing after step {step}"))
        ));
        if let Some(bar) = &self.bar {
            bar.set_length(start.total_steps as u64);
            bar.set_position(start.resumed_at.unwrap_or(0) as u64);
            let style = ProgressStyle::with_template("{bar:24} {pos}/{len} eta {eta} {wide_msg}");
            if let Ok(style) = style {
                bar.set_style(style);
            }
        }
    }

    fn should_stop(&mut self) -> bool {
        let Some(signal) = self.signals.received() else { return false };
        if !std::mem::replace(&mut self.stopping, true) {
            self.line(&format!("{}: stopping; a second signal stops at once, without saving", signal.name()));
        }
        true
    }

    fn on_step(&mut self, log: &StepLog) -> ControlFlow<()> {
        match &self.bar {
            Some(bar) => {
                bar.set_message(step_text(log));
                bar.set_position(log.step as u64);
            }
            None => {
                let left = (log.total_steps - log.step) as f64 * log.seconds;
                note(&format!(
                    "step {}/{} | {} | eta {left:.0} s",
                    log.step,
                    log.total_steps,
                    step_text(log)
                ));
            }
        }
        ControlFlow::Continue(())
    }

    fn on_evaluation(&mut self, step: usize, e: &Evaluation) {
        self.line(&format!(
            "validation at step {step}: loss {:.4} = lm {:.4} + sec {:.4} + kl {:.4} | secure likelier in {:.0} % of \
             {} pairs | scores {:.3}/{:.3}, higher for secure in {:.0} %",
            e.total,
            e.generation,
            e.security,
            e.kl,
            100.0 * e.preference_accuracy,
            e.pairs,
            e.mean_score_secure,
            e.mean_score_vulnerable,
            100.0 * e.separation_accuracy
        ));
    }

    fn on_checkpoint(&mut self, dir: &Path) {
        self.line(&format!("checkpoint: {}", dir.display()));
    }
}
