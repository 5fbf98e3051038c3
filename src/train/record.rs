//! What a run writes into its folder: checkpoints, the adapter, metrics and events. One process does.

use std::path::{Path, PathBuf};

use crate::adapter;
use crate::error::Result;
use crate::files::{require_space, write_json};
use crate::manifest::commit_dir;
use crate::ops::Backend;
use crate::train::checkpoint::{self, TrainerState};
use crate::train::config::TrainConfig;
use crate::train::environment::Environment;
use crate::train::evaluation::Evaluation;
use crate::train::metrics::MetricsFile;
use crate::train::observer::StepLog;
use crate::train::run_folder::{FINAL_ADAPTER, RunFolder};
use crate::train::step::Stepper;
use crate::train::tensorboard::EventFile;

/// A run folder, and the files in it that grow with the run.
pub(super) struct Record<'a> {
    folder: &'a RunFolder,
    metrics: MetricsFile,
    events: EventFile,
}

impl<'a> Record<'a> {
    /// Goes on with what the folder has up to `state`. The guard looks at `layers` of the model.
    pub(super) fn open<B: Backend>(
        folder: &'a RunFolder,
        backend: &B,
        config: &TrainConfig,
        state: &TrainerState,
        total_steps: usize,
        layers: Vec<usize>,
    ) -> Result<Self> {
        let run = folder.path();
        let metrics = MetricsFile::open(run, state)?;
        let events = EventFile::create(run, state.global_step)?;
        Environment::new(backend, state.global_step, total_steps, layers).append(run)?;
        write_json(&run.join("train_config.json"), config)?;
        Ok(Record { folder, metrics, events })
    }

    /// The folder.
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn step(&mut self, log: &StepLog) -> Result<()> {
        self.metrics.write("train", log.step, log)?;
        self.events.scalars("train", log.step, log)
    }

    pub(super) fn evaluation(&mut self, step: usize, evaluation: &Evaluation) -> Result<()> {
        self.metrics.write("validation", step, evaluation)?;
        self.events.scalars("eval", step, evaluation)
    }

    /// Writes a checkpoint, and returns its folder.
    pub(super) fn save<B: Backend>(
        &mut self,
        stepper: &Stepper<'_, B>,
        state: &TrainerState,
        config: &TrainConfig,
    ) -> Result<PathBuf> {
        self.metrics.sync()?;
        checkpoint::save(self.path(), stepper, state, &config.model, config.save_total_limit)
    }

    pub(super) fn write_adapter<B: Backend>(
        &self,
        stepper: &Stepper<'_, B>,
        config: &TrainConfig,
    ) -> Result<()> {
        let dir = self.path().join(FINAL_ADAPTER);
        require_space(&dir, adapter::written_bytes(&stepper.attached))
            .map_err(|e| e.advice(checkpoint::make_room(self.path())))?;
        let model = &stepper.model().config;
        commit_dir(&dir, |dir| adapter::save(dir, &stepper.attached, model, &config.model))
    }

    /// Whether there is a finished adapter.
    pub(super) fn has_adapter(&self) -> bool {
        self.path().join(FINAL_ADAPTER).exists()
    }
}
