//! A safetensors file: every tensor that it is said to have, and whose type is known, lies in it.
#![no_main]

use deepguard::model::weights::Weights;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("model.safetensors");
    std::fs::write(&path, bytes).expect("a temporary file");
    if let Ok(weights) = Weights::open_file(&path) {
        for name in weights.names() {
            if let Ok(tensor) = weights.tensor(name) {
                assert_eq!(tensor.to_f32_vec().len(), tensor.len());
            }
        }
    }
});
