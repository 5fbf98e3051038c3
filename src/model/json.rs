//! The small JSON files of a model directory: read with a size limit, and every complaint names file and
//! field.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::Path;

use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::fields::Table;
use crate::error::{Context, Error, ErrorKind, Result};

/// Reads a regular file of at most `max_bytes`; symbolic links are followed (the hub cache consists of them).
pub(crate) fn read_bounded(path: &Path, max_bytes: u64) -> Result<Vec<u8>> {
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

/// The fields of one JSON object, as far as the table of its file has them honoured. An absent field and a
/// `null` are the same thing.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    label: String,
    /// `None` for an object in a field, of which all is read.
    table: Option<&'static Table>,
    map: Map<String, Value>,
}

impl Fields {
    /// Reads the object in the file at `path`, of at most `max_bytes`.
    pub(super) fn read(path: &Path, table: &'static Table, max_bytes: u64) -> Result<Fields> {
        Fields::parse(path.display().to_string(), table, &read_bounded(path, max_bytes)?)
    }

    /// Parses an object; `label` starts every error message.
    pub(super) fn parse(label: String, table: &'static Table, json: &[u8]) -> Result<Fields> {
        let map = serde_json::from_slice(json)
            .kind(ErrorKind::Model, || format!("{label} is not a valid JSON object"))?;
        Ok(Fields { label, table: Some(table), map })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.map.keys().map(String::as_str)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        let readable = self.table.is_none_or(|table| table.honours(name));
        self.map.get(name).filter(|value| readable && !value.is_null())
    }

    /// What the table refuses, in the order of the file.
    pub(super) fn refusals(&self) -> impl Iterator<Item = Error> {
        let refusal = |(name, value): (&String, &Value)| self.table?.handling(name)?.refusal(value);
        self.map.iter().filter_map(move |field| Some(self.unexpected(field.0, &refusal(field)?)))
    }

    /// A sentence about the fields that the table does not know, if there are any.
    pub(super) fn unknown(&self) -> Option<String> {
        unknown(&self.label, self.given(), self.table?)
    }

    /// [`Fields::unknown`] without those that `other` knows.
    pub(super) fn unknown_beside(&self, other: &Table) -> Option<String> {
        unknown(&self.label, self.given().filter(|name| other.handling(name).is_none()), self.table?)
    }

    fn given(&self) -> impl Iterator<Item = &String> {
        self.map.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name)
    }

    /// The error "field: expected …, found …".
    pub(super) fn unexpected(&self, name: &str, expected: &str) -> Error {
        let found = self.map.get(name).filter(|value| !value.is_null());
        let found = found.map_or_else(|| "nothing".to_owned(), shortened);
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
        let label = || format!("{}: {name}", self.label);
        Ok(map.map(|map| Fields { label: label(), table: None, map: map.clone() }))
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

    /// A token id, or a list of them, whether there are such tokens or not.
    pub(super) fn token_ids(&self, name: &str) -> Result<Option<Vec<i64>>> {
        self.convert(name, "a token id or a list of them", |value| match value {
            Value::Array(ids) => ids.iter().map(as_id).collect(),
            id => as_id(id).map(|id| vec![id]),
        })
    }

    pub(super) fn label(&self) -> &str {
        &self.label
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

/// An integer of any size; one that no `i64` holds is as far beyond every vocabulary as the largest.
fn as_id(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_u64().map(|_| i64::MAX))
}

/// A sentence about those of `names`, of the file `label`, that `table` does not know.
fn unknown<'a>(label: &str, names: impl Iterator<Item = &'a String>, table: &Table) -> Option<String> {
    const MOST: usize = 8;
    let names: Vec<&str> = names.map(String::as_str).filter(|name| table.handling(name).is_none()).collect();
    let more = names.len().saturating_sub(MOST);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let shown: Vec<String> = names.iter().take(MOST).map(|name| shortened(&Value::from(*name))).collect();
    (!names.is_empty()).then(|| format!("{label}: not known and not read: {}{more}", shown.join(", ")))
}

/// A sentence about the outer fields of a large JSON object that `table` does not know; none if it is no
/// object.
pub(super) fn unknown_outer_fields(label: &str, json: &[u8], table: &Table) -> Option<String> {
    let outer: BTreeMap<String, IgnoredAny> = serde_json::from_slice(json).ok()?;
    unknown(label, outer.keys(), table)
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
