//! The key-value section of a GGUF file, read by type: a wrong type is an error that names the key.

use super::reader::{DAMAGED, Reader};
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// One metadata value; strings and number arrays stay in the mapped file.
#[derive(Debug)]
pub(super) enum Value<'a> {
    Unsigned(u64),
    Signed(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    Text(&'a str),
    Texts(Vec<&'a str>),
    Numbers(Scalar, &'a [u8]),
}

/// The fixed-width value types, with the codes of the GGUF specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

const TEXT: u32 = 8;
const ARRAY: u32 = 9;

impl Scalar {
    fn from_code(code: u32) -> Option<Self> {
        use Scalar::*;
        [U8, I8, U16, I16, U32, I32, F32, Bool, U64, I64, F64].into_iter().find(|kind| *kind as u32 == code)
    }

    fn width(self) -> usize {
        match self {
            Scalar::U8 | Scalar::I8 | Scalar::Bool => 1,
            Scalar::U16 | Scalar::I16 => 2,
            Scalar::U32 | Scalar::I32 | Scalar::F32 => 4,
            Scalar::U64 | Scalar::I64 | Scalar::F64 => 8,
        }
    }
}

/// All key-value pairs of a file.
#[derive(Debug, Default)]
pub(super) struct Metadata<'a>(BTreeMap<&'a str, Value<'a>>);

impl<'a> Metadata<'a> {
    /// Reads `count` pairs; a key that comes twice is an error.
    pub(super) fn read(reader: &mut Reader<'a>, count: u64) -> Result<Self> {
        let mut pairs = BTreeMap::new();
        for _ in 0..count {
            let key = reader.string().map_err(|e| e.context("metadata key"))?;
            let value = read_value(reader).map_err(|e| e.context(format_args!("metadata key `{key}`")))?;
            if pairs.insert(key, value).is_some() {
                return Err(Error::model(format!(
                    "metadata key `{key}`: expected once, found twice; {DAMAGED}"
                )));
            }
        }
        Ok(Metadata(pairs))
    }

    /// Every key, sorted.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.0.keys().copied()
    }

    /// The value of `key`, or `None` where the file has no such key.
    pub(super) fn get<'m, T: FromValue<'m>>(&'m self, key: &str) -> Result<Option<T>> {
        let Some(value) = self.0.get(key) else { return Ok(None) };
        T::from_value(value).map(Some).ok_or_else(|| {
            Error::model(format!(
                "metadata key `{key}`: expected {}, found {}; {DAMAGED}",
                T::EXPECTED,
                value.describe()
            ))
        })
    }

    /// The value of `key`, which the file must have.
    pub(super) fn need<'m, T: FromValue<'m>>(&'m self, key: &str) -> Result<T> {
        self.get(key)?.ok_or_else(|| {
            Error::model(format!(
                "metadata key `{key}`: expected {}, found no such key; convert the model again with a recent \
                 llama.cpp",
                T::EXPECTED
            ))
        })
    }

    /// What `key` holds, if that is one boolean, integer or string; else its description.
    pub(super) fn json(&self, key: &str) -> serde_json::Value {
        match self.0.get(key) {
            Some(Value::Bool(value)) => (*value).into(),
            Some(Value::Unsigned(value)) => (*value).into(),
            Some(Value::Signed(value)) => (*value).into(),
            _ => self.describe(key).into(),
        }
    }

    /// What `key` holds, in words for a message.
    pub(super) fn describe(&self, key: &str) -> String {
        self.0.get(key).map_or_else(|| "nothing".into(), Value::describe)
    }
}

fn read_value<'a>(reader: &mut Reader<'a>) -> Result<Value<'a>> {
    match reader.u32()? {
        TEXT => Ok(Value::Text(reader.string()?)),
        ARRAY => read_array(reader),
        code => read_scalar(reader, known_scalar(code)?),
    }
}

fn read_array<'a>(reader: &mut Reader<'a>) -> Result<Value<'a>> {
    let code = reader.u32()?;
    let count = reader.u64()?;
    match code {
        TEXT => (0..count).map(|_| reader.string()).collect::<Result<_>>().map(Value::Texts),
        // Refused before descending: depth would otherwise be the file's to choose.
        ARRAY => Err(Error::model(format!(
            "expected an array of numbers or strings, found nested arrays; {DAMAGED}"
        ))),
        code => {
            let kind = known_scalar(code)?;
            Ok(Value::Numbers(kind, reader.items(count, kind.width())?))
        }
    }
}

fn read_scalar<'a>(reader: &mut Reader<'a>, kind: Scalar) -> Result<Value<'a>> {
    Ok(match kind {
        Scalar::U8 => Value::Unsigned(u8::from_le_bytes(reader.chunk()?).into()),
        Scalar::I8 => Value::Signed(i8::from_le_bytes(reader.chunk()?).into()),
        Scalar::U16 => Value::Unsigned(u16::from_le_bytes(reader.chunk()?).into()),
        Scalar::I16 => Value::Signed(i16::from_le_bytes(reader.chunk()?).into()),
        Scalar::U32 => Value::Unsigned(reader.u32()?.into()),
        Scalar::I32 => Value::Signed(i32::from_le_bytes(reader.chunk()?).into()),
        Scalar::U64 => Value::Unsigned(reader.u64()?),
        Scalar::I64 => Value::Signed(i64::from_le_bytes(reader.chunk()?)),
        Scalar::F32 => Value::F32(f32::from_le_bytes(reader.chunk()?)),
        Scalar::F64 => Value::F64(f64::from_le_bytes(reader.chunk()?)),
        Scalar::Bool => match reader.chunk()? {
            [0] => Value::Bool(false),
            [1] => Value::Bool(true),
            [other] => {
                return Err(Error::model(format!(
                    "expected a boolean byte 0 or 1, found {other}; {DAMAGED}"
                )));
            }
        },
    })
}

fn known_scalar(code: u32) -> Result<Scalar> {
    Scalar::from_code(code)
        .ok_or_else(|| Error::model(format!("expected a value type 0 to 12, found {code}; {DAMAGED}")))
}

impl Value<'_> {
    fn describe(&self) -> String {
        match self {
            Value::Unsigned(v) => v.to_string(),
            Value::Signed(v) => v.to_string(),
            Value::F32(v) => v.to_string(),
            Value::F64(v) => v.to_string(),
            Value::Bool(v) => v.to_string(),
            Value::Text(v) => format!("the string `{}`", v.chars().take(60).collect::<String>()),
            Value::Texts(v) => format!("an array of {} strings", v.len()),
            Value::Numbers(kind, v) => format!("an array of {} {kind:?} values", v.len() / kind.width()),
        }
    }
}

/// A Rust type that a metadata value can be read as.
pub(super) trait FromValue<'m>: Sized {
    /// The type in words, for the error.
    const EXPECTED: &'static str;
    /// The value, if it has this type.
    fn from_value(value: &'m Value<'_>) -> Option<Self>;
}

impl FromValue<'_> for u64 {
    const EXPECTED: &'static str = "a non-negative integer";
    fn from_value(value: &Value<'_>) -> Option<Self> {
        match value {
            Value::Unsigned(v) => Some(*v),
            Value::Signed(v) => u64::try_from(*v).ok(),
            _ => None,
        }
    }
}

impl FromValue<'_> for f64 {
    const EXPECTED: &'static str = "a finite number";
    fn from_value(value: &Value<'_>) -> Option<Self> {
        let number = match value {
            // The shortest decimal of the f32: 1e-5, not 9.99999974e-6, is what the model's author wrote.
            Value::F32(v) => v.to_string().parse().ok()?,
            Value::F64(v) => *v,
            _ => return None,
        };
        number.is_finite().then_some(number)
    }
}

impl FromValue<'_> for bool {
    const EXPECTED: &'static str = "a boolean";
    fn from_value(value: &Value<'_>) -> Option<Self> {
        if let Value::Bool(v) = value { Some(*v) } else { None }
    }
}

impl<'m> FromValue<'m> for &'m str {
    const EXPECTED: &'static str = "a string";
    fn from_value(value: &'m Value<'_>) -> Option<Self> {
        if let Value::Text(v) = value { Some(v) } else { None }
    }
}

impl<'m> FromValue<'m> for &'m [&'m str] {
    const EXPECTED: &'static str = "an array of strings";
    fn from_value(value: &'m Value<'_>) -> Option<Self> {
        if let Value::Texts(v) = value { Some(v) } else { None }
    }
}

impl FromValue<'_> for Vec<i32> {
    const EXPECTED: &'static str = "an array of 32-bit integers";
    fn from_value(value: &Value<'_>) -> Option<Self> {
        four_byte_numbers(value, Scalar::I32, i32::from_le_bytes)
    }
}

impl FromValue<'_> for Vec<f32> {
    const EXPECTED: &'static str = "an array of 32-bit floats";
    fn from_value(value: &Value<'_>) -> Option<Self> {
        four_byte_numbers(value, Scalar::F32, f32::from_le_bytes)
    }
}

fn four_byte_numbers<T>(value: &Value<'_>, wanted: Scalar, decode: fn([u8; 4]) -> T) -> Option<Vec<T>> {
    match value {
        Value::Numbers(kind, bytes) if *kind == wanted => {
            Some(bytes.chunks_exact(4).map(|b| decode([b[0], b[1], b[2], b[3]])).collect())
        }
        _ => None,
    }
}
