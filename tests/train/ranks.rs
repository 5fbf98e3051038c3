//! Several ranks train what one does, bit by bit.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use deepguard::adapter::FINAL_ADAPTER;
use deepguard::cpu::Cpu;
use deepguard::dist::World;
use deepguard::dist::fabric::Fabric;
use deepguard::train::observer::Stage;
use deepguard::train::{Observer, RunFolder, RunSummary, TrainConfig, train_among};
use deepguard::{DeepGuard, Error, ErrorKind, Result};

use super::rank_threads::threads;
use super::tiny::{self, Tiny, folder};
use super::{StopAfter, checkpoint_names, config, metrics, train};

/// Twenty pairs in steps of six micro-batches, and validation: eight steps, four of them with base states
/// from the first epoch.
fn many(tiny: &Tiny, run: &str) -> TrainConfig {
    tiny::write_pairs(&tiny.path("many/train/pairs.jsonl"), 0..20);
    tiny::write_pairs(&tiny.path("many/val/pairs.jsonl"), 20..27);
    config(tiny, run).with(|o| {
        o.data = tiny.path("many");
        o.gradient_accumulation_steps = 6;
        o.save_steps = Some(3);
    })
}

/// What every rank of a run ends with. `of_rank` gives its collectives, configuration and observer.
fn train_ranks<O: Observer>(
    config: &TrainConfig,
    ranks: usize,
    of_rank: impl Fn(usize, Box<dyn Fabric>) -> (Box<dyn Fabric>, TrainConfig, O) + Sync,
) -> Vec<Result<RunSummary>> {
    let run = RunFolder::open(&config.output_dir).unwrap();
    let train = |fabric: Box<dyn Fabric>| {
        let rank = fabric.rank();
        let (fabric, config, mut observer) = of_rank(rank, fabric);
        let guard = DeepGuard::load(Cpu::new(), &config.model)?;
        let DeepGuard { model, tokenizer, .. } = &guard;
        let folder = (rank == 0).then_some(&run);
        train_among(&mut World::over(fabric), folder, model, tokenizer, &config, &mut observer)
    };
    std::thread::scope(|scope| {
        let fabrics = threads(ranks).into_iter().map(|fabric| Box::new(fabric) as Box<dyn Fabric>);
        let all: Vec<_> = fabrics.map(|fabric| scope.spawn(|| train(fabric))).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Only rank 0 needs the data, and a checkpoint to go on from.
fn of_rank(config: &TrainConfig, rank: usize) -> TrainConfig {
    let nowhere = |o: &mut TrainConfig| {
        if rank > 0 {
            o.data = "nowhere".into();
            o.output_dir = "nowhere".into();
            o.resume_from_checkpoint = None;
        }
    };
    config.clone().with(nowhere)
}

#[track_caller]
fn assert_same_run(one: &Path, other: &Path) {
    assert_eq!(metrics(one), metrics(other), "metrics");
    assert_eq!(checkpoint_names(one), checkpoint_names(other));
    let folders = checkpoint_names(one).into_iter().chain([FINAL_ADAPTER.to_owned()]);
    for name in folders {
        let [one, other] = [one, other].map(|run| folder(&run.join(&name)));
        assert_eq!(one.len(), other.len(), "{name}");
        for ((file, content), other) in one.iter().zip(&other) {
            assert!(other == &(file.clone(), content.clone()), "{name}/{file} differs");
        }
    }
}

/// A sum before it is made, and after.
#[derive(Clone, Copy, PartialEq)]
enum Sum {
    Own,
    OfAll,
}

/// Collectives whose sums are looked at.
struct Watched<F>(Box<dyn Fabric>, F);

impl<F: FnMut(Sum, &mut [i64]) + Send> Fabric for Watched<F> {
    fn name(&self) -> String {
        self.0.name()
    }
    fn rank(&self) -> usize {
        self.0.rank()
    }
    fn world(&self) -> usize {
        self.0.world()
    }
    fn heed(&mut self, failed: Box<dyn Fn() -> bool + Send>) {
        self.0.heed(failed);
    }
    fn all_reduce(&mut self, values: &mut [i64]) -> Result<()> {
        self.1(Sum::Own, values);
        self.0.all_reduce(values)?;
        self.1(Sum::OfAll, values);
        Ok(())
    }
    fn broadcast(&mut self, root: usize, bytes: &mut Vec<u8>) -> Result<()> {
        self.0.broadcast(root, bytes)
    }
    fn finish(self: Box<Self>) -> Result<()> {
        self.0.finish()
    }
}

/// Sees that nothing is computed that another rank has computed before.
struct Frugal;

impl Observer for Frugal {
    fn on_stage(&mut self, stage: Stage) {
        assert!(stage != Stage::BaseStates, "base states of another rank are computed again");
    }
}

#[test]
fn any_number_of_ranks_trains_the_same_bits() {
    let tiny = Tiny::new("llama");
    let alone = many(&tiny, "alone");
    train(&alone).unwrap();
    for ranks in [2, 3, 4, 8] {
        let several = many(&tiny, &format!("of-{ranks}"));
        let shares: Vec<AtomicUsize> = (0..ranks).map(|_| AtomicUsize::new(0)).collect();
        let shares = Arc::new(shares);
        let of = |rank: usize, fabric: Box<dyn Fabric>| {
            let shares = shares.clone();
            // What a rank has not computed is 0.
            let see = move |sum: Sum, values: &mut [i64]| {
                let has_any = values.iter().any(|value| *value != 0);
                shares[rank].fetch_add(usize::from(sum == Sum::Own && has_any), Ordering::Relaxed);
            };
            (Box::new(Watched(fabric, see)) as Box<dyn Fabric>, of_rank(&several, rank), Frugal)
        };
        for (rank, end) in train_ranks(&several, ranks, of).into_iter().enumerate() {
            let summary = end.unwrap_or_else(|error| panic!("rank {rank} of {ranks}: {error}"));
            assert!(!summary.interrupted && summary.state.global_step == 8);
        }
        assert_same_run(&alone.output_dir, &several.output_dir);
        // Steps have six micro-batches, the last of an epoch two.
        let busy = shares.iter().filter(|sums| sums.load(Ordering::Relaxed) > 0).count();
        assert_eq!(busy, ranks.min(7), "ranks with something to compute");
    }
}

#[test]
fn a_run_goes_on_with_another_number_of_ranks() {
    let tiny = Tiny::new("qwen2");
    let whole = many(&tiny, "whole");
    train(&whole).unwrap();
    let parts = many(&tiny, "parts").with(|o| o.resume_from_checkpoint = Some("auto".to_owned()));
    // Rank 2 asks for the end after step 2, of which the others hear in step 3; then rank 1 after step 5.
    for (ranks, asking, after, reached) in [(3, 2, 2, 3), (2, 1, 5, 6)] {
        let stopping = |rank: usize, fabric| {
            let after = if rank == asking { after } else { usize::MAX };
            (fabric, of_rank(&parts, rank), StopAfter(after))
        };
        for end in train_ranks(&parts, ranks, stopping) {
            let summary = end.unwrap();
            assert!(summary.interrupted, "{ranks}");
            assert_eq!(summary.state.global_step, reached);
        }
    }
    train(&parts).unwrap();
    assert_same_run(&whole.output_dir, &parts.output_dir);
}

/// Asks for the end at once.
struct Impatient(bool);

impl Observer for Impatient {
    fn should_stop(&mut self) -> bool {
        self.0
    }
}

#[test]
fn a_run_that_is_stopped_as_soon_as_it_goes_on_stays_where_it_was() {
    let tiny = Tiny::new("llama");
    let config = many(&tiny, "run").with(|o| o.resume_from_checkpoint = Some("auto".to_owned()));
    // The epoch's last step, whose validation is still to come.
    let stopping = |rank: usize, fabric| {
        let after = if rank == 1 { 3 } else { usize::MAX };
        (fabric, of_rank(&config, rank), StopAfter(after))
    };
    let ends = train_ranks(&config, 2, stopping);
    assert!(ends.into_iter().all(|end| end.unwrap().state.global_step == 4));
    let before = folder(&config.output_dir.join("checkpoint-4"));
    let impatient = |rank: usize, fabric| (fabric, of_rank(&config, rank), Impatient(rank == 1));
    for end in train_ranks(&config, 2, impatient) {
        let summary = end.unwrap();
        assert!(summary.interrupted && summary.state.global_step == 4 && summary.checkpoint.is_some());
    }
    assert!(folder(&config.output_dir.join("checkpoint-4")) == before);
}

#[test]
fn ranks_that_have_become_different_save_nothing() {
    let tiny = Tiny::new("llama");
    let config = many(&tiny, "run");
    // The first sum is that of the validation before step 1, so this is step 4: step 3 is saved, and 6 is
    // not.
    let flipping = |rank: usize, fabric: Box<dyn Fabric>| {
        let mut sums = 0;
        let flip = move |sum: Sum, values: &mut [i64]| {
            sums += usize::from(sum == Sum::OfAll);
            if (rank, sums, sum) == (2, 5, Sum::OfAll) {
                values[0] ^= 1 << 40;
            }
        };
        (Box::new(Watched(fabric, flip)) as Box<dyn Fabric>, of_rank(&config, rank), ())
    };
    for end in train_ranks(&config, 3, flipping) {
        let error = end.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cluster);
        assert!(error.to_string().starts_with("rank 2 has other parameters than rank 0"), "{error}");
    }
    assert_eq!(checkpoint_names(&config.output_dir), ["checkpoint-3"]);
}

#[test]
fn ranks_with_other_options_are_refused() {
    let tiny = Tiny::new("llama");
    let config = many(&tiny, "run");
    let other_seed = |rank: usize, fabric| {
        let own = of_rank(&config, rank).with(|o| o.seed += rank as u64);
        (fabric, own, ())
    };
    for end in train_ranks(&config, 3, other_seed) {
        let error = end.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        let text = error.to_string();
        for named in ["rank 1: seed: 42 there, 43 here", "rank 2: seed: 42 there, 44 here"] {
            assert!(text.contains(named), "{text}");
        }
    }
    assert!(!config.output_dir.exists(), "an empty folder is not left");
}

#[test]
fn all_ranks_end_where_no_gradient_is_finite() {
    let tiny = Tiny::new("llama");
    let config = many(&tiny, "run").with(|o| {
        o.learning_rate = 1e30;
        o.num_epochs = 8;
    });
    let alone = train(&config.clone().with(|o| o.output_dir = tiny.path("alone"))).unwrap_err();
    for end in train_ranks(&config, 2, |rank, fabric| (fabric, of_rank(&config, rank), ())) {
        let error: Error = end.unwrap_err();
        assert_eq!(error.kind(), alone.kind());
        assert_eq!(error.to_string().split(';').next(), alone.to_string().split(';').next());
    }
}
