//! `metrics.jsonl`: one JSON object per step and per evaluation.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::error::{Context, ErrorKind, Result};

/// The metrics of a run, appended line by line.
pub struct MetricsFile {
    path: PathBuf,
    file: File,
}

impl MetricsFile {
    /// Opens the metrics of a run that continues after `step`: later lines of an earlier attempt are dropped.
    pub fn open(run: &Path, step: usize) -> Result<Self> {
        let path = run.join("metrics.jsonl");
        let complain = || format!("cannot write {}", path.display());
        std::fs::create_dir_all(run).kind(ErrorKind::Device, complain)?;
        let earlier = std::fs::read_to_string(&path).unwrap_or_default();
        let kept = earlier.lines().filter(|line| step > 0 && step_of(line).is_some_and(|s| s <= step));
        let text: String = kept.flat_map(|line| [line, "\n"]).collect();
        std::fs::write(&path, text).kind(ErrorKind::Device, complain)?;
        let file = OpenOptions::new().append(true).open(&path).kind(ErrorKind::Device, complain)?;
        Ok(MetricsFile { file, path })
    }

    /// Appends `{"kind": kind, "step": step, …fields of values}`.
    pub fn write(&mut self, kind: &str, step: usize, values: &impl Serialize) -> Result<()> {
        let complain = || format!("cannot write {}", self.path.display());
        let mut line =
            serde_json::Map::from_iter([("kind".into(), kind.into()), ("step".into(), step.into())]);
        if let Value::Object(fields) = serde_json::to_value(values).kind(ErrorKind::Internal, complain)? {
            line.extend(fields);
        }
        writeln!(self.file, "{}", Value::Object(line)).kind(ErrorKind::Device, complain)
    }
}

fn step_of(line: &str) -> Option<usize> {
    let value: Value = serde_json::from_str(line).ok()?;
    usize::try_from(value.get("step")?.as_u64()?).ok()
}
