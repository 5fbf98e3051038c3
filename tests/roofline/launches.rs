//! What training steps and decoded tokens launch: a model of real widths and few layers does them on the
//! emulator, which runs some blocks of each launch.

use std::fs::File;
use std::path::Path;

use cuda_emulator::client::Launched;
use deepguard::cuda::Cuda;
use deepguard::decode::{GenerateOptions, generate};
use deepguard::model::activations::Recompute;
use deepguard::model::{Config, Transformer, expected_tensors};
use deepguard::ops::attention::{Attention, Heads, Qkv, Segment};
use deepguard::ops::elementwise::Elementwise;
use deepguard::ops::philox::{philox, unit};
use deepguard::ops::sample::{Sample, Sampling};
use deepguard::ops::{Arena, Device};
use deepguard::train::base_cache::BaseCache;
use deepguard::train::step::{Objective, Stepper, Update};
use serde_json::{Map, Value, json};

use super::emulator::{checked, own_cuda};
use super::random_model::{attached, pairs};
use super::workload;

/// Launches with the names of their kernels.
pub type Launches = Vec<(String, Launched)>;

/// What a model launches.
pub struct Workload<const N: usize> {
    /// Of a step whose base states are known, and of one of the first epoch.
    pub steps: [Launches; 2],
    /// Of so many sequences' tokens, and of one token more.
    pub tokens: [[Launches; 2]; N],
}

const UPDATE: Update = Update { lr: 1e-5, weight_decay: 0.01, max_grad_norm: 1.0 };
/// Tokens of a prompt, and of its samples before the one that is looked at.
const PROMPT: usize = 200;
const GENERATED: usize = 2;
const SAMPLING: Sampling = Sampling::new(0.4, 0.95, 50, 1);

/// Bytes of memory of the GPU.
const MEMORY: u64 = 80 << 30;
/// Clusters of a launch that run. Blocks of products are alike, those of attention are not. All run where
/// others take addresses or lengths from what they write, and where the last block to arrive does much.
const SAMPLED: &[(&str, u64)] = &[
    ("sort_rows", u64::MAX),
    ("sample", u64::MAX),
    ("attention_decode", u64::MAX),
    // Groups of four or two blocks, which wait for each other.
    ("cross_entropy_kl_group", 4),
    ("gemm_grouped", 16),
    ("gemm_nt_sm90", 1),
    ("gemm_nn_sm90", 1),
    ("gemm_nt_gated_sm90", 1),
    ("gemm_nn_gated_sm90", 1),
    ("gemm_", 2),
    // Blocks with a share of all tiles.
    ("attention_64_sm90", 3),
    ("attention_128_sm90", 3),
    ("attention", 24),
    ("", 8),
];
const NONE: &[(&str, u64)] = &[("", 0)];

/// A model that is emulated.
pub struct Model {
    pub name: &'static str,
    config: Map<String, Value>,
}

impl Model {
    /// By name and configuration; with its head in the embedding, which costs the same and takes half the
    /// memory.
    pub fn new((name, config): (&'static str, &str)) -> Self {
        let mut config: Map<String, Value> = serde_json::from_str(config).expect("JSON");
        config.insert("tie_word_embeddings".to_owned(), true.into());
        Model { name, config }
    }

    /// The configuration of all layers.
    pub fn config(&self) -> Config {
        Config::from_json(&Value::from(self.config.clone()).to_string()).expect("a configuration")
    }

    /// Writes configuration and weights of the first `layers`, which are zeros that take no room on a disk.
    fn write(&self, folder: &Path, layers: usize) {
        let mut config = self.config.clone();
        config.insert("num_hidden_layers".to_owned(), layers.into());
        let config = Value::from(config).to_string();
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

    /// The model with `layers`, on a device of its own, on which nothing runs yet.
    fn emulated(&self, layers: usize) -> Transformer<Cuda> {
        let cuda = own_cuda();
        sample(NONE);
        let folder = tempfile::tempdir().expect("a folder");
        self.write(folder.path(), layers);
        checked(Transformer::load(cuda, folder.path()))
    }

    /// What is launched with `layers`; tokens of each of `sequences` that are decoded together.
    pub fn launches<const N: usize>(&self, layers: usize, sequences: [usize; N]) -> Workload<N> {
        let model = self.emulated(layers);
        Workload { tokens: sequences.map(|samples| tokens(&model, samples)), steps: steps(&model) }
    }

    /// The launch that chooses the next tokens of `samples` sequences, by logits as models have them: what it
    /// does depends on them, and those of a model of zeros are all equal.
    pub fn choosing(&self, samples: usize) -> Launches {
        let (cuda, vocab_size) = (own_cuda(), self.config().vocab_size);
        let buffers = Arena::build(&cuda, |arena| {
            let mut of_each = || arena.buffer("of each sample", &[samples]);
            let (tokens, positions, numbers) = (of_each()?, of_each()?, of_each()?);
            Ok((tokens, positions, numbers, arena.buffer("logits", &[samples, vocab_size])?))
        });
        let (mut tokens, mut positions, mut numbers, mut logits) = checked(buffers).0;
        let number: Vec<u32> = (0..samples as u32).collect();
        cuda.upload(numbers.view_mut(), &number);
        // A few are likely, and most are not.
        let logit = |i: usize| 12.0 * unit(philox(1, [i as u32, 0, 0, 0])[0]).powi(8);
        let values: Vec<f32> = (0..samples * vocab_size).map(logit).collect();
        cuda.upload_act(logits.view_mut(), &values);
        sample(SAMPLED);
        let (logits, numbers) = (logits.view(), numbers.view());
        cuda.sample(tokens.view_mut(), None, positions.view_mut(), logits, numbers, SAMPLING);
        checked(cuda.finish());
        launched()
    }
}

fn steps(model: &Transformer<Cuda>) -> [Launches; 2] {
    let pairs = pairs(&workload::lengths(), model.config.vocab_size);
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

/// The launches of two additions of as many elements, of which so many blocks run.
pub fn additions(len: usize, blocks: u64) -> Launches {
    let cuda = own_cuda();
    let buffers = Arena::build(&cuda, |arena| Ok((arena.buffer("y", &[len])?, arena.buffer("x", &[len])?)));
    let (mut y, x) = checked(buffers).0;
    sample(&[("", blocks)]);
    (0..2).for_each(|_| cuda.add(y.view_mut(), x.view()));
    checked(cuda.finish());
    launched()
}

/// From here on so many clusters of each launch run, by how the names of kernels begin.
pub fn sample(clusters: &[(&str, u64)]) {
    let emulator = checked(cuda_emulator::load());
    checked(emulator.sample(clusters, MEMORY));
    checked(emulator.set_traffic(true, None));
}

/// What was launched since; nothing runs any more.
pub fn launched() -> Launches {
    let launches = checked(checked(cuda_emulator::load()).launched());
    sample(NONE);
    launches
}

/// The launch of attention's forward pass over packed sequences, of which so many blocks run.
pub fn attention(segments: &[Segment], heads: Heads, blocks: u64) -> Launches {
    let cuda = own_cuda();
    let rows =
        segments.iter().map(|segment| (segment.start + segment.len) as usize).max().expect("sequences");
    let buffers = Arena::build(&cuda, |arena| {
        let qkv = arena.buffer("qkv", &[rows, heads.qkv_width()])?;
        Ok((qkv, arena.buffer("o", &[rows, heads.q_width()])?, arena.buffer("lse", &[rows, heads.query])?))
    });
    let (qkv, mut o, mut lse) = checked(buffers).0;
    sample(&[("", blocks)]);
    cuda.attention(o.view_mut(), lse.view_mut(), Qkv::packed(qkv.view(), heads), segments, heads);
    checked(cuda.finish());
    launched()
}
