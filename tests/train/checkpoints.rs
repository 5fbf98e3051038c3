//! Checkpoints: runs that stop and go on, and folders that are damaged, held or left behind.

use deepguard::cpu::Cpu;
use deepguard::train::{Observer, RunFolder, TrainConfig};
use deepguard::{DeepGuard, ErrorKind};
use serde_json::json;

use super::early_stop::constant;
use super::tiny::{self, Tiny, folder};
use super::{CHECKPOINT_FILES, StopAfter, checkpoint_names, config, metrics, refused, train, train_with};

/// Metrics, adapter and last checkpoint are those of an uninterrupted run.
#[track_caller]
fn assert_same_end(resumed: &TrainConfig, whole: &TrainConfig) {
    assert_eq!(metrics(&resumed.output_dir), metrics(&whole.output_dir));
    assert_eq!(checkpoint_names(&resumed.output_dir).last(), checkpoint_names(&whole.output_dir).last());
    let last = checkpoint_names(&whole.output_dir).pop().unwrap();
    for dir in ["adapter", &last] {
        let [found, expected] = [resumed, whole].map(|run| folder(&run.output_dir.join(dir)));
        for ((name, found), (_, expected)) in found.iter().zip(&expected) {
            assert!(found == expected, "{name} of {dir}");
        }
        assert_eq!(found.len(), expected.len());
    }
}

/// Dropout and the base cache are on.
#[track_caller]
fn resumed_equals_uninterrupted(architecture: &str, stop_after: usize) {
    let tiny = Tiny::new(architecture);
    let (whole, parts) = (config(&tiny, "whole"), config(&tiny, "parts"));
    train(&whole).unwrap();
    assert!(train_with(&parts, &mut StopAfter(stop_after)).unwrap().interrupted);
    let resumed = parts.with(|o| o.resume_from_checkpoint = Some("auto".into()));
    assert!(!train(&resumed).unwrap().interrupted);
    assert_same_end(&resumed, &whole);
}

/// Lets so many questions pass, and then ends the run.
struct StopAtQuestion {
    number: usize,
    asked: usize,
}

impl StopAtQuestion {
    fn new(number: usize) -> Self {
        StopAtQuestion { number, asked: 0 }
    }
}

impl Observer for StopAtQuestion {
    fn should_stop(&mut self) -> bool {
        self.asked += 1;
        self.asked > self.number
    }
}

/// Stops a run at each of its questions, goes on, and compares. The base model's states are in memory and on
/// disk in turn.
fn stopped_anywhere_equals_uninterrupted(tiny: &Tiny, of: impl Fn(&str) -> TrainConfig) {
    let whole = of("whole");
    let mut never = StopAtQuestion::new(usize::MAX);
    let state = train_with(&whole, &mut never).unwrap().state;
    let mut pending = 0;
    for number in 0..never.asked {
        let name = format!("parts-{number}");
        let parts = of(&name).with(|o| o.base_cache_mib = 1024 * (number % 2));
        let stopped = train_with(&parts, &mut StopAtQuestion::new(number)).unwrap();
        assert!(stopped.interrupted);
        assert_eq!(stopped.checkpoint.is_some(), stopped.state.global_step > 0);
        assert!(stopped.checkpoint.is_none_or(|dir| dir.is_dir()));
        pending += usize::from(stopped.state.validation_pending);
        let resumed = parts.with(|o| o.resume_from_checkpoint = Some("auto".into()));
        assert_eq!(train(&resumed).unwrap().state, state);
        assert_same_end(&resumed, &whole);
        std::fs::remove_dir_all(tiny.path(&name)).unwrap();
    }
    assert!(pending > 0 && pending < never.asked);
}

#[test]
fn a_run_stopped_at_any_moment_goes_on_to_the_same_end() {
    let tiny = Tiny::new("llama");
    stopped_anywhere_equals_uninterrupted(&tiny, |run| config(&tiny, run).with(|o| o.max_steps = Some(5)));
}

#[test]
fn a_run_that_ends_early_does_so_wherever_it_was_stopped() {
    let tiny = Tiny::new("qwen2");
    stopped_anywhere_equals_uninterrupted(&tiny, |run| constant(&tiny, run));
}

/// In the second epoch, where base states are those of the first epoch's micro-batches.
#[test]
fn a_run_with_micro_batches_of_rows_goes_on_to_the_same_end() {
    let tiny = Tiny::new("llama");
    let of = |run| {
        config(&tiny, run).with(|o| {
            o.batch_size = 4;
            o.gradient_accumulation_steps = 1;
            o.micro_batch_tokens = Some(320);
        })
    };
    let (whole, parts) = (of("whole"), of("parts"));
    train(&whole).unwrap();
    assert!(train_with(&parts, &mut StopAfter(3)).unwrap().interrupted);
    let resumed = parts.with(|o| o.resume_from_checkpoint = Some("auto".into()));
    train(&resumed).unwrap();
    assert_same_end(&resumed, &whole);
}

#[test]
fn a_stop_repeated_at_the_same_place_loses_nothing() {
    let tiny = Tiny::new("qwen2");
    let (whole, parts) = (config(&tiny, "whole"), config(&tiny, "parts"));
    train(&whole).unwrap();
    let resumed = parts.with(|o| o.resume_from_checkpoint = Some("auto".into()));
    let mut stops = 0;
    // Two questions do not suffice for a validation, and none for anything.
    for number in [6, 2, 3, 0].into_iter().cycle() {
        if !train_with(&resumed, &mut StopAtQuestion::new(number)).unwrap().interrupted {
            break;
        }
        stops += 1;
        assert!(stops < 100);
    }
    assert!(stops > 5, "{stops}");
    assert_same_end(&resumed, &whole);
}

#[test]
fn a_run_resumed_inside_an_epoch_equals_an_uninterrupted_one() {
    resumed_equals_uninterrupted("llama", 3);
}

#[test]
fn a_run_resumed_between_epochs_equals_an_uninterrupted_one() {
    resumed_equals_uninterrupted("qwen2", 4);
}

/// Products of few rows are computed otherwise, and here it is the base model's rows that make them many.
#[test]
fn a_resume_fills_the_base_cache_as_it_was() {
    let tiny = Tiny::new("llama");
    for (split, numbers) in [("train", 0..8), ("val", 8..11)] {
        let line = |i: usize| {
            let [before, after] = ["'a' + x", "execute(x)"].map(|query| format!("q{i} = {query}\n"));
            json!({"func_src_before": before, "func_src_after": after})
        };
        let lines: String = numbers.map(|i| format!("{}\n", line(i))).collect();
        std::fs::create_dir_all(tiny.path(&format!("short/{split}"))).unwrap();
        std::fs::write(tiny.path(&format!("short/{split}/pairs.jsonl")), lines).unwrap();
    }
    let of = |run: &str| {
        config(&tiny, run).with(|o| {
            o.data = tiny.path("short");
            o.eval_steps = Some(1);
        })
    };
    let whole = of("whole");
    train(&whole).unwrap();
    for step in 3..8 {
        let parts = of(&format!("parts-{step}"));
        train_with(&parts, &mut StopAfter(step)).unwrap();
        let resumed = parts.with(|o| o.resume_from_checkpoint = Some("auto".into()));
        train(&resumed).unwrap();
        assert_same_end(&resumed, &whole);
    }
}

#[test]
fn a_resume_with_other_settings_or_data_is_refused() {
    let tiny = Tiny::new("llama");
    let first = config(&tiny, "run");
    train_with(&first, &mut StopAfter(1)).unwrap();
    let resumed = first.with(|o| o.resume_from_checkpoint = Some("auto".into()));
    tiny::write_pairs(&tiny.path("other/pairs.jsonl"), 8..16);
    let others = [
        resumed.clone().with(|o| o.learning_rate = 2e-3),
        resumed.clone().with(|o| o.seed = 1),
        resumed.clone().with(|o| o.num_epochs = 3),
        resumed.clone().with(|o| o.lora_dropout = 0.0),
        resumed.clone().with(|o| o.kl_weight = 0.5),
        resumed.clone().with(|o| o.micro_batch_tokens = Some(400)),
        resumed.clone().with(|o| {
            o.data = tiny.path("other");
            o.val_data = Some(tiny.path("data/val"));
        }),
        resumed.clone().with(|o| o.val_data = Some(tiny.path("other"))),
    ];
    let named: [&[&str]; 8] = [
        &["learning_rate: 0.001 there, 0.002 here"],
        &["seed: 42 there, 1 here"],
        &["num_epochs: 2 there, 3 here"],
        &["lora_dropout: 0.1 there, 0.0 here"],
        &["kl_weight: 1.0 there, 0.5 here"],
        &["micro_batch_tokens: null there, 400 here"],
        &["training pairs: 8 of ", "/data (BLAKE3 ", "there, 8 of ", "/other (BLAKE3 "],
        &["validation pairs: 3 of ", "/data/val (BLAKE3 ", "there, 8 of ", "/other (BLAKE3 "],
    ];
    for (other, named) in others.iter().zip(named) {
        refused(other, ErrorKind::Usage, &[&["checkpoint-1"], named].concat());
    }
    // All that differs is named, and nothing else.
    let error = train(&resumed.clone().with(|o| {
        o.seed = 1;
        o.margin = 0.25;
    }))
    .unwrap_err()
    .to_string();
    assert!(
        error.contains("seed: 42 there, 1 here") && error.contains("margin: 0.5 there, 0.25 here"),
        "{error}"
    );
    assert_eq!(error.matches(" there, ").count(), 2, "{error}");
    // One number of the base model is another.
    let file = tiny.model().join("model.safetensors");
    let weights = std::fs::read(&file).unwrap();
    tiny.edit_tensor("model.layers.1.mlp.down_proj.weight", |values| values[7] += 0.5);
    let error = train(&resumed).unwrap_err().to_string();
    assert!(
        error.contains("weights of the base model: ") && error.matches(" there, ").count() == 1,
        "{error}"
    );
    std::fs::write(&file, weights).unwrap();
    // What does not change the course may change.
    let same = resumed.with(|o| {
        o.save_total_limit = 5;
        o.base_cache_mib = 0;
        o.save_steps = Some(3);
    });
    assert_eq!(train(&same).unwrap().state.global_step, 8);
}

#[test]
fn a_finished_adapter_is_not_overwritten() {
    let tiny = Tiny::new("llama");
    let run = config(&tiny, "run").with(|o| o.max_steps = Some(2));
    train(&run).unwrap();
    std::fs::remove_dir_all(run.output_dir.join("checkpoint-2")).unwrap();
    let before = folder(&run.output_dir.join("adapter"));
    let other = run.with(|o| o.seed = 7);
    refused(&other, ErrorKind::Usage, &["adapter of an earlier run", "`output_dir`"]);
    assert!(folder(&other.output_dir.join("adapter")) == before);
    // A run that may begin anew, because it was killed before its first checkpoint.
    let resumed = other.with(|o| o.resume_from_checkpoint = Some("auto".into()));
    assert_eq!(train(&resumed).unwrap().state.global_step, 2);
}

/// Two checkpoints, of steps 1 and 2.
fn two_checkpoints(tiny: &Tiny) -> TrainConfig {
    let run = config(tiny, "run").with(|o| o.save_steps = Some(1));
    train_with(&run, &mut StopAfter(2)).unwrap();
    run.with(|o| o.resume_from_checkpoint = Some("auto".into()))
}

#[test]
fn damaged_checkpoints_are_refused() {
    let tiny = Tiny::new("llama");
    let resumed = two_checkpoints(&tiny);
    let checkpoint = resumed.output_dir.join("checkpoint-2");
    for name in CHECKPOINT_FILES {
        let (path, content) = (checkpoint.join(name), std::fs::read(checkpoint.join(name)).unwrap());
        let mut flipped = content.clone();
        flipped[content.len() / 3] ^= 4;
        for damaged in [&content[..content.len() / 2], &flipped] {
            std::fs::write(&path, damaged).unwrap();
            refused(&resumed, ErrorKind::Model, &[name, "checkpoint-1"]);
        }
        std::fs::remove_file(&path).unwrap();
        refused(&resumed, ErrorKind::Model, &[name, "checkpoint-1"]);
        std::fs::write(&path, content).unwrap();
    }
    std::fs::write(checkpoint.join("notes"), "").unwrap();
    refused(&resumed, ErrorKind::Model, &["notes", "checkpoint-1"]);
    std::fs::remove_file(checkpoint.join("notes")).unwrap();
    let nowhere = resumed.clone().with(|o| o.resume_from_checkpoint = Some("nowhere".into()));
    refused(&nowhere, ErrorKind::Model, &["nowhere is no checkpoint"]);
    train(&resumed).unwrap();
}

#[test]
fn a_checkpoint_with_an_impossible_value_is_refused() {
    let tiny = Tiny::new("llama");
    let resumed = two_checkpoints(&tiny);
    let checkpoint = resumed.output_dir.join("checkpoint-2");
    tiny::edit_tensors(&checkpoint.join("optimizer.safetensors"), |tensors| tensors[1].2[5] = f32::NAN);
    std::fs::remove_file(checkpoint.join("manifest.json")).unwrap();
    deepguard::manifest::write(&checkpoint).unwrap();
    refused(&resumed, ErrorKind::Model, &["optimizer.safetensors", "v", "not a finite number"]);
}

#[test]
fn a_damaged_adapter_is_refused() {
    let tiny = Tiny::new("qwen2");
    let run = config(&tiny, "run").with(|o| o.max_steps = Some(1));
    train(&run).unwrap();
    let adapter = run.output_dir.join("adapter");
    let attach = || DeepGuard::load(Cpu::new(), &run.model).unwrap().attach(&run.output_dir);
    for name in &CHECKPOINT_FILES[..4] {
        let (path, content) = (adapter.join(name), std::fs::read(adapter.join(name)).unwrap());
        let mut flipped = content.clone();
        *flipped.last_mut().unwrap() ^= 1;
        std::fs::write(&path, flipped).unwrap();
        let error = attach().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Model);
        assert!(
            error.to_string().contains(name) && error.to_string().contains("delete its manifest"),
            "{error}"
        );
        std::fs::write(&path, content).unwrap();
    }
    // A model card is nobody's damage.
    std::fs::write(adapter.join("README.md"), "A guard.").unwrap();
    attach().unwrap();
}

#[test]
fn only_the_newest_checkpoints_are_kept() {
    let tiny = Tiny::new("qwen2");
    let run = config(&tiny, "run").with(|o| {
        o.save_steps = Some(1);
        o.save_total_limit = 3;
    });
    train(&run).unwrap();
    assert_eq!(checkpoint_names(&run.output_dir), ["checkpoint-6", "checkpoint-7", "checkpoint-8"]);
    // Going back to an earlier one must not cost the checkpoints that are written from there.
    let back = run.clone().with(|o| {
        o.resume_from_checkpoint = run.output_dir.join("checkpoint-6").to_str().map(str::to_owned);
        o.save_total_limit = 1;
    });
    train_with(&back, &mut StopAfter(7)).unwrap();
    assert!(checkpoint_names(&back.output_dir).contains(&"checkpoint-7".to_owned()));
}

#[test]
fn the_best_checkpoint_is_kept() {
    let tiny = Tiny::new("qwen2");
    let first_of_three = ["checkpoint-1", "checkpoint-3"];
    for (limit, expected) in [(1, &first_of_three), (2, &first_of_three)] {
        let run = constant(&tiny, &format!("run-{limit}")).with(|o| o.save_total_limit = limit);
        let state = train(&run).unwrap().state;
        assert_eq!((state.best_step, state.global_step), (1, 3));
        assert_eq!(checkpoint_names(&run.output_dir), *expected);
        for name in &CHECKPOINT_FILES[..4] {
            let [best, adapter] = ["checkpoint-1", "adapter"].map(|dir| run.output_dir.join(dir).join(name));
            assert!(std::fs::read(best).unwrap() == std::fs::read(adapter).unwrap(), "{name}");
        }
    }
}

#[test]
fn a_line_of_metrics_that_was_cut_is_dropped() {
    let tiny = Tiny::new("qwen2");
    let (whole, parts) = (config(&tiny, "whole"), config(&tiny, "parts"));
    train(&whole).unwrap();
    train_with(&parts, &mut StopAfter(3)).unwrap();
    let path = parts.output_dir.join("metrics.jsonl");
    let cut = [std::fs::read(&path).unwrap(), b"{\"kind\": \"\xff\xfe".to_vec()].concat();
    std::fs::write(&path, cut).unwrap();
    let resumed = parts.with(|o| o.resume_from_checkpoint = Some("auto".into()));
    train(&resumed).unwrap();
    assert_same_end(&resumed, &whole);
}

#[test]
fn a_new_run_does_not_mix_with_an_earlier_one() {
    let tiny = Tiny::new("qwen2");
    let run = config(&tiny, "run").with(|o| o.max_steps = Some(2));
    train(&run).unwrap();
    let before = metrics(&run.output_dir);
    let other = run.with(|o| o.seed = 7);
    refused(&other, ErrorKind::Usage, &["checkpoint", "`resume_from_checkpoint`", "`output_dir`"]);
    assert_eq!(metrics(&other.output_dir), before);
}

#[test]
fn a_run_continued_in_another_folder_has_an_adapter() {
    let tiny = Tiny::new("llama");
    // The first epoch stays the best one.
    let first = config(&tiny, "first").with(|o| o.learning_rate = 0.0);
    train_with(&first, &mut StopAfter(5)).unwrap();
    let checkpoint = first.output_dir.join("checkpoint-5");
    let moved = first.with(|o| {
        o.output_dir = tiny.path("second");
        o.resume_from_checkpoint = checkpoint.to_str().map(str::to_owned);
    });
    train(&moved).unwrap();
    assert!(moved.output_dir.join("adapter/adapter_config.json").is_file());
}

#[test]
fn a_folder_that_is_held_is_refused() {
    let tiny = Tiny::new("qwen2");
    let run = config(&tiny, "run").with(|o| o.max_steps = Some(1));
    let held = RunFolder::open(&run.output_dir).unwrap();
    refused(&run, ErrorKind::Usage, &["process", "`output_dir`"]);
    drop(held);
    train(&run).unwrap();
    assert!(!run.output_dir.join("run.lock").exists());
}

#[test]
fn what_a_killed_run_has_left_is_removed() {
    let tiny = Tiny::new("qwen2");
    let run = config(&tiny, "run").with(|o| o.max_steps = Some(1));
    std::fs::create_dir_all(run.output_dir.join(".deepguard-tmp-abc")).unwrap();
    std::fs::write(run.output_dir.join(".deepguard-tmp-abc/optimizer.safetensors"), "half").unwrap();
    std::fs::write(run.output_dir.join("run.lock"), "process 1 on another machine").unwrap();
    train(&run).unwrap();
    let names = std::fs::read_dir(&run.output_dir).unwrap().map(|e| e.unwrap().file_name());
    let names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    assert!(names.iter().all(|name| !name.starts_with('.') && name != "run.lock"), "{names:?}");
    assert!(names.contains(&"checkpoint-1".to_owned()));
}

#[test]
fn gradients_beyond_exact_sums_are_left_out() {
    let tiny = Tiny::new("llama");
    let of = |run: &str| {
        config(&tiny, run).with(|o| {
            o.data = tiny.path("data/train");
            o.save_steps = Some(1);
            o.max_steps = Some(2);
            o.max_grad_norm = 1e38;
        })
    };
    // Larger and larger gradients: the first have room in exact sums, the last are not even finite.
    let mut skipped = Vec::new();
    for round in 0..12 {
        tiny.edit_tensor("model.norm.weight", |values| values.iter_mut().for_each(|value| *value *= 100.0));
        let run = of(&format!("run-{round}"));
        skipped.push(train(&run).unwrap().state.skipped_steps);
        let saved = checkpoint_names(&run.output_dir);
        saved.iter().for_each(|name| super::assert_finite(&run.output_dir.join(name)));
    }
    assert!(skipped.is_sorted() && skipped.first() == Some(&0) && skipped.last() == Some(&2), "{skipped:?}");
}

#[test]
fn steps_skipped_in_a_row_are_counted_across_a_resume() {
    let tiny = Tiny::new("llama");
    tiny.edit_tensor("model.norm.weight", |values| values[3] = f32::NAN);
    let run = config(&tiny, "run").with(|o| {
        o.data = tiny.path("data/train");
        o.num_epochs = 5;
    });
    assert!(train_with(&run, &mut StopAfter(6)).unwrap().interrupted);
    let resumed = run.with(|o| o.resume_from_checkpoint = Some("auto".into()));
    refused(&resumed, ErrorKind::Data, &["step 10", "not finite"]);
}
