//! Training steps and decoding passes of models with random weights, by the host's clock.

use std::time::{Duration, Instant};

use deepguard::cuda::Cuda;
use deepguard::decode::{GenerateOptions, generate};
use deepguard::model::activations::Recompute;
use deepguard::model::{Config, Transformer};
use deepguard::ops::philox::philox;
use deepguard::ops::sample::Sampling;
use deepguard::train::base_cache::BaseCache;
use deepguard::train::batch::BatchPlan;
use deepguard::train::step::{Objective, Stepper, Update};

use super::device::{Device, Work};
use super::random_model::{Lengths, attached, pairs, random_model};
use super::workload;

/// Name and configuration of Qwen2.5-Coder-7B.
const BILLIONS_7: (&str, &str) = (
    "7B",
    r#"{"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 3584,
    "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
    "vocab_size": 152064, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
    "max_position_embeddings": 32768, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
    "use_sliding_window": false}"#,
);

/// Of Qwen2.5-Coder-0.5B.
const BILLIONS_HALF: (&str, &str) = (
    "0.5B",
    r#"{"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 896,
    "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
    "vocab_size": 151936, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
    "max_position_embeddings": 32768, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
    "use_sliding_window": false}"#,
);

/// Small in every respect.
const TESTING: (&str, &str) = (
    "tiny",
    r#"{"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "vocab_size": 256, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
    "max_position_embeddings": 1024, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
    "use_sliding_window": false}"#,
);

const PROMPT: usize = 200;

pub fn run(device: &Device) {
    device.table("Training steps of 16 pairs and decoding passes");
    let sizes = if device.testing { vec![TESTING] } else { vec![BILLIONS_7, BILLIONS_HALF] };
    for (size, config) in sizes {
        let model = match random_model(device.cuda.clone(), config) {
            Ok(model) => model,
            Err(error) => {
                println!("| model, {size} | | {error} | | | | |");
                continue;
            }
        };
        training(device, &model, size);
        for samples in [1, 16, 100] {
            decoding(device, &model, size, samples);
        }
    }
}

/// Operations that a step needs: products of blocks and head forward, gradients of their inputs of the rows
/// that have any, and attention to keys that are seen. Adapters and guard, some 1 %, do not count.
fn needed(config: &Config, lengths: &[Lengths], cached: bool) -> f64 {
    let (h, q, kv) = (config.hidden_size, config.q_size(), config.kv_size());
    let (secure, rows) = workload::rows(lengths);
    let qkv = h * (q + 2 * kv);
    let block = qkv + q * h + 3 * h * config.intermediate_size;
    let base = if cached { 0 } else { secure };
    let products = config.num_hidden_layers * block * (secure + rows + base) - qkv * secure
        + 3 * h * config.vocab_size * secure;
    let seen = |len: usize, before: usize| len * before + len * (len + 1) / 2;
    let own: usize = lengths.iter().map(|pair| seen(pair.secure, 0)).sum();
    let others: usize = lengths.iter().map(|pair| seen(pair.vulnerable - pair.shared, pair.shared)).sum();
    let forward = own + others + if cached { 0 } else { own };
    let attention = config.num_hidden_layers * q * (2 * forward + 5 * own);
    2.0 * (products + attention) as f64
}

fn training(device: &Device, model: &Transformer<Cuda>, size: &str) {
    let lengths = match device.testing {
        true => vec![Lengths { secure: 9, vulnerable: 8, shared: 4 }; 2],
        false => workload::lengths(),
    };
    let pairs = pairs(&lengths, model.config.vocab_size);
    let batches = vec![pairs.iter().collect::<Vec<_>>()];
    let capacity = BatchPlan::capacity(pairs.iter(), pairs.len());
    let policies = [Recompute::Nothing, Recompute::GateUp, Recompute::Block];
    let update = Update { lr: 1e-5, weight_decay: 0.01, max_grad_norm: 1.0 };
    for cached in [true, false] {
        let cache = cached.then(|| BaseCache::new(usize::MAX));
        let stepper = Stepper::new(model, attached(model), Objective::default(), cache, capacity, &policies);
        let mut stepper = match stepper {
            Ok(stepper) => stepper,
            Err(error) => return println!("| training step, {size} | | {error} | | | | |"),
        };
        let mut number = 0;
        let mut step = || {
            let started = Instant::now();
            stepper.step(&batches, number, update).expect("a step");
            number += 1;
            started.elapsed()
        };
        // The first ones record, and learn the base states.
        step();
        step();
        let found = device.measured(step);
        let tokens: usize = lengths.iter().map(|pair| pair.secure + pair.vulnerable).sum();
        let tokens = tokens as f64 / found.seconds;
        let (base, work) = if cached { ("cached", "step") } else { ("computed", "step of the first epoch") };
        let recompute = match stepper.recompute() {
            Recompute::Nothing => String::new(),
            other => format!(", recomputing {other:?}"),
        };
        let name = format!("training step, {size}, base {base}{recompute}");
        let flops = Work::Flops(needed(&model.config, &lengths, cached));
        let predicted = device.predictions.work(size, work);
        device.row(&name, predicted, flops, &format!("{tokens:.0} tokens, "), &found);
    }
}

/// One decoding pass of as many sequences, of 64 that follow each other.
fn decoding(device: &Device, model: &Transformer<Cuda>, size: &str, samples: usize) {
    let (prompt_len, passes) = if device.testing { (5, 3) } else { (PROMPT, 64) };
    let sequences = if device.testing { samples.min(2) } else { samples };
    let config = &model.config;
    let token = |t: usize| philox(3, [t as u32, 0, 0, 0])[0] % config.vocab_size as u32;
    let prompt: Vec<u32> = (0..prompt_len).map(token).collect();
    let options = GenerateOptions::default().with(|o| {
        o.max_new_tokens = passes + 1;
        o.num_samples = sequences;
        o.sampling = Sampling::new(0.4, 0.95, 50, 1);
    });
    let found = device.measured(|| {
        let out = generate(model, None, &prompt, &options, &mut |_, _| true).expect("tokens");
        Duration::from_secs_f64(out.decode_seconds / passes as f64)
    });
    let (h, q, kv) = (config.hidden_size, config.q_size(), config.kv_size());
    let block = h * (2 * q + 2 * kv) + 3 * h * config.intermediate_size;
    let weights = config.num_hidden_layers * block + h * config.vocab_size;
    let keys = config.num_hidden_layers * 2 * kv * (prompt_len + sequences * passes / 2);
    let tokens = sequences as f64 / found.seconds;
    let name = format!("decoding pass, {size}, {samples} sequences");
    let bytes = Work::Bytes(2.0 * (weights + keys) as f64);
    let predicted = device.predictions.work(size, &format!("token of {samples}"));
    device.row(&name, predicted, bytes, &format!("{tokens:.0} tokens, "), &found);
}
