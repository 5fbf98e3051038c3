//! Options of `train` from three places, flags > file > defaults, resolved and checked before anything is
//! loaded. What is wrong is reported together, with the place where it stands.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ArgMatches;
use clap::parser::ValueSource;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::check_threads;
use super::config_file::{self, Entry};
use super::device::DeviceArgs;
use super::keys::{Key, Keys, defaults, object};
use super::train_args::TrainArgs;
use crate::error::{Error, ErrorKind, list};
use crate::train::TrainConfig;
use crate::train::checkpoint;
use crate::train::records::{pair_files, validation_path};

/// The options of a run, and where it computes.
#[derive(Debug, PartialEq)]
pub(super) struct TrainOptions {
    pub(super) config: TrainConfig,
    pub(super) place: Place,
    /// The name under which a size of micro-batches was given that elsewhere is that of each of several
    /// devices.
    pub(super) each_device: Option<String>,
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
    // clap does not tell by which of its names a flag was given.
    let flags =
        std::env::args_os().filter_map(|arg| arg.into_string().ok()).filter(|arg| arg.starts_with("--"));
    let mut names = flags.map(|flag| flag.split('=').next().unwrap_or_default().to_owned());
    resolver.each_device = names.find(|name| is_of_each_device(name)).or(resolver.each_device);
    resolver.finish()
}

/// Whether a flag or key means, to whoever knows it from elsewhere, pairs on each device.
fn is_of_each_device(name: &str) -> bool {
    name.trim_start_matches('-').replace('-', "_").starts_with("per_device_")
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
    each_device: Option<String>,
}

impl Resolver {
    fn new() -> Result<Self> {
        let defaults = defaults()?;
        let values = defaults.clone();
        let (keys, origins, mistakes) = (Keys::new()?, BTreeMap::new(), Vec::new());
        Ok(Resolver { keys, defaults, values, origins, mistakes, each_device: None })
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
        if is_of_each_device(&name) {
            self.each_device = Some(name.clone());
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

    /// What nobody has given is the method's default.
    fn take_defaults_of_method(&mut self) -> Result<()> {
        let method = options_of(&self.defaults, &self.values).context("the options")?.config.method;
        for (name, value) in object(&TrainConfig::of(method))? {
            if !self.origins.contains_key(&name) {
                self.values.insert(name, value);
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<TrainOptions> {
        self.take_defaults_of_method()?;
        let options = options_of(&self.defaults, &self.values).context("the options")?;
        self.check(&options);
        if self.mistakes.is_empty() {
            return Ok(TrainOptions { each_device: self.each_device, ..options });
        }
        self.mistakes.sort_by(|a, b| a.origin.cmp(&b.origin));
        let first = self.mistakes[0].kind;
        let same = self.mistakes.iter().all(|mistake| mistake.kind == first);
        let kind = if same { first } else { ErrorKind::Usage };
        let title = format!("{} mistakes in the options", self.mistakes.len());
        let texts = self.mistakes.into_iter().map(|mistake| mistake.text);
        Err(Error::new(kind, list(&title, texts)).into())
    }

    fn check(&mut self, TrainOptions { config, place, .. }: &TrainOptions) {
        for problem in config.problems() {
            self.mistake(problem.option, ErrorKind::Usage, &problem.message);
        }
        // A file may be a template with all options; a flag is there because somebody wants its effect.
        for option in config.method.unused_options() {
            if self.origins.get(option) == Some(&Origin::Flag) {
                let message = format!("the method {} has no such part; leave the flag out", config.method);
                self.mistake(option, ErrorKind::Usage, &message);
            }
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
        let validation = validation_path(&config.data, config.val_data.as_deref());
        let splits = [("data", Some(config.data.clone()), "train"), ("val_data", validation, "val")];
        for (name, path, split) in splits {
            let path = path.filter(|path| !path.as_os_str().is_empty());
            if let Some(Err(error)) = path.map(|path| pair_files(&path, split)) {
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
        each_device: None,
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

/// The options of a file alone, and what is wrong with it.
#[cfg(test)]
pub(super) fn of_file(path: &Path) -> Result<(TrainOptions, Vec<String>)> {
    let mut resolver = Resolver::new()?;
    resolver.take_file(path)?;
    let options = options_of(&resolver.defaults, &resolver.values)?;
    Ok((options, resolver.mistakes.into_iter().map(|mistake| mistake.text).collect()))
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;
    use crate::cli::{Cli, Command, command_line, kind, with_hyphens};
    use crate::guard::Aggregation;
    use crate::model::lora::{Projection, TargetModules};
    use crate::train::config::RecomputePolicy;

    /// A folder with a file of pairs and a configuration.
    fn folder(name: &str, text: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("pairs.jsonl"), "").unwrap();
        std::fs::write(dir.path().join(name), text).unwrap();
        dir
    }

    /// What `dg-run train --config name …` resolves to, with a model and pairs.
    fn resolved(name: &str, text: &str, flags: &[&str]) -> Result<TrainOptions> {
        let dir = folder(name, text);
        let [file, pairs] = [name, "pairs.jsonl"].map(|name| dir.path().join(name).display().to_string());
        let run = dir.path().join("run").display().to_string();
        let words = ["dg-run", "train", "--config", &file, "-m", "model", "-d", &pairs, "-o", &run];
        let words = words.iter().chain(flags).map(std::ffi::OsString::from);
        let matches = command_line()?.try_get_matches_from(with_hyphens(words))?;
        let Command::Train(args) = Cli::from_arg_matches(&matches)?.command else { unreachable!() };
        resolve(&args, matches.subcommand_matches("train").unwrap())
    }

    fn mistakes(name: &str, text: &str, flags: &[&str]) -> String {
        let error = resolved(name, text, flags).unwrap_err();
        assert_eq!(kind(&error), ErrorKind::Usage, "{error}");
        error.to_string()
    }

    #[test]
    fn flags_beat_the_file_which_beats_the_defaults() {
        let file = "seed = 7\nlora-r = 4\nmargin = 0.3\ndevice = \"cpu\"\nthreads = 3\noffline = true";
        let TrainOptions { config, place, .. } = resolved("a.toml", file, &["--seed", "9"]).unwrap();
        assert_eq!((config.seed, config.lora_r, config.margin, config.num_epochs), (9, 4, 0.3, 5));
        assert_eq!(place.threads, Some(3));
        let place = serde_json::to_value(place).unwrap();
        assert_eq!((&place["device"], &place["offline"]), (&"cpu".into(), &true.into()));
        // Also where the flag says what is the default anyway.
        let flags = ["--device", "auto", "--threads", "2", "--margin", "0.5"];
        let TrainOptions { config, place, .. } = resolved("a.toml", file, &flags).unwrap();
        assert_eq!((config.margin, place.threads), (0.5, Some(2)));
        assert_eq!(serde_json::to_value(place).unwrap()["device"], "auto");
    }

    #[test]
    fn every_spelling_of_a_flag_is_one_of_a_key_and_the_other_way_round() {
        let keys = Keys::new().unwrap();
        for key in keys.iter() {
            for spelling in key.spellings() {
                for name in [spelling.clone(), spelling.replace('_', "-")] {
                    assert_eq!(keys.find(&name).unwrap().name, key.name, "{name}");
                }
            }
        }
        for name in ["lr", "max-length", "per_device_train_batch_size", "num-hidden-layers-to-use", "epochs"]
        {
            assert!(keys.find(name).is_some(), "{name}");
        }
        for flag in ["--lora_r", "--lora-r", "--lora_rank", "--lora-rank"] {
            assert_eq!(resolved("a.toml", "", &[flag, "5"]).unwrap().config.lora_r, 5, "{flag}");
            let joined = format!("{flag}=6");
            assert_eq!(resolved("a.toml", "", &[&joined]).unwrap().config.lora_r, 6, "{flag}");
        }
    }

    #[test]
    fn values_with_names_are_types() {
        let types = |name: &str, file: &str, flags: &[&str]| {
            let config = resolved(name, file, flags).unwrap().config;
            (config.aggregation, config.recompute, config.target_modules)
        };
        let expected = (Aggregation::LastLayer, RecomputePolicy::GateUp, TargetModules::AllLinear);
        for [aggregation, recompute, all] in
            [["last_layer", "gate-up", "all-linear"], ["last-layer", "gate_up", "all-linear"]]
        {
            let flags = ["--aggregation", aggregation, "--recompute", recompute, "--target-modules", all];
            assert_eq!(types("a.toml", "", &flags), expected);
            let file = format!(
                "aggregation = \"{aggregation}\"\nrecompute = \"{recompute}\"\ntarget_modules = \"{all}\""
            );
            assert_eq!(types("a.toml", &file, &[]), expected);
        }
        let named = TargetModules::Named([Projection::Q, Projection::V].into());
        for file in ["[\"v_proj\", \"q_proj\"]", "\"q_proj,v_proj\""] {
            assert_eq!(types("a.toml", &format!("target_modules = {file}"), &[]).2, named);
        }
        assert_eq!(types("a.toml", "", &["--target-modules", "q_proj,v_proj"]).2, named);
    }

    #[test]
    fn all_mistakes_of_a_file_are_told_with_their_lines() {
        let toml = "learning_rate = \"1e-4\"\nseeed = 1\n\nbatch-size = 2\nbatch_size = 3\nmicro_batch_size = 4\n\
                    aggregation = \"median\"\nmax_steps = -1\nlora_r = 0\ntarget_modules = [\"q_prj\"]\n\
                    warmup_ratio = nan\ndevice = \"gpu\"\noffline = 1\nmodel = 3\nnum_epochs = 1.5\nzzzzzzzzzzzzz = 1";
        let text = mistakes("run.toml", toml, &["--margin", "2"]);
        for expected in [
            "15 mistakes",
            "run.toml:1: learning_rate: expected a number, found \"1e-4\"",
            "run.toml:2: unknown key `seeed`; did you mean `seed`?",
            "run.toml:5: batch_size: given in line 4 already, as batch_size",
            "run.toml:6: micro_batch_size: given in line 4 already, as batch_size",
            "run.toml:7: aggregation: expected one of attention, average, last_layer, found \"median\"",
            "run.toml:8: max_steps: expected a whole number of at least 0, found -1",
            "run.toml:9: lora_r: expected 1 to 65536, found 0",
            "run.toml:10: target_modules: expected a list of some of all-linear, q_proj",
            "run.toml:11: warmup_ratio: expected a number, found nan",
            "run.toml:12: device: expected auto, cpu, cuda or cuda:N, found \"gpu\"",
            "run.toml:13: offline: expected true or false, found 1",
            "run.toml:14: model: expected a text, found 3",
            "run.toml:15: num_epochs: expected a whole number of at least 0, found 1.5",
            "run.toml:16: unknown key `zzzzzzzzzzzzz`; known keys: ",
            "--margin: expected a number from 0 to 1, found 2",
        ] {
            assert!(text.contains(expected), "{expected:?} not in: {text}");
        }
        let one = mistakes("run.toml", "seed = \"x\"", &[]);
        assert!(
            one.ends_with("run.toml:1: seed: expected a whole number of at least 0, found \"x\""),
            "{one}"
        );
        let syntax = mistakes("run.toml", "seed = 1\nlora_r = = 1", &[]);
        assert!(syntax.contains("run.toml:2: expected TOML: "), "{syntax}");
    }

    #[test]
    fn json_is_read_with_its_lines_and_without_its_nulls() {
        let json =
            "{\n  \"seed\": 7,\n  \"max_steps\": null,\n  \"lora-rank\": 4,\n  \"nonsense\": null\n}\n";
        let config = resolved("a.json", json, &[]).unwrap().config;
        assert_eq!((config.seed, config.max_steps, config.lora_r), (7, None, 4));
        let json = "{\n  \"seed\": 7, \"lora_r\": \"4\",\n  \"target_modules\": [\n  \"up\"\n  ],\n  \"seed\": 8,\n\"x\": 1 }";
        let text = mistakes("a.json", json, &[]);
        for expected in [
            "a.json:2: lora_r: expected a whole number of at least 0, found \"4\"",
            "a.json:3: target_modules: expected a list of some of",
            "a.json:6: seed: given in line 2 already",
            "a.json:7: unknown key `x`",
        ] {
            assert!(text.contains(expected), "{expected:?} not in: {text}");
        }
        for (json, place) in
            [("{\n\"seed\": }", "a.json:2: "), ("{} {}", "a.json:1: "), ("{\"a\": 1", "a.json:1: ")]
        {
            let text = mistakes("a.json", json, &[]);
            assert!(text.contains(place) && text.contains("expected a JSON object"), "{text}");
        }
    }

    #[test]
    fn a_configuration_that_was_written_is_read_again() {
        let mut config = TrainConfig { max_seq_len: Some(77), save_steps: Some(3), ..TrainConfig::default() };
        for target_modules in [
            TargetModules::ByArchitecture,
            TargetModules::AllLinear,
            TargetModules::Named([Projection::Up].into()),
        ] {
            config = TrainConfig { target_modules, lora_dropout: 0.3, ..config };
            let dir = folder("train_config.json", &serde_json::to_string_pretty(&config).unwrap());
            let (options, mistakes) = of_file(&dir.path().join("train_config.json")).unwrap();
            assert_eq!((options.config, mistakes), (config.clone(), vec![]));
        }
    }

    #[test]
    fn contradictions_are_told() {
        let text = mistakes(
            "a.toml",
            "device = \"cpu\"\ndtype = \"bf16\"",
            &["--val-fraction", "0.5", "--val-data", "nowhere"],
        );
        for expected in [
            "a.toml:2: dtype: the processor computes in f32 only",
            "--val-fraction: expected 0",
            "--val-data",
            "nowhere",
        ] {
            assert!(text.contains(expected), "{expected:?} not in: {text}");
        }
        assert!(!text.contains("--data:"), "{text}");
    }
}
