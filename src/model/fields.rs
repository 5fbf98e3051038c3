//! Every field of a model's files, and what becomes of it. The readers of `config.json`,
//! `generation_config.json`, `tokenizer_config.json` and `special_tokens_map.json` get at a field only
//! through its table; those of the other files ask their table what is refused or unknown.
//! `docs/model-files.md` shows the same tables.

use serde_json::Value;

mod adapter;
mod config;
mod generation;
mod gguf;
mod tokenizer;

pub use adapter::{ADAPTER_CONFIG, OFF, PREFIX_CONFIG};
pub use config::{CONFIG, INDEX};
pub use generation::GENERATION_CONFIG;
pub use gguf::GGUF;
pub use tokenizer::{SPECIAL_TOKENS_MAP, TOKENIZER, TOKENIZER_CONFIG};

/// The tables of all files.
pub const TABLES: [&Table; 9] = [
    &CONFIG,
    &GENERATION_CONFIG,
    &TOKENIZER_CONFIG,
    &SPECIAL_TOKENS_MAP,
    &TOKENIZER,
    &INDEX,
    &ADAPTER_CONFIG,
    &PREFIX_CONFIG,
    &GGUF,
];

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// The field is read and does what it says.
    Honoured,
    /// The field is an error that names file, field and value, unless it is absent, `null` or one of these
    /// JSON values.
    Refused(&'static [&'static str]),
    /// The field changes neither ids nor logits nor stops here.
    Neutral,
}

/// A field of a file.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The field's name; a `*` at its end stands for anything.
    pub name: &'static str,
    /// What becomes of it.
    pub handling: Handling,
    /// Why, or how.
    pub reason: &'static str,
}

/// The fields of a file.
#[derive(Debug)]
pub struct Table {
    /// The file's name, and of which kind it is where files of one name have different fields.
    pub file: &'static str,
    /// What becomes of a field that is not in the table.
    pub otherwise: &'static str,
    /// Every field that the ecosystem is known to write.
    pub fields: &'static [Field],
}

/// What is said of an unknown field of a file that is read with warnings.
const NAMED: &str = "named in a warning, and not read";

const fn honoured(name: &'static str, reason: &'static str) -> Field {
    Field { name, handling: Handling::Honoured, reason }
}

const fn neutral(name: &'static str, reason: &'static str) -> Field {
    Field { name, handling: Handling::Neutral, reason }
}

const fn refused(name: &'static str, unless: &'static [&'static str], reason: &'static str) -> Field {
    Field { name, handling: Handling::Refused(unless), reason }
}

impl Table {
    /// What becomes of the field `name`; `None` if the table does not know it.
    pub fn handling(&self, name: &str) -> Option<Handling> {
        self.fields.iter().find(|field| field.matches(name)).map(|field| field.handling)
    }

    /// Whether the field `name` may be read.
    pub fn honours(&self, name: &str) -> bool {
        self.handling(name) == Some(Handling::Honoured)
    }
}

impl Field {
    fn matches(&self, name: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => self.name == name,
        }
    }
}

impl Handling {
    /// Why a field with this value is refused, as "expected …"; `None` if it is not.
    pub(crate) fn refusal(self, value: &Value) -> Option<String> {
        let Handling::Refused(unless) = self else { return None };
        let is = |json: &&&str| same_value(value, &serde_json::from_str(json).unwrap_or(Value::Null));
        if value.is_null() || unless.iter().any(|json| is(&json)) {
            return None;
        }
        Some(match unless {
            [] => "no such field, which is not supported".to_owned(),
            [only] => format!("the only supported value, {only}"),
            values => format!("one of the supported values {}", values.join(", ")),
        })
    }
}

/// Equality of JSON values in which 0 equals 0.0.
fn same_value(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

#[cfg(test)]
mod tests;
