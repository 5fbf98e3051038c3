//! Models with random weights, and pairs of random tokens.

use std::borrow::Cow;
use std::error::Error;

use deepguard::attached::Attached;
use deepguard::guard::GuardConfig;
use deepguard::init::initialize;
use deepguard::model::{Config, LoraConfig, Transformer, expected_tensors};
use deepguard::ops::Backend;
use deepguard::ops::philox::philox;
use deepguard::train::batch::TokenPair;
use half::bf16;
use safetensors::tensor::{Dtype, View, serialize_to_file};

/// Tokens of a pair.
#[derive(Clone, Copy)]
pub struct Lengths {
    pub secure: usize,
    pub vulnerable: usize,
    pub shared: usize,
}

/// Random numbers before the same ones come again: not a power of two, so that rows differ.
const PERIOD: usize = 1_000_003;

/// A model of this configuration, by way of a temporary file.
pub fn random_model<B: Backend>(backend: B, config_json: &str) -> Result<Transformer<B>, Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("config.json"), config_json)?;
    let config = Config::from_json(config_json)?;
    let numbers: Vec<u8> = (0..PERIOD)
        .map(|i| philox(1, [i as u32, 0, 0, 0])[0] as f32 / u32::MAX as f32 - 0.5)
        .flat_map(|number| bf16::from_f32(0.1 * number).to_le_bytes())
        .collect();
    let tensors = expected_tensors(&config)
        .into_iter()
        .map(|spec| (spec.name, Random { shape: spec.shape, numbers: &numbers }));
    serialize_to_file(tensors, None, &dir.path().join("model.safetensors"))?;
    // From here on the backend has its own copy, or has mapped the file.
    Ok(Transformer::load(backend, dir.path())?)
}

/// A tensor of random numbers, or of ones if it is a vector, which is made when it is written.
struct Random<'a> {
    shape: Vec<usize>,
    /// bf16.
    numbers: &'a [u8],
}

impl View for Random<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::BF16
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let one = bf16::ONE.to_le_bytes();
        let period = if self.shape.len() == 1 { &one } else { self.numbers };
        let mut data = Vec::with_capacity(self.data_len());
        while data.len() < self.data_len() {
            let piece = period.len().min(self.data_len() - data.len());
            data.extend_from_slice(&period[..piece]);
        }
        Cow::Owned(data)
    }

    fn data_len(&self) -> usize {
        2 * self.shape.iter().product::<usize>()
    }
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
pub fn pairs(lengths: &[Lengths], vocab_size: usize) -> Vec<TokenPair> {
    let token =
        |pair: usize, side: u32, t: usize| philox(2, [t as u32, side, pair as u32, 0])[0] % vocab_size as u32;
    let side = |pair: usize, side: u32, n: usize, shared: usize| -> Vec<u32> {
        (0..n).map(|t| token(pair, if t < shared { 0 } else { side }, t)).collect()
    };
    let pair = |(id, of): (usize, &Lengths)| {
        TokenPair::new(id, side(id, 1, of.secure, of.shared), side(id, 2, of.vulnerable, of.shared))
    };
    lengths.iter().enumerate().map(pair).collect()
}
