//! Options from three places: flags > TOML file > defaults. An unknown key is an error with a suggestion.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Context, Error, ErrorKind, Result};

/// `defaults`, overridden by the TOML file if there is one, overridden by the flags that were given.
pub fn resolve<T: Serialize + DeserializeOwned>(
    defaults: &T,
    file: Option<&Path>,
    flags: &impl Serialize,
) -> Result<T> {
    let mut options = object(defaults)?;
    if let Some(path) = file {
        merge(&mut options, read_toml(path)?).map_err(|e| e.context(path.display()))?;
    }
    let given = object(flags)?.into_iter().filter(|(_, value)| !value.is_null());
    merge(&mut options, given.collect())?;
    serde_json::from_value(Value::Object(options))
        .kind(ErrorKind::Usage, || "the configuration is not valid".into())
}

fn object(value: &impl Serialize) -> Result<Map<String, Value>> {
    match serde_json::to_value(value).kind(ErrorKind::Internal, || "options".into())? {
        Value::Object(map) => Ok(map),
        other => Err(Error::internal(format!("options are not an object: {other}"))),
    }
}

fn read_toml(path: &Path) -> Result<Map<String, Value>> {
    let complain = || format!("cannot read {}", path.display());
    let text = std::fs::read_to_string(path).kind(ErrorKind::Usage, complain)?;
    let table: toml::Table = toml::from_str(&text).kind(ErrorKind::Usage, complain)?;
    // Hyphens as on the command line are as good as underscores.
    Ok(object(&table)?.into_iter().map(|(key, value)| (key.replace('-', "_"), value)).collect())
}

fn merge(options: &mut Map<String, Value>, given: Map<String, Value>) -> Result<()> {
    for (key, value) in given {
        if !options.contains_key(&key) {
            return Err(unknown_key(&key, options));
        }
        options.insert(key, value);
    }
    Ok(())
}

fn unknown_key(key: &str, options: &Map<String, Value>) -> Error {
    let distance = |known: &&String| strsim::damerau_levenshtein(key, known);
    let suggestion = options.keys().min_by_key(distance).filter(|known| distance(known) <= 3);
    let hint = match suggestion {
        Some(known) => format!("did you mean `{known}`?"),
        None => format!("known keys: {}", options.keys().cloned().collect::<Vec<_>>().join(", ")),
    };
    Error::usage(format!("unknown key `{key}`; {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::TrainConfig;

    #[derive(Serialize, Default)]
    struct Flags {
        seed: Option<u64>,
        lora_r: Option<usize>,
    }

    fn with_file(text: &str, flags: &Flags) -> Result<TrainConfig> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.toml");
        std::fs::write(&path, text).unwrap();
        resolve(&TrainConfig::default(), Some(&path), flags)
    }

    #[test]
    fn flags_beat_the_file_which_beats_the_defaults() {
        let config =
            with_file("seed = 7\nlora-r = 4\nmargin = 0.3", &Flags { seed: Some(9), lora_r: None }).unwrap();
        assert_eq!((config.seed, config.lora_r, config.margin, config.num_epochs), (9, 4, 0.3, 5));
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_usage_errors() {
        for (text, expected) in [
            ("learning_rat = 1", "did you mean `learning_rate`"),
            ("zzzzzzzzzzz = 1", "known keys"),
            ("seed = \"x\"", "not valid"),
            ("seed = = 1", "cannot read"),
        ] {
            let error = with_file(text, &Flags::default()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
