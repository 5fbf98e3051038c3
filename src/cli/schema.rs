//! `dg-run config`: every key of a training configuration.

use anyhow::{Context, Result};
use clap::Args;

use super::keys::{Key, Keys, Kind};
use super::print;

/// Columns of a comment.
const WIDTH: usize = 100;

/// Options of `dg-run config`: none.
#[derive(Args)]
pub(super) struct ConfigArgs {}

/// Prints all keys as TOML, a configuration file to start from. Keys that have a default
/// stand there with it, the others commented out.
pub(super) fn run(_: &ConfigArgs) -> Result<()> {
    print(&template()?)?;
    Ok(())
}

fn template() -> Result<String> {
    let mut text = String::from(
        "# Options of `dg-run train --config FILE`, with their defaults. Flags of the command line override them; \
         paths\n# are relative to the folder that dg-run is started in.\n",
    );
    for key in Keys::new()?.iter() {
        text += &entry(key)?;
    }
    Ok(text)
}

fn entry(key: &Key) -> Result<String> {
    let name = &key.name;
    let mut text = String::from("\n");
    for line in wrapped(&format!("{}. ({})", key.help.trim_end_matches('.'), type_of(key))) {
        text += &format!("# {line}\n");
    }
    let default = &key.default;
    if default.is_null() || default.as_str() == Some("") {
        return Ok(text + &format!("# {name} = {}\n", example(key.kind)));
    }
    // 2e-5 rather than 0.00002.
    if let Some(small) = default.as_f64().filter(|x| *x != 0.0 && x.abs() < 1e-3) {
        return Ok(text + &format!("{name} = {small:e}\n"));
    }
    let value = toml::Value::try_from(default).with_context(|| format!("the default of {name}"))?;
    Ok(text + &format!("{name} = {value}\n"))
}

/// What TOML calls the type.
fn type_of(key: &Key) -> String {
    let kind = match key.kind {
        Kind::Integer => "integer",
        Kind::Number => "number",
        Kind::Boolean => "boolean",
        Kind::Path => "string: a path",
        Kind::Text => "string",
        Kind::List => "list of strings",
    };
    match key.names.as_slice() {
        [] => kind.to_owned(),
        names => format!("{kind}: {}", names.join(", ")),
    }
}

/// A value of the type, for keys without a default.
fn example(kind: Kind) -> &'static str {
    match kind {
        Kind::List => "[]",
        Kind::Integer => "1",
        Kind::Number => "0.5",
        Kind::Boolean => "false",
        Kind::Path | Kind::Text => "\"\"",
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
    use super::super::config::{Place, of_file};
    use super::super::keys::defaults;
    use super::*;
    use crate::train::TrainConfig;

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
        let known: Vec<String> = defaults().unwrap().keys().cloned().collect();
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
        let (options, mistakes) = of_file(&file).unwrap();
        assert_eq!((options.config, mistakes), (TrainConfig::default(), vec![]));
        assert_eq!(options.place, Place::default());
        // Uncommented, every key has a value of its type.
        std::fs::write(&file, toml::to_string(&keys(&template)).unwrap()).unwrap();
        assert_eq!(of_file(&file).unwrap().1, Vec::<String>::new());
    }

    #[test]
    fn every_key_says_what_it_is() {
        let template = template().unwrap();
        assert!(template.contains("# Peak learning rate. (number)\nlearning_rate = 2e-5\n"), "{template}");
        assert!(!template.contains("# . ("), "{template}");
        assert!(template.lines().all(|line| line.chars().count() <= 120));
    }
}
