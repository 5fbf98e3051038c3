//! Keys of a training configuration. The command line of `train` is their table: names, aliases, types and
//! help are its own, and defaults are those of the library.

use std::any::TypeId;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::builder::{ArgAction, PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Arg, CommandFactory};
use serde::Serialize;
use serde_json::{Map, Value};

use super::Cli;
use super::device::DeviceArgs;
use super::ranks::RANKS;
use crate::error::Error;
use crate::train::TrainConfig;

/// Arguments of `train` that belong to one call, and so into no file.
const OF_A_CALL: [&str; 5] = ["config", "dry_run", "quiet", "verbose", "help"];

/// A key of a configuration file, which is a flag of the command line as well.
pub(super) struct Key {
    /// The name, with underscores.
    pub(super) name: String,
    /// All names of the key, with underscores.
    spellings: Vec<String>,
    pub(super) help: String,
    pub(super) kind: Kind,
    /// The values that can be, if they have names.
    pub(super) names: Vec<String>,
    /// `Null` where nothing is the default.
    pub(super) default: Value,
}

/// What a value looks like in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Integer,
    Number,
    Boolean,
    Path,
    Text,
    List,
}

impl Kind {
    fn of(arg: &Arg) -> Self {
        let parsed = arg.get_value_parser().type_id();
        if matches!(arg.get_action(), ArgAction::Append) {
            Kind::List
        } else if matches!(arg.get_action(), ArgAction::SetTrue) {
            Kind::Boolean
        } else if parsed == TypeId::of::<usize>() || parsed == TypeId::of::<u64>() {
            Kind::Integer
        } else if parsed == TypeId::of::<f64>() || parsed == TypeId::of::<f32>() {
            Kind::Number
        } else if parsed == TypeId::of::<PathBuf>() {
            Kind::Path
        } else {
            Kind::Text
        }
    }

    /// Whether a value looks like this.
    pub(super) fn fits(self, value: &Value) -> bool {
        match self {
            Kind::Integer => value.is_u64(),
            Kind::Number => value.is_number(),
            Kind::Boolean => value.is_boolean(),
            Kind::Path | Kind::Text => value.is_string(),
            Kind::List => value.is_array() || value.is_string(),
        }
    }
}

impl Key {
    /// What a complaint expects.
    pub(super) fn expected(&self) -> String {
        let names = self.names.join(", ");
        let expected = match self.kind {
            Kind::List if !self.names.is_empty() => return format!("a list of some of {names}"),
            _ if !self.names.is_empty() => return format!("one of {names}"),
            Kind::Integer => "a whole number of at least 0",
            Kind::Number => "a number",
            Kind::Boolean => "true or false",
            Kind::Path => "a path as text",
            Kind::Text => "a text",
            Kind::List => "a list of texts",
        };
        expected.to_owned()
    }

    /// All names of the key, with underscores.
    #[cfg(test)]
    pub(super) fn spellings(&self) -> &[String] {
        &self.spellings
    }

    /// The flag of the command line.
    pub(super) fn flag(&self) -> String {
        format!("--{}", self.name.replace('_', "-"))
    }
}

/// All keys, in the order of the help.
pub(super) struct Keys(Vec<Key>);

impl Keys {
    pub(super) fn new() -> Result<Self> {
        let mut program = Cli::command(); // in whose help no defaults stand
        program.build();
        let train = program.find_subcommand("train").context("no command `train`")?;
        let defaults = defaults()?;
        // Which rank a process is belongs to a call as well.
        let is_key =
            |arg: &&Arg| !OF_A_CALL.contains(&arg.get_id().as_str()) && arg.get_help_heading() != Some(RANKS);
        let args = train.get_arguments().filter(is_key);
        Ok(Keys(args.map(|arg| Key::new(arg, &defaults)).collect()))
    }

    /// The key that a name means, whatever its spelling.
    pub(super) fn find(&self, name: &str) -> Option<&Key> {
        let name = name.replace('-', "_");
        self.0.iter().find(|key| key.spellings.contains(&name))
    }

    /// What somebody may have meant, or all there is.
    pub(super) fn suggestion(&self, name: &str) -> String {
        let spellings = || self.0.iter().flat_map(|key| &key.spellings);
        let distance = |known: &&String| strsim::damerau_levenshtein(&name.replace('-', "_"), known);
        match spellings().min_by_key(distance).filter(|known| distance(known) <= 3) {
            Some(known) => format!("did you mean `{known}`?"),
            None => {
                let names: Vec<&str> = self.0.iter().map(|key| key.name.as_str()).collect();
                format!("known keys: {}", names.join(", "))
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Key> {
        self.0.iter()
    }
}

impl Key {
    fn new(arg: &Arg, defaults: &Map<String, Value>) -> Self {
        let name = arg.get_id().as_str().to_owned();
        let aliases = arg.get_all_aliases().unwrap_or_default();
        let flags = aliases.into_iter().chain(arg.get_long());
        let spellings = flags.map(|flag| flag.replace('-', "_")).chain([name.clone()]);
        let names = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        let kind = Kind::of(arg);
        Key {
            spellings: spellings.collect(),
            help: plain_help(arg),
            names: if kind == Kind::Boolean { Vec::new() } else { names },
            default: defaults.get(&name).cloned().unwrap_or_default(),
            kind,
            name,
        }
    }
}

fn plain_help(arg: &Arg) -> String {
    arg.get_help().map(ToString::to_string).unwrap_or_default()
}

/// Every key with its default.
pub(super) fn defaults() -> Result<Map<String, Value>> {
    let mut defaults = object(&TrainConfig::default())?;
    defaults.extend(object(&DeviceArgs::default())?);
    defaults.insert("threads".to_owned(), Value::Null);
    Ok(defaults)
}

/// A value as a JSON object, by way of text, in which f32 values have no more digits than they need.
pub(super) fn object(value: &impl Serialize) -> Result<Map<String, Value>> {
    let text = serde_json::to_string(value).context("options as JSON")?;
    serde_json::from_str(&text).context("options as a JSON object")
}

/// An argument whose help ends with its default.
pub(super) fn with_default(arg: Arg, defaults: &Map<String, Value>) -> Arg {
    match defaults.get(arg.get_id().as_str()).and_then(shown) {
        // clap shows the default value of an argument that has one of its own.
        Some(default) if arg.get_default_values().is_empty() => {
            let help = format!("{} [default: {default}]", plain_help(&arg));
            arg.help(help)
        }
        _ => arg,
    }
}

/// A default as it stands in help and files: 2e-5 rather than 0.00002. `None` where nothing is the default.
pub(super) fn shown(default: &Value) -> Option<String> {
    match default {
        // A flag is off, and does not say so.
        Value::Null | Value::Bool(_) => None,
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Number(number) => match number.as_f64() {
            Some(small) if small != 0.0 && small.abs() < 1e-3 => Some(format!("{small:e}")),
            Some(real) if number.is_f64() => Some(real.to_string()),
            _ => Some(number.to_string()),
        },
        other => Some(other.to_string()),
    }
}

/// A parser of values that have names, which help and completions show. Hyphens are as good as underscores.
pub(super) fn names<const N: usize>(names: [&'static str; N]) -> PossibleValuesParser {
    let value = |name: &'static str| PossibleValue::new(name).aliases(other_spelling(name));
    PossibleValuesParser::new(names.map(value))
}

/// The name with hyphens for underscores, or the other way round, if it has any.
fn other_spelling(name: &'static str) -> Option<&'static str> {
    match name {
        "gate-up" => Some("gate_up"),
        "last_layer" => Some("last-layer"),
        _ => None,
    }
}

/// [`names`], as values of the type that has them.
pub(super) fn named<T: Clone + Send + Sync + 'static, const N: usize>(
    values: [T; N],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    let parser = names(values.clone().map(name));
    parser.try_map(move |found| {
        let value = values.iter().find(|value| name((*value).clone()) == found).cloned();
        value.ok_or_else(|| Error::internal(format!("{found} is no name")))
    })
}
