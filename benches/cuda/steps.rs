//! Training steps and decoding passes of a model with random weights, by the host's clock.

use std::time::{Duration, Instant};

use criterion::Criterion;
use deepguard::cuda::Cuda;
use deepguard::decode::{GenerateOptions, generate};
use deepguard::model::Transformer;
use deepguard::model::activations::Recompute;
use deepguard::ops::philox::philox;
use deepguard::ops::sample::Sampling;
use deepguard::train::batch::BatchPlan;
use deepguard::train::step::{Objective, Stepper, Update};

use super::device::Device;
use super::random_model::{Lengths, SVEN, attached, pairs, random_model};

/// Sizes of Qwen2.5-Coder-0.5B.
const CONFIG: &str = r#"{"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 896,
    "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
    "vocab_size": 151936, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
    "max_position_embeddings": 32768, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
    "use_sliding_window": false}"#;

/// Small in every respect.
const TESTING: &str = r#"{"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "vocab_size": 256, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
    "max_position_embeddings": 1024, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
    "use_sliding_window": false}"#;

const BATCH: usize = 16;
const PROMPT: usize = 200;

pub fn run(c: &mut Criterion, device: &Device) {
    let (name, config) = match device.testing {
        true => ("bench-model-tiny", TESTING),
        false => ("bench-model-0.5b", CONFIG),
    };
    let model = random_model(device.cuda.clone(), name, config);
    training(c, device, &model);
    for samples in [1, 16, 100] {
        decoding(c, device, &model, if device.testing { samples.min(2) } else { samples }, samples);
    }
}

fn training(c: &mut Criterion, device: &Device, model: &Transformer<Cuda>) {
    let lengths = if device.testing { Lengths { secure: 9, vulnerable: 8, shared: 4 } } else { SVEN };
    let pairs = pairs(if device.testing { 2 } else { BATCH }, lengths, model.config.vocab_size);
    let capacity = BatchPlan::capacity(pairs.iter(), pairs.len());
    let policies = [Recompute::Nothing, Recompute::GateUp, Recompute::Block];
    let mut stepper = Stepper::new(model, attached(model), Objective::default(), None, capacity, &policies)
        .expect("memory");
    let batches = vec![pairs.iter().collect::<Vec<_>>()];
    let update = Update { lr: 1e-5, weight_decay: 0.01, max_grad_norm: 1.0 };
    let mut number = 0;
    let mut step = || {
        let started = Instant::now();
        stepper.step(&batches, number, update).expect("a step");
        number += 1;
        started.elapsed()
    };
    // The first ones record.
    for _ in 0..2 {
        step();
    }
    let tokens = (pairs.len() * (lengths.secure + lengths.vulnerable)) as f64;
    device.measure_steps(c, "training step, 16 pairs, 0.5B", (tokens, "tokens"), step);
}

/// One decoding pass of `samples` sequences, of 64 that follow each other. `named` is the number in its name.
fn decoding(c: &mut Criterion, device: &Device, model: &Transformer<Cuda>, samples: usize, named: usize) {
    let (prompt_len, passes) = if device.testing { (5, 3) } else { (PROMPT, 64) };
    let token = |t: usize| philox(3, [t as u32, 0, 0, 0])[0] % model.config.vocab_size as u32;
    let prompt: Vec<u32> = (0..prompt_len).map(token).collect();
    let options = GenerateOptions::default().with(|o| {
        o.max_new_tokens = passes + 1;
        o.num_samples = samples;
        o.sampling = Sampling::new(0.4, 0.95, 50, 1);
    });
    let name = format!("decoding pass, {named} sequences, 0.5B");
    device.measure_steps(c, &name, (samples as f64, "tokens"), || {
        let out = generate(model, None, &prompt, &options, &mut |_, _| true).expect("tokens");
        Duration::from_secs_f64(out.decode_seconds / passes as f64)
    });
}
