//! A decoding step: what the device is asked for, call by call.

use std::collections::BTreeSet;

use deepguard::attached::Attached;
use deepguard::cuda::Cuda;
use deepguard::decode::{GenerateOptions, generate};
use deepguard::model::{LoraConfig, Projection, Transformer};
use deepguard::ops::sample::Sampling;
use serde_json::json;

use super::counting::{alone, uncounted, unexecuted};
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
/// Calls that wait, that start what was recorded, that record it, and that a step has no need of once it has
/// been done before.
const WAITS: [&str; 3] = ["cuStreamSynchronize", "cuCtxSynchronize", "cuEventSynchronize"];
const STARTS: [&str; 1] = ["cuGraphLaunch"];
const RECORDS: [&str; 2] = ["cuStreamBeginCapture_v2", "cuGraphExecUpdate_v2"];
const NEEDLESS: [&str; 5] =
    ["cuMemAlloc_v2", "cuMemAllocHost_v2", "cuMemHostAlloc", "cuEventCreate", "cuGraphInstantiateWithFlags"];

fn calls(names: &[&str]) -> u64 {
    let emulator = cuda_emulator::load().expect("the emulator");
    names.iter().map(|name| emulator.calls(name).expect("a count")).sum()
}

/// Driver calls of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    work: u64,
    waits: u64,
    starts: u64,
    records: u64,
    needless: u64,
}

impl Step {
    /// All so far.
    fn so_far() -> Self {
        Step {
            work: calls(&WORK),
            waits: calls(&WAITS),
            starts: calls(&STARTS),
            records: calls(&RECORDS),
            needless: calls(&NEEDLESS),
        }
    }

    fn since(self, before: Self) -> Self {
        Step {
            work: self.work - before.work,
            waits: self.waits - before.waits,
            starts: self.starts - before.starts,
            records: self.records - before.records,
            needless: self.needless - before.needless,
        }
    }
}

/// A step that asks for nothing: what was recorded is started, and a token waited for.
const REPEATED: Step = Step { work: 0, waits: 1, starts: 1, records: 0, needless: 0 };

fn sampled((samples, tokens): (usize, usize), guided: bool) -> GenerateOptions {
    GenerateOptions::default().with(|o| {
        o.max_new_tokens = tokens;
        o.num_samples = samples;
        o.sampling = Sampling::new(0.8, 0.95, 40, 3);
        o.guided = guided;
    })
}

/// Driver calls from each token to the next.
fn steps(model: &Transformer<Cuda>, attached: &Attached<Cuda>, options: &GenerateOptions) -> Vec<Step> {
    let mut seen = Vec::new();
    let generated = generate(model, Some(attached), &[5, 77, 201, 3, 150], options, &mut |sample, _| {
        if sample == 0 {
            seen.push(Step::so_far());
        }
        true
    });
    checked(generated);
    seen.windows(2).map(|pair| pair[1].since(pair[0])).collect()
}

/// Driver calls of the only step of a generation, which is recorded, when the like has been done before.
fn recorded(model: &Transformer<Cuda>, attached: &Attached<Cuda>, samples: usize, guided: bool) -> Step {
    let step = || steps(model, attached, &sampled((samples, 2), guided))[0];
    step();
    step()
}

#[test]
fn launches_of_a_step() {
    if uncounted() {
        return;
    }
    use Projection::{K, O, Q, V};
    let (_alone, _unexecuted) = (alone(), unexecuted());
    for (name, targets) in [("qwen2-tiny", &[Q, V][..]), ("llama-tiny", &[Q, K, V, O])] {
        let model = model_on(own_cuda(), name);
        let layers = model.config.num_hidden_layers as u64;
        let attached =
            attached_to(&model, Setting::default(), targets.iter().copied().collect::<BTreeSet<_>>());
        for (samples, guided) in [(1, false), (1, true), (5, true), (20, false)] {
            let what = format!("{name}, {samples} samples, guided: {guided}");
            let Step { work, waits, starts, needless, .. } = recorded(&model, &attached, samples, guided);
            println!("{what}: {work}");
            assert!(work <= OF_A_LAYER * layers + BEYOND, "{what}: {work} launches and copies");
            assert_eq!((waits, starts, needless), (1, 1, 0), "{what}: waits, starts, needless calls");
            let steps = steps(&model, &attached, &sampled((samples, 9), guided));
            assert_eq!(steps.len(), 8, "{what}");
            // The boost of the guidance ends with the third token.
            assert_eq!(steps[4..7], [REPEATED; 3], "{what}");
        }
    }
}

/// Once the boost of the first tokens is over, nothing is recorded, brought up to date or asked for: the next
/// step is started, before the last token is waited for.
#[test]
fn steps_are_repeated_ahead_of_their_tokens() {
    if uncounted() {
        return;
    }
    let _alone = alone();
    let emulator = checked(cuda_emulator::load());
    let model = model_on(own_cuda(), "qwen2-tiny");
    let attached = attached_to(&model, Setting::default(), [Projection::Q].into());
    let _unexecuted = unexecuted();
    let options = sampled((3, 40), true);
    let (mut seen, mut ahead) = (Vec::new(), Vec::new());
    let generated = generate(&model, Some(&attached), &[5, 77, 201, 3, 150], &options, &mut |sample, _| {
        if sample == 0 {
            seen.push(Step::so_far());
            let last = |name| checked(emulator.last_call(name));
            ahead.push(last("cuGraphLaunch") < last("cuEventSynchronize"));
        }
        true
    });
    checked(generated);
    let steps: Vec<Step> = seen.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    // What is between two tokens: the launch of the step after next, and the wait for the next.
    assert_eq!(steps[4..38], [REPEATED; 34]);
    let launched: Vec<u64> = seen.iter().map(|step| step.starts - seen[0].starts).collect();
    // Of the 39 steps one more than tokens were seen has been started, until there is none left.
    assert!(
        launched[1..39].iter().zip(2..).all(|(&found, expected)| found == expected.min(39)),
        "{launched:?}"
    );
    assert!(ahead[1..39].iter().all(|&ahead| ahead), "{ahead:?}");
}

/// The host measures the guidance's strength from scores: it waits for each, and then has the token chosen.
#[test]
fn rescored_steps_are_repeated() {
    if uncounted() {
        return;
    }
    let _alone = alone();
    let model = model_on(own_cuda(), "qwen2-tiny");
    let attached = attached_to(&model, Setting::default(), [Projection::Q].into());
    let options = sampled((2, 16), true).with(|o| o.rescore_every = 4);
    let _unexecuted = unexecuted();
    let steps = steps(&model, &attached, &options);
    for (i, &step) in steps.iter().enumerate().skip(3) {
        // The strength is uploaded for every fourth token.
        let work = u64::from((i + 1) % 4 == 0);
        assert_eq!(step, Step { work, waits: 2, starts: 2, ..REPEATED }, "token {}", i + 1);
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
    let (_alone, _unexecuted) = (alone(), unexecuted());
    let of_step = |model: &Transformer<Cuda>, samples: usize| {
        let setting = Setting { taps: 1, ..Setting::default() };
        let attached = attached_as(model, setting, LoraConfig::default_for(&model.config));
        let Step { work, waits, starts, needless, .. } = recorded(model, &attached, samples, true);
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
