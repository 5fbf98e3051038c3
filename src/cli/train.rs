//! Runs of `dg-run train`.

use std::path::Path;

use anyhow::{Context, Result};

use super::config::TrainOptions;
use super::device::{DeviceArgs, Task};
use super::progress::{Progress, limit_warnings, outlook, stage_text};
use super::ranks::share_of_cores;
use super::say::{detail, leave_it_to_rank_0, note, warn};
use super::signals::{Signal, Signals};
use super::spawn::{self, Success};
use super::summary::before_and_after;
use super::train_args::TrainArgs;
use super::{kind, on_threads, print};
use crate::deepguard::{AnyDevice, BaseShares, DeepGuard, ShardBase, share_base};
use crate::dist::World;
use crate::dist::launch::Launch;
use crate::error::{Error, ErrorKind};
use crate::hub::commit_of;
use crate::model::config::Config;
use crate::ops::{Backend, Element};
use crate::train::checkpoint;
use crate::train::observer::{RunStart, Stage};
use crate::train::run_folder::FINAL_ADAPTER;
use crate::train::{Observer, RunFolder, RunSummary, TrainConfig, dry_run, train_among};

/// Trains, or shows what training would do.
pub(super) fn run(args: &TrainArgs, options: &TrainOptions, signals: &Signals) -> Result<()> {
    let TrainOptions { config, place, .. } = options;
    if args.dry_run {
        let task = DryRun { config };
        let revision = config.model_revision.as_deref();
        return on_threads(place.threads, || place.device.run(&config.model, revision, task));
    }
    let launch = args.ranks.launch()?;
    if launch.world > 1 || args.ranks.nproc.is_some() {
        refuse_sizes_of_each_device(options)?;
    }
    if let Some(nproc) = args.ranks.nproc {
        return spawn::run(nproc, &launch, signals, Success::OfEach);
    }
    let threads = place.threads.or_else(|| share_of_cores(&launch));
    on_threads(threads, || run_rank(args, options, launch, signals))
}

/// Refuses a size of micro-batches that two people may read in two ways.
fn refuse_sizes_of_each_device(TrainOptions { config, each_device, .. }: &TrainOptions) -> Result<()> {
    let Some(name) = each_device else { return Ok(()) };
    let (pairs, per_step) = (config.batch_size, config.pairs_per_step());
    Err(Error::usage(format!(
        "{name}: with several ranks this may mean {per_step} pairs a step in all, or {per_step} on each of them; here a step \
         has the same pairs for any number of ranks: give --batch-size {pairs} (pairs of a micro-batch, which one rank \
         computes) and --gradient-accumulation-steps (micro-batches of a step, over all ranks)"
    ))
    .into())
}

/// Trains as one rank, which the others hear of.
fn run_rank(args: &TrainArgs, options: &TrainOptions, launch: Launch, signals: &Signals) -> Result<()> {
    if launch.rank > 0 {
        leave_it_to_rank_0();
    }
    let device = options.place.device.of_rank(&launch);
    let (mut world, device) = args.ranks.join(launch, device, &note)?;
    let trained = train(options, args.shard_base, &device, &mut world, signals);
    let summary = match trained {
        Ok(summary) => summary,
        Err(error) => {
            world.leave(&Error::new(kind(&error), format!("{error:#}")));
            return Err(error);
        }
    };
    world.finish()?;
    if summary.interrupted {
        return Err(stopped(&summary, signals).into());
    }
    report(&summary, &options.config.output_dir);
    Ok(())
}

fn train(
    TrainOptions { config, .. }: &TrainOptions,
    shard_base: ShardBase,
    device: &DeviceArgs,
    world: &mut World,
    signals: &Signals,
) -> Result<RunSummary> {
    world.require_collectives()?;
    // Before the model is loaded, which may take long.
    let folder = (world.rank() == 0).then(|| RunFolder::open(&config.output_dir)).transpose()?;
    if let Some(folder) = &folder {
        let spec = config.resume_from_checkpoint.as_deref();
        if checkpoint::resume_point(folder.path(), spec)?.is_some() {
            signals.can_resume();
        }
    }
    let mut summary = None;
    let (folder, revision) = (folder.as_ref(), config.model_revision.as_deref());
    let task = Training { config, shard_base, shares: None, folder, world, signals, summary: &mut summary };
    device.run(&config.model, revision, task)?;
    summary.context("training without a result")
}

struct DryRun<'a> {
    config: &'a TrainConfig,
}

impl Task for DryRun<'_> {
    fn check(&self, model: &Config) -> Result<()> {
        self.config.for_model(model).map(drop).map_err(Into::into)
    }

    fn run<B: Backend>(self, guard: DeepGuard<B>) -> Result<()> {
        note(&start_text(&guard, self.config));
        let mut outlook = Outlook::default();
        dry_run(&guard.model, &guard.tokenizer, self.config, &mut outlook)?;
        print(&format!("{}nothing was written\n", outlook.text))?;
        Ok(())
    }
}

/// What a run would start with, as text.
#[derive(Default)]
struct Outlook {
    text: String,
}

impl Observer for Outlook {
    fn on_stage(&mut self, stage: Stage) {
        detail(&stage_text(stage));
    }

    fn on_start(&mut self, start: &RunStart<'_>) {
        self.text = outlook(start);
        limit_warnings(start).iter().for_each(|text| warn(text));
    }
}

struct Training<'a> {
    config: &'a TrainConfig,
    shard_base: ShardBase,
    /// This rank's part of the base model, if it shares that with others.
    shares: Option<BaseShares>,
    /// On rank 0.
    folder: Option<&'a RunFolder>,
    world: &'a mut World,
    signals: &'a Signals,
    summary: &'a mut Option<RunSummary>,
}

impl Task for Training<'_> {
    fn check(&self, model: &Config) -> Result<()> {
        self.config.for_model(model).map(drop).map_err(Into::into)
    }

    fn prepare(&mut self, device: &AnyDevice, model: &Config) -> Result<()> {
        let cuda = match device {
            AnyDevice::Cuda(cuda) => Some(cuda),
            AnyDevice::Cpu(_) => None,
        };
        self.shares = share_base(self.world, cuda, model, self.shard_base)?;
        Ok(())
    }

    fn run<B: Backend>(self, guard: DeepGuard<B>) -> Result<()> {
        note(&start_text(&guard, self.config));
        if let Some(shares) = &self.shares {
            shares.wait_for_all(self.world)?;
            note(&format!(
                "{} ranks share the base model, whose blocks take {} MiB of this GPU",
                shares.ranks(),
                shares.bytes().div_ceil(1 << 20)
            ));
        }
        if !self.world.is_alone() {
            note(&format!("{} ranks, of which this is the first", self.world.ranks()));
        }
        let mut progress = Progress::new(self.signals);
        // What a branch was when the run began is what the run's configuration has to name.
        let mut config = self.config.clone();
        config.model_revision = commit_of(guard.model.dir()).map(str::to_owned);
        let DeepGuard { model, tokenizer, .. } = &guard;
        let summary = train_among(self.world, self.folder, model, tokenizer, &config, &mut progress);
        progress.finish();
        *self.summary = Some(summary?);
        self.shares.map_or(Ok(()), |shares| shares.finish(self.world))?;
        Ok(())
    }
}

/// What a finished run says of itself.
fn report(summary: &RunSummary, output_dir: &Path) {
    let state = &summary.state;
    if state.stopped_early {
        note(&format!(
            "stopped early after {} epochs without a better loss",
            state.epochs_without_improvement
        ));
    }
    if let Some(table) = before_and_after(state) {
        note(&table);
    }
    note(&format!("adapter: {}", output_dir.join(FINAL_ADAPTER).display()));
    if summary.adapter_step > state.best_step && state.best_step > 0 {
        note(&format!(
            "it is that of the last step; the lowest validation loss was that of step {}, whose adapter is in the \
             folder from which the run went on",
            state.best_step
        ));
    }
}

/// What computes what, and where the result goes.
fn start_text<B: Backend>(guard: &DeepGuard<B>, config: &TrainConfig) -> String {
    let model = &guard.model.config;
    format!(
        "model: {}, {} with {} layers of width {}\ncomputes on: {}, in {}, {} threads; run folder: {}",
        config.model,
        model.architecture.model_type(),
        model.num_hidden_layers,
        model.hidden_size,
        guard.model.backend.description(),
        B::Act::NAME,
        rayon::current_num_threads(),
        config.output_dir.display()
    )
}

/// What a run that was stopped ends with.
fn stopped(summary: &RunSummary, signals: &Signals) -> Error {
    let by = signals.received().map_or("a signal to another rank", Signal::name);
    match &summary.checkpoint {
        Some(checkpoint) => Error::new(
            ErrorKind::Preempted,
            format!(
                "stopped by {by}; the run goes on from {} with --resume-from-checkpoint",
                checkpoint.display()
            ),
        ),
        None => Error::new(
            ErrorKind::Interrupted,
            format!("stopped by {by} before the first step; there is nothing to save"),
        ),
    }
}
