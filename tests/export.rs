//! Merging: the exported model computes what base and adapter compute together.

#[path = "common/places.rs"]
mod places;
#[path = "common/tiny.rs"]
mod tiny;

use std::path::Path;

use deepguard::ErrorKind;
use deepguard::cpu::Cpu;
use deepguard::decode::final_logits;
use deepguard::export::merge;
use deepguard::files::{OwnedTensor, write_safetensors};
use deepguard::model::tokenizer::Tokenizer;
use deepguard::model::transformer::Transformer;
use deepguard::ops::Dtype;
use half::bf16;
use tiny::{Tiny, folder, read_tensors};

const TOKENS: [u32; 12] = [5, 77, 201, 3, 3, 150, 99, 280, 41, 0, 260, 13];

/// Rounds the model's weights to bfloat16.
fn round_weights(model: &Path) {
    let path = model.join("model.safetensors");
    let rounded = |(name, shape, values): tiny::Tensor| {
        let bytes = values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect();
        (name, OwnedTensor { dtype: safetensors::Dtype::BF16, shape, bytes })
    };
    let tensors: Vec<_> = read_tensors(&path).into_iter().map(rounded).collect();
    write_safetensors(&path, &tensors).unwrap();
}

fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let square = |x: f32| f64::from(x).powi(2);
    let difference: f64 = found.iter().zip(expected).map(|(f, e)| square(f - e)).sum();
    (difference / expected.iter().map(|&e| square(e)).sum::<f64>()).sqrt()
}

fn merged_equals_base_and_adapter(architecture: &str, dtype: Dtype, tolerance: f64) {
    let tiny = Tiny::new(architecture);
    if dtype == Dtype::Bf16 {
        round_weights(&tiny.model());
    }
    let before = folder(&tiny.model());
    let model = tiny.load();
    let attached = tiny::attached(&model.config, 5);
    let out = tiny.path("merged");
    let check = merge(&model, &attached, &out, &TOKENS).unwrap();
    assert_eq!(folder(&tiny.model()), before, "the base model is as it was");

    let merged = Transformer::load(Cpu::new(), &out).unwrap();
    assert_eq!((merged.dtype, &merged.config), (dtype, &model.config));
    let expected = final_logits(&model, Some(&attached), &TOKENS).unwrap();
    let found = final_logits(&merged, None, &TOKENS).unwrap();
    let error = relative_error(&found, &expected);
    assert!(error < tolerance, "{architecture} {dtype:?}: {error}");
    assert!((check.relative_error - error).abs() < 1e-9 && check.relative_error <= check.tolerance);
    // The adapter does something that a merge could have lost.
    assert!(relative_error(&final_logits(&model, None, &TOKENS).unwrap(), &expected) > 10.0 * tolerance);
    let text = "def f(x):\n    return x\n";
    let encode = |dir: &Path| Tokenizer::from_dir(dir).unwrap().encode(text).unwrap();
    assert_eq!(encode(&out), encode(&tiny.model()));
}

#[test]
fn a_merged_model_equals_base_and_adapter() {
    for architecture in ["llama", "qwen2"] {
        merged_equals_base_and_adapter(architecture, Dtype::F32, 1e-5);
        merged_equals_base_and_adapter(architecture, Dtype::Bf16, 1e-2);
    }
}

#[test]
fn tensors_without_an_adapter_are_copied_bit_by_bit() {
    let tiny = Tiny::new("qwen2");
    let (model, out) = (tiny.load(), tiny.path("merged"));
    let attached = tiny::attached(&model.config, 5);
    merge(&model, &attached, &out, &TOKENS).unwrap();
    let (base, merged) = [tiny.model(), out].map(|dir| read_tensors(&dir.join("model.safetensors"))).into();
    assert_eq!(base.len(), merged.len());
    for (before, after) in base.iter().zip(&merged) {
        assert_eq!((&before.0, &before.1), (&after.0, &after.1));
        let adapted = ["q_proj.weight", "v_proj.weight"].iter().any(|name| before.0.ends_with(name));
        assert_eq!(before.2 != after.2, adapted, "{}", before.0);
    }
}

#[test]
fn an_existing_folder_is_left_alone() {
    let tiny = Tiny::new("llama");
    let (model, out) = (tiny.load(), tiny.path("merged"));
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("note"), "mine").unwrap();
    let attached = tiny::attached(&model.config, 5);
    let error = merge(&model, &attached, &out, &TOKENS).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().contains("merged: expected a folder that is new or empty"), "{error}");
    assert_eq!(folder(&out), [("note".to_owned(), b"mine".to_vec())]);
    // The export's own base is such a folder.
    let error = merge(&model, &attached, &tiny.model(), &TOKENS).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
}

#[test]
fn a_merge_that_would_be_wrong_writes_nothing() {
    let tiny = Tiny::new("llama");
    let (model, out) = (tiny.load(), tiny.path("merged"));
    let mut attached = tiny::attached(&model.config, 5);
    // B is so large that the products are beyond f32.
    let pairs: Vec<_> = attached.lora.as_ref().unwrap().pairs().map(|pair| pair.b.clone()).collect();
    for b in &pairs {
        attached.params.upload(b, &vec![1e38; b.range.len()]);
    }
    let error = merge(&model, &attached, &out, &TOKENS).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Model, "{error}");
    assert!(!out.exists());
    let left: Vec<_> = folder_names(&tiny.path(""));
    assert_eq!(left, ["data", "model"], "no temporary folder is left");
}

fn folder_names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
