//! The small JSON files of a model directory: read with a size limit, and every complaint names file and field.

use std::fs::File;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Context, Error, ErrorKind, Result};

/// Reads a regular file of at most `max_bytes`; symbolic links are followed (the hub cache consists of them).
pub(super) fn read_bounded(path: &Path, max_bytes: u64) -> Result<Vec<u8>> {
    let complain = || format!("cannot read {}", path.display());
    let meta = std::fs::metadata(path).kind(ErrorKind::Model, complain)?;
    if !meta.is_file() {
        return Err(Error::model(format!("{} is not a regular file", path.display())));
    }
    let mut bytes = Vec::new();
    // One byte beyond the limit shows that the file is too long, even if it grows while it is read.
    let limit = max_bytes.saturating_add(1);
    File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .kind(ErrorKind::Model, complain)?;
    if bytes.len() as u64 > max_bytes {
        let found = meta.len();
        return Err(Error::model(format!(
            "{}: expected at most {max_bytes} bytes, found {found}",
            path.display()
        )));
    }
    Ok(bytes)
}

/// The fields of one JSON object. An absent field and a `null` are the same thing.
pub(super) struct Fields {
    label: String,
    map: Map<String, Value>,
}

impl Fields {
    /// Reads the object in the file at `path`, of at most `max_bytes`.
    pub(super) fn read(path: &Path, max_bytes: u64) -> Result<Fields> {
        Fields::parse(path.display().to_string(), &read_bounded(path, max_bytes)?)
    }

    /// Parses an object; `label` starts every error message.
    pub(super) fn parse(label: String, json: &[u8]) -> Result<Fields> {
        let map = serde_json::from_slice(json)
            .kind(ErrorKind::Model, || format!("{label} is not a valid JSON object"))?;
        Ok(Fields { label, map })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.map.keys().map(String::as_str)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// The error "field: expected …, found …".
    pub(super) fn unexpected(&self, name: &str, expected: &str) -> Error {
        let found = self.get(name).map_or_else(|| "nothing".to_owned(), shortened);
        Error::model(format!("{}: {name}: expected {expected}, found {found}", self.label))
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&str>> {
        self.convert(name, "a string", Value::as_str)
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>> {
        self.convert(name, "true or false", Value::as_bool)
    }

    pub(super) fn list(&self, name: &str) -> Result<Option<&[Value]>> {
        self.convert(name, "a list", |value| value.as_array().map(Vec::as_slice))
    }

    pub(super) fn object(&self, name: &str) -> Result<Option<Fields>> {
        let map = self.convert(name, "an object", Value::as_object)?;
        Ok(map.map(|map| Fields { label: format!("{}: {name}", self.label), map: map.clone() }))
    }

    pub(super) fn number(&self, name: &str, range: RangeInclusive<f64>) -> Result<Option<f64>> {
        self.convert(name, &number_in(&range), |value| value.as_f64().filter(|x| range.contains(x)))
    }

    /// As [`Fields::number`]; the field must be there.
    pub(super) fn required_number(&self, name: &str, range: RangeInclusive<f64>) -> Result<f64> {
        self.number(name, range.clone())?.ok_or_else(|| self.unexpected(name, &number_in(&range)))
    }

    /// An integer in `1..=max`.
    pub(super) fn size(&self, name: &str, max: usize) -> Result<Option<usize>> {
        self.convert(name, &size_up_to(max), |value| as_index(value).filter(|n| (1..=max).contains(n)))
    }

    /// As [`Fields::size`]; the field must be there.
    pub(super) fn required_size(&self, name: &str, max: usize) -> Result<usize> {
        self.size(name, max)?.ok_or_else(|| self.unexpected(name, &size_up_to(max)))
    }

    /// A token id below `vocab_size`.
    pub(super) fn token_id(&self, name: &str, vocab_size: usize) -> Result<Option<u32>> {
        self.convert(name, &format!("a token id below {vocab_size}"), |value| as_token(value, vocab_size))
    }

    /// A token id or a list of them, all below `vocab_size`.
    pub(super) fn token_ids(&self, name: &str, vocab_size: usize) -> Result<Option<Vec<u32>>> {
        let expected = format!("a token id below {vocab_size} or a list of such");
        self.convert(name, &expected, |value| match value {
            Value::Array(ids) => ids.iter().map(|id| as_token(id, vocab_size)).collect(),
            id => as_token(id, vocab_size).map(|id| vec![id]),
        })
    }

    fn convert<'a, T>(
        &'a self,
        name: &str,
        expected: &str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        self.get(name).map(|value| convert(value).ok_or_else(|| self.unexpected(name, expected))).transpose()
    }
}

fn number_in(range: &RangeInclusive<f64>) -> String {
    format!("a number from {:e} to {:e}", range.start(), range.end())
}

fn size_up_to(max: usize) -> String {
    format!("an integer from 1 to {max}")
}

fn as_index(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|n| usize::try_from(n).ok())
}

fn as_token(value: &Value, vocab_size: usize) -> Option<u32> {
    as_index(value).filter(|&id| id < vocab_size).and_then(|id| u32::try_from(id).ok())
}

/// The value as JSON, cut so that a hostile file cannot flood the terminal.
fn shortened(value: &Value) -> String {
    const MAX_CHARS: usize = 80;
    let json = value.to_string();
    match json.char_indices().nth(MAX_CHARS) {
        Some((cut, _)) => format!("{}…", &json[..cut]),
        None => json,
    }
}
