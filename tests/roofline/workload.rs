//! What a training step launches: a model of real widths and few layers takes it on the emulator, which runs some blocks
//! of each launch.

use std::fs::File;
use std::path::Path;

use cuda_emulator::client::Launched;
use deepguard::attached::Attached;
use deepguard::cuda::Cuda;
use deepguard::decode::{GenerateOptions, generate};
use deepguard::guard::GuardConfig;
use deepguard::init::initialize;
use deepguard::model::activations::Recompute;
use deepguard::ops::Device;
use deepguard::model::{Config, LoraConfig, Transformer, expected_tensors};
use deepguard::ops::sample::Sampling;
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
    pub heads: [usize; 2],
    pub vocab: usize,
    pub tied: bool,
}

pub const QWEN_7B: Model = Model {
    name: "7B",
    hidden: 3584,
    wide: 18_944,
    layers: 28,
    heads: [28, 4],
    vocab: 152_064,
    tied: false,
};

pub const QWEN_HALF_B: Model = Model {
    name: "0.5B",
    hidden: 896,
    wide: 4864,
    layers: 24,
    heads: [14, 2],
    vocab: 151_936,
    tied: true,
};

/// Launches with the names of their kernels.
pub type Launches = Vec<(String, Launched)>;

const UPDATE: Update = Update { lr: 1e-5, weight_decay: 0.01, max_grad_norm: 1.0 };
/// Every tenth of the lengths from here on, sixteen pairs, has about as many tokens as the mean of all.
const FIRST_PAIR: usize = 3;
/// Clusters of a launch that run. Blocks of products are alike, those of attention are not; others take addresses from
/// what rows are sorted by.
const SAMPLED: &[(&str, u64)] = &[("sort_rows", u64::MAX), ("gemm_grouped", 16), ("gemm_", 2), ("attention", 24), ("", 8)];
const NONE: &[(&str, u64)] = &[("", 0)];

impl Model {
    /// Writes configuration and weights of the first `layers`, which are zeros that take no room on a disk.
    fn write(&self, folder: &Path, layers: usize) {
        let config = json!({
            "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": self.hidden,
            "intermediate_size": self.wide, "num_hidden_layers": layers, "num_attention_heads": self.heads[0],
            "num_key_value_heads": self.heads[1], "vocab_size": self.vocab, "hidden_act": "silu",
            "rms_norm_eps": 1e-6, "rope_theta": 1e6, "max_position_embeddings": 32768,
            "tie_word_embeddings": self.tied, "torch_dtype": "bfloat16", "use_sliding_window": false,
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

    /// The launches of a step of 16 pairs of SVEN, with `layers`; the base states of all are known or of none.
    pub fn training(&self, layers: usize, cached: bool) -> Launches {
        let emulator = checked(cuda_emulator::load());
        let cuda = own_cuda();
        checked(emulator.sample(NONE, MEMORY));
        let folder = tempfile::tempdir().expect("a folder");
        self.write(folder.path(), layers);
        let model = checked(Transformer::load(cuda, folder.path()));
        let attached = attached(&model);
        let pairs: Vec<TokenPair> =
            (0..16).map(|i| pair(i, SVEN_LENGTHS[FIRST_PAIR + 10 * i])).collect();
        let objective = Objective::default();
        let capacity = objective.capacity(pairs.iter(), pairs.len());
        let cache = Some(BaseCache::new(usize::MAX));
        let stepper = Stepper::new(&model, attached, objective, cache, capacity, &[Recompute::Nothing]);
        let mut stepper = checked(stepper);
        let batches = vec![pairs.iter().collect::<Vec<_>>()];
        // The first step allocates, and learns the base states.
        checked(stepper.step(&batches, 0, UPDATE));
        checked(model.backend.finish());
        if !cached {
            stepper.base_cache = Some(BaseCache::new(usize::MAX));
        }
        checked(emulator.sample(SAMPLED, MEMORY));
        checked(stepper.step(&batches, 1, UPDATE));
        checked(model.backend.finish());
        let launches = checked(emulator.launched());
        checked(emulator.sample(NONE, MEMORY));
        launches
    }
}

/// Tokens of a prompt, and of its samples before the one that is looked at.
const PROMPT: usize = 200;
const GENERATED: usize = 4;

impl Model {
    /// The launches of one more token of `samples` sequences, with `layers`: those of so many tokens, and of one more.
    pub fn decoding(&self, layers: usize, samples: usize) -> [Launches; 2] {
        let emulator = checked(cuda_emulator::load());
        let cuda = own_cuda();
        checked(emulator.sample(NONE, MEMORY));
        let folder = tempfile::tempdir().expect("a folder");
        self.write(folder.path(), layers);
        let model = checked(Transformer::load(cuda, folder.path()));
        let prompt: Vec<u32> = (0..PROMPT).map(|i| (i * 7) as u32 % 1000).collect();
        let launches = [GENERATED, GENERATED + 1].map(|tokens| {
            let options = GenerateOptions::default().with(|o| {
                o.max_new_tokens = tokens;
                o.num_samples = samples;
                o.sampling = Sampling::new(0.4, 0.95, 50, 1);
            });
            checked(emulator.sample(SAMPLED, MEMORY));
            checked(generate(&model, None, &prompt, &options, &mut |_, _| true));
            checked(model.backend.finish());
            checked(emulator.launched())
        });
        checked(emulator.sample(NONE, MEMORY));
        launches
    }
}

/// Bytes of memory of the GPU.
const MEMORY: u64 = 80 << 30;

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
