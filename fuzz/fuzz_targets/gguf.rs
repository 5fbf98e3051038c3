//! A GGUF file: an import or an error, and what is imported is a model directory.
#![no_main]

use deepguard::import::{ImportDtype, import_gguf};
use deepguard::model::config::Config;
use deepguard::model::weights::Weights;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (file, out) = (dir.path().join("model.gguf"), dir.path().join("model"));
    std::fs::write(&file, bytes).expect("a temporary file");
    if import_gguf(&file, &out, ImportDtype::default()).is_ok() {
        let config = Config::from_dir(&out).expect("an imported configuration");
        Weights::open(&out)
            .expect("imported weights")
            .check(&config)
            .expect("the weights of the configuration");
    }
});
