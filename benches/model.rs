//! Training step, prefill and decoding on a model of SmolLM2-135M's shape with random weights.
//!
//! Throughput: floating-point operations of the matrix products for compute-bound work, bytes read for decoding.

use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use deepguard::attached::Attached;
use deepguard::cpu::Cpu;
use deepguard::decode::{GenerateOptions, generate};
use deepguard::files::{OwnedTensor, write_safetensors};
use deepguard::guard::GuardConfig;
use deepguard::init::initialize;
use deepguard::model::activations::Recompute;
use deepguard::model::{Config, LoraConfig, Transformer, expected_tensors};
use deepguard::ops::philox::philox;
use deepguard::ops::sample::Sampling;
use deepguard::train::base_cache::BaseCache;
use deepguard::train::batch::{BatchPlan, TokenPair};
use deepguard::train::step::{Objective, Stepper, Update};
use half::bf16;
use safetensors::tensor::Dtype;

const CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 576,
    "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
    "vocab_size": 49152, "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 100000.0,
    "max_position_embeddings": 8192, "tie_word_embeddings": true, "torch_dtype": "bfloat16"}"#;

/// Tokens of a pair: the means over SVEN's training pairs, cut at 1024.
const SECURE: usize = 432;
const VULNERABLE: usize = 422;
const SHARED: usize = 226;
const BATCH: usize = 4;

fn random_model() -> Transformer<Cpu> {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("bench-model");
    std::fs::create_dir_all(&dir).expect("target folder");
    let weights = dir.join("model.safetensors");
    let config = Config::from_json(CONFIG).expect("config");
    if !weights.exists() {
        std::fs::write(dir.join("config.json"), CONFIG).expect("target folder");
        let tensors: Vec<(String, OwnedTensor)> = expected_tensors(&config)
            .into_iter()
            .enumerate()
            .map(|(i, spec)| (spec.name, random_tensor(i as u32, &spec.shape)))
            .collect();
        write_safetensors(&weights, &tensors).expect("target folder");
    }
    Transformer::load(Cpu::new(), &dir).expect("model")
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

fn attached(model: &Transformer<Cpu>) -> Attached<Cpu> {
    let lora = LoraConfig::default_for(&model.config);
    let mut attached =
        Attached::new(&model.backend, &model.config, lora, GuardConfig::default()).expect("memory");
    initialize(&mut attached, 1);
    attached
}

fn pairs() -> Vec<TokenPair> {
    let token = |pair: usize, side: u32, t: usize| philox(2, [t as u32, side, pair as u32, 0])[0] % 49152;
    let side = |pair: usize, side: u32, n: usize| -> Vec<u32> {
        (0..n).map(|t| token(pair, if t < SHARED { 0 } else { side }, t)).collect()
    };
    (0..BATCH)
        .map(|id| TokenPair { id, secure: side(id, 1, SECURE), vulnerable: side(id, 2, VULNERABLE) })
        .collect()
}

/// Multiply-adds of all matrices of the blocks for one token, times two; and of the head.
fn flops_per_token(config: &Config) -> (f64, f64) {
    let (h, q, kv) = (config.hidden_size, config.q_size(), config.kv_size());
    let block = h * (2 * q + 2 * kv) + 3 * h * config.intermediate_size;
    (2.0 * (block * config.num_hidden_layers) as f64, 2.0 * (h * config.vocab_size) as f64)
}

fn training_step(c: &mut Criterion) {
    let model = random_model();
    let pairs = pairs();
    let (block, head) = flops_per_token(&model.config);
    let (secure, suffix) = ((BATCH * SECURE) as f64, (BATCH * (VULNERABLE - SHARED)) as f64);
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
    GenerateOptions {
        max_new_tokens,
        num_samples: samples,
        sampling: Sampling { temperature: 0.1, top_p: 0.95, top_k: 50, seed: 1 },
        guided: false,
        rescore_every: 0,
        stop_tokens: Vec::new(),
    }
}

fn generation(c: &mut Criterion) {
    let model = random_model();
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
