//! A decoding step: what the device is asked for, call by call.

use std::collections::BTreeSet;

use deepguard::cuda::Cuda;
use deepguard::decode::{GenerateOptions, generate};
use deepguard::model::{Projection, Transformer};
use deepguard::ops::sample::Sampling;

use super::counting::{alone, uncounted};
use crate::emulator::{checked, own_cuda};
use crate::support::{Setting, attached_to, model_on};

/// Most that a step starts: for each layer, and beyond.
const OF_A_LAYER: u64 = 10;
const BEYOND: u64 = 10;

/// Calls by which a step asks for work, also while it is recorded.
const WORK: [&str; 4] = ["cuLaunchKernel", "cuMemcpyDtoDAsync_v2", "cuMemcpyHtoDAsync_v2", "cuMemsetD8Async"];
/// Calls that wait, that start what was recorded, and that a step has no need of once it has been done before.
const WAITS: [&str; 2] = ["cuStreamSynchronize", "cuCtxSynchronize"];
const STARTS: [&str; 1] = ["cuGraphLaunch"];
const NEEDLESS: [&str; 4] =
    ["cuMemAlloc_v2", "cuMemAllocHost_v2", "cuMemHostAlloc", "cuGraphInstantiateWithFlags"];

fn calls(names: &[&str]) -> u64 {
    let emulator = cuda_emulator::load().expect("the emulator");
    names.iter().map(|name| emulator.calls(name).expect("a count")).sum()
}

/// What each step after the first few asks for: work, waits, starts, and what is needless.
fn steps(model: &Transformer<Cuda>, targets: &[Projection], samples: usize, guided: bool) -> Vec<[u64; 4]> {
    let attached = attached_to(model, Setting::default(), targets.iter().copied().collect::<BTreeSet<_>>());
    let options = GenerateOptions {
        max_new_tokens: 9,
        num_samples: samples,
        sampling: Sampling { temperature: 0.8, top_p: 0.95, top_k: 40, seed: 3 },
        guided,
        rescore_every: 0,
        stop_tokens: Vec::new(),
    };
    let mut seen = Vec::new();
    let generated = generate(model, Some(&attached), &[5, 77, 201, 3, 150], &options, &mut |sample, _| {
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
        for (samples, guided) in [(1, false), (1, true), (5, true), (20, false)] {
            let steps = steps(&model, targets, samples, guided);
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
