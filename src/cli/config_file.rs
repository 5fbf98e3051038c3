//! Configuration files, TOML or JSON: keys and values with the lines they stand on.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::Path;

use anyhow::Result;
use serde::Deserializer;
use serde::de::{MapAccess, Visitor};
use serde_json::Value;
use toml::Spanned;

use crate::error::{Context, Error, ErrorKind};
use crate::model::tokenizer::without_mark;

/// A key with its value.
pub(super) struct Entry {
    pub(super) key: String,
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) value: Value,
    /// The value as the file has it.
    pub(super) shown: String,
}

/// Reads a file: JSON if it is an object in braces, else TOML. A JSON key whose value is null is as good as
/// absent.
pub(super) fn read(path: &Path) -> Result<Vec<Entry>> {
    let complain = || format!("cannot read {}", path.display());
    let text = std::fs::read_to_string(path).kind(ErrorKind::Usage, complain)?;
    let text = without_mark(&text);
    let entries = if text.trim_start().starts_with('{') { from_json(text) } else { from_toml(text) };
    let mut entries =
        entries.map_err(|(line, message)| Error::usage(format!("{}:{line}: {message}", path.display())))?;
    entries.sort_by_key(|entry| entry.line);
    Ok(entries)
}

/// A line, and what is wrong there.
type Place = (usize, String);

fn from_toml(text: &str) -> std::result::Result<Vec<Entry>, Place> {
    let line_of = |offset: usize| 1 + text[..offset].matches('\n').count();
    let parsed: std::result::Result<BTreeMap<Spanned<String>, toml::Value>, _> = toml::from_str(text);
    let table = parsed.map_err(|error| {
        let line = line_of(error.span().map_or(0, |span| span.start));
        (line, format!("expected TOML: {}", error.message()))
    })?;
    let entry = |(key, value): (Spanned<String>, toml::Value)| Entry {
        line: line_of(key.span().start),
        key: key.into_inner(),
        shown: value.to_string(),
        value: json_value(value),
    };
    Ok(table.into_iter().map(entry).collect())
}

/// JSON has no infinities and no NaN; as texts, they are not taken for numbers.
fn json_value(value: toml::Value) -> Value {
    match value {
        toml::Value::Float(real) if !real.is_finite() => Value::String(real.to_string()),
        other => serde_json::to_value(other).unwrap_or_default(),
    }
}

fn from_json(text: &str) -> std::result::Result<Vec<Entry>, Place> {
    let line = Cell::new(1);
    let mut reader = serde_json::Deserializer::from_reader(Lines { bytes: text.as_bytes(), line: &line });
    let entries = reader.deserialize_map(Entries(&line)).and_then(|entries| reader.end().map(|()| entries));
    entries.map_err(|error| (error.line(), format!("expected a JSON object: {error}")))
}

/// A text that counts the lines as it is read. serde_json reads a byte at a time, and no further than it
/// must.
struct Lines<'a> {
    bytes: &'a [u8],
    line: &'a Cell<usize>,
}

impl Read for Lines<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let n = self.bytes.read(into)?;
        self.line.set(self.line.get() + into[..n].iter().filter(|byte| **byte == b'\n').count());
        Ok(n)
    }
}

/// Takes the entries of an object, with the line that the reader is at.
struct Entries<'a>(&'a Cell<usize>);

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = Vec<Entry>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of options")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Vec<Entry>, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let line = self.0.get();
            let value: Value = map.next_value()?;
            if !value.is_null() {
                entries.push(Entry { key, line, shown: value.to_string(), value });
            }
        }
        Ok(entries)
    }
}
