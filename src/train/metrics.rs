//! `metrics.jsonl`: one JSON object per step and per evaluation.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::error::{Context, ErrorKind, Result};
use crate::files::write_file;
use crate::train::checkpoint::TrainerState;

const METRICS: &str = "metrics.jsonl";

/// The median of the seconds that the steps of a run took; `None` where no step is recorded.
pub fn seconds_per_step(run: &Path) -> Option<f64> {
    let text = std::fs::read(run.join(METRICS)).ok()?;
    let steps = String::from_utf8_lossy(&text);
    let lines = steps.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let seconds = lines.filter(|line| line["kind"] == "train").filter_map(|line| line["seconds"].as_f64());
    let mut seconds: Vec<f64> = seconds.collect();
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied()
}

/// The metrics of a run, appended line by line.
pub struct MetricsFile {
    path: PathBuf,
    file: File,
}

impl MetricsFile {
    /// Opens the metrics of a run that continues at `state`: later lines of an earlier attempt are dropped.
    pub fn open(run: &Path, state: &TrainerState) -> Result<Self> {
        let path = run.join(METRICS);
        let complain = || format!("cannot continue {}", path.display());
        let earlier = match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            read => read.kind(ErrorKind::Device, complain)?,
        };
        // Only a line that was cut can be anything but JSON.
        let earlier = String::from_utf8_lossy(&earlier);
        let kept = earlier.lines().filter(|line| comes_before(line, state));
        let text: String = kept.flat_map(|line| [line, "\n"]).collect();
        write_file(&path, text.as_bytes())?;
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

    /// Flushes all lines to the disk.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().kind(ErrorKind::Device, || format!("cannot write {}", self.path.display()))
    }
}

/// Whether a line was written before the run stood at `state`.
fn comes_before(line: &str, state: &TrainerState) -> bool {
    let Ok(line) = serde_json::from_str::<Value>(line) else { return false };
    let step = line["step"].as_u64().and_then(|step| usize::try_from(step).ok());
    let pending = state.validation_pending && line["kind"] == "validation";
    let after = state.global_step + usize::from(state.global_step > 0 && !pending);
    step.is_some_and(|step| step < after)
}
