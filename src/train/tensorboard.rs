//! TensorBoard's event file: the numbers of `metrics.jsonl` as scalars.
//!
//! A file is a sequence of TFRecords, each an `Event` in protobuf. Of both formats only what scalars need is
//! written, by hand: the code that a protobuf compiler makes of the whole schema would be many times as long.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::Value;

use crate::error::{Context, ErrorKind, Result};
use crate::platform::host_name;

/// What names of event files start with.
const PREFIX: &str = "events.out.tfevents.";

/// Fields that count steps rather than measure.
const COUNTERS: [&str; 2] = ["step", "total_steps"];

/// Fields of `Event`.
mod event {
    pub const WALL_TIME: u64 = 1;
    pub const STEP: u64 = 2;
    pub const FILE_VERSION: u64 = 3;
    pub const SUMMARY: u64 = 5;
    pub const SESSION_LOG: u64 = 7;
}

/// Field of `Summary`.
const SUMMARY_VALUE: u64 = 1;

/// Fields of `Summary.Value`.
mod value {
    pub const TAG: u64 = 1;
    pub const SIMPLE_VALUE: u64 = 2;
}

/// Field of `SessionLog`, and its value for a start.
const SESSION_STATUS: u64 = 1;
const SESSION_START: u64 = 1;

/// An event file, appended event by event.
pub struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// Starts an event file in the folder `run`, for what follows after `step`. A new run removes those that
    /// it finds; a continued one has TensorBoard forget what earlier files say of later steps.
    pub fn create(run: &Path, step: usize) -> Result<Self> {
        if step == 0 {
            remove_old(run)?;
        }
        let name = |n: usize| format!("{PREFIX}{:010.0}.{}.{}.{n}", now(), host(), std::process::id());
        let path = (0..).map(|n| run.join(name(n))).find(|path| !path.exists()).unwrap_or_default();
        let complain = || format!("cannot write {}", path.display());
        let file = OpenOptions::new().create_new(true).append(true).open(&path);
        let file = file.kind(ErrorKind::Device, complain)?;
        let mut events = EventFile { path, file };
        events.write(0, |event| event.bytes(event::FILE_VERSION, b"brain.Event:2"))?;
        if step > 0 {
            let mut session = Message::default();
            session.integer(SESSION_STATUS, SESSION_START);
            events.write(step + 1, |event| event.bytes(event::SESSION_LOG, &session.bytes))?;
        }
        Ok(events)
    }

    /// Writes the numbers among the fields of `values` as `group/field`; `total` is `group/loss`, as
    /// everybody calls it.
    pub fn scalars(&mut self, group: &str, step: usize, values: &impl Serialize) -> Result<()> {
        let complain = || format!("cannot write {}", self.path.display());
        let fields = serde_json::to_value(values).kind(ErrorKind::Internal, complain)?;
        let mut summary = Message::default();
        for (name, field) in
            fields.as_object().into_iter().flatten().filter(|(name, _)| !COUNTERS.contains(&name.as_str()))
        {
            let name = if name == "total" { "loss" } else { name };
            for (tag, number) in numbers(&format!("{group}/{name}"), field) {
                let mut value = Message::default();
                value.bytes(value::TAG, tag.as_bytes());
                value.float(value::SIMPLE_VALUE, number as f32);
                summary.bytes(SUMMARY_VALUE, &value.bytes);
            }
        }
        self.write(step, |event| event.bytes(event::SUMMARY, &summary.bytes))
    }

    /// An event is written at once, so that a run can be watched and loses none.
    fn write(&mut self, step: usize, fill: impl FnOnce(&mut Message)) -> Result<()> {
        let mut event = Message::default();
        event.double(event::WALL_TIME, now());
        event.integer(event::STEP, step as u64);
        fill(&mut event);
        let complain = || format!("cannot write {}", self.path.display());
        self.file.write_all(&record(&event.bytes)).kind(ErrorKind::Device, complain)
    }
}

/// A number under its tag, or those of a list under numbered tags.
fn numbers(tag: &str, field: &Value) -> Vec<(String, f64)> {
    match field {
        Value::Array(list) => {
            let numbered = list.iter().enumerate();
            numbered.filter_map(|(i, item)| Some((format!("{tag}_{i}"), item.as_f64()?))).collect()
        }
        other => other.as_f64().map(|number| (tag.to_owned(), number)).into_iter().collect(),
    }
}

fn remove_old(run: &Path) -> Result<()> {
    let complain = || format!("cannot replace the event files in {}", run.display());
    for entry in std::fs::read_dir(run).kind(ErrorKind::Device, complain)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            std::fs::remove_file(entry.path()).kind(ErrorKind::Device, complain)?;
        }
    }
    Ok(())
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// The machine's name, as far as it can stand in a file's name.
fn host() -> String {
    let kept: String =
        host_name().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(64).collect();
    if kept.is_empty() { "localhost".into() } else { kept }
}

/// A TFRecord: length, its checksum, data, their checksum.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let checksum = |bytes: &[u8]| masked_crc(bytes).to_le_bytes();
    [&length[..], &checksum(&length), data, &checksum(data)].concat()
}

/// TFRecords do not hold plain checksums, so that checksums of data with checksums in them stay good.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A protobuf message.
#[derive(Default)]
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn double(&mut self, field: u64, value: f64) {
        self.varint(field << 3 | 1);
        self.bytes.extend(value.to_le_bytes());
    }

    fn float(&mut self, field: u64, value: f32) {
        self.varint(field << 3 | 5);
        self.bytes.extend(value.to_le_bytes());
    }

    fn integer(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.bytes.extend(value);
    }

    /// Seven bits a byte, the lowest first; the eighth says that more follow.
    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }
}
