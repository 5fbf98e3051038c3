//! Models with random weights, and pairs of the mean lengths of SVEN's.

use std::path::PathBuf;

use deepguard::attached::Attached;
use deepguard::files::{OwnedTensor, write_safetensors};
use deepguard::guard::GuardConfig;
use deepguard::init::initialize;
use deepguard::model::{Config, LoraConfig, Transformer, expected_tensors};
use deepguard::ops::Backend;
use deepguard::ops::philox::philox;
use deepguard::train::batch::TokenPair;
use half::bf16;
use safetensors::tensor::Dtype;

/// Tokens of a pair: the means over SVEN's training pairs, cut at 1024.
#[derive(Clone, Copy)]
pub struct Lengths {
    pub secure: usize,
    pub vulnerable: usize,
    pub shared: usize,
}

pub const SVEN: Lengths = Lengths { secure: 432, vulnerable: 422, shared: 226 };

/// A model of this configuration, kept in `target/tmp` under a name for the next time.
pub fn random_model<B: Backend>(backend: B, name: &str, config_json: &str) -> Transformer<B> {
    let tmp = option_env!("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tmp.join(name);
    std::fs::create_dir_all(&dir).expect("target folder");
    let weights = dir.join("model.safetensors");
    if !weights.exists() {
        std::fs::write(dir.join("config.json"), config_json).expect("target folder");
        let config = Config::from_json(config_json).expect("config");
        let tensors: Vec<(String, OwnedTensor)> = expected_tensors(&config)
            .into_iter()
            .enumerate()
            .map(|(i, spec)| (spec.name, random_tensor(i as u32, &spec.shape)))
            .collect();
        write_safetensors(&weights, &tensors).expect("target folder");
    }
    Transformer::load(backend, &dir).expect("model")
}

fn random_tensor(index: u32, shape: &[usize]) -> OwnedTensor {
    let n: usize = shape.iter().product();
    let value = |i: usize| {
        let unit = philox(1, [i as u32, index, 0, 0])[0] as f32 / u32::MAX as f32;
        bf16::from_f32(if shape.len() == 1 { 1.0 } else { (unit - 0.5) * 0.1 })
    };
    let bytes = (0..n).flat_map(|i| value(i).to_le_bytes()).collect();
    OwnedTensor { dtype: Dtype::BF16, shape: shape.to_vec(), bytes }
}

/// Adapters and guard as training begins with.
pub fn attached<B: Backend>(model: &Transformer<B>) -> Attached<B> {
    let lora = LoraConfig::default_for(&model.config);
    let mut attached =
        Attached::new(&model.backend, &model.config, lora, GuardConfig::default()).expect("memory");
    initialize(&mut attached, 1);
    attached
}

/// Pairs of random tokens.
pub fn pairs(count: usize, lengths: Lengths, vocab_size: usize) -> Vec<TokenPair> {
    let token =
        |pair: usize, side: u32, t: usize| philox(2, [t as u32, side, pair as u32, 0])[0] % vocab_size as u32;
    let side = |pair: usize, side: u32, n: usize| -> Vec<u32> {
        (0..n).map(|t| token(pair, if t < lengths.shared { 0 } else { side }, t)).collect()
    };
    (0..count)
        .map(|id| TokenPair::new(id, side(id, 1, lengths.secure), side(id, 2, lengths.vulnerable)))
        .collect()
}
