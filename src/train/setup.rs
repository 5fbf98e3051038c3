//! What a run is made of before its first step: its data, its schedule, and where it stands.

use std::path::Path;

use crate::attached::Attached;
use crate::error::Result;
use crate::init::initialize;
use crate::model::activations::Rows;
use crate::model::prefix::CONTROLS;
use crate::model::transformer::Transformer;
use crate::ops::Backend;
use crate::train::batch::TokenPair;
use crate::train::checkpoint::{self, TrainerState};
use crate::train::config::TrainConfig;
use crate::train::course::Course;
use crate::train::data::TokenizedPairs;
use crate::train::method::Method;
use crate::train::observer::{Observer, Stage};
use crate::train::packing::Packing;
use crate::train::run_data::RunData;
use crate::train::schedule::{LinearSchedule, epoch_order};

/// A run before its first step, and before anything is written.
pub(super) struct Setup<B: Backend> {
    pub(super) train: TokenizedPairs,
    pub(super) validation: TokenizedPairs,
    /// An adapter with its initial values.
    pub(super) attached: Attached<B>,
    /// Rows of the largest micro-batch.
    pub(super) capacity: (Rows, usize),
    pub(super) schedule: LinearSchedule,
    /// Where the run stands: at its beginning, or at the checkpoint from which it goes on.
    pub(super) state: TrainerState,
}

impl<B: Backend> Setup<B> {
    /// Reads, where the run goes on from one, the state of a checkpoint. `config` is
    /// [for the model](TrainConfig::for_model).
    pub(super) fn new(
        model: &Transformer<B>,
        data: RunData,
        config: &TrainConfig,
        resume: Option<&Path>,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        data.require_changes(config.method)?;
        let RunData { train, validation } = data;
        let (backend, of_model) = (&model.backend, &model.config);
        let mut attached = match config.method.has_prefixes() {
            true => Attached::with_prefixes(backend, of_model, config.prefix(), CONTROLS.len())?,
            false => Attached::new(backend, of_model, config.lora(of_model), config.guard())?,
        };
        initialize(&mut attached, config.seed);
        let schedule = schedule(config, train.pairs.len());
        let capacity = capacity(config, &train.pairs, &validation.pairs, schedule.total_steps)?;
        observer.on_stage(Stage::Fingerprint);
        let course = Course::new(config, [&train.pairs, &validation.pairs], model)?;
        let state = match resume {
            Some(dir) => checkpoint::read_state(dir, &course)?,
            None => TrainerState { course, ..TrainerState::default() },
        };
        Ok(Setup { train, validation, attached, capacity, schedule, state })
    }
}

/// Rows that the micro-batches of a run need at most: of any pairs where so many are computed at once, of
/// those that there will be where it is rows.
fn capacity(
    config: &TrainConfig,
    train: &[TokenPair],
    validation: &[TokenPair],
    total_steps: usize,
) -> Result<(Rows, usize)> {
    let (packing, objective) = (config.packing(), config.objective());
    if let Packing::Pairs(batch_size) = packing {
        return Ok(objective.capacity(train.iter().chain(validation), batch_size));
    }
    packing.require_room(train, &objective, false)?;
    packing.require_room(validation, &objective, true)?;
    let in_epoch = train.len().div_ceil(config.pairs_per_step());
    let epochs = 0..total_steps.div_ceil(in_epoch.max(1));
    let steps_of = |epoch: usize| -> Vec<Vec<&TokenPair>> {
        let order = epoch_order(train.len(), config.seed, epoch);
        order.chunks(config.pairs_per_step()).map(|step| step.iter().map(|&i| &train[i]).collect()).collect()
    };
    let steps = epochs.flat_map(steps_of).take(total_steps);
    Ok(packing.largest(steps, in_epoch, validation, &objective))
}

/// Learning rates of a run over so many training pairs.
fn schedule(config: &TrainConfig, pairs: usize) -> LinearSchedule {
    let all = pairs.div_ceil(config.pairs_per_step()) * config.num_epochs;
    let total_steps = config.max_steps.map_or(all, |most| most.min(all));
    let warmup_steps = (total_steps as f64 * config.warmup_ratio).round() as usize;
    LinearSchedule { peak: config.learning_rate, warmup_steps, total_steps }
}

/// Rows of hidden states of the base model that a run keeps: those of the pairs that it sees.
pub(super) fn base_rows(config: &TrainConfig, train: &TokenizedPairs, validation: &TokenizedPairs) -> usize {
    let rows = |pair: &TokenPair| base_rows_of(config.method, pair);
    let seen = config.max_steps.map_or(usize::MAX, |steps| steps.saturating_mul(config.pairs_per_step()));
    let first = epoch_order(train.pairs.len(), config.seed, 0).into_iter().take(seen);
    first.map(|i| rows(&train.pairs[i])).sum::<usize>() + validation.pairs.iter().map(rows).sum::<usize>()
}

/// Rows of hidden states of the base model that are kept of a pair: those of the secure function, or of both.
pub(super) fn base_rows_of(method: Method, pair: &TokenPair) -> usize {
    pair.secure.len() + if method.has_prefixes() { pair.vulnerable.len() } else { 0 }
}
