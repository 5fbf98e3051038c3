//! Training runs of a few steps on tiny models: what they learn, leave on the disk, and do when things go
//! wrong.

#[path = "common/places.rs"]
mod places;
#[path = "common/rank_threads.rs"]
mod rank_threads;
#[path = "common/tiny.rs"]
mod tiny;

#[path = "train/checkpoints.rs"]
mod checkpoints;
#[path = "train/early_stop.rs"]
mod early_stop;
#[path = "train/methods.rs"]
mod methods;
#[path = "train/ranks.rs"]
mod ranks;

use std::ops::ControlFlow;
use std::path::Path;

use deepguard::cpu::Cpu;
use deepguard::model::config::Config;
use deepguard::ops::PlanRow;
use deepguard::train::data::{OnBadRecord, read_pairs};
use deepguard::train::observer::RunStart;
use deepguard::train::{Observer, RunSummary, StepLog, TrainConfig};
use deepguard::{DeepGuard, ErrorKind, Result};
use serde_json::Value;
use tiny::{Tiny, folder, read_json, read_tensors};

const CHECKPOINT_FILES: [&str; 7] = [
    "adapter_config.json",
    "adapter_model.safetensors",
    "deepguard_config.json",
    "deepguard_model.safetensors",
    "manifest.json",
    "optimizer.safetensors",
    "trainer_state.json",
];

/// Eight pairs in steps of two: four steps an epoch, eight in all.
fn config(tiny: &Tiny, run: &str) -> TrainConfig {
    TrainConfig::default().with(|o| {
        o.model = tiny.model().to_str().unwrap().to_owned();
        o.data = tiny.path("data");
        o.output_dir = tiny.path(run);
        o.num_epochs = 2;
        o.batch_size = 1;
        o.gradient_accumulation_steps = 2;
        o.learning_rate = 1e-3;
        o.max_seq_len = Some(160);
        o.lora_r = 4;
        o.lora_alpha = 8.0;
    })
}

/// The configuration with the limits that the tiny models, of five layers and a context of 2048, bring along.
fn effective(config: &TrainConfig) -> TrainConfig {
    let model = Config::from_dir(Path::new(&config.model)).unwrap();
    config.for_model(&model).unwrap()
}

fn train_with(config: &TrainConfig, observer: &mut dyn Observer) -> Result<RunSummary> {
    DeepGuard::load(Cpu::new(), &config.model)?.train(config, observer)
}

fn train(config: &TrainConfig) -> Result<RunSummary> {
    train_with(config, &mut ())
}

#[track_caller]
fn refused(config: &TrainConfig, kind: ErrorKind, named: &[&str]) {
    let error = train(config).expect_err("an error");
    assert_eq!(error.kind(), kind, "{error}");
    named.iter().for_each(|name| assert!(error.to_string().contains(name), "{name:?} not in: {error}"));
}

/// Ends a run after a step.
struct StopAfter(usize);

impl Observer for StopAfter {
    fn on_step(&mut self, log: &StepLog) -> ControlFlow<()> {
        if log.step == self.0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// The lines of `metrics.jsonl` without the timings.
fn metrics(run: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let parse = |line| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        line.as_object_mut().unwrap().retain(|name, _| name != "seconds" && name != "tokens_per_second");
        line
    };
    text.lines().map(parse).collect()
}

fn losses(run: &Path, kind: &str, field: &str) -> Vec<f64> {
    let lines = metrics(run).into_iter().filter(|line| line["kind"] == kind);
    lines.map(|line| line[field].as_f64().unwrap_or(f64::NAN)).collect()
}

fn checkpoint_names(run: &Path) -> Vec<String> {
    let names = std::fs::read_dir(run).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut found: Vec<String> = names.filter(|name| name.starts_with("checkpoint-")).collect();
    found.sort();
    found
}

fn assert_finite(dir: &Path) {
    for (name, content) in folder(dir).iter().filter(|(name, _)| name.ends_with(".safetensors")) {
        assert!(!content.is_empty());
        for (tensor, _, values) in read_tensors(&dir.join(name)) {
            assert!(values.iter().all(|v| v.is_finite()), "{name}: {tensor}");
        }
    }
}

#[test]
fn pairs_in_memory_train_as_those_of_files() {
    let tiny = Tiny::new("llama");
    let files = config(&tiny, "files");
    train(&files).unwrap();
    let read = |split| read_pairs(&tiny.path("data"), split, OnBadRecord::Error).unwrap().0;
    let mut memory = config(&tiny, "memory");
    memory.data = tiny.path("nowhere");
    let mut guard = DeepGuard::load(Cpu::new(), &memory.model).unwrap();
    guard.train_on(read("train"), Some(read("val")), &memory, &mut ()).unwrap();
    assert!(guard.attached.is_some());
    assert_eq!(metrics(&memory.output_dir), metrics(&files.output_dir));
    assert_eq!(folder(&memory.output_dir.join("adapter")), folder(&files.output_dir.join("adapter")));
    // Texts that share a pass are scored as on their own.
    let long = "x = 1\n".repeat(900);
    let texts = ["def f(x):\n    return x\n", "", "import os\n", &long, "a"];
    let batch = guard.score_batch(&texts).unwrap();
    assert_eq!(batch.len(), texts.len());
    for (text, together) in texts.iter().zip(&batch) {
        let alone = guard.score(text).unwrap();
        assert_eq!(alone.tokens.len(), together.tokens.len());
        for (a, b) in alone.tokens.iter().zip(&together.tokens) {
            assert_eq!((a.token, &a.range, a.attention.len()), (b.token, &b.range, b.attention.len()));
            assert!((a.score - b.score).abs() < 1e-5, "{text:?}: {} alone, {} together", a.score, b.score);
        }
    }
    // Without validation pairs, some of those given are set aside.
    memory.output_dir = tiny.path("set-aside");
    (memory.val_fraction, memory.max_steps) = (0.25, Some(1));
    guard.train_on(read("train"), None, &memory, &mut ()).unwrap();
    let pairs = losses(&memory.output_dir, "validation", "pairs");
    assert_eq!(pairs, [2.0, 2.0]);
}

#[test]
fn a_run_learns_and_leaves_its_files() {
    let tiny = Tiny::new("llama");
    let config = config(&tiny, "run");
    let summary = train(&config).unwrap();
    assert_eq!((summary.state.global_step, summary.state.updates, summary.interrupted), (8, 8, false));
    let total = losses(&config.output_dir, "validation", "total");
    assert_eq!(total.len(), 3);
    assert!(total[2] < total[1] && total[1] < total[0], "{total:?}");
    assert_eq!(losses(&config.output_dir, "train", "total").len(), 8);
    assert_eq!(checkpoint_names(&config.output_dir), ["checkpoint-4", "checkpoint-8"]);
    for name in CHECKPOINT_FILES {
        assert!(config.output_dir.join("checkpoint-8").join(name).is_file(), "{name}");
    }
    let adapter: Vec<String> =
        folder(&config.output_dir.join("adapter")).into_iter().map(|(name, _)| name).collect();
    assert_eq!(adapter, CHECKPOINT_FILES[..5]);
    let written = read_json(&config.output_dir.join("train_config.json"));
    assert_eq!(serde_json::from_value::<TrainConfig>(written).unwrap(), effective(&config));
    let hidden = std::fs::read_dir(&config.output_dir).unwrap();
    assert!(hidden.map(|e| e.unwrap().file_name()).all(|name| !name.to_str().unwrap().starts_with('.')));
}

#[cfg(unix)]
#[test]
fn folders_of_a_run_can_be_read_like_any_other() {
    use std::os::unix::fs::PermissionsExt;
    let tiny = Tiny::new("qwen2");
    let config = config(&tiny, "run").with(|o| o.max_steps = Some(1));
    train(&config).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
    for name in ["adapter", "checkpoint-1"] {
        assert_eq!(mode(&config.output_dir.join(name)), mode(&config.output_dir), "{name}");
        std::fs::write(config.output_dir.join("ordinary"), "").unwrap();
        for (file, _) in folder(&config.output_dir.join(name)) {
            let file = config.output_dir.join(name).join(file);
            assert_eq!(mode(&file), mode(&config.output_dir.join("ordinary")), "{}", file.display());
        }
    }
}

#[test]
fn the_base_cache_changes_nothing() {
    let tiny = Tiny::new("llama");
    let (memory, disk) = (config(&tiny, "memory"), config(&tiny, "disk"));
    let disk = disk.with(|o| o.base_cache_mib = 0);
    train(&memory).unwrap();
    train(&disk).unwrap();
    assert_eq!(metrics(&memory.output_dir), metrics(&disk.output_dir));
    assert!(losses(&memory.output_dir, "train", "kl").iter().any(|&kl| kl > 0.0));
    let without = config(&tiny, "without").with(|o| o.kl_weight = 0.0);
    train(&without).unwrap();
    assert!(losses(&without.output_dir, "train", "kl").iter().all(|&kl| kl == 0.0));
    assert_eq!(
        losses(&without.output_dir, "train", "generation")[0],
        losses(&memory.output_dir, "train", "generation")[0]
    );
}

#[derive(Default)]
struct Counts {
    train: usize,
    validation: usize,
    cut: usize,
}

impl Observer for Counts {
    fn on_start(&mut self, start: &RunStart<'_>) {
        (self.train, self.validation) = (start.train.pairs.len(), start.validation.pairs.len());
        self.cut = start.train.limit.cut;
    }
}

#[test]
fn validation_pairs_can_be_set_aside() {
    let tiny = Tiny::new("qwen2");
    let run = |data: &str, val_fraction: f64, name: &str| {
        let config = config(&tiny, name).with(|o| {
            o.data = tiny.path(data);
            o.val_fraction = val_fraction;
            o.max_steps = Some(1);
            o.max_seq_len = Some(100);
        });
        let mut counts = Counts::default();
        train_with(&config, &mut counts).unwrap();
        assert_eq!(losses(&config.output_dir, "validation", "total").is_empty(), counts.validation == 0);
        assert!(config.output_dir.join("adapter").is_dir());
        (counts.train, counts.validation)
    };
    assert_eq!(run("data/train", 0.25, "a"), (6, 2));
    assert_eq!(run("data/train", 0.0, "b"), (8, 0));
    // A share of given validation pairs is not taken twice.
    assert_eq!(run("data", 0.25, "c"), (8, 3));
    // At least one pair is left to train on.
    tiny::write_pairs(&tiny.path("single/pairs.jsonl"), 0..1);
    assert_eq!(run("single", 0.9, "d"), (1, 0));
}

#[test]
fn cutting_a_step_into_micro_batches_changes_only_rounding() {
    let tiny = Tiny::new("llama");
    let run = |batch_size: usize, rows: Option<usize>, name: &str| {
        let gradient_accumulation_steps = 4 / batch_size;
        let config = config(&tiny, name).with(|o| {
            o.batch_size = batch_size;
            o.gradient_accumulation_steps = gradient_accumulation_steps;
            o.micro_batch_tokens = rows;
        });
        let mut planned = Planned(0);
        assert_eq!(train_with(&config, &mut planned).unwrap().state.global_step, 4);
        let of_run = |kind, field| losses(&config.output_dir, kind, field);
        let found = [of_run("train", "total"), of_run("train", "grad_norm"), of_run("validation", "total")];
        (found.concat(), planned.0)
    };
    let (expected, planned) = run(4, None, "4x1");
    for (batch_size, rows, name) in [(2, None, "2x2"), (1, None, "1x4"), (4, Some(ROWS), "rows")] {
        let (found, less) = run(batch_size, rows, name);
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-3 * expected.abs(), "{name}: {found} for {expected}");
        }
        assert!(less < planned, "{name}: {less} bytes are planned, {planned} for all pairs at once");
    }
    refused(
        &config(&tiny, "few").with(|o| o.micro_batch_tokens = Some(20)),
        ErrorKind::Usage,
        &["micro_batch_tokens", "at least", "found 20", "max_seq_len"],
    );
}

/// Rows that two pairs or so have.
const ROWS: usize = 320;

/// Bytes of the memory plan.
struct Planned(usize);

impl Observer for Planned {
    fn on_start(&mut self, start: &RunStart<'_>) {
        self.0 = PlanRow::total(start.plan);
    }
}

#[test]
fn a_step_without_finite_gradients_is_left_out() {
    let tiny = Tiny::new("llama");
    // Only one training pair has this character, and its embedding is damaged.
    let path = tiny.path("data/train/pairs.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("rows.fetchall", "~rows.fetchall", 2)).unwrap();
    let token = DeepGuard::load(Cpu::new(), tiny.model().to_str().unwrap()).unwrap();
    let token = token.tokenizer.encode("~").unwrap()[0] as usize;
    tiny.edit_tensor("model.embed_tokens.weight", |values| values[token * 64] = f32::NAN);
    let config = config(&tiny, "run");
    let state = train(&config).unwrap().state;
    assert_eq!((state.skipped_steps, state.updates, state.global_step), (2, 6, 8));
    let skipped = metrics(&config.output_dir).iter().filter(|line| line["skipped"] == true).count();
    assert_eq!(skipped, 2);
    assert_finite(&config.output_dir.join("adapter"));
    assert_finite(&config.output_dir.join("checkpoint-8"));
}

#[test]
fn ten_steps_without_finite_gradients_end_the_run() {
    let tiny = Tiny::new("llama");
    tiny.edit_tensor("model.norm.weight", |values| values[3] = f32::NAN);
    let run = config(&tiny, "run").with(|o| {
        o.data = tiny.path("data/train");
        o.num_epochs = 5;
        o.save_steps = Some(2);
    });
    refused(&run, ErrorKind::Data, &["step 10", "not finite", "`learning_rate`"]);
    assert_eq!(metrics(&run.output_dir).len(), 10);
    assert!(!run.output_dir.join("adapter").exists());
    assert_finite(&run.output_dir.join("checkpoint-8"));
    // With validation pairs it shows at once.
    refused(&config(&tiny, "validated"), ErrorKind::Data, &["step 0", "validation", "not finite"]);
}

#[test]
fn far_too_high_a_learning_rate_saves_nothing_but_numbers() {
    let tiny = Tiny::new("qwen2");
    let config = config(&tiny, "run").with(|o| {
        o.learning_rate = 1.0;
        o.max_grad_norm = 1e30;
        o.num_epochs = 4;
    });
    let _ = train(&config);
    for name in checkpoint_names(&config.output_dir).iter().map(String::as_str).chain(["adapter"]) {
        let dir = config.output_dir.join(name);
        if dir.exists() {
            assert_finite(&dir);
        }
    }
}

#[test]
fn absurd_settings_are_refused_by_name() {
    let tiny = Tiny::new("qwen2");
    let base = config(&tiny, "run").with(|o| o.max_steps = Some(1));
    let huge = usize::MAX / 2 + 1;
    let usage = [
        ("batch_size", base.clone().with(|o| o.batch_size = huge)),
        ("gradient_accumulation_steps", base.clone().with(|o| o.gradient_accumulation_steps = huge)),
        ("num_epochs", base.clone().with(|o| o.num_epochs = huge)),
        ("lora_r", base.clone().with(|o| o.lora_r = huge)),
        ("learning_rate", base.clone().with(|o| o.learning_rate = f64::NAN)),
        ("max_seq_len", base.clone().with(|o| o.max_seq_len = Some(1))),
        ("max_seq_len", base.clone().with(|o| o.max_seq_len = Some(2049))),
        ("guard_layers", base.clone().with(|o| o.guard_layers = Some(6))),
        (
            "val_fraction",
            base.clone().with(|o| {
                o.val_fraction = 0.5;
                o.val_data = Some(tiny.path("data/val"));
            }),
        ),
        ("save_total_limit", base.clone().with(|o| o.save_total_limit = 0)),
    ];
    for (name, config) in usage {
        refused(&config, ErrorKind::Usage, &[name]);
    }
    // All at once.
    let both = base.clone().with(|o| {
        o.batch_size = 0;
        o.lora_r = 0;
        o.learning_rate = -1.0;
    });
    refused(&both, ErrorKind::Usage, &["batch_size", "lora_r", "learning_rate"]);
    let both = base.clone().with(|o| {
        o.max_seq_len = Some(4096);
        o.guard_layers = Some(9);
    });
    refused(&both, ErrorKind::Usage, &["2048", "4096", "5 layers", "9"]);
    let data = base.clone().with(|o| o.data = tiny.path("nowhere"));
    refused(&data, ErrorKind::Data, &["nowhere"]);
    // Larger than the data is no error, and neither is more memory for the cache than there is.
    let generous = base.with(|o| {
        o.batch_size = 1 << 20;
        o.base_cache_mib = usize::MAX;
    });
    train(&generous).unwrap();
}

#[test]
fn functions_longer_than_the_model_s_context_are_cut() {
    let tiny = Tiny::new("llama");
    tiny.edit_config(|config| config["max_position_embeddings"] = 100.into());
    let run = config(&tiny, "run").with(|o| {
        o.max_seq_len = Some(1024);
        o.max_steps = Some(1);
    });
    refused(&run, ErrorKind::Usage, &["max_seq_len", "1024", "100"]);
    // Without a limit of one's own, the context is the limit.
    let mut counts = Counts::default();
    train_with(&run.clone().with(|o| o.max_seq_len = None), &mut counts).unwrap();
    assert_eq!(read_json(&run.output_dir.join("train_config.json"))["max_seq_len"], 100);
    assert!(counts.cut > 0, "no pair is longer than the context");
}
