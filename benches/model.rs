//! Training step, prefill and decoding on a model of SmolLM2-135M's shape with random weights.
//!
//! Throughput: FLOP of the GEMMs for compute-bound work, bytes read for
//! decoding.

#[path = "common/random_model.rs"]
mod random_model;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use deepguard::cpu::Cpu;
use deepguard::decode::{GenerateOptions, generate};
use deepguard::model::activations::Recompute;
use deepguard::model::{Config, Transformer};
use deepguard::ops::philox::philox;
use deepguard::ops::sample::Sampling;
use deepguard::train::base_cache::BaseCache;
use deepguard::train::batch::BatchPlan;
use deepguard::train::step::{Objective, Stepper, Update};
use random_model::{Lengths, attached, pairs, random_model};

const CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 576,
    "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
    "vocab_size": 49152, "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 100000.0,
    "max_position_embeddings": 8192, "tie_word_embeddings": true, "torch_dtype": "bfloat16"}"#;

const BATCH: usize = 4;
/// Means over SVEN's training pairs, cut at 1024.
const SVEN: Lengths = Lengths { secure: 432, vulnerable: 422, shared: 226 };

/// Multiply-adds of all matrices of the blocks for one token, times two; and of the head.
fn flops_per_token(config: &Config) -> (f64, f64) {
    let (h, q, kv) = (config.hidden_size, config.q_size(), config.kv_size());
    let block = h * (2 * q + 2 * kv) + 3 * h * config.intermediate_size;
    (2.0 * (block * config.num_hidden_layers) as f64, 2.0 * (h * config.vocab_size) as f64)
}

fn training_step(c: &mut Criterion) {
    let model = random_model(Cpu::new(), CONFIG).expect("a model");
    let pairs = pairs(&[SVEN; BATCH], model.config.vocab_size);
    let (block, head) = flops_per_token(&model.config);
    let (secure, suffix) = ((BATCH * SVEN.secure) as f64, (BATCH * (SVEN.vulnerable - SVEN.shared)) as f64);
    let mut group = c.benchmark_group("training step, 4 pairs");
    group.sample_size(10).measurement_time(Duration::from_secs(60));
    for cached in [true, false] {
        let capacity = BatchPlan::capacity(pairs.iter(), BATCH);
        let cache = cached.then(|| BaseCache::new(1 << 30));
        let mut stepper = Stepper::new(
            &model,
            attached(&model),
            Objective::default(),
            cache,
            capacity,
            &[Recompute::Nothing],
        )
        .expect("memory");
        let base = if cached { 0.0 } else { secure };
        let flops = block * (2.0 * secure + suffix + base) + 3.0 * head * secure;
        let batches = vec![pairs.iter().collect::<Vec<_>>()];
        let update = Update { lr: 1e-5, weight_decay: 0.01, max_grad_norm: 1.0 };
        stepper.step(&batches, 0, update).expect("step");
        group.throughput(Throughput::Elements(flops as u64));
        let name = if cached { "base cached" } else { "with base pass" };
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| stepper.step(&batches, 1, update).expect("step"));
        });
    }
}

fn options(samples: usize, max_new_tokens: usize) -> GenerateOptions {
    GenerateOptions::default().with(|o| {
        o.max_new_tokens = max_new_tokens;
        o.num_samples = samples;
        o.sampling = Sampling::new(0.1, 0.95, 50, 1);
    })
}

fn generation(c: &mut Criterion) {
    let model = random_model(Cpu::new(), CONFIG).expect("a model");
    let prompt: Vec<u32> = (0..200).map(|t| philox(3, [t, 0, 0, 0])[0] % 49152).collect();
    let (block, head) = flops_per_token(&model.config);
    let weight_bytes = (block + head) as u64; // two bytes a weight, two operations a weight
    let mut group = c.benchmark_group("generation after 200 tokens");
    group.sample_size(10).measurement_time(Duration::from_secs(20));
    group.throughput(Throughput::Elements((block * 200.0 + head) as u64));
    group.bench_function("prefill", |b| {
        b.iter(|| {
            generate(&model, None, black_box(&prompt), &options(1, 1), &mut |_, _| true).expect("tokens")
        });
    });
    for samples in [1, 10] {
        // Weights are read once a pass, whatever the number of samples.
        group.throughput(Throughput::Bytes(weight_bytes));
        group.bench_function(BenchmarkId::new("decoding pass", samples), |b| {
            b.iter_custom(|passes| decoding_time(&model, &prompt, samples, passes));
        });
    }
}

/// Time of `passes` decoding passes, without their prefills.
fn decoding_time(model: &Transformer<Cpu>, prompt: &[u32], samples: usize, passes: u64) -> Duration {
    let mut left = passes;
    let mut time = Duration::ZERO;
    while left > 0 {
        let now = left.min(64);
        let mut first = None;
        let mut note = |_: usize, _: u32| {
            first.get_or_insert_with(Instant::now);
            true
        };
        generate(model, None, prompt, &options(samples, now as usize + 1), &mut note).expect("tokens");
        time += first.map_or(Duration::ZERO, |first| first.elapsed());
        left -= now;
    }
    time
}

criterion_group!(benches, training_step, generation);
criterion_main!(benches);
