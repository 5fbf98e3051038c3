//! `dg-run config`: every key of a training configuration.

use std::any::TypeId;
use std::path::PathBuf;

use clap::builder::ArgAction;
use clap::{Arg, Args, CommandFactory};
use serde_json::Value;

use super::{Cli, print};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::train::TrainConfig;

/// Columns of a comment.
const WIDTH: usize = 100;

/// Options of `dg-run config`: none.
#[derive(Args)]
pub(super) struct ConfigArgs {}

/// Prints it as TOML, so that what is printed is a configuration file to start from. Keys that have a default stand
/// there with it, the others commented out.
pub(super) fn run(_: &ConfigArgs) -> Result<()> {
    print(&template()?)
}

fn template() -> Result<String> {
    // By way of text, in which f32 values have no more digits than they need.
    let defaults =
        serde_json::to_string(&TrainConfig::default()).and_then(|text| serde_json::from_str(&text));
    let defaults: Value = defaults.kind(ErrorKind::Internal, || "the default configuration".to_owned())?;
    let program = Cli::command();
    let train = program.find_subcommand("train").ok_or_else(|| Error::internal("no command `train`"))?;
    let mut text = String::from(
        "# Options of `dg-run train --config FILE`, with their defaults. Flags of the command line override them; \
         paths\n# are relative to the folder that dg-run is started in.\n",
    );
    // What the command line has beyond these is not for files: where to compute, and the file itself.
    let keys = train.get_arguments().map(|arg| (arg, arg.get_id().as_str()));
    for (arg, key) in keys {
        if let Some(default) = defaults.get(key) {
            text += &entry(arg, key, default)?;
        }
    }
    Ok(text)
}

fn entry(arg: &Arg, key: &str, default: &Value) -> Result<String> {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    // The flag's help ends with the default, which stands in the file itself.
    let help = help.split(" [default").next().unwrap_or_default().trim_end_matches('.');
    let mut text = String::from("\n");
    for line in wrapped(&format!("{help}. ({})", type_of(arg))) {
        text += &format!("# {line}\n");
    }
    let unset =
        default.is_null() || default.as_str() == Some("") || default.as_array().is_some_and(Vec::is_empty);
    if unset {
        return Ok(text + &format!("# {key} = {}\n", example(arg)));
    }
    // 2e-5 rather than 0.00002.
    if let Some(small) = default.as_f64().filter(|x| *x != 0.0 && x.abs() < 1e-3) {
        return Ok(text + &format!("{key} = {small:e}\n"));
    }
    let value = toml::Value::try_from(default);
    let value = value.kind(ErrorKind::Internal, || format!("the default of {key}"))?;
    Ok(text + &format!("{key} = {value}\n"))
}

/// What TOML calls the type.
fn type_of(arg: &Arg) -> &'static str {
    let parsed = arg.get_value_parser().type_id();
    if matches!(arg.get_action(), ArgAction::Append) {
        "list of strings"
    } else if parsed == TypeId::of::<usize>() || parsed == TypeId::of::<u64>() {
        "integer"
    } else if parsed == TypeId::of::<f64>() || parsed == TypeId::of::<f32>() {
        "number"
    } else if parsed == TypeId::of::<PathBuf>() {
        "string: a path"
    } else if parsed == TypeId::of::<bool>() {
        "boolean"
    } else {
        "string"
    }
}

/// A value of the type, for keys without a default.
fn example(arg: &Arg) -> &'static str {
    match type_of(arg) {
        "list of strings" => "[]",
        "integer" => "1",
        "number" => "0.5",
        "boolean" => "false",
        _ => "\"\"",
    }
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        if !lines[last].is_empty() && lines[last].chars().count() + word.chars().count() >= WIDTH {
            lines.push(word.to_owned());
        } else {
            let space = if lines[last].is_empty() { "" } else { " " };
            lines[last] += &format!("{space}{word}");
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys, those commented out included, and their values.
    fn keys(template: &str) -> toml::Table {
        let uncommented: String = template
            .lines()
            .filter(|line| line.contains(" = ") && !line.contains(". ("))
            .map(|line| format!("{}\n", line.trim_start_matches("# ")))
            .collect();
        toml::from_str(&uncommented).unwrap()
    }

    #[test]
    fn every_key_is_there() {
        let template = template().unwrap();
        let defaults = serde_json::to_value(TrainConfig::default()).unwrap();
        let known: Vec<&String> = defaults.as_object().unwrap().keys().collect();
        let table = keys(&template);
        let found: Vec<&String> = table.keys().collect();
        let missing: Vec<_> = known.iter().filter(|key| !found.contains(key)).collect();
        assert!(missing.is_empty() && found.len() == known.len(), "{missing:?}\n{template}");
    }

    #[test]
    fn what_is_printed_is_the_default_configuration() {
        let template = template().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("run.toml");
        std::fs::write(&file, &template).unwrap();
        let resolved: TrainConfig =
            super::super::config::resolve(&TrainConfig::default(), Some(&file), &serde_json::json!({}))
                .unwrap();
        assert_eq!(resolved, TrainConfig::default());
        // Uncommented, every key has a value of its type.
        std::fs::write(&file, toml::to_string(&keys(&template)).unwrap()).unwrap();
        super::super::config::resolve::<TrainConfig>(
            &TrainConfig::default(),
            Some(&file),
            &serde_json::json!({}),
        )
        .unwrap();
    }

    #[test]
    fn every_key_says_what_it_is() {
        let template = template().unwrap();
        assert!(template.contains("# Peak learning rate. (number)\nlearning_rate = 2e-5\n"), "{template}");
        assert!(!template.contains("# . ("), "{template}");
        assert!(template.lines().all(|line| line.chars().count() <= 120));
    }
}
