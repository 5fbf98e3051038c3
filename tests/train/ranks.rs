//! Several ranks train what one does, bit by bit.

use std::path::Path;

use deepguard::adapter::FINAL_ADAPTER;
use deepguard::cpu::Cpu;
use deepguard::dist::World;
use deepguard::dist::fabric::Fabric;
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

#[test]
fn any_number_of_ranks_trains_the_same_bits() {
    let tiny = Tiny::new("llama");
    let alone = many(&tiny, "alone");
    train(&alone).unwrap();
    for ranks in [2, 3, 4, 8] {
        let several = many(&tiny, &format!("of-{ranks}"));
        let ends = train_ranks(&several, ranks, |rank, fabric| (fabric, of_rank(&several, rank), ()));
        for (rank, end) in ends.into_iter().enumerate() {
            let summary = end.unwrap_or_else(|error| panic!("rank {rank} of {ranks}: {error}"));
            assert!(!summary.interrupted && summary.state.global_step == 8);
        }
        assert_same_run(&alone.output_dir, &several.output_dir);
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

/// Flips a bit of one gradient in one sum.
struct Flip(Box<dyn Fabric>, usize);

impl Fabric for Flip {
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
        self.0.all_reduce(values)?;
        self.1 = self.1.wrapping_sub(1);
        if self.1 == 0 {
            values[0] ^= 1 << 40;
        }
        Ok(())
    }
    fn broadcast(&mut self, root: usize, bytes: &mut Vec<u8>) -> Result<()> {
        self.0.broadcast(root, bytes)
    }
    fn finish(self: Box<Self>) -> Result<()> {
        self.0.finish()
    }
}

#[test]
fn ranks_that_have_become_different_save_nothing() {
    let tiny = Tiny::new("llama");
    let config = many(&tiny, "run");
    // The first sum is that of the validation before step 1, so this is step 4: step 3 is saved, and 6 is
    // not.
    let flipping = |rank: usize, fabric: Box<dyn Fabric>| {
        let fabric = Flip(fabric, if rank == 2 { 5 } else { usize::MAX });
        (Box::new(fabric) as Box<dyn Fabric>, of_rank(&config, rank), ())
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
