//! TensorBoard's event files of a run, read by a reader that shares nothing with their writer.

#[path = "common/places.rs"]
mod places;
#[path = "common/tiny.rs"]
mod tiny;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use deepguard::DeepGuard;
use deepguard::cpu::Cpu;
use deepguard::guard::Aggregation;
use deepguard::train::environment::Environment;
use deepguard::train::{Observer, StepLog, TrainConfig};
use serde_json::Value;
use tiny::Tiny;

/// A decoded event.
#[derive(Debug, Default, PartialEq)]
struct Event {
    wall_time: f64,
    step: u64,
    version: String,
    scalars: Vec<(String, f32)>,
    session_status: Option<u64>,
}

/// A field of a protobuf message.
enum Field<'a> {
    Integer(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    Bytes(&'a [u8]),
}

/// CRC-32C bit by bit, from its definition: reflected, polynomial 0x1EDC6F41.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

fn unmask(masked: [u8; 4]) -> u32 {
    let rotated = u32::from_le_bytes(masked).wrapping_sub(0xa282_ead8);
    rotated.rotate_left(15)
}

/// The data of all records, whose checksums must be right.
fn records(mut file: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    while !file.is_empty() {
        let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        assert_eq!(crc32c(&file[..8]), unmask(file[8..12].try_into().unwrap()), "checksum of a length");
        let data = &file[12..12 + length];
        let checksum = unmask(file[12 + length..16 + length].try_into().unwrap());
        assert_eq!(crc32c(data), checksum, "checksum of a record");
        records.push(data);
        file = &file[16 + length..];
    }
    records
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return value;
        }
    }
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(length);
    *bytes = rest;
    taken
}

fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let field = match key & 7 {
            0 => Field::Integer(varint(&mut bytes)),
            1 => Field::Fixed64(take(&mut bytes, 8).try_into().unwrap()),
            2 => {
                let length = varint(&mut bytes) as usize;
                Field::Bytes(take(&mut bytes, length))
            }
            5 => Field::Fixed32(take(&mut bytes, 4).try_into().unwrap()),
            other => panic!("wire type {other}"),
        };
        fields.push((key >> 3, field));
    }
    fields
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn scalar(summary_value: &[u8]) -> (String, f32) {
    let mut scalar = (String::new(), f32::NAN);
    for field in fields(summary_value) {
        match field {
            (1, Field::Bytes(tag)) => scalar.0 = text(tag),
            (2, Field::Fixed32(value)) => scalar.1 = f32::from_le_bytes(value),
            (other, _) => panic!("field {other} of Summary.Value"),
        }
    }
    scalar
}

fn event(record: &[u8]) -> Event {
    let mut event = Event::default();
    for field in fields(record) {
        match field {
            (1, Field::Fixed64(value)) => event.wall_time = f64::from_le_bytes(value),
            (2, Field::Integer(step)) => event.step = step,
            (3, Field::Bytes(version)) => event.version = text(version),
            (5, Field::Bytes(summary)) => {
                for value in fields(summary) {
                    let (1, Field::Bytes(value)) = value else { panic!("a field of Summary") };
                    event.scalars.push(scalar(value));
                }
            }
            (7, Field::Bytes(session)) => {
                let fields = fields(session);
                let [(1, Field::Integer(status))] = fields[..] else { panic!("fields of SessionLog") };
                event.session_status = Some(status);
            }
            (other, _) => panic!("field {other} of Event"),
        }
    }
    event
}

fn event_files(run: &Path) -> Vec<PathBuf> {
    let mut found: Vec<(std::time::SystemTime, PathBuf)> = std::fs::read_dir(run)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name().to_str().unwrap().starts_with("events.out.tfevents."))
        .map(|entry| (entry.metadata().unwrap().modified().unwrap(), entry.path()))
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

fn read_events(path: &Path) -> Vec<Event> {
    records(&std::fs::read(path).unwrap()).into_iter().map(event).collect()
}

fn config(tiny: &Tiny) -> TrainConfig {
    TrainConfig::default().with(|o| {
        o.model = tiny.model().to_str().unwrap().to_owned();
        o.data = tiny.path("data");
        o.output_dir = tiny.path("run");
        o.num_epochs = 2;
        o.batch_size = 2;
        o.gradient_accumulation_steps = 2;
        o.max_seq_len = Some(160);
        o.lora_r = 4;
    })
}

fn train(config: &TrainConfig, observer: &mut dyn Observer) {
    DeepGuard::load(Cpu::new(), &config.model).unwrap().train(config, observer).unwrap();
}

struct StopAfter(usize);

impl Observer for StopAfter {
    fn on_step(&mut self, log: &StepLog) -> ControlFlow<()> {
        if log.step == self.0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

fn metrics(run: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Every number of `line` is in `event` under the tag of its group.
fn assert_same(event: &Event, line: &Value) {
    assert_eq!(event.step, line["step"].as_u64().unwrap());
    let (group, tags) = match line["kind"].as_str().unwrap() {
        "train" => ("train", ["loss", "learning_rate", "grad_norm", "kl", "tokens_per_second", "epoch"]),
        _ => ("eval", ["loss", "generation", "security", "kl", "preference_accuracy", "separation_accuracy"]),
    };
    for tag in tags {
        let field = if tag == "loss" { "total" } else { tag };
        let found = event.scalars.iter().find(|(name, _)| *name == format!("{group}/{tag}"));
        let (_, found) = found.unwrap_or_else(|| panic!("no {group}/{tag} in {event:?}"));
        assert_eq!(*found, line[field].as_f64().unwrap() as f32, "{group}/{tag}");
    }
    for (i, weight) in line["layer_attention"].as_array().into_iter().flatten().enumerate() {
        let tag = format!("eval/layer_attention_{i}");
        assert!(event.scalars.contains(&(tag, weight.as_f64().unwrap() as f32)), "{event:?}");
    }
}

#[test]
fn checksums_are_crc_32c() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}

#[test]
fn events_say_what_the_metrics_say() {
    let tiny = Tiny::new("llama");
    let config = config(&tiny);
    train(&config, &mut ());
    let files = event_files(&config.output_dir);
    assert_eq!(files.len(), 1);
    let events = read_events(&files[0]);
    assert_eq!((events[0].version.as_str(), events[0].step), ("brain.Event:2", 0));
    let lines = metrics(&config.output_dir);
    assert_eq!((lines.len(), events.len()), (7, 8)); // four steps, three evaluations
    events[1..].iter().zip(&lines).for_each(|(event, line)| assert_same(event, line));
    assert!(events.windows(2).all(|pair| pair[0].wall_time <= pair[1].wall_time));
    assert!(events[0].wall_time > 1.7e9);
}

#[test]
fn a_continued_run_takes_back_what_it_does_again() {
    let tiny = Tiny::new("qwen2");
    let first = config(&tiny);
    train(&first, &mut StopAfter(2));
    std::fs::create_dir(tiny.path("away")).unwrap();
    let resumed = first.clone().with(|o| o.resume_from_checkpoint = Some("auto".into()));
    train(&resumed, &mut ());
    let files = event_files(&first.output_dir);
    assert_eq!(files.len(), 2);
    let events = read_events(&files[1]);
    // Status 1 is a start; what TensorBoard knows of this step and later ones is void.
    assert_eq!((events[1].session_status, events[1].step), (Some(1), 3));
    let steps: Vec<u64> = events[2..].iter().map(|event| event.step).collect();
    assert_eq!(steps, [3, 4, 4]);
    // A new run in the folder does not show the curves of the old one.
    for entry in std::fs::read_dir(&first.output_dir).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_name().unwrap().to_str().unwrap();
        if name.starts_with("checkpoint-") || name == "adapter" {
            std::fs::rename(&entry, tiny.path("away").join(entry.file_name().unwrap())).unwrap();
        }
    }
    train(&first, &mut ());
    assert_eq!(event_files(&first.output_dir).len(), 1);
}

#[test]
fn every_start_of_a_run_says_what_it_computes_with() {
    let tiny = Tiny::new("llama");
    let first = config(&tiny);
    train(&first, &mut StopAfter(1));
    train(&first.clone().with(|o| o.resume_from_checkpoint = Some("auto".into())), &mut ());
    let text = std::fs::read_to_string(first.output_dir.join("environment.jsonl")).unwrap();
    let starts: Vec<Environment> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(starts.iter().map(|start| start.step).collect::<Vec<_>>(), [0, 1]);
    for start in &starts {
        assert_eq!((start.version.as_str(), start.dtype.as_str()), (env!("CARGO_PKG_VERSION"), "f32"));
        assert_eq!((start.total_steps, start.threads), (4, rayon::current_num_threads()));
        assert!(!start.device.is_empty() && start.started > 1_700_000_000, "{start:?}");
        assert!(!start.guard_layers.is_empty());
    }
}

#[test]
fn evaluations_say_where_the_guard_looks() {
    let tiny = Tiny::new("llama");
    let attends = config(&tiny);
    train(&attends, &mut ());
    let layers = tiny.load().config.num_hidden_layers.min(attends.guard().expect("a guard").layers);
    let evaluations = |run: &Path| metrics(run).into_iter().filter(|line| line["kind"] == "validation");
    let mut all = Vec::new();
    for line in evaluations(&attends.output_dir) {
        let weights: Vec<f64> = serde_json::from_value(line["layer_attention"].clone()).unwrap();
        assert_eq!(weights.len(), layers);
        assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{weights:?}");
        all.push(weights);
    }
    assert!(all.windows(2).any(|pair| pair[0] != pair[1]), "training moves no weight: {all:?}");
    let average = attends.clone().with(|o| {
        o.aggregation = Aggregation::Average;
        o.output_dir = tiny.path("average");
    });
    train(&average, &mut ());
    assert!(evaluations(&average.output_dir).all(|line| line.get("layer_attention").is_none()));
}
