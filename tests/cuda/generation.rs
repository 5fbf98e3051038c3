use deepguard::Error;
use deepguard::attached::Attached;
use deepguard::cpu::Cpu;
use deepguard::decode::{
    CoDecoding, Decoder, Expert, GenerateOptions, Generated, Next, Request, Watcher, final_logits, generate,
    generate_all, score,
};
use deepguard::model::Transformer;
use deepguard::ops::Backend;
use deepguard::ops::sample::Sampling;

use crate::alone;
use crate::emulator::{DEVICE_VARIABLE, checked, own_cuda};
use crate::support::{Setting, attached, model_on, prefixes};

const PROMPT: [u32; 11] = [5, 77, 201, 3, 3, 150, 99, 280, 41, 0, 260];

fn guard<B: Backend>(model: &Transformer<B>) -> Attached<B> {
    let mut attached = attached(model, Setting::default());
    attached
        .stats
        .as_mut()
        .unwrap()
        .update((0..80).map(|t| t * 3), (0..40).flat_map(|t| [t * 5 + 1, t + 90, t + 95]));
    attached
}

fn run<B: Backend>(model: &Transformer<B>, options: &GenerateOptions) -> Generated {
    checked(generate(model, Some(&guard(model)), &PROMPT, options, &mut |_, _| true))
}

/// The logits that the CPU chooses the token after `new` from, by the definition (METHOD §8).
fn guided_logits(
    model: &Transformer<Cpu>,
    guard: &Attached<Cpu>,
    new: &[u32],
    options: &GenerateOptions,
) -> Vec<f32> {
    let text = [&PROMPT[..], new].concat();
    let all = final_logits(model, Some(guard), &text).unwrap();
    let mut logits = all[all.len() - model.config.vocab_size..].to_vec();
    if options.guided {
        let rescored = new.len().checked_div(options.rescore_every).unwrap_or(0) * options.rescore_every;
        let scores = score(model, guard, &text[..PROMPT.len() + rescored]).unwrap();
        let sigma = scores.iter().sum::<f32>() / scores.len() as f32;
        let boost = if (1..=2).contains(&new.len()) { 1.0 } else { 0.0 };
        for (logit, s) in logits.iter_mut().zip(guard.stats.as_ref().unwrap().normalized()) {
            *logit += s / sigma + boost * s.max(0.0);
        }
    }
    logits
}

/// Every token that CUDA takes is the CPU's choice after the same tokens, or as good as it in 8 bits;
/// `logits` are those that the CPU chooses from.
#[track_caller]
fn choices_of_the_cpu(what: &str, tokens: &[u32], logits: impl Fn(&[u32]) -> Vec<f32>) {
    let mut same = 0;
    for (i, &token) in tokens.iter().enumerate() {
        let logits = logits(&tokens[..i]);
        let best = logits.iter().copied().fold(f32::MIN, f32::max);
        let size = logits.iter().map(|x| x.abs()).fold(0.0, f32::max);
        let short = best - logits[token as usize];
        assert!(short <= 0.02 * size, "{what}, token {i} is short by {short} of {size}");
        same += usize::from(short == 0.0);
    }
    assert!(same * 4 >= tokens.len() * 3, "{what}: {same} of {}", tokens.len());
}

#[test]
fn guided_generation_on_cuda_is_that_of_the_cpu() {
    let _alone = alone();
    for name in ["llama-tiny", "qwen2-tiny"] {
        let (on_cpu, on_cuda) = (model_on(Cpu::new(), name), model_on(own_cuda(), name));
        let cpu_guard = guard(&on_cpu);
        for guided in [false, true] {
            let options = GenerateOptions::default().with(|o| {
                o.max_new_tokens = 12;
                o.num_samples = 1;
                o.sampling = Sampling::new(0.0, 1.0, 0, 7);
                o.guided = guided;
                o.rescore_every = if guided { 4 } else { 0 };
            });
            let found = run(&on_cuda, &options);
            let logits = |new: &[u32]| guided_logits(&on_cpu, &cpu_guard, new, &options);
            choices_of_the_cpu(&format!("{name}, guided: {guided}"), &found.samples[0], logits);
            let (found, expected) =
                (found.prompt_score.unwrap(), run(&on_cpu, &options).prompt_score.unwrap());
            assert!((found - expected).abs() < 0.01, "{name}: {found} {expected}");
        }
    }
}

#[test]
fn generation_behind_a_prefix_on_cuda_is_that_of_the_cpu() {
    let _alone = alone();
    let options = GenerateOptions::default().with(|o| {
        o.max_new_tokens = 12;
        o.num_samples = 1;
        o.sampling = Sampling::new(0.0, 1.0, 0, 7);
    });
    for name in ["llama-tiny", "qwen2-tiny"] {
        let (on_cpu, on_cuda) = (model_on(Cpu::new(), name), model_on(own_cuda(), name));
        let attached = prefixes(&on_cuda, 1, 0.0);
        let generated = |attached| {
            checked(generate(&on_cuda, attached, &PROMPT, &options, &mut |_, _| true)).samples.remove(0)
        };
        let behind = generated(Some(&attached));
        let of_cpu = prefixes(&on_cpu, 1, 0.0);
        choices_of_the_cpu(name, &behind, |new| {
            let all = final_logits(&on_cpu, Some(&of_cpu), &[&PROMPT[..], new].concat()).unwrap();
            all[all.len() - on_cpu.config.vocab_size..].to_vec()
        });
        assert_ne!(behind, generated(None), "{name}: the prefix changes nothing");
    }
}

#[test]
fn samples_on_cuda_depend_on_the_seed_alone() {
    let _alone = alone();
    let model = model_on(own_cuda(), "qwen2-tiny");
    let samples = |seed| {
        let sampling = Sampling::new(0.9, 0.95, 50, seed);
        let options = GenerateOptions::default().with(|o| {
            o.max_new_tokens = 6;
            o.num_samples = 5;
            o.sampling = sampling;
            o.guided = true;
        });
        run(&model, &options).samples
    };
    let first = samples(1);
    assert_eq!(first, samples(1));
    assert_ne!(first, samples(2));
    assert!(first.iter().any(|sample| *sample != first[0]), "all samples are the same: {first:?}");
}

/// The same draws whoever drafts: no draft is taken, or each.
#[test]
fn an_expert_drafts_on_cuda() {
    let _alone = alone();
    let model = model_on(own_cuda(), "qwen2-tiny");
    let expert = guard(&model);
    let options = GenerateOptions::default().with(|o| {
        (o.max_new_tokens, o.num_samples) = (6, 3);
        o.sampling = Sampling::new(0.9, 0.95, 50, 1);
    });
    let prompt = [5, 77, 201, 3, 150];
    let co_decoded = |threshold: f32| {
        let coding = CoDecoding::default().with(|o| o.threshold = threshold);
        let expert = Some(Expert { model: &model, attached: Some(&expert), options: coding });
        let decoder = Decoder { model: &model, attached: None, expert };
        checked(decoder.generate(&prompt, &options, &mut |_, _| true)).samples
    };
    let alone = |attached, options: &GenerateOptions| {
        checked(generate(&model, attached, &prompt, options, &mut |_, _| true)).samples
    };
    let own = alone(None, &options);
    assert_eq!(co_decoded(1.0), own);
    let drafting = options.clone().with(|o| o.sampling = Sampling::new(0.4, 0.95, 0, !1));
    let drafted = alone(Some(&expert), &drafting);
    assert_ne!(drafted, own);
    assert_eq!(co_decoded(0.0), drafted);
}

/// Ends samples after as many tokens as their request and number say.
#[derive(Default)]
struct Ends(std::collections::BTreeMap<(u64, usize), Vec<u32>>, Vec<u64>);

impl Watcher for Ends {
    fn on_token(&mut self, request: usize, sample: usize, token: u32) -> Next {
        let seed = self.1[request];
        let tokens = self.0.entry((seed, sample)).or_default();
        tokens.push(token);
        if tokens.len() < 1 + (seed as usize + sample) % 4 { Next::GoOn } else { Next::End }
    }

    fn on_finished(&mut self, _: usize, _: Generated) -> Result<(), Error> {
        Ok(())
    }
}

#[test]
fn samples_of_a_batch_on_cuda_do_not_depend_on_it() {
    let _alone = alone();
    let model = model_on(own_cuda(), "qwen2-tiny");
    let guard = guard(&model);
    let sampled = |samples: usize, requests: &[Request]| {
        let options = GenerateOptions::default().with(|o| {
            o.max_new_tokens = 4;
            o.num_samples = samples;
            o.sampling = Sampling::new(0.9, 0.95, 50, 1);
            o.guided = true;
        });
        let mut watcher = Ends(Default::default(), requests.iter().map(|request| request.seed).collect());
        checked(generate_all(&model, Some(&guard), requests, &options, &mut watcher));
        watcher.0
    };
    let request =
        |seed: u64| Request { prompt: (0..4 + seed as u32 * 3).map(|t| t * 29 % 290).collect(), seed };
    let requests: Vec<Request> = (0..6).map(request).collect();
    // More cohorts than there are places for.
    let all = sampled(10, &requests);
    assert_eq!(all.len(), 60);
    for (seed, samples) in [(1, 10), (5, 3)] {
        for (key, alone) in sampled(samples, &[request(seed)]) {
            assert_eq!(all[&key], alone, "{key:?}");
        }
    }
}

/// Set in a process that waits for each kernel.
const CHILD: &str = "DG_TEST_CHILD";
/// Before what that process has generated.
const MARK: &str = "generated: ";

/// Generations in which samples end before others, whose strength is measured again, whose tokens are
/// drafted, and whose rows go to others.
fn various_generations() -> Vec<Vec<Vec<u32>>> {
    let model = model_on(own_cuda(), "qwen2-tiny");
    let (guard, plain) = (guard(&model), attached(&model, Setting::default()));
    let options = |samples: usize, every: usize| {
        GenerateOptions::default().with(|o| {
            (o.max_new_tokens, o.num_samples) = (9, samples);
            o.sampling = Sampling::new(0.9, 0.95, 50, 3);
            (o.guided, o.rescore_every) = (true, every);
            o.repetition_penalty = Some(1.2);
            o.begin_suppress_tokens = vec![7];
            o.stop_tokens = (0..60).map(|t| t * 5).collect();
        })
    };
    let expert = Expert { model: &model, attached: Some(&plain), options: CoDecoding::default() };
    let of_one = |samples, every, expert| {
        let decoder = Decoder { model: &model, attached: Some(&guard), expert };
        checked(decoder.generate(&PROMPT, &options(samples, every), &mut |_, _| true)).samples
    };
    let mut all =
        vec![of_one(1, 0, None), of_one(4, 0, None), of_one(3, 2, None), of_one(3, 0, Some(expert))];
    let request = |seed: u64| Request { prompt: (0..4 + seed as u32).map(|t| t * 29 % 290).collect(), seed };
    let requests: Vec<Request> = (0..3).map(request).collect();
    let mut watcher = Ends(Default::default(), requests.iter().map(|request| request.seed).collect());
    checked(generate_all(&model, Some(&guard), &requests, &options(9, 0), &mut watcher));
    all.push(watcher.0.into_values().collect());
    all
}

/// Steps that are recorded, repeated and started ahead give what single kernels give, each waited for.
#[test]
fn repeated_steps_on_cuda_give_the_same_tokens() {
    const NAME: &str = "cuda::generation::repeated_steps_on_cuda_give_the_same_tokens";
    if std::env::var_os(DEVICE_VARIABLE).is_some() {
        return; // what the host does is the same on every device, and this takes a minute
    }
    let _alone = alone();
    let all = various_generations();
    let found = format!("{MARK}{all:?}");
    if std::env::var_os(CHILD).is_some() {
        return println!("{found}");
    }
    let program = std::env::current_exe().unwrap();
    let mut child = std::process::Command::new(program);
    child.args([NAME, "--exact", "--nocapture"]).env(CHILD, "1").env("CUDA_LAUNCH_BLOCKING", "1");
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let expected = text.lines().find_map(|line| line.find(MARK).map(|at| &line[at..]));
    assert_eq!(Some(found.as_str()), expected, "{text}");
    // Some samples ended early, and some did not.
    let lengths: Vec<usize> = all[1].iter().map(Vec::len).collect();
    assert!(lengths.contains(&9) && lengths.iter().any(|&len| len < 9), "{lengths:?}");
}
