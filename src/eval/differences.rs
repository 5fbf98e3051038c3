//! Where two values differ, field by field.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use crate::error::{Context, ErrorKind, Result};

/// A place where two values differ.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Difference {
    /// Names of fields, and of elements of lists, on the way there.
    pub place: String,
    /// What one has there: JSON, `null` for nothing, or how many elements.
    pub one: String,
    /// What the other has there.
    pub other: String,
}

/// All places where two values differ.
///
/// # Errors
/// Kind `Internal`: they are no JSON.
pub(super) fn differences<T: Serialize>(one: &T, other: &T) -> Result<Vec<Difference>> {
    let json =
        |value: &T| serde_json::to_value(value).kind(ErrorKind::Internal, || "cannot write JSON".into());
    let mut found = Vec::new();
    walk(&json(one)?, &json(other)?, "", &mut found);
    Ok(found)
}

fn walk(one: &Value, other: &Value, place: &str, found: &mut Vec<Difference>) {
    match (one, other) {
        (Value::Object(fields), Value::Object(others)) => {
            let names: BTreeSet<&String> = fields.keys().chain(others.keys()).collect();
            for name in names {
                let inner = if place.is_empty() { name.clone() } else { format!("{place}.{name}") };
                let of =
                    |fields: &serde_json::Map<String, Value>| fields.get(name).cloned().unwrap_or_default();
                walk(&of(fields), &of(others), &inner, found);
            }
        }
        (Value::Array(elements), Value::Array(others)) if elements.len() == others.len() => {
            for (i, (one, other)) in elements.iter().zip(others).enumerate() {
                walk(one, other, &format!("{place}[{}]", name_of(one, i)), found);
            }
        }
        _ if one == other => {}
        _ => found.push(Difference { place: place.to_owned(), one: shown(one), other: shown(other) }),
    }
}

/// Lists of different lengths have too much to show.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(elements) => format!("{} of them", elements.len()),
        other => other.to_string(),
    }
}

/// What an element of a list is called.
fn name_of(element: &Value, index: usize) -> String {
    match (&element["id"], &element["group"], &element["metric"]) {
        (Value::String(id), ..) => id.clone(),
        (_, Value::String(group), Value::String(metric)) => format!("{group}, {metric}"),
        _ => index.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_difference_has_its_place() {
        let one = json!({"a": 1, "b": {"c": [1, 2], "d": [{"id": "x", "n": 1}], "e": [1]}, "same": [1]});
        let other =
            json!({"b": {"c": [1, 3], "d": [{"id": "x", "n": null}], "e": []}, "f": "g", "same": [1]});
        let found = differences(&one, &other).unwrap();
        let found: Vec<_> =
            found.iter().map(|found| [&found.place, &found.one, &found.other].map(String::as_str)).collect();
        let expected = [
            ["a", "1", "null"],
            ["b.c[1]", "2", "3"],
            ["b.d[x].n", "1", "null"],
            ["b.e", "1 of them", "0 of them"],
            ["f", "null", "\"g\""],
        ];
        assert_eq!(found, expected);
        assert_eq!(differences(&one, &one).unwrap(), []);
    }
}
