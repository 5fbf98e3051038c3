//! `model.safetensors.index.json`: names only files of its own folder, and tensors that they have.
#![no_main]

use deepguard::model::weights::Weights;
use libfuzzer_sys::fuzz_target;

/// A shard with the tensors `a` and `b`.
const SHARD: &[u8] = include_bytes!("../seeds/weights/two.safetensors");

fuzz_target!(|bytes: &[u8]| {
    let dir = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(dir.path().join("model.safetensors.index.json"), bytes).expect("a temporary file");
    std::fs::write(dir.path().join("shard.safetensors"), SHARD).expect("a temporary file");
    if let Ok(weights) = Weights::open(dir.path()) {
        assert!(weights.names().all(|name| name == "a" || name == "b"));
    }
});
