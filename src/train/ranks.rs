//! What the ranks of a run give each other: rank 0 reads the pairs and the checkpoint for all of them, and
//! what they compute is put together in sums that are exact.

use std::fs;
use std::path::{Path, PathBuf};

use bytemuck::Zeroable;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::dist::World;
use crate::dist::assign::{self, Shape};
use crate::error::{Context, Error, ErrorKind, Result, list};
use crate::ops::Backend;
use crate::train::batch::TokenPair;
use crate::train::checkpoint::is_inside;
use crate::train::config::TrainConfig;
use crate::train::course::Course;
use crate::train::data::TokenizedPairs;
use crate::train::division::{from_bits, to_bits};
use crate::train::objective::Sums;
use crate::train::packing::Packing;
use crate::train::run_data::RunData;
use crate::train::schedule::epoch_order;
use crate::train::step::{Moments, Stepper};

/// The pairs that rank 0 reads.
pub(super) fn share_data(world: &mut World, read: impl FnOnce() -> Result<RunData>) -> Result<RunData> {
    if world.is_alone() {
        return read();
    }
    let own = (world.rank() == 0).then(read).transpose()?;
    let pairs = own.as_ref().map(|data| (&data.train.pairs, &data.validation.pairs));
    let (train, validation): (Vec<TokenPair>, Vec<TokenPair>) = share(world, "pairs", pairs)?;
    let of = |pairs| TokenizedPairs { pairs, ..TokenizedPairs::default() };
    Ok(own.unwrap_or_else(|| RunData { train: of(train), validation: of(validation) }))
}

/// A checkpoint as every rank can read it.
pub(super) struct SharedCheckpoint {
    path: PathBuf,
    /// Whether it is one of this run, not of another one that is gone on with.
    is_of_run: bool,
    /// Where rank 0's files are on any other rank.
    _copy: Option<TempDir>,
}

impl SharedCheckpoint {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_of_run(&self) -> bool {
        self.is_of_run
    }
}

/// The checkpoint from which a run in rank 0's folder `run` goes on, whose files all other ranks get.
pub(super) fn share_checkpoint(
    world: &mut World,
    run: Option<&Path>,
    own: Option<&Path>,
) -> Result<Option<SharedCheckpoint>> {
    let is_of_run = run.zip(own).is_some_and(|(run, checkpoint)| is_inside(checkpoint, run));
    if world.is_alone() {
        return Ok(own.map(|path| SharedCheckpoint { path: path.to_owned(), is_of_run, _copy: None }));
    }
    let told = own.map(file_names).transpose()?.map(|names| (names, is_of_run));
    let told: Option<(Vec<String>, bool)> = share(world, "checkpoint", (world.rank() == 0).then_some(told))?;
    let Some((names, is_of_run)) = told else { return Ok(None) };
    let copy = match own {
        Some(_) => None,
        None => {
            Some(TempDir::new().kind(ErrorKind::Device, || "cannot keep a copy of the checkpoint".into())?)
        }
    };
    for name in names {
        share_file(world, own, copy.as_ref().map(TempDir::path), &name)?;
    }
    let path = own.or(copy.as_ref().map(TempDir::path)).map(Path::to_owned);
    Ok(path.map(|path| SharedCheckpoint { path, is_of_run, _copy: copy }))
}

/// Names of the files of a folder, in order.
fn file_names(dir: &Path) -> Result<Vec<String>> {
    let complain = || format!("cannot read {}", dir.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).kind(ErrorKind::Model, complain)? {
        let entry = entry.kind(ErrorKind::Model, complain)?;
        if entry.path().is_file() {
            names.extend(entry.file_name().into_string());
        }
    }
    names.sort();
    Ok(names)
}

fn share_file(world: &mut World, from: Option<&Path>, to: Option<&Path>, name: &str) -> Result<()> {
    let mut bytes = match from {
        Some(dir) => {
            let path = dir.join(name);
            fs::read(&path).kind(ErrorKind::Model, || format!("cannot read {}", path.display()))?
        }
        None => Vec::new(),
    };
    world.broadcast("checkpoint", 0, &mut bytes)?;
    match to {
        Some(dir) => {
            let path = dir.join(name);
            fs::write(&path, bytes).kind(ErrorKind::Device, || format!("cannot write {}", path.display()))
        }
        None => Ok(()),
    }
}

/// A value of rank 0, which it alone gives.
fn share<T: DeserializeOwned>(world: &mut World, phase: &str, own: Option<impl Serialize>) -> Result<T> {
    let complain = || format!("{phase}, as ranks tell each other");
    let encoded =
        own.map(|value| serde_json::to_vec(&value)).transpose().kind(ErrorKind::Internal, complain)?;
    let mut bytes = encoded.unwrap_or_default();
    world.broadcast(phase, 0, &mut bytes)?;
    serde_json::from_slice(&bytes).kind(ErrorKind::Internal, complain)
}

/// Refuses ranks that would train something else than rank 0.
///
/// # Errors
/// Kind `Usage` on all ranks, with every difference.
pub(super) fn require_same_course(world: &mut World, course: &Course) -> Result<()> {
    if world.is_alone() {
        return Ok(());
    }
    let of_root: Course = share(world, "course", (world.rank() == 0).then_some(course))?;
    let own = of_root.differences(course).join("; ");
    let found = world.all_gather("course", own.as_bytes())?;
    let differs = |(rank, text): (usize, &Vec<u8>)| {
        (!text.is_empty()).then(|| format!("rank {rank}: {}", String::from_utf8_lossy(text)))
    };
    let differences: Vec<String> = found.iter().enumerate().filter_map(differs).collect();
    if differences.is_empty() {
        return Ok(());
    }
    let error = Error::usage(list("ranks that differ from rank 0 (there)", differences));
    Err(world.agree(error.advice("start all ranks with the same model, pairs and options")))
}

/// Refuses ranks whose parameters, moments or statistics have become others than those of rank 0.
///
/// # Errors
/// Kind `Cluster` on all ranks.
pub(super) fn require_same_state<B: Backend>(world: &mut World, stepper: &Stepper<'_, B>) -> Result<()> {
    if world.is_alone() {
        return Ok(());
    }
    let own = state_hash(stepper)?;
    let hashes = world.all_gather("comparison of parameters", own.as_bytes())?;
    match hashes.iter().position(|hash| *hash != hashes[0]) {
        None => Ok(()),
        Some(rank) => Err(world.agree(Error::cluster(format!(
            "rank {rank} has other parameters than rank 0, though both have done the same steps: a processor, its memory \
             or what connects the ranks does not work; nothing was saved of this step"
        )))),
    }
}

/// BLAKE3 of parameters, moments and token statistics.
fn state_hash<B: Backend>(stepper: &Stepper<'_, B>) -> Result<blake3::Hash> {
    let backend = &stepper.model().backend;
    let Moments { m, v, .. } = &stepper.moments;
    let mut hasher = blake3::Hasher::new();
    for values in [stepper.attached.params.master(), m.view(), v.view()] {
        let mut host = vec![0.0; values.len()];
        backend.fetch::<f32>(&mut host, values)?;
        hasher.update_rayon(bytemuck::cast_slice(&host));
    }
    if let Some(stats) = &stepper.attached.stats {
        hasher.update(bytemuck::cast_slice(&stats.values()));
    }
    Ok(hasher.finalize())
}

/// What people should know about how evenly the ranks share the work, if there is something.
pub(super) fn balance(config: &TrainConfig, pairs: &[TokenPair], world: &World) -> Option<String> {
    let Packing::Pairs(micro_batch) = config.packing() else { return None };
    let order = epoch_order(pairs.len(), config.seed, 0);
    let costs: Vec<u64> = order.into_iter().map(|i| pairs[i].cost()).collect();
    let shape = Shape { step: config.pairs_per_step(), micro_batch, ranks: world.ranks() };
    assign::advice(&costs, shape)
}

/// Gives every rank the base model's states of training `pairs` (number, rows) that another one has. So
/// nobody computes them twice, though a pair is on another rank in every epoch.
pub(super) fn share_base_states<B: Backend>(
    world: &mut World,
    stepper: &mut Stepper<'_, B>,
    pairs: &[(usize, usize)],
) -> Result<()> {
    let phase = "base states";
    let has = |pair: usize| stepper.base_cache.as_ref().is_some_and(|cache| cache.contains(pair));
    let own: Vec<u8> = pairs.iter().map(|(pair, _)| u8::from(has(*pair))).collect();
    let known = world.all_gather(phase, &own)?;
    for (i, (pair, rows)) in pairs.iter().enumerate() {
        let has = |of_rank: &Vec<u8>| of_rank.get(i) == Some(&1);
        let Some(root) = known.iter().position(has) else { continue };
        if known.iter().all(has) {
            continue;
        }
        let mut states = Vec::new();
        if root == world.rank() {
            states = stepper.recalled_states(*pair, *rows)?;
        }
        world.broadcast(phase, root, &mut states)?;
        if own[i] == 0 {
            stepper.keep_states(*pair, *rows, &states)?;
        }
    }
    Ok(())
}

impl<B: Backend> Stepper<'_, B> {
    /// Adds up what all ranks have computed of a step: the sums of the gradients, and the losses of each
    /// micro-batch, which one rank alone has. Returns the sum of the squared gradients and whether any rank
    /// asks to `stop`.
    pub(super) fn combine(
        &mut self,
        world: &mut World,
        losses: &mut [Sums],
        stop: bool,
    ) -> Result<(f64, bool)> {
        let mut slots: Vec<i64> = losses.iter().flat_map(Sums::figures).map(to_bits).collect();
        slots.push(i64::from(stop));
        self.add_up(world, &mut slots)?;
        let (figures, _) = slots.as_chunks::<{ Sums::LEN }>();
        for (sums, bits) in losses.iter_mut().zip(figures) {
            *sums = Sums::from_figures(bits.map(from_bits));
        }
        let stops = slots.last() != Some(&0);
        self.take_gradients();
        let (_, squares) = self.memory.results.fetch(&self.model.backend, Vec::new())?;
        Ok((squares, stops))
    }

    /// Adds up the sums of gradients and `slots` over all ranks: those on GPUs where they are, if what
    /// connects the ranks reaches them.
    fn add_up(&mut self, world: &mut World, slots: &mut Vec<i64>) -> Result<()> {
        let phase = "sum of gradients";
        let (backend, sums) = (&self.model.backend, &mut self.memory.sums);
        if world.fabric().is_some_and(|fabric| fabric.reaches_gpus()) && !B::IN_SYSTEM_MEMORY {
            backend.finish()?;
            let (address, len) = (sums.view_mut().address(), sums.len());
            return world.collective(phase, |fabric| {
                // SAFETY: these are the values of a buffer that is borrowed, and all work is done.
                unsafe { fabric.all_reduce_on_gpu(address, len) }?;
                fabric.all_reduce(slots)
            });
        }
        let mut all = vec![0; sums.len()];
        backend.fetch(&mut all, sums.view())?;
        all.append(slots);
        world.all_reduce(phase, &mut all)?;
        *slots = all.split_off(sums.len());
        backend.upload(sums.view_mut(), &all);
        Ok(())
    }

    /// The cached states `[rows, hidden_size]` of a pair, as bytes.
    fn recalled_states(&mut self, pair: usize, rows: usize) -> Result<Vec<u8>> {
        let (backend, len) = (&self.model.backend, rows * self.model.config.hidden_size);
        let Some(cache) = &self.base_cache else { return Ok(Vec::new()) };
        cache.recall(backend, pair, 0, self.memory.acts.hidden.first_mut(len))?;
        backend.join_prefetches();
        let mut states = vec![B::Act::zeroed(); len];
        backend.fetch(&mut states, self.memory.acts.hidden.first(len))?;
        Ok(bytemuck::cast_slice(&states).to_vec())
    }

    /// Keeps what another rank has [recalled](Self::recalled_states).
    fn keep_states(&mut self, pair: usize, rows: usize, states: &[u8]) -> Result<()> {
        let (backend, Some(cache)) = (&self.model.backend, &mut self.base_cache) else { return Ok(()) };
        let mut host = vec![B::Act::zeroed(); rows * self.model.config.hidden_size];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut host);
        if bytes.len() != states.len() {
            return Err(Error::cluster(format!(
                "base states of pair {pair}: expected {} bytes of another rank, found {}; start all ranks with the same \
                 program and model",
                bytes.len(),
                states.len()
            )));
        }
        bytes.copy_from_slice(states);
        backend.upload(self.memory.acts.hidden.first_mut(host.len()), &host);
        cache.insert(backend, pair, self.memory.acts.hidden.first(host.len()))
    }
}
