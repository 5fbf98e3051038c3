//! What the files of a model say, from end to end: what a text starts with, where a generation ends, which
//! head is used.

#[path = "common/places.rs"]
mod places;
#[path = "common/tiny.rs"]
mod tiny;

use std::process::Output;

use assert_cmd::Command;
use deepguard::cpu::Cpu;
use deepguard::decode::GenerateOptions;
use deepguard::ops::sample::Sampling;
use deepguard::{DeepGuard, export};
use serde_json::{Value, json};
use tiny::{EOS, Tiny};

const TEXT: &str = "x = query(name)\n";

fn dg_run(tiny: &Tiny, arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dg-run"));
    command.args(arguments.split(' ')).current_dir(tiny.path("")).env_remove("DG_EMULATOR");
    command.output().unwrap()
}

/// Standard output and standard error of a run that succeeds.
#[track_caller]
fn ok(tiny: &Tiny, arguments: &str) -> (String, String) {
    let output = dg_run(tiny, arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments}: {stderr}");
    (String::from_utf8(output.stdout).unwrap(), stderr)
}

#[track_caller]
fn fails(tiny: &Tiny, arguments: &str, code: i32, named: &[&str]) {
    let output = dg_run(tiny, arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    named.iter().for_each(|name| assert!(stderr.contains(name), "{name:?} not in: {stderr}"));
}

fn write(tiny: &Tiny, name: &str, value: &Value) {
    tiny::write_json(&tiny.model().join(name), value);
}

fn load(tiny: &Tiny) -> DeepGuard<Cpu> {
    DeepGuard::load(Cpu::new(), tiny.model()).unwrap()
}

fn greedy() -> GenerateOptions {
    GenerateOptions::default().with(|o| {
        o.max_new_tokens = 12;
        o.num_samples = 1;
        o.sampling = Sampling::new(0.0, 1.0, 0, 0);
    })
}

/// The tokens that a model continues `TEXT` with.
fn continued(guard: &DeepGuard<Cpu>) -> Vec<u32> {
    guard.generate(TEXT, &greedy(), &mut |_, _| true).unwrap().samples.remove(0)
}

/// The id that the tokenizer gives `<|endoftext|>`.
fn end_of_text(tiny: &Tiny) -> u32 {
    load(tiny).tokenizer.token_id("<|endoftext|>").unwrap()
}

/// A model whose tokenizer starts every text with `<|endoftext|>`: by its template, and by a switch beside
/// it.
fn with_start_token(by_template: bool) -> Tiny {
    let tiny = Tiny::new("llama");
    let start = end_of_text(&tiny);
    if by_template {
        tiny::edit_json(&tiny.model().join("tokenizer.json"), |tokenizer| {
            tokenizer["post_processor"] = json!({"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [start], "tokens": ["<|endoftext|>"]}}});
        });
    } else {
        let config = json!({"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": true, "bos_token": "<|endoftext|>"});
        write(&tiny, "tokenizer_config.json", &config);
    }
    tiny
}

/// The same text has the same tokens and the same mean wherever it is read.
#[test]
fn a_text_has_one_encoding() {
    for by_template in [true, false] {
        let tiny = with_start_token(by_template);
        let start_id = end_of_text(&tiny);
        ok(&tiny, "train --model model --data data --output-dir run --max-steps 1 --lora-r 2 --device cpu");
        let mut scores = Vec::new();
        for text in [TEXT.to_owned(), format!("\u{feff}{TEXT}")] {
            std::fs::write(tiny.path("x.py"), text).unwrap();
            let (scored, _) = ok(&tiny, "score --model model --adapter run --json --device cpu x.py");
            let scored: Value = serde_json::from_str(&scored).unwrap();
            let generate = "generate --model model --adapter run --json --max-new-tokens 1 --device cpu --prompt-file x.py";
            let (generated, _) = ok(&tiny, generate);
            let generated: Value = serde_json::from_str(&generated).unwrap();
            let of = |value: &Value| value.as_f64().unwrap();
            let (score, prompt) = (of(&scored["mean_score"]), of(&generated["prompt_score"]));
            assert!((score - prompt).abs() < 1e-6, "{score} against {prompt}");
            scores.push(score);
            let start = &scored["tokens"][0];
            assert_eq!(
                (&start["id"], &start["start"], &start["end"]),
                (&json!(start_id), &json!(0), &json!(0))
            );
        }
        assert_eq!(scores[0], scores[1], "a byte order mark is no part of a text");
        // Training and the check of its data read the start token too, once a function.
        let tokenizer = load(&tiny).tokenizer;
        let pairs = std::fs::read_to_string(tiny.path("data/train/pairs.jsonl")).unwrap();
        let expected: usize = pairs
            .lines()
            .map(|line| {
                let pair: Value = serde_json::from_str(line).unwrap();
                let tokens = |side: &str| tokenizer.encode(pair[side].as_str().unwrap()).unwrap();
                let both = [tokens("func_src_before"), tokens("func_src_after")];
                assert!(both.iter().all(|tokens| tokens[0] == start_id && !tokens[1..].contains(&start_id)));
                both.concat().len()
            })
            .sum();
        let (checked, _) = ok(&tiny, "data check data --model model --json");
        let checked: Value = serde_json::from_str(&checked).unwrap();
        assert_eq!(checked["train"]["tokens"]["total"], expected);
    }
}

/// What is printed is what was generated, special tokens too.
#[test]
fn generated_special_tokens_are_printed() {
    let tiny = Tiny::new("llama");
    // Nothing is left to be generated but `<|endoftext|>`.
    let end = end_of_text(&tiny);
    let others: Vec<u32> = (0..512).filter(|&id| id != end).collect();
    write(&tiny, "generation_config.json", &json!({"suppress_tokens": others, "eos_token_id": end}));
    let generate = "generate --model model --max-new-tokens 2 --device cpu --ignore-eos y";
    let (json, _) = ok(&tiny, &format!("{generate} --json"));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["tokens"], &json["text"]), (&json!([end, end]), &json!("<|endoftext|><|endoftext|>")));
    assert_eq!(ok(&tiny, generate).0, "<|endoftext|><|endoftext|>\n");
    let (stopped, _) = ok(&tiny, &generate.replace(" --ignore-eos", ""));
    assert_eq!(stopped, "\n", "a stop token is no text");
}

#[test]
fn generation_config_decides_what_is_generated() {
    let tiny = Tiny::new("qwen2");
    let free = continued(&load(&tiny));
    for (config, options) in [
        (json!({"repetition_penalty": 1.6}), greedy().with(|o| o.repetition_penalty = Some(1.6))),
        (json!({"suppress_tokens": [free[2]]}), greedy().with(|o| o.suppress_tokens = vec![free[2]])),
        (
            json!({"begin_suppress_tokens": [free[0]]}),
            greedy().with(|o| o.begin_suppress_tokens = vec![free[0]]),
        ),
    ] {
        let expected = load(&tiny).generate(TEXT, &options, &mut |_, _| true).unwrap().samples;
        write(&tiny, "generation_config.json", &config);
        assert_eq!(continued(&load(&tiny)), expected[0], "{config}");
        assert_ne!(expected[0], free, "{config}");
        let generate = "generate --model model --json --max-new-tokens 12 --device cpu y";
        let (of_file, _) = ok(&tiny, generate);
        let (flagged, _) = ok(&tiny, &format!("{generate} --repetition-penalty 1"));
        assert!(
            config.get("repetition_penalty").is_none() || of_file != flagged,
            "the flag overrides the file"
        );
        std::fs::remove_file(tiny.model().join("generation_config.json")).unwrap();
    }
}

#[test]
fn what_generation_does_not_compute_stops_nothing_else() {
    let tiny = Tiny::new("llama");
    write(
        &tiny,
        "generation_config.json",
        &json!({"no_repeat_ngram_size": 3, "eos_token_id": [EOS, 99_999]}),
    );
    let generate = "generate --model model --max-new-tokens 1 --device cpu y";
    fails(
        &tiny,
        generate,
        4,
        &["generation_config.json", "no_repeat_ngram_size", "the only supported value, 0", "found 3"],
    );
    ok(&tiny, "train --model model --data data --output-dir run --max-steps 1 --lora-r 2 --device cpu");
    std::fs::write(tiny.path("x.py"), TEXT).unwrap();
    ok(&tiny, "score --model model --adapter run --json --device cpu x.py");
    let suggestion =
        json!({"do_sample": true, "temperature": 0.3, "eos_token_id": [EOS, 99_999], "new_thing": 1});
    write(&tiny, "generation_config.json", &suggestion);
    let (_, said) = ok(&tiny, generate);
    for part in ["temperature 0.3", "99999", "\"new_thing\""] {
        assert_eq!(said.matches(part).count(), 1, "{part} in: {said}");
    }
}

#[test]
fn ids_that_are_not_used_are_no_reason_to_refuse_a_model() {
    for edit in
        [json!({"pad_token_id": -1}), json!({"bos_token_id": 99_999}), json!({"eos_token_id": [EOS, 99_999]})]
    {
        let tiny = Tiny::new("llama");
        tiny.edit_config(|config| config.as_object_mut().unwrap().extend(edit.as_object().unwrap().clone()));
        assert_eq!(load(&tiny).generation.eos_token_ids, [EOS]);
        ok(&tiny, "generate --model model --max-new-tokens 1 --device cpu y");
    }
}

/// A head that is stored although it is tied is used if it is another matrix, also after a merge.
#[test]
fn a_stored_head_is_used() {
    let tiny = Tiny::new("qwen2");
    let tied = continued(&load(&tiny));
    let file = tiny.model().join("model.safetensors");
    let head = |factor: f32| {
        tiny::edit_tensors(&file, |tensors| {
            tensors.retain(|tensor| tensor.0 != "lm_head.weight");
            let (_, shape, mut values) =
                tensors.iter().find(|t| t.0.contains("embed_tokens")).unwrap().clone();
            values.iter_mut().for_each(|value| *value *= factor);
            tensors.push(("lm_head.weight".into(), shape, values));
        });
    };
    head(1.0);
    let equal = load(&tiny);
    assert_eq!((continued(&equal), equal.notes().count()), (tied.clone(), 0), "a copy is dropped silently");
    head(-1.0);
    let differing = load(&tiny);
    let [note] = differing.notes().collect::<Vec<_>>()[..] else { panic!("one note") };
    assert!(note.contains("lm_head.weight") && note.contains("tie_word_embeddings"), "{note}");
    let own = continued(&differing);
    assert_ne!(own, tied);
    tiny.edit_config(|config| config["tie_word_embeddings"] = json!(false));
    assert_eq!(continued(&load(&tiny)), own, "it is the head of an untied model");
    tiny.edit_config(|config| config["tie_word_embeddings"] = json!(true));

    let attached = tiny::attached(&differing.model.config, 3);
    let out = tiny.path("merged");
    export::merge(&differing.model, &attached, &out, &[1, 2, 3]).unwrap();
    assert_eq!(tiny::read_json(&out.join("config.json"))["tie_word_embeddings"], json!(false));
    assert_eq!(DeepGuard::load(Cpu::new(), out).unwrap().notes().count(), 0);
}

#[test]
fn unknown_fields_are_named_once() {
    let tiny = Tiny::new("llama");
    tiny.edit_config(|config| config["new_thing"] = json!(1));
    write(&tiny, "tokenizer_config.json", &json!({"new_switch": true, "legacy": false}));
    let (_, said) = ok(&tiny, "generate --model model --max-new-tokens 1 --device cpu y");
    for part in ["\"new_thing\"", "\"new_switch\""] {
        assert_eq!(said.matches(part).count(), 1, "{part} in: {said}");
    }
    assert!(!said.contains("legacy"), "{said}");
    assert!(ok(&tiny, "data check data --model model").1.contains("new_switch"));
}

#[test]
fn other_formats_are_told_what_to_do() {
    let tiny = Tiny::new("llama");
    std::fs::write(tiny.path("model.Q4_K_M.gguf"), "GGUF").unwrap();
    fails(&tiny, "generate --model model.Q4_K_M.gguf --device cpu y", 4, &["is a file", "dg-run import"]);
    let weights = tiny.model().join("model.safetensors");
    std::fs::rename(&weights, tiny.model().join("a.gguf")).unwrap();
    fails(
        &tiny,
        "generate --model model --device cpu y",
        4,
        &["model.safetensors", "a.gguf", "dg-run import"],
    );
    std::fs::rename(tiny.model().join("a.gguf"), tiny.model().join("consolidated.00.pth")).unwrap();
    fails(
        &tiny,
        "generate --model model --device cpu y",
        4,
        &["consolidated.00.pth", "pickles are never read"],
    );
}
