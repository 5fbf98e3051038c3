//! `environment.jsonl`: what a run computes with, a JSON object for each time it was started or continued.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::error::{Context, ErrorKind, Result};
use crate::ops::{Backend, Element};

/// The file's name in a run folder. It is no part of `metrics.jsonl`, which is the same however often a run is continued.
pub const ENVIRONMENT: &str = "environment.jsonl";

/// What one start of a run computed with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Steps that were done already.
    pub step: usize,
    /// Steps of the whole run.
    pub total_steps: usize,
    /// Seconds since 1970.
    pub started: u64,
    /// Version of this program.
    pub version: String,
    /// Where it computes.
    pub device: String,
    /// Type of activations.
    pub dtype: String,
    /// Threads of the host.
    pub threads: usize,
    /// System and architecture.
    pub platform: String,
    /// Layers of the model that the guard looks at, counted from 1.
    pub guard_layers: Vec<usize>,
}

impl Environment {
    /// The environment of a run that goes on after `step`.
    pub fn new<B: Backend>(backend: &B, step: usize, total_steps: usize, guard_layers: Vec<usize>) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Environment {
            step,
            total_steps,
            started: since_1970.as_secs(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            device: backend.description(),
            dtype: B::Act::NAME.to_owned(),
            threads: rayon::current_num_threads(),
            platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            guard_layers,
        }
    }

    /// Appends it to the file of the folder `run`. What a new run finds there is of another run, and goes.
    pub fn append(&self, run: &Path) -> Result<()> {
        let path = run.join(ENVIRONMENT);
        let complain = || format!("cannot write {}", path.display());
        let line = serde_json::to_string(self).kind(ErrorKind::Internal, complain)?;
        let continued = self.step > 0;
        let mut options = OpenOptions::new();
        options.create(true).write(true).append(continued).truncate(!continued);
        let mut file = options.open(&path).kind(ErrorKind::Device, complain)?;
        file.write_all(format!("{line}\n").as_bytes()).kind(ErrorKind::Device, complain)
    }
}
