//! Training steps and decoding passes of models with random weights, by the host's clock.

use std::time::{Duration, Instant};

use deepguard::cuda::Cuda;
use deepguard::decode::{GenerateOptions, generate};
use deepguard::model::Transformer;
use deepguard::model::activations::Recompute;
use deepguard::ops::philox::philox;
use deepguard::ops::sample::Sampling;
use deepguard::train::base_cache::BaseCache;
use deepguard::train::batch::BatchPlan;
use deepguard::train::step::{Objective, Stepper, Update};

use super::device::{Device, Work};
use super::random_model::{Lengths, attached, pairs, random_model};
use super::workload;

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
    let sizes = if device.testing { vec![TESTING] } else { vec![workload::QWEN_7B, workload::QWEN_HALF_B] };
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
        let flops = Work::Flops(workload::needed(&model.config, &lengths, cached));
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
