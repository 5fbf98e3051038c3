//! What a run folder tells, complete or not: a run may still be going on, or have been cut off anywhere.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Map, Value};

use crate::adapter::{self, FINAL_ADAPTER};
use crate::error::{Error, Result};
use crate::guard::TokenSecurityStats;
use crate::hub::resolve_model;
use crate::model::tokenizer::Tokenizer;
use crate::train::checkpoint;
use crate::train::environment::{ENVIRONMENT, Environment};

/// Tokens shown at either end of the statistics.
const EXTREMES: usize = 20;

/// A run folder as it is now. Values are kept as they were written, so that runs of other versions can be read.
pub struct Run {
    /// The folder.
    pub dir: PathBuf,
    /// `train_config.json`.
    pub config: Map<String, Value>,
    /// Every start of the run.
    pub environments: Vec<Environment>,
    /// Lines of `metrics.jsonl` about steps.
    pub steps: Vec<Value>,
    /// Records about validations.
    pub validations: Vec<Value>,
    /// `trainer_state.json` of the newest checkpoint.
    pub state: Option<Value>,
    /// The newest checkpoint.
    pub checkpoint: Option<usize>,
    /// When `metrics.jsonl` was last written to.
    pub updated: Option<SystemTime>,
    /// What the statistics say, or why they cannot be shown.
    pub extremes: std::result::Result<Extremes, String>,
    /// What could not be read.
    pub problems: Vec<String>,
}

/// Both ends of the token statistics.
#[derive(Debug, Default)]
pub struct Extremes {
    /// Most secure first.
    pub secure: Vec<TokenStat>,
    /// Most vulnerable first.
    pub vulnerable: Vec<TokenStat>,
    /// Tokens whose statistic is not 0.
    pub counted: usize,
    /// Why there are no texts.
    pub without_text: Option<String>,
}

/// A token and its statistic.
#[derive(Debug, PartialEq)]
pub struct TokenStat {
    /// The token's id.
    pub id: u32,
    /// The token's statistic in [−1, 1].
    pub value: f32,
    /// The token's text, as far as known.
    pub text: Option<String>,
}

impl Run {
    /// Reads the folder of a run.
    ///
    /// # Errors
    /// Kind `Data`: it is no run folder.
    pub fn read(dir: &Path) -> Result<Run> {
        let (config_file, metrics_file) = (dir.join("train_config.json"), dir.join("metrics.jsonl"));
        if !config_file.is_file() && !metrics_file.is_file() {
            return Err(Error::data(format!(
                "{}: expected the folder of a training run, found neither train_config.json nor metrics.jsonl in it; \
                 give the --output-dir of `dg-run train`",
                dir.display()
            )));
        }
        let mut problems = Vec::new();
        let config = match read_json(&config_file, &mut problems) {
            Some(Value::Object(config)) => config,
            _ => Map::new(),
        };
        let metrics = read_lines(&metrics_file, &mut problems);
        let of_kind = |kind: &str| metrics.iter().filter(|line| line["kind"] == kind).cloned().collect();
        // Earlier versions did not write it.
        let environment_file = Some(dir.join(ENVIRONMENT)).filter(|path| path.exists());
        let environments = environment_file.map(|path| read_lines(&path, &mut problems)).unwrap_or_default();
        let newest = checkpoint::list(dir).pop();
        let state = newest.as_ref().map(|(_, dir)| dir.join(checkpoint::STATE));
        Ok(Run {
            dir: dir.to_owned(),
            environments: environments.into_iter().filter_map(|v| serde_json::from_value(v).ok()).collect(),
            steps: of_kind("train"),
            validations: of_kind("validation"),
            state: state.and_then(|path| read_json(&path, &mut problems)),
            checkpoint: newest.as_ref().map(|(step, _)| *step),
            updated: std::fs::metadata(&metrics_file).and_then(|metadata| metadata.modified()).ok(),
            extremes: extremes(dir, newest.map(|(_, dir)| dir), &config),
            config,
            problems,
        })
    }
}

/// A field that is a number.
pub fn number(line: &Value, field: &str) -> f64 {
    line.get(field).and_then(Value::as_f64).unwrap_or(f64::NAN)
}

fn read_json(path: &Path, problems: &mut Vec<String>) -> Option<Value> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            problems.push(format!("{}: {error}", path.display()));
            return None;
        }
    };
    serde_json::from_str(&text).map_err(|error| problems.push(format!("{}: {error}", path.display()))).ok()
}

/// The lines that are JSON. A run that is being written or was cut off may end in half a line.
fn read_lines(path: &Path, problems: &mut Vec<String>) -> Vec<Value> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            problems.push(format!("{}: {error}", path.display()));
            return Vec::new();
        }
    };
    let text = String::from_utf8_lossy(&bytes);
    let mut values = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match serde_json::from_str(line) {
            Ok(value) => values.push(value),
            Err(error) => problems.push(format!("{}:{}: {error}", path.display(), i + 1)),
        }
    }
    values
}

/// Token statistics from the kept adapter, else from the newest checkpoint.
fn extremes(
    run: &Path,
    newest: Option<PathBuf>,
    config: &Map<String, Value>,
) -> std::result::Result<Extremes, String> {
    let folders = [Some(run.join(FINAL_ADAPTER)), newest];
    let folder = folders.into_iter().flatten().find(|dir| dir.join(adapter::GUARD_MODEL).is_file());
    let folder = folder.ok_or("no adapter and no checkpoint has been written yet")?;
    let stats = adapter::read_stats(&folder).map_err(|error| error.to_string())?;
    let (tokenizer, without_text) = match tokenizer(config) {
        Ok(tokenizer) => (Some(tokenizer), None),
        Err(error) => (None, Some(error.to_string())),
    };
    Ok(Extremes { without_text, ..both_ends(&stats, tokenizer.as_ref()) })
}

fn tokenizer(config: &Map<String, Value>) -> Result<Tokenizer> {
    let model = config.get("model").and_then(Value::as_str).unwrap_or_default();
    let revision = config.get("model_revision").and_then(Value::as_str);
    Tokenizer::from_dir(&resolve_model(model, revision)?)
}

fn both_ends(stats: &TokenSecurityStats, tokenizer: Option<&Tokenizer>) -> Extremes {
    let values = stats.values();
    let mut counted: Vec<(u32, f32)> = (0..).zip(values).filter(|(_, value)| *value != 0.0).collect();
    counted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let stat =
        |&(id, value): &(u32, f32)| TokenStat { id, value, text: tokenizer.and_then(|t| text_of(t, id)) };
    let secure = counted.iter().filter(|(_, value)| *value > 0.0).take(EXTREMES).map(stat).collect();
    let vulnerable =
        counted.iter().rev().filter(|(_, value)| *value < 0.0).take(EXTREMES).map(stat).collect();
    Extremes { secure, vulnerable, counted: counted.len(), without_text: None }
}

/// The text of a token; the vocabulary's spelling of one that is a special token, or a part of a character.
fn text_of(tokenizer: &Tokenizer, id: u32) -> Option<String> {
    let text = tokenizer.decode(&[id]).ok().filter(|text| !text.is_empty() && !text.contains('\u{fffd}'));
    text.or_else(|| tokenizer.token_str(id))
}
