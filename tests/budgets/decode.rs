//! A decoding step: what the device is asked for, call by call.

use std::collections::BTreeSet;

use deepguard::attached::Attached;
use deepguard::cuda::Cuda;
use deepguard::decode::{GenerateOptions, generate};
use deepguard::model::{LoraConfig, Projection, Transformer};
use deepguard::ops::sample::Sampling;
use serde_json::json;

use super::counting::{alone, uncounted};
use crate::emulator::{checked, own_cuda};
use crate::support::{Setting, attached_as, attached_to, model_on};
use crate::tiny::{Tiny, edit_tensors, is_before};

/// Most that a step starts: for each layer, and beyond.
const OF_A_LAYER: u64 = 10;
const BEYOND: u64 = 10;

/// Calls by which a step asks for work, also while it is recorded.
const WORK: [&str; 5] = [
    "cuLaunchKernel",
    "cuLaunchCooperativeKernel",
    "cuMemcpyDtoDAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemsetD8Async",
];
/// Calls that wait, that start what was recorded, and that a step has no need of once it has been done
/// before.
const WAITS: [&str; 2] = ["cuStreamSynchronize", "cuCtxSynchronize"];
const STARTS: [&str; 1] = ["cuGraphLaunch"];
const NEEDLESS: [&str; 4] =
    ["cuMemAlloc_v2", "cuMemAllocHost_v2", "cuMemHostAlloc", "cuGraphInstantiateWithFlags"];

fn calls(names: &[&str]) -> u64 {
    let emulator = cuda_emulator::load().expect("the emulator");
    names.iter().map(|name| emulator.calls(name).expect("a count")).sum()
}

/// Driver calls of each step after the first few: work, waits, launches, and needless ones.
fn steps(
    model: &Transformer<Cuda>,
    attached: &Attached<Cuda>,
    (samples, tokens): (usize, usize),
    guided: bool,
) -> Vec<[u64; 4]> {
    let options = GenerateOptions::default().with(|o| {
        o.max_new_tokens = tokens;
        o.num_samples = samples;
        o.sampling = Sampling::new(0.8, 0.95, 40, 3);
        o.guided = guided;
    });
    let mut seen = Vec::new();
    let generated = generate(model, Some(attached), &[5, 77, 201, 3, 150], &options, &mut |sample, _| {
        if sample == 0 {
            seen.push([calls(&WORK), calls(&WAITS), calls(&STARTS), calls(&NEEDLESS)]);
        }
        true
    });
    checked(generated);
    seen.windows(2).skip(3).map(|pair| std::array::from_fn(|i| pair[1][i] - pair[0][i])).collect()
}

#[test]
fn launches_of_a_step() {
    if uncounted() {
        return;
    }
    use Projection::{K, O, Q, V};
    let _alone = alone();
    for (name, targets) in [("qwen2-tiny", &[Q, V][..]), ("llama-tiny", &[Q, K, V, O])] {
        let model = model_on(own_cuda(), name);
        let layers = model.config.num_hidden_layers as u64;
        let attached =
            attached_to(&model, Setting::default(), targets.iter().copied().collect::<BTreeSet<_>>());
        for (samples, guided) in [(1, false), (1, true), (5, true), (20, false)] {
            let steps = steps(&model, &attached, (samples, 9), guided);
            let what = format!("{name}, {samples} samples, guided: {guided}");
            assert!(steps.len() >= 4, "{what}: {} steps", steps.len());
            for [work, waits, starts, needless] in steps {
                println!("{what}: {work}");
                assert!(work <= OF_A_LAYER * layers + BEYOND, "{what}: {work} launches and copies");
                assert_eq!((waits, starts, needless), (1, 1, 0), "{what}: waits, starts, needless calls");
            }
        }
    }
}

/// The first layers of a model with the widths of Qwen2.5-0.5B, and a small vocabulary. Weights are zeros.
fn of_real_widths(layers: usize) -> Transformer<Cuda> {
    let tiny = Tiny::new("qwen2");
    tiny.edit_config(|config| {
        for (name, value) in [
            ("hidden_size", 896),
            ("intermediate_size", 4864),
            ("num_attention_heads", 14),
            ("num_key_value_heads", 2),
            ("num_hidden_layers", layers),
        ] {
            config[name] = json!(value);
        }
    });
    let wide = |width: &mut usize| match *width {
        64 => *width = 896,
        32 => *width = 128,
        160 => *width = 4864,
        _ => {}
    };
    edit_tensors(&tiny.model().join("model.safetensors"), |tensors| {
        tensors.retain(|(name, ..)| is_before(name, layers));
        for (_, shape, values) in tensors {
            shape.iter_mut().for_each(wide);
            *values = vec![0.0; shape.iter().product()];
        }
    });
    checked(Transformer::load(own_cuda(), &tiny.model()))
}

/// With more rows than the skinny kernels take, at widths that make few tiles: all products of a layer have
/// split-K, which adds no launch.
#[test]
fn launches_of_many_samples() {
    if uncounted() {
        return;
    }
    let _alone = alone();
    let of_step = |model: &Transformer<Cuda>, samples: usize| {
        let setting = Setting { taps: 1, ..Setting::default() };
        let attached = attached_as(model, setting, LoraConfig::default_for(&model.config));
        let steps = steps(model, &attached, (samples, 5), true);
        let [work, waits, starts, needless] = steps[0];
        assert_eq!((waits, starts, needless), (1, 1, 0), "{samples} samples: waits, starts, needless calls");
        work
    };
    let (one, two) = (of_real_widths(1), of_real_widths(2));
    let work = of_step(&one, 40);
    let of_layer = of_step(&two, 40) - work;
    println!("40 samples: {of_layer} launches for each layer, {} beyond", work - of_layer);
    assert_eq!((of_layer, work - of_layer), (9, 5), "40 samples: launches for each layer, and beyond");
    assert_eq!(of_step(&one, 100), work, "launches of 40 and of 100 samples");
}
