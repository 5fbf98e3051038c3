//! Options of `train` from three places, flags > file > defaults, resolved and checked before anything is loaded. What is
//! wrong is reported together, with the place where it stands.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ArgMatches;
use clap::parser::ValueSource;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::config_file::{self, Entry};
use super::device::DeviceArgs;
use super::keys::{Key, Keys, defaults, object};
use super::{check_threads, train::TrainArgs};
use crate::error::{Error, ErrorKind, list};
use crate::train::TrainConfig;
use crate::train::checkpoint;
use crate::train::records::pair_files;

/// The options of a run, and where it computes.
#[derive(Debug, PartialEq)]
pub(super) struct TrainOptions {
    pub(super) config: TrainConfig,
    pub(super) place: Place,
}

/// Where a run computes, which does not belong to what it computes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Place {
    #[serde(flatten)]
    pub(super) device: DeviceArgs,
    pub(super) threads: Option<usize>,
}

/// `matches` are those of `train`.
///
/// # Errors
/// All that is wrong with the options and the paths they name.
pub(super) fn resolve(args: &TrainArgs, matches: &ArgMatches) -> Result<TrainOptions> {
    args.require_text()?;
    let mut resolver = Resolver::new()?;
    if let Some(path) = &args.config {
        resolver.take_file(path)?;
    }
    resolver.take_flags(args, matches)?;
    resolver.finish()
}

/// Where an option is from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    File { path: PathBuf, line: usize },
    Flag,
    Default,
}

/// Something that is wrong.
struct Mistake {
    origin: Origin,
    kind: ErrorKind,
    text: String,
}

/// Options in the making.
struct Resolver {
    keys: Keys,
    defaults: Map<String, Value>,
    values: Map<String, Value>,
    origins: BTreeMap<String, Origin>,
    mistakes: Vec<Mistake>,
}

impl Resolver {
    fn new() -> Result<Self> {
        let defaults = defaults()?;
        let values = defaults.clone();
        Ok(Resolver { keys: Keys::new()?, defaults, values, origins: BTreeMap::new(), mistakes: Vec::new() })
    }

    fn take_file(&mut self, path: &Path) -> Result<()> {
        for entry in config_file::read(path)? {
            let origin = Origin::File { path: path.to_owned(), line: entry.line };
            if let Err(text) = self.take_entry(entry, &origin) {
                let text = format!("{}: {text}", place(&origin));
                self.mistakes.push(Mistake { origin, kind: ErrorKind::Usage, text });
            }
        }
        Ok(())
    }

    fn take_entry(&mut self, entry: Entry, origin: &Origin) -> std::result::Result<(), String> {
        let Entry { key: name, value, shown, .. } = entry;
        let Some(key) = self.keys.find(&name) else {
            return Err(format!("unknown key `{name}`; {}", self.keys.suggestion(&name)));
        };
        if let Some(Origin::File { line, .. }) = self.origins.get(&key.name) {
            return Err(format!("{name}: given in line {line} already, as {}", key.name));
        }
        self.origins.insert(key.name.clone(), origin.clone());
        let values = Map::from_iter([(key.name.clone(), value)]);
        if let Err(error) = options_of(&self.defaults, &values) {
            return Err(format!("{name}: {}", complaint(key, &values[&key.name], &shown, &error)));
        }
        self.values.extend(values);
        Ok(())
    }

    /// Flags that were given; clap has checked their types.
    fn take_flags(&mut self, args: &TrainArgs, matches: &ArgMatches) -> Result<()> {
        let mut flags = object(args)?;
        flags.insert("threads".to_owned(), matches.get_one::<usize>("threads").copied().into());
        for key in self.keys.iter() {
            let given = matches.value_source(&key.name) == Some(ValueSource::CommandLine);
            if let Some(value) = flags.remove(&key.name).filter(|_| given) {
                self.values.insert(key.name.clone(), value);
                self.origins.insert(key.name.clone(), Origin::Flag);
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<TrainOptions> {
        let options = options_of(&self.defaults, &self.values).context("the options")?;
        self.check(&options);
        if self.mistakes.is_empty() {
            return Ok(options);
        }
        self.mistakes.sort_by(|a, b| a.origin.cmp(&b.origin));
        let first = self.mistakes[0].kind;
        let same = self.mistakes.iter().all(|mistake| mistake.kind == first);
        let kind = if same { first } else { ErrorKind::Usage };
        let title = format!("{} mistakes in the options", self.mistakes.len());
        let texts = self.mistakes.into_iter().map(|mistake| mistake.text);
        Err(Error::new(kind, list(&title, texts)).into())
    }

    fn check(&mut self, TrainOptions { config, place }: &TrainOptions) {
        for problem in config.problems() {
            self.mistake(problem.option, ErrorKind::Usage, &problem.message);
        }
        if let Err(message) = check_threads(place.threads) {
            self.mistake("threads", ErrorKind::Usage, &message);
        }
        if let Err(message) = place.device.check() {
            self.mistake("dtype", ErrorKind::Usage, &message);
        }
        let required = [("model", config.model.is_empty()), ("data", config.data.as_os_str().is_empty())];
        for (name, _) in required.into_iter().filter(|(_, missing)| *missing) {
            let text = format!("--{name} is required, on the command line or in the --config file");
            self.mistakes.push(Mistake { origin: Origin::Default, kind: ErrorKind::Usage, text });
        }
        self.check_paths(config);
    }

    /// What the options name has to be there, and the run folder free for the run.
    fn check_paths(&mut self, config: &TrainConfig) {
        let splits = [("data", Some(&config.data), "train"), ("val_data", config.val_data.as_ref(), "val")];
        for (name, path, split) in splits {
            let path = path.filter(|path| !path.as_os_str().is_empty());
            if let Some(Err(error)) = path.map(|path| pair_files(path, split)) {
                self.mistake(name, error.kind(), &error.to_string());
            }
        }
        let resume = config.resume_from_checkpoint.as_deref();
        match checkpoint::resume_point(&config.output_dir, resume) {
            Err(error) if error.kind() == ErrorKind::Model => {
                self.mistake("resume_from_checkpoint", error.kind(), &error.to_string());
            }
            // The folder of an earlier run may be another mistake's doing.
            Err(error) if self.mistakes.is_empty() => {
                self.mistake("output_dir", error.kind(), &error.to_string());
            }
            _ => {}
        }
    }

    /// An option that cannot be used, from wherever it is.
    fn mistake(&mut self, name: &str, kind: ErrorKind, message: &str) {
        let origin = self.origins.get(name).cloned().unwrap_or(Origin::Default);
        let flag = || self.keys.find(name).map_or_else(|| name.to_owned(), Key::flag);
        let text = match &origin {
            Origin::File { .. } => format!("{}: {name}: {message}", place(&origin)),
            Origin::Flag | Origin::Default => format!("{}: {message}", flag()),
        };
        self.mistakes.push(Mistake { origin, kind, text });
    }
}

/// The defaults, overridden by some values, as typed options.
fn options_of(
    defaults: &Map<String, Value>,
    values: &Map<String, Value>,
) -> serde_json::Result<TrainOptions> {
    let mut all = defaults.clone();
    all.extend(values.clone());
    let of_place = serde_json::to_value(Place::default())?;
    let (place, config): (Map<_, _>, Map<_, _>) =
        all.into_iter().partition(|(key, _)| of_place.get(key).is_some());
    Ok(TrainOptions {
        config: serde_json::from_value(Value::Object(config))?,
        place: serde_json::from_value(Value::Object(place))?,
    })
}

/// What was expected of a value that is of another type, or none of the names that can be.
fn complaint(key: &Key, value: &Value, shown: &str, error: &serde_json::Error) -> String {
    if key.kind.fits(value) && key.names.is_empty() {
        return format!("{error}, found {shown}");
    }
    format!("expected {}, found {shown}", key.expected())
}

fn place(origin: &Origin) -> String {
    match origin {
        Origin::File { path, line } => format!("{}:{line}", path.display()),
        Origin::Flag | Origin::Default => String::new(),
    }
}
