//! Progress of a training run on standard error: a bar on a terminal, lines elsewhere.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use indicatif::ProgressBar;

use super::say::{detail, is_verbose, note, shows_bars, warn};
use super::signals::Signals;
use super::terminal::set_style;
use crate::model::activations::Recompute;
use crate::ops::PlanRow;
use crate::train::data::{LimitReport, TokenizedPairs};
use crate::train::evaluation::Evaluation;
use crate::train::observer::{Observer, RunStart, Stage, StepLog};

/// Between two pictures of a bar that has nothing to count.
const TICK: Duration = Duration::from_millis(100);

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
        let bar = shows_bars().then(ProgressBar::no_length);
        Progress { bar, signals, stopping: false }
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

    /// Something above the bar, if there is one.
    fn above(&self, say: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(say),
            None => say(),
        }
    }
}

/// What a run is at.
pub(super) fn stage_text(stage: Stage) -> String {
    match stage {
        Stage::Reading => "reading pairs".into(),
        Stage::Tokenizing { pairs } => format!("tokenising {pairs} pairs"),
        Stage::Fingerprint => "reading the base model's weights for their hash".into(),
        Stage::Validating { pairs } => format!("validating on {pairs} pairs"),
        Stage::BaseStates => "computing hidden states of the base model".into(),
    }
}

/// What a run starts with.
pub(super) fn outlook(start: &RunStart<'_>) -> String {
    let on_device =
        start.device_bytes.map(|bytes| format!("; {} MiB on the device", bytes.div_ceil(1 << 20)));
    let mut text = pairs_text("training", start.train) + &pairs_text("validation", start.validation);
    text += &format!(
        "{} trainable values; {} MiB of working memory planned in {} tensors{}{}; {} steps{}\n",
        start.parameters,
        PlanRow::total(start.plan) >> 20,
        start.plan.len(),
        on_device.unwrap_or_default(),
        recompute_text(start.recompute),
        start.total_steps,
        start.resumed_at.map_or(String::new(), |step| format!(", continuing after step {step}"))
    );
    if let Some(seconds) = start.seconds_per_step {
        let left = start.total_steps - start.resumed_at.unwrap_or(0);
        text +=
            &format!("a step took {seconds:.2} s so far: {:.0} s for {left} more\n", seconds * left as f64);
    }
    text
}

fn recompute_text(recompute: Recompute) -> &'static str {
    match recompute {
        Recompute::Nothing => "",
        Recompute::GateUp => "; gate and up projections are recomputed",
        Recompute::Block | Recompute::Forward => "; blocks are recomputed",
    }
}

fn pairs_text(name: &str, pairs: &TokenizedPairs) -> String {
    let bad = match pairs.bad_records {
        0 => String::new(),
        n => format!("; {n} records left out: see dg-run data check"),
    };
    format!(
        "{name}: {} pairs ({} cut to the length limit, {} dropped as identical within it{bad})\n",
        pairs.pairs.len(),
        pairs.limit.cut,
        pairs.limit.lost + pairs.identical
    )
}

/// A warning for each split that loses something to the length limit.
pub(super) fn limit_warnings(start: &RunStart<'_>) -> Vec<String> {
    let splits = [("training", start.train), ("validation", start.validation)];
    splits.iter().filter_map(|(name, pairs)| limit_warning(name, &pairs.limit)).collect()
}

/// What is lost to the length limit, and what would keep it.
pub(super) fn limit_warning(name: &str, limit: &LimitReport) -> Option<String> {
    let LimitReport { max_seq_len, cut, lost, .. } = limit;
    let keeps = limit.keeps_99_percent();
    (cut + lost > 0).then(|| {
        format!(
            "{name}: of {} pairs, {cut} are cut to {max_seq_len} tokens, and {lost} are left out because their halves \
             are the same up to there; --max-seq-len {keeps} keeps 99 % of the pairs whole",
            limit.pairs()
        )
    })
}

/// The memory plan, a line per tensor.
fn plan_text(plan: &[PlanRow]) -> String {
    let line = |row: &PlanRow| {
        format!("  {:<28}{:<22}{:<6}{:>14}\n", row.name, format!("{:?}", row.shape), row.dtype, row.bytes)
    };
    format!("working memory, bytes by tensor:\n{}", plan.iter().map(line).collect::<String>())
}

fn step_text(log: &StepLog) -> String {
    format!(
        "{}{} | lr {:.1e} | {:.0} tok/s{}",
        loss_text(log.total, log.generation, log.security, log.kl),
        scores_text(log.mean_score_secure, log.mean_score_vulnerable),
        log.learning_rate,
        log.tokens_per_second,
        if log.skipped { " | skipped: gradient not finite" } else { "" }
    )
}

/// A loss and those of its terms that the method has.
fn loss_text(total: f64, generation: f64, security: Option<f64>, kl: Option<f64>) -> String {
    let term = |name: &str, term: Option<f64>| term.map_or(String::new(), |x| format!(" + {name} {x:.4}"));
    format!("loss {total:.4} = lm {generation:.4}{}{}", term("sec", security), term("kl", kl))
}

/// Mean scores, if there is a guard.
fn scores_text(secure: Option<f64>, vulnerable: Option<f64>) -> String {
    let scores = secure.zip(vulnerable);
    scores.map_or(String::new(), |(secure, vulnerable)| format!(" | scores {secure:.3}/{vulnerable:.3}"))
}

impl Observer for Progress<'_> {
    fn on_stage(&mut self, stage: Stage) {
        let text = stage_text(stage);
        match &self.bar {
            Some(bar) => {
                set_style(bar, "{spinner} {wide_msg} {elapsed}");
                bar.set_message(text);
                bar.enable_steady_tick(TICK);
            }
            None => detail(&text),
        }
    }

    fn on_start(&mut self, start: &RunStart<'_>) {
        self.signals.request();
        self.line(outlook(start).trim_end());
        if let Some(text) = &start.balance {
            self.line(text);
        }
        for text in limit_warnings(start) {
            self.above(|| warn(&text));
        }
        if is_verbose() {
            self.line(plan_text(start.plan).trim_end());
        }
        if let Some(bar) = &self.bar {
            bar.set_length(start.total_steps as u64);
            bar.set_position(start.resumed_at.unwrap_or(0) as u64);
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
                bar.disable_steady_tick();
                set_style(bar, "{bar:24} {pos}/{len} {elapsed} eta {eta} {wide_msg}");
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
        let separated =
            e.separation_accuracy.map(|share| format!(", higher for secure in {:.0} %", 100.0 * share));
        self.line(&format!(
            "validation at step {step}: {} | secure likelier in {:.0} % of {} pairs{}{}",
            loss_text(e.total, e.generation, e.security, e.kl),
            100.0 * e.preference_accuracy,
            e.pairs,
            scores_text(e.mean_score_secure, e.mean_score_vulnerable),
            separated.unwrap_or_default()
        ));
    }

    fn on_checkpoint(&mut self, dir: &Path) {
        self.line(&format!("checkpoint: {}", dir.display()));
    }
}
