use std::path::PathBuf;

use super::*;

fn golden(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models").join(model)
}

#[test]
fn golden_models_open_and_fit_their_configuration() {
    for model in ["llama-tiny", "qwen2-tiny"] {
        let config = Config::from_dir(&golden(model)).unwrap();
        let weights = Weights::open(&golden(model)).unwrap();
        weights.check(&config).unwrap();
        assert_eq!(weights.names().count(), expected_tensors(&config).len());
        let embedding = weights.tensor(EMBEDDING).unwrap();
        assert_eq!(embedding.shape(), [512, 64]);
        assert_eq!(embedding.as_f32().unwrap().len(), 512 * 64);
    }
}
