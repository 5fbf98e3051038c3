//! The training loop: epochs, evaluation, early stop, checkpoints.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::dist::World;
use crate::error::{Error, ErrorKind, Result};
#[cfg(feature = "text")]
use crate::model::tokenizer::Tokenizer;
use crate::model::transformer::Transformer;
use crate::ops::{Backend, PlanRow};
use crate::system::available_memory;
use crate::train::base_cache::BaseCache;
use crate::train::batch::TokenPair;
use crate::train::checkpoint::{self, TrainerState};
use crate::train::config::TrainConfig;
use crate::train::evaluation::evaluate;
#[cfg(feature = "text")]
use crate::train::memory::device_bytes;
use crate::train::memory::fitting_sizes;
use crate::train::metrics;
use crate::train::observer::{Observer, RunStart, Stage, StepLog};
use crate::train::ranks::{self, SharedCheckpoint};
use crate::train::record::Record;
use crate::train::run_data::RunData;
use crate::train::run_folder::RunFolder;
use crate::train::schedule::{LinearSchedule, epoch_order};
use crate::train::setup::{Setup, base_rows};
use crate::train::step::{StepReport, Stepper, Update};

/// Non-finite gradients in a row after which training stops.
const MAX_SKIPPED_IN_A_ROW: usize = 10;

/// How a run ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RunSummary {
    /// Where it stands.
    pub state: TrainerState,
    /// Whether an observer ended it.
    pub interrupted: bool,
    /// The run's newest checkpoint; `None` if no step was done.
    pub checkpoint: Option<PathBuf>,
    /// The step of the adapter that was kept.
    pub adapter_step: usize,
}

/// A run in progress.
pub(super) struct Run<'a, 'm, B: Backend> {
    pub(super) config: &'a TrainConfig,
    pub(super) stepper: Stepper<'m, B>,
    pub(super) train: Vec<TokenPair>,
    pub(super) validation: Vec<TokenPair>,
    pub(super) state: TrainerState,
    schedule: LinearSchedule,
    pub(super) observer: &'a mut dyn Observer,
    pub(super) world: &'a mut World,
    /// Whether the observer has asked for the end, which the other ranks have still to hear of.
    stops: bool,
    /// What is written, which rank 0 does.
    record: Option<Record<'a>>,
    /// What the run's newest checkpoint holds.
    saved: Option<TrainerState>,
}

/// Trains an adapter and a guard for `model` as `config` says, into `config.output_dir`.
#[cfg(feature = "text")]
pub fn train<B: Backend>(
    model: &Transformer<B>,
    tokenizer: &Tokenizer,
    config: &TrainConfig,
    observer: &mut dyn Observer,
) -> Result<RunSummary> {
    config.validate()?;
    train_in(&RunFolder::open(&config.output_dir)?, model, tokenizer, config, observer)
}

/// [`train`] into a folder that is held already; `config.output_dir` is not looked at.
#[cfg(feature = "text")]
pub fn train_in<B: Backend>(
    folder: &RunFolder,
    model: &Transformer<B>,
    tokenizer: &Tokenizer,
    config: &TrainConfig,
    observer: &mut dyn Observer,
) -> Result<RunSummary> {
    train_among(&mut World::alone(), Some(folder), model, tokenizer, config, observer)
}

/// [`train_in`] on every rank of `world`, each of which computes some of the micro-batches; what is
/// trained is the same, bit by bit, for any number of ranks. Rank 0 has the `folder`, reads what `config`
/// names and writes; the others need the model's files alone. Where `observer` asks a rank to stop, all
/// of them finish the step and end.
///
/// # Errors
/// Errors of all kinds; kind `Cluster` where another rank fails or differs. A rank that ends with one has to
/// [tell](World::leave) the others.
#[cfg(feature = "text")]
pub fn train_among<B: Backend>(
    world: &mut World,
    folder: Option<&RunFolder>,
    model: &Transformer<B>,
    tokenizer: &Tokenizer,
    config: &TrainConfig,
    observer: &mut dyn Observer,
) -> Result<RunSummary> {
    let read = |config: &TrainConfig, observer: &mut dyn Observer| RunData::read(config, tokenizer, observer);
    train_with(world, folder, model, config, observer, read)
}

/// Trains on pairs in memory: neither `config.data` nor `config.val_data` is looked at, nor is
/// `config.output_dir`.
///
/// # Errors
/// Errors of all kinds; see [`ErrorKind`].
pub fn train_on<B: Backend>(
    folder: &RunFolder,
    model: &Transformer<B>,
    data: RunData,
    config: &TrainConfig,
    observer: &mut dyn Observer,
) -> Result<RunSummary> {
    train_with(&mut World::alone(), Some(folder), model, config, observer, |_, _| Ok(data))
}

/// Trains on what `data` gets for the configuration of the model, on rank 0.
fn train_with<B: Backend>(
    world: &mut World,
    folder: Option<&RunFolder>,
    model: &Transformer<B>,
    config: &TrainConfig,
    observer: &mut dyn Observer,
    data: impl FnOnce(&TrainConfig, &mut dyn Observer) -> Result<RunData>,
) -> Result<RunSummary> {
    config.validate()?;
    let config = &config.for_model(&model.config)?;
    if folder.is_some() != (world.rank() == 0) {
        return Err(Error::usage("a run folder: expected one on rank 0, and none on any other rank"));
    }
    let spec = config.resume_from_checkpoint.as_deref();
    let resume = folder.map(|folder| checkpoint::resume_point(folder.path(), spec)).transpose()?.flatten();
    let shared = ranks::share_checkpoint(world, folder.map(RunFolder::path), resume.as_deref())?;
    let checkpoint = shared.as_ref().map(SharedCheckpoint::path);
    let data = ranks::share_data(world, || data(config, observer))?;
    let setup = Setup::new(model, data, config, checkpoint, observer)?;
    let Setup { train, validation, attached, capacity, schedule, state } = setup;
    ranks::require_same_course(world, &state.course)?;
    let policies = config.recompute.candidates();
    let (_, plan) = fitting_sizes(model, &attached, &config.objective(), capacity, policies)?;
    let rows = base_rows(config, &train, &validation);
    let cache = base_cache(model, config, &plan, rows);
    if config.kl_weight > 0.0 {
        cache.require_space(rows * model.config.hidden_size)?;
    }
    let mut stepper = Stepper::new(model, attached, config.objective(), Some(cache), capacity, policies)?;
    if let Some(dir) = checkpoint {
        checkpoint::restore(dir, &mut stepper, &state)?;
    }
    observer.on_start(&RunStart {
        train: &train,
        validation: &validation,
        plan: stepper.plan(),
        device_bytes: stepper.device_bytes(),
        recompute: stepper.recompute(),
        parameters: stepper.attached.params.layout().parameter_count(),
        total_steps: schedule.total_steps,
        resumed_at: (state.global_step > 0).then_some(state.global_step),
        seconds_per_step: seconds_per_step(resume.as_deref()),
        balance: ranks::balance(config, &train.pairs, world),
    });
    let layers = stepper.attached.tapped_layers(model.config.num_hidden_layers);
    let open = |folder| Record::open(folder, &model.backend, config, &state, schedule.total_steps, layers);
    let record = folder.map(open).transpose()?;
    // The same on all ranks, as all of them take part in saving.
    let saved = shared.as_ref().filter(|shared| shared.is_of_run()).map(|_| state.clone());
    let (train, validation) = (train.pairs, validation.pairs);
    let stops = false;
    Run { config, stepper, train, validation, state, schedule, observer, world, stops, record, saved }.run()
}

/// Does what [`train`] does before the first step, and tells the observer with what the run would start.
/// Nothing is written, and no working memory is taken.
///
/// # Errors
/// The errors that [`train`] ends with before its first step, but for a folder or a disk that cannot be
/// written to.
#[cfg(feature = "text")]
pub fn dry_run<B: Backend>(
    model: &Transformer<B>,
    tokenizer: &Tokenizer,
    config: &TrainConfig,
    observer: &mut dyn Observer,
) -> Result<()> {
    config.validate()?;
    let config = &config.for_model(&model.config)?;
    let resume = checkpoint::resume_point(&config.output_dir, config.resume_from_checkpoint.as_deref())?;
    let data = RunData::read(config, tokenizer, observer)?;
    let setup = Setup::new(model, data, config, resume.as_deref(), observer)?;
    let policies = config.recompute.candidates();
    let (sizes, mut plan) =
        fitting_sizes(model, &setup.attached, &config.objective(), setup.capacity, policies)?;
    let rows = base_rows(config, &setup.train, &setup.validation);
    plan.extend(base_cache(model, config, &plan, rows).plan()?);
    observer.on_start(&RunStart {
        train: &setup.train,
        validation: &setup.validation,
        plan: &plan,
        device_bytes: device_bytes(model, &setup.attached, &plan),
        recompute: sizes.shape.recompute,
        parameters: setup.attached.params.layout().parameter_count(),
        total_steps: setup.schedule.total_steps,
        resumed_at: (setup.state.global_step > 0).then_some(setup.state.global_step),
        seconds_per_step: seconds_per_step(resume.as_deref()),
        balance: None,
    });
    Ok(())
}

/// Seconds of a step of the run that a checkpoint belongs to.
fn seconds_per_step(checkpoint: Option<&Path>) -> Option<f64> {
    metrics::seconds_per_step(checkpoint?.parent()?)
}

/// A cache for `rows` of the base model's states, with what the configuration gives it of each memory, as far
/// as the plan leaves it.
fn base_cache<B: Backend>(
    model: &Transformer<B>,
    config: &TrainConfig,
    plan: &[PlanRow],
    rows: usize,
) -> BaseCache<B> {
    let (planned, bytes) = (PlanRow::total(plan), |mib: usize| mib.saturating_mul(1 << 20));
    let left = available_memory().saturating_sub(if B::IN_SYSTEM_MEMORY { planned } else { 0 });
    let cache = BaseCache::new(bytes(config.base_cache_mib).min(left));
    let needed = rows * model.config.hidden_size * size_of::<B::Act>();
    let left = model.backend.free_memory().saturating_sub(planned);
    let of_device = config.base_cache_device_mib.map_or(left / 2, bytes).min(left);
    if B::IN_SYSTEM_MEMORY || config.kl_weight == 0.0 || needed > of_device {
        return cache;
    }
    cache.on_device([rows, model.config.hidden_size])
}

/// The micro-batches of a step of some training pairs.
pub(super) fn cut_step<'a>(
    config: &TrainConfig,
    train: &'a [TokenPair],
    chosen: &[usize],
) -> Vec<Vec<&'a TokenPair>> {
    config.packing().cut(chosen.iter().map(|&i| &train[i]), &config.objective(), false)
}

impl<B: Backend> Run<'_, '_, B> {
    fn run(mut self) -> Result<RunSummary> {
        self.advise();
        let interrupted = match self.all_steps() {
            Ok(()) => false,
            Err(error) if error.kind() == ErrorKind::Interrupted => true,
            Err(error) => return Err(error),
        };
        let adapter_step = match interrupted {
            true => self.save_unsaved().map(|()| self.state.best_step)?,
            false => self.finish()?,
        };
        let newest = self.saved.map(|saved| saved.global_step);
        let run = self.record.as_ref().map_or(self.config.output_dir.as_path(), Record::path);
        let checkpoint = newest.map(|step| checkpoint::path(run, step));
        Ok(RunSummary { state: self.state, interrupted, checkpoint, adapter_step })
    }

    /// Everything up to the last step and what follows it; an error of kind `Interrupted` where an observer
    /// ends it.
    fn all_steps(&mut self) -> Result<()> {
        self.world.enter(self.state.global_step, "begin");
        if self.state.global_step == 0 {
            self.evaluate()?;
        } else if self.state.validation_pending {
            self.after_step()?;
        }
        while self.state.global_step < self.schedule.total_steps && !self.state.stopped_early {
            let chosen = self.pairs_after(self.state.global_step);
            let flow = self.step(&chosen)?;
            // One of several ranks may not go on alone, be it to a validation.
            if flow.is_break() && !self.world.is_alone() {
                return Err(Error::interrupted());
            }
            self.after_step()?;
            if flow.is_break() {
                return Err(Error::interrupted());
            }
        }
        Ok(())
    }

    /// The training pairs of the step after `step` of them.
    fn pairs_after(&self, step: usize) -> Vec<usize> {
        let (epoch, in_epoch) = (step / self.steps_per_epoch(), step % self.steps_per_epoch());
        let per_step = self.config.pairs_per_step();
        let order = epoch_order(self.train.len(), self.config.seed, epoch);
        order.into_iter().skip(in_epoch * per_step).take(per_step).collect()
    }

    /// The training pairs of the step after the next one, if nothing comes between the two.
    fn pairs_ahead(&self) -> Option<Vec<usize>> {
        let step = self.state.global_step + 1;
        let every = [None, self.config.eval_steps, self.config.save_steps];
        if every.into_iter().any(|every| self.is_due(step, every)) {
            return None;
        }
        let pairs = self.pairs_after(step);
        self.unknown_base_states(&pairs).is_empty().then_some(pairs)
    }

    pub(super) fn steps_per_epoch(&self) -> usize {
        self.train.len().div_ceil(self.config.pairs_per_step())
    }

    fn ends_epoch(&self, step: usize) -> bool {
        step.is_multiple_of(self.steps_per_epoch())
    }

    /// Whether something that comes after `every` so many steps, or else after every epoch, and after the
    /// last step comes after `step`.
    fn is_due(&self, step: usize, every: Option<usize>) -> bool {
        every.map_or(self.ends_epoch(step), |n| step.is_multiple_of(n)) || step == self.schedule.total_steps
    }

    fn step(&mut self, chosen: &[usize]) -> Result<ControlFlow<()>> {
        self.world.enter(self.state.global_step + 1, "step");
        self.share_base_states()?;
        self.recall_base_states(chosen)?;
        let started = Instant::now();
        let micro_batches = cut_step(self.config, &self.train, chosen);
        let ahead = self.pairs_ahead().map(|pairs| cut_step(self.config, &self.train, &pairs));
        let lr = self.schedule.lr(self.state.global_step);
        let update =
            Update { lr, weight_decay: self.config.weight_decay, max_grad_norm: self.config.max_grad_norm };
        let (step, stops) = (self.state.global_step as u32, self.stops);
        let stop = &mut || stops || self.observer.should_stop();
        let report =
            self.stepper.step_unless(&micro_batches, ahead.as_deref(), step, update, self.world, stop)?;
        self.state.global_step += 1;
        self.state.validation_pending = true;
        self.state.updates = self.stepper.moments.t;
        let log = self.log(chosen, &report, lr, started.elapsed().as_secs_f64());
        if let Some(record) = &mut self.record {
            record.step(&log)?;
        }
        self.count_skipped(report.skipped)?;
        let flow = self.observer.on_step(&log);
        if self.world.is_alone() {
            return Ok(flow);
        }
        // The others hear of it in the next step.
        self.stops |= flow.is_break();
        Ok(if report.stops { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    fn log(&self, chosen: &[usize], report: &StepReport, learning_rate: f64, seconds: f64) -> StepLog {
        let tokens: usize =
            chosen.iter().map(|&i| self.train[i].secure.len() + self.train[i].vulnerable.len()).sum();
        let (losses, method) = (report.losses, self.config.method);
        let guarded = |figure: f64| method.has_guard().then_some(figure);
        StepLog {
            step: self.state.global_step,
            total_steps: self.schedule.total_steps,
            epoch: self.state.global_step as f64 / self.steps_per_epoch() as f64,
            total: losses.total,
            generation: losses.generation,
            security: method.has_security().then_some(losses.security),
            kl: method.has_kl().then_some(losses.kl),
            mean_score_secure: guarded(losses.mean_score_secure),
            mean_score_vulnerable: guarded(losses.mean_score_vulnerable),
            grad_norm: report.grad_norm,
            learning_rate,
            tokens_per_second: tokens as f64 / seconds,
            seconds,
            skipped: report.skipped,
        }
    }

    fn count_skipped(&mut self, skipped: bool) -> Result<()> {
        self.state.skipped_in_a_row = if skipped { self.state.skipped_in_a_row + 1 } else { 0 };
        self.state.skipped_steps += usize::from(skipped);
        if self.state.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW {
            let error = Error::data(format!(
                "step {}: the gradients of {MAX_SKIPPED_IN_A_ROW} steps in a row were not finite, or beyond 2^15; lower \
                 `learning_rate`, or look for damaged weights",
                self.state.global_step
            ));
            return Err(self.world.agree(self.with_what_is_left(error)));
        }
        Ok(())
    }

    /// Evaluates and saves where it is time to.
    fn after_step(&mut self) -> Result<()> {
        let step = self.state.global_step;
        if self.is_due(step, self.config.eval_steps) {
            self.evaluate()?;
        }
        if self.ends_epoch(step) {
            self.count_epoch();
        }
        self.state.validation_pending = false;
        if self.is_due(step, self.config.save_steps) || self.state.stopped_early {
            self.save_unsaved()?;
        }
        Ok(())
    }

    /// Counts the epochs without a better validation loss. One without any validation does not count.
    fn count_epoch(&mut self) {
        let before = self.state.global_step - self.steps_per_epoch();
        if self.state.evaluations.last().is_none_or(|(step, _)| *step <= before) {
            return;
        }
        let improved = self.state.best_step > before;
        let without = if improved { 0 } else { self.state.epochs_without_improvement + 1 };
        self.state.epochs_without_improvement = without;
        let patience = self.config.early_stop_patience;
        self.state.stopped_early = patience > 0 && without >= patience;
    }

    /// Evaluates, and keeps the adapter if it is the best so far.
    fn evaluate(&mut self) -> Result<()> {
        if self.validation.is_empty() {
            return Ok(());
        }
        self.recall_base_states_of_validation()?;
        self.observer.on_stage(Stage::Validating { pairs: self.validation.len() });
        let (packing, stops) = (self.config.packing(), self.stops);
        let stop = &mut || stops || self.observer.should_stop();
        let evaluation = evaluate(&mut self.stepper, &self.validation, packing, self.world, stop)?;
        let step = self.state.global_step;
        if let Some(record) = &mut self.record {
            record.evaluation(step, &evaluation)?;
        }
        self.observer.on_evaluation(step, &evaluation);
        if !evaluation.total.is_finite() {
            let error = Error::data(format!(
                "step {step}: the validation loss is not finite; lower `learning_rate`, or look for damaged weights"
            ));
            return Err(self.world.agree(self.with_what_is_left(error)));
        }
        let total = evaluation.total;
        self.state.evaluations.push((step, evaluation));
        let trained = step > 0;
        let improved = trained && self.state.best_metric.is_none_or(|best| total < best);
        if improved {
            self.state.best_metric = Some(total);
            self.state.best_step = step;
            self.write_adapter()?;
        }
        Ok(())
    }

    /// Writes a checkpoint of where the run stands, if it has begun and there is none yet.
    fn save_unsaved(&mut self) -> Result<()> {
        if self.state.global_step == 0 || self.saved.as_ref() == Some(&self.state) {
            return Ok(());
        }
        self.world.go_on("save");
        ranks::require_same_state(self.world, &self.stepper)?;
        if let Some(record) = &mut self.record {
            let dir = record.save(&self.stepper, &self.state, self.config)?;
            self.observer.on_checkpoint(&dir);
        }
        self.saved = Some(self.state.clone());
        self.advise();
        Ok(())
    }

    /// Tells the other ranks what to do if some are lost from here on.
    fn advise(&self) {
        if let Some(record) = &self.record {
            let advice = "start all ranks again with `resume_from_checkpoint`";
            self.world.control().advise(format!("{}; {advice}", checkpoint::what_is_left(record.path())));
        }
    }

    /// An error with the checkpoint from which the run can go on.
    fn with_what_is_left(&self, error: Error) -> Error {
        match &self.record {
            Some(record) => error.advice(checkpoint::what_is_left(record.path())),
            None => error,
        }
    }

    fn write_adapter(&self) -> Result<()> {
        self.record.as_ref().map_or(Ok(()), |record| record.write_adapter(&self.stepper, self.config))
    }

    /// Without validation pairs the last state is the best one known; so it is where the best one was found
    /// by a part of the run that wrote to another folder. Returns the step of what is kept.
    fn finish(&self) -> Result<usize> {
        if self.validation.is_empty() || self.record.as_ref().is_some_and(|record| !record.has_adapter()) {
            return self.write_adapter().map(|()| self.state.global_step);
        }
        Ok(self.state.best_step)
    }
}
