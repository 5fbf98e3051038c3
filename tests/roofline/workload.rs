//! What training steps and decoded tokens launch: a model of real widths and few layers does them on the
//! emulator, which runs some blocks of each launch.

use std::fs::File;
use std::path::Path;

use cuda_emulator::client::Launched;
use deepguard::attached::Attached;
use deepguard::cuda::Cuda;
use deepguard::decode::{GenerateOptions, generate};
use deepguard::guard::GuardConfig;
use deepguard::init::initialize;
use deepguard::model::activations::Recompute;
use deepguard::model::{Config, LoraConfig, Transformer, expected_tensors};
use deepguard::ops::philox::{philox, unit};
use deepguard::ops::sample::{Sample, Sampling};
use deepguard::ops::{Arena, Device};
use deepguard::train::base_cache::BaseCache;
use deepguard::train::batch::TokenPair;
use deepguard::train::step::{Objective, Stepper, Update};
use serde_json::{Map, Value, json};

use super::emulator::{checked, own_cuda};
use super::sven_lengths::SVEN_LENGTHS;

/// A model, as its configuration says.
pub struct Model {
    pub name: &'static str,
    pub hidden: usize,
    pub wide: usize,
    pub layers: usize,
    /// Heads of queries, and those of keys and values.
    pub heads: [usize; 2],
    pub vocab: usize,
}

/// Qwen2.5-Coder-7B.
pub const QWEN_7B: Model =
    Model { name: "7B", hidden: 3584, wide: 18_944, layers: 28, heads: [28, 4], vocab: 152_064 };
/// Qwen2.5-Coder-0.5B.
pub const QWEN_HALF_B: Model =
    Model { name: "0.5B", hidden: 896, wide: 4864, layers: 24, heads: [14, 2], vocab: 151_936 };

/// Launches with the names of their kernels.
pub type Launches = Vec<(String, Launched)>;

/// What a model launches.
pub struct Work<const N: usize> {
    /// Of a step whose base states are known, and of one of the first epoch.
    pub steps: [Launches; 2],
    /// Of so many sequences' tokens, and of one token more.
    pub tokens: [[Launches; 2]; N],
}

const UPDATE: Update = Update { lr: 1e-5, weight_decay: 0.01, max_grad_norm: 1.0 };
/// Every tenth of the lengths from here on, sixteen pairs, has about as many tokens as the mean of all.
const FIRST_PAIR: usize = 3;
/// Tokens of a prompt, and of its samples before the one that is looked at.
const PROMPT: usize = 200;
const GENERATED: usize = 2;
const SAMPLING: Sampling = Sampling::new(0.4, 0.95, 50, 1);

/// Bytes of memory of the GPU.
const MEMORY: u64 = 80 << 30;
/// Clusters of a launch that run. Blocks of products are alike, those of attention are not. All run where
/// others take addresses or lengths from what they write.
const SAMPLED: &[(&str, u64)] = &[
    ("sort_rows", u64::MAX),
    ("sample", u64::MAX),
    ("gemm_grouped", 16),
    ("gemm_", 2),
    ("attention", 24),
    ("", 8),
];
const NONE: &[(&str, u64)] = &[("", 0)];

impl Model {
    /// Writes configuration and weights of the first `layers`, which are zeros that take no room on a disk.
    fn write(&self, folder: &Path, layers: usize) {
        let config = json!({
            "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": self.hidden,
            "intermediate_size": self.wide, "num_hidden_layers": layers, "num_attention_heads": self.heads[0],
            "num_key_value_heads": self.heads[1], "vocab_size": self.vocab, "hidden_act": "silu",
            "rms_norm_eps": 1e-6, "rope_theta": 1e6, "max_position_embeddings": 32768,
            "tie_word_embeddings": true, "torch_dtype": "bfloat16", "use_sliding_window": false,
        });
        let config = config.to_string();
        let (mut header, mut end) = (Map::new(), 0);
        for spec in expected_tensors(&Config::from_json(&config).expect("a configuration")) {
            let start = end;
            end += 2 * spec.shape.iter().product::<usize>();
            let entry = json!({"dtype": "BF16", "shape": spec.shape, "data_offsets": [start, end]});
            header.insert(spec.name, entry);
        }
        let header = Value::from(header).to_string();
        let beginning = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
        std::fs::write(folder.join("config.json"), config).expect("a file");
        let weights = folder.join("model.safetensors");
        std::fs::write(&weights, &beginning).expect("a file");
        let file = File::options().write(true).open(weights).expect("a file");
        file.set_len((beginning.len() + end) as u64).expect("a file with holes");
    }

    /// The model with `layers`, on a device of its own, on which nothing runs yet. Its head is the embedding,
    /// which costs the same and takes half the memory.
    fn emulated(&self, layers: usize) -> Transformer<Cuda> {
        let cuda = own_cuda();
        sample(NONE);
        let folder = tempfile::tempdir().expect("a folder");
        self.write(folder.path(), layers);
        checked(Transformer::load(cuda, folder.path()))
    }

    /// What is launched with `layers`; tokens of each of `sequences` that are decoded together.
    pub fn launches<const N: usize>(&self, layers: usize, sequences: [usize; N]) -> Work<N> {
        let model = self.emulated(layers);
        Work { tokens: sequences.map(|samples| tokens(&model, samples)), steps: steps(&model) }
    }

    /// The launch that chooses the next tokens of `samples` sequences, by logits as models have them: what it
    /// does depends on them, and those of a model of zeros are all equal.
    pub fn choosing(&self, samples: usize) -> Launches {
        let cuda = own_cuda();
        let buffers = Arena::build(&cuda, |arena| {
            let mut of_each = || arena.buffer("of each sample", &[samples]);
            let (tokens, positions, numbers) = (of_each()?, of_each()?, of_each()?);
            Ok((tokens, positions, numbers, arena.buffer("logits", &[samples, self.vocab])?))
        });
        let (mut tokens, mut positions, mut numbers, mut logits) = checked(buffers).0;
        let number: Vec<u32> = (0..samples as u32).collect();
        cuda.upload(numbers.view_mut(), &number);
        // A few are likely, and most are not.
        let logit = |i: usize| 12.0 * unit(philox(1, [i as u32, 0, 0, 0])[0]).powi(8);
        let values: Vec<f32> = (0..samples * self.vocab).map(logit).collect();
        cuda.upload_act(logits.view_mut(), &values);
        sample(SAMPLED);
        let (logits, numbers) = (logits.view(), numbers.view());
        cuda.sample(tokens.view_mut(), None, positions.view_mut(), logits, numbers, SAMPLING);
        checked(cuda.finish());
        launched()
    }
}

fn steps(model: &Transformer<Cuda>) -> [Launches; 2] {
    let pairs: Vec<TokenPair> = step_lengths().enumerate().map(|(id, of)| pair(id, of)).collect();
    let objective = Objective::default();
    let capacity = objective.capacity(pairs.iter(), pairs.len());
    let (attached, cache) = (attached(model), Some(BaseCache::new(usize::MAX)));
    let stepper = Stepper::new(model, attached, objective, cache, capacity, &[Recompute::Nothing]);
    let mut stepper = checked(stepper);
    let batches = vec![pairs.iter().collect::<Vec<_>>()];
    // The first step allocates, and learns the base states.
    checked(stepper.step(&batches, 0, UPDATE));
    checked(model.backend.finish());
    [true, false].map(|known| {
        if !known {
            stepper.base_cache = Some(BaseCache::new(usize::MAX));
        }
        sample(SAMPLED);
        checked(stepper.step(&batches, 1, UPDATE));
        checked(model.backend.finish());
        launched()
    })
}

fn tokens(model: &Transformer<Cuda>, samples: usize) -> [Launches; 2] {
    let prompt: Vec<u32> = (0..PROMPT).map(|i| (i * 7) as u32 % 1000).collect();
    [GENERATED, GENERATED + 1].map(|tokens| {
        let options = GenerateOptions::default().with(|o| {
            o.max_new_tokens = tokens;
            o.num_samples = samples;
            // Without limits it is quick where all logits are equal; `Model::choosing` is what counts.
            o.sampling = Sampling::new(1.0, 1.0, 0, 1);
        });
        sample(SAMPLED);
        checked(generate(model, None, &prompt, &options, &mut |_, _| true));
        checked(model.backend.finish());
        launched()
    })
}

fn sample(clusters: &[(&str, u64)]) {
    checked(checked(cuda_emulator::load()).sample(clusters, MEMORY));
}

/// What was launched since; nothing runs any more.
fn launched() -> Launches {
    let launches = checked(checked(cuda_emulator::load()).launched());
    sample(NONE);
    launches
}

/// Tokens of the secure functions of a step's pairs, of the vulnerable ones, and of what both begin with.
pub fn step_lengths() -> impl Iterator<Item = (usize, usize, usize)> {
    (0..16).map(|i| SVEN_LENGTHS[FIRST_PAIR + 10 * i])
}

/// Adapters and guard as training begins with.
fn attached(model: &Transformer<Cuda>) -> Attached<Cuda> {
    let lora = LoraConfig::default_for(&model.config);
    let mut attached = checked(Attached::new(&model.backend, &model.config, lora, GuardConfig::default()));
    initialize(&mut attached, 1);
    attached
}

fn pair(id: usize, (secure, vulnerable, shared): (usize, usize, usize)) -> TokenPair {
    let common = (0..shared).map(|i| (i * 7 + id) as u32 % 200);
    let rest = |first: u32, len: usize| (shared..len).map(move |i| first + (i * 5 + id) as u32 % 100);
    TokenPair::new(
        id,
        common.clone().chain(rest(200, secure)).collect(),
        common.chain(rest(300, vulnerable)).collect(),
    )
}
