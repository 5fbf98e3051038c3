use deepguard::attached::Attached;
use deepguard::cpu::Cpu;
use deepguard::decode::{GenerateOptions, Generated, generate};
use deepguard::model::Transformer;
use deepguard::ops::Backend;
use deepguard::ops::sample::Sampling;

use crate::emulator::{checked, cuda};
use crate::support::{Setting, attached, model_on};

const PROMPT: [u32; 11] = [5, 77, 201, 3, 3, 150, 99, 280, 41, 0, 260];

fn guard<B: Backend>(model: &Transformer<B>) -> Attached<B> {
    let mut attached = attached(model, Setting::default());
    attached.stats.update((0..80).map(|t| t * 3), (0..40).flat_map(|t| [t * 5 + 1, t + 90, t + 95]));
    attached
}

fn run<B: Backend>(model: &Transformer<B>, options: &GenerateOptions) -> Generated {
    checked(generate(model, Some(&guard(model)), &PROMPT, options, &mut |_, _| true))
}

/// A model with random weights is sure of its next token often enough for 8 bits to find it too.
#[test]
fn guided_generation_on_cuda_is_that_of_the_cpu() {
    for name in ["llama-tiny", "qwen2-tiny"] {
        for guided in [false, true] {
            let options = GenerateOptions {
                max_new_tokens: 12,
                num_samples: 1,
                sampling: Sampling { temperature: 0.0, top_p: 1.0, top_k: 0, seed: 7 },
                guided,
                rescore_every: if guided { 4 } else { 0 },
                stop_tokens: Vec::new(),
            };
            let expected = run(&model_on(Cpu::new(), name), &options);
            let found = run(&model_on(cuda().clone(), name), &options);
            assert_eq!(found.samples, expected.samples, "{name}, guided: {guided}");
            let (found, expected) = (found.prompt_score.unwrap(), expected.prompt_score.unwrap());
            assert!((found - expected).abs() < 0.01, "{name}: {found} {expected}");
        }
    }
}

#[test]
fn samples_on_cuda_depend_on_the_seed_alone() {
    let model = model_on(cuda().clone(), "qwen2-tiny");
    let samples = |seed| {
        let sampling = Sampling { temperature: 0.9, top_p: 0.95, top_k: 50, seed };
        let options = GenerateOptions {
            max_new_tokens: 6,
            num_samples: 5,
            sampling,
            guided: true,
            rescore_every: 0,
            stop_tokens: Vec::new(),
        };
        run(&model, &options).samples
    };
    let first = samples(1);
    assert_eq!(first, samples(1));
    assert_ne!(first, samples(2));
    assert!(first.iter().any(|sample| *sample != first[0]), "all samples are the same: {first:?}");
}
