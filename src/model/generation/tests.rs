use std::fs;

use serde_json::{Value, json};

use super::*;
use crate::error::ErrorKind;

/// What the two files say about a model of 512 tokens.
fn read(config: Value, generation: Option<Value>) -> GenerationConfig {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    if let Some(generation) = generation {
        fs::write(dir.path().join("generation_config.json"), generation.to_string()).unwrap();
    }
    GenerationConfig::from_dir(dir.path(), 512)
}

fn of(generation: Value) -> GenerationConfig {
    read(json!({"eos_token_id": 7}), Some(generation))
}

#[test]
fn ends_of_generation_config_go_before_those_of_config() {
    let eos = |generation| of(generation).eos_token_ids;
    assert_eq!(eos(json!({"eos_token_id": [8, 9]})), [8, 9]);
    assert_eq!(eos(json!({"eos_token_id": null})), [7]);
    assert_eq!(eos(json!({})), [7]);
    assert_eq!(read(json!({"eos_token_id": [1, 2]}), None).eos_token_ids, [1, 2]);
    assert_eq!(read(json!({}), None), GenerationConfig::default());
}

#[test]
fn ends_beyond_the_vocabulary_are_named_and_not_used() {
    let some = of(json!({"eos_token_id": [260, 9999, -1]}));
    assert_eq!(some.eos_token_ids, [260]);
    let [note] = some.notes.as_slice() else { panic!("{:?}", some.notes) };
    assert!(note.contains("generation_config.json") && note.contains("9999, -1"), "{note}");
    let none = of(json!({"eos_token_id": u64::MAX}));
    assert_eq!(none.eos_token_ids, [0u32; 0]);
    assert!(none.notes[0].contains("nothing ends"), "{:?}", none.notes);
    some.check().unwrap();
    none.check().unwrap();
}

#[test]
fn penalty_and_suppression() {
    let read =
        of(json!({"repetition_penalty": 1.5, "suppress_tokens": [1, 600, -1], "begin_suppress_tokens": [2]}));
    assert_eq!(read.repetition_penalty, 1.5);
    assert_eq!(
        (read.suppress_tokens.as_slice(), read.begin_suppress_tokens.as_slice()),
        (&[1][..], &[2][..])
    );
    read.check().unwrap();
    // Without the file, config.json counts.
    let older = super::tests::read(json!({"repetition_penalty": 1.25}), None);
    assert_eq!(older.repetition_penalty, 1.25);
    let both = super::tests::read(json!({"repetition_penalty": 1.25}), Some(json!({})));
    assert_eq!(both.repetition_penalty, 1.0);
}

#[test]
fn what_is_not_computed_is_refused_by_name_when_something_is_generated() {
    for (field, value) in [
        ("no_repeat_ngram_size", json!(3)),
        ("bad_words_ids", json!([[1]])),
        ("min_new_tokens", json!(4)),
        ("forced_bos_token_id", json!(1)),
        ("num_beams", json!(4)),
        ("stop_strings", json!(["x"])),
        ("repetition_penalty", json!(0)),
        ("repetition_penalty", json!("1.5")),
        ("suppress_tokens", json!([1.5])),
        ("eos_token_id", json!("x")),
        ("eos_token_id", json!([[1]])),
    ] {
        let error = of(json!({ field: value })).check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Model);
        for part in ["generation_config.json", field, &value.to_string()] {
            assert!(error.to_string().contains(part), "{part} not in: {error}");
        }
    }
    of(json!({"no_repeat_ngram_size": 0, "num_beams": 1, "bad_words_ids": null, "length_penalty": 2.0}))
        .check()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("generation_config.json"), "{").unwrap();
    let error = GenerationConfig::from_dir(dir.path(), 512).check().unwrap_err();
    assert!(error.to_string().contains("generation_config.json is not a valid JSON object"), "{error}");
}

#[test]
fn a_suggestion_is_said_where_it_differs() {
    let said = |generation: Value| of(generation).suggestion.and_then(|s| s.beside(0.7, 0.8, 20));
    let same = json!({"do_sample": true, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "min_p": 0.0});
    assert_eq!(said(same.clone()), None);
    assert_eq!(said(json!({"do_sample": false, "temperature": 0.1})), None);
    assert_eq!(said(json!({"temperature": 0.1})), None);
    for (field, value) in
        [("temperature", json!(0.6)), ("top_p", json!(1)), ("top_k", json!(0)), ("min_p", json!(0.1))]
    {
        let mut other = same.clone();
        other[field] = value.clone();
        let said = said(other).unwrap();
        assert!(said.contains(&format!("{field} {value}")), "{said}");
    }
    assert!(said(json!({"do_sample": true})).unwrap().contains("temperature 1, top_p 1, top_k 50"));
}

#[test]
fn unknown_fields_are_named() {
    assert_eq!(of(json!({"temperature": 1, "use_cache": true, "nothing": null})).notes, [""; 0]);
    let notes = of(json!({"new_thing": 1})).notes;
    assert!(notes[0].contains("generation_config.json") && notes[0].contains("\"new_thing\""), "{notes:?}");
    assert_eq!(read(json!({"new_thing": 1}), None).notes, [""; 0], "config.json is another reader's");
}
