//! Generation against the plain definition: every token from logits computed anew over the whole text (METHOD
//! §8).

#[path = "decode/batches.rs"]
mod batches;
#[path = "decode/expert.rs"]
mod expert;
#[path = "common/places.rs"]
mod places;
#[path = "common/tiny.rs"]
mod tiny;

use deepguard::attached::Attached;
use deepguard::cpu::Cpu;
use deepguard::decode::windows::{Window, score_in_windows, windows};
use deepguard::decode::{
    Decoder, FinishReason, GenerateOptions, Generated, final_logits, generate, score, score_with_attention,
};
use deepguard::model::lora::LoraConfig;
use deepguard::model::transformer::Transformer;
use deepguard::ops::philox::{philox, unit};
use deepguard::ops::sample::Sampling;
use deepguard::{DeepGuard, Error, ErrorKind};
use tiny::Tiny;

const PROMPT: [u32; 11] = [5, 77, 201, 3, 3, 150, 99, 280, 41, 0, 260];

/// How far two ways to compute the same logits may be apart.
const ROUNDING: f32 = 2e-4;

const GREEDY: Sampling = Sampling::new(0.0, 1.0, 0, 7);

/// 20 unguided greedy tokens.
fn options() -> GenerateOptions {
    GenerateOptions::default().with(|o| {
        o.max_new_tokens = 20;
        o.num_samples = 1;
        o.sampling = GREEDY;
    })
}

struct Setup {
    model: Transformer<Cpu>,
    attached: Option<Attached<Cpu>>,
}

impl Setup {
    fn new(architecture: &str, with_adapter: bool) -> Self {
        let model = Tiny::new(architecture).load();
        let attached = with_adapter.then(|| tiny::attached(&model.config, 11));
        Setup { model, attached }
    }

    fn decoder(&self) -> Decoder<'_, Cpu> {
        Decoder { model: &self.model, attached: self.attached.as_ref(), expert: None }
    }

    fn generate(&self, options: &GenerateOptions) -> Generated {
        generate(&self.model, self.attached.as_ref(), &PROMPT, options, &mut |_, _| true).unwrap()
    }

    fn refusal(&self, prompt: &[u32], options: &GenerateOptions) -> Error {
        generate(&self.model, self.attached.as_ref(), prompt, options, &mut |_, _| true).unwrap_err()
    }

    /// Mean score of a text.
    fn sigma(&self, text: &[u32]) -> f64 {
        let scores = score(&self.model, self.attached.as_ref().unwrap(), text).unwrap();
        scores.iter().map(|&s| f64::from(s)).sum::<f64>() / scores.len() as f64
    }

    /// The logits from which the token after `new` is chosen, guidance included.
    fn logits(&self, new: &[u32], options: &GenerateOptions) -> Vec<f32> {
        let text = [&PROMPT[..], new].concat();
        let all = final_logits(&self.model, self.attached.as_ref(), &text).unwrap();
        let mut last = all[all.len() - self.model.config.vocab_size..].to_vec();
        adjust(&mut last, &text, new.is_empty(), options);
        if options.guided {
            // The strength is that of the last multiple of `rescore_every`.
            let known = new.len() - new.len().checked_rem(options.rescore_every).unwrap_or(new.len());
            let sigma = self.sigma(&text[..PROMPT.len() + known]);
            let values = self.attached.as_ref().unwrap().stats.as_ref().unwrap().values();
            let largest = values.iter().fold(0.0f64, |m, &v| m.max(f64::from(v).abs()));
            let is_guided = |token: &usize| !options.unguided_tokens.contains(&(*token as u32));
            for token in (0..last.len()).filter(is_guided) {
                let (logit, value) = (&mut last[token], values[token]);
                let normalized = f64::from(value) / (largest + 1e-8);
                let boost = if (1..=2).contains(&new.len()) { normalized.max(0.0) } else { 0.0 };
                let factor = (f64::from(options.guidance_strength) / sigma)
                    .min(options.guidance_cap.map_or(f64::INFINITY, f64::from));
                let most = options.guidance_cap.unwrap_or(f32::INFINITY);
                let boost = boost * f64::from(options.guidance_strength.min(most));
                *logit += (normalized * factor + boost) as f32;
            }
        }
        last
    }

    /// Every token of every sample is one that its own logits allow.
    fn check(&self, generated: &Generated, options: &GenerateOptions) {
        for (row, sample) in generated.samples.iter().enumerate() {
            for (position, &token) in sample.iter().enumerate() {
                let logits = self.logits(&sample[..position], options);
                assert!(
                    allowed(&logits, options.sampling, row, position, token),
                    "sample {row}, position {position}"
                );
            }
        }
    }
}

/// Repetition penalty and suppression as `transformers` defines them, on the logits of the model itself.
fn adjust(logits: &mut [f32], text: &[u32], first: bool, options: &GenerateOptions) {
    let penalty = options.repetition_penalty.unwrap_or(1.0);
    let suppressed = |token: u32| {
        options.suppress_tokens.contains(&token) || (first && options.begin_suppress_tokens.contains(&token))
    };
    for (token, logit) in (0..).zip(logits) {
        if text.contains(&token) {
            *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
        }
        if suppressed(token) {
            *logit = f32::NEG_INFINITY;
        }
    }
}

/// Whether drawing from `logits` gives `token`, up to rounding: temperature, top-k, top-p, then the Philox
/// number of (seed, row, position).
fn allowed(logits: &[f32], s: Sampling, row: usize, position: usize, token: u32) -> bool {
    let token = token as usize;
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if s.temperature == 0.0 {
        return logits[token] >= largest - ROUNDING;
    }
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    order.truncate(if s.top_k == 0 { logits.len() } else { s.top_k });
    let weight = |&t: &usize| (f64::from(logits[t] - largest) / f64::from(s.temperature)).exp();
    let total: f64 = order.iter().map(weight).sum();
    let (mut kept, mut mass) = (Vec::new(), 0.0);
    for t in &order {
        if mass >= f64::from(s.top_p) * total {
            break;
        }
        mass += weight(t);
        kept.push(*t);
    }
    let Some(rank) = kept.iter().position(|&t| t == token) else { return false };
    let before = kept[..rank].iter().map(weight).sum::<f64>() / mass;
    let after = before + weight(&token) / mass;
    let counter = [row as u32, position as u32, u32::MAX - 3, 0];
    let drawn = f64::from(unit(philox(s.seed, counter)[0]));
    let slack = f64::from(ROUNDING);
    (before - slack..after + slack).contains(&drawn)
}

#[test]
fn greedy_tokens_are_the_likeliest_of_full_passes() {
    for architecture in ["llama", "qwen2"] {
        for with_adapter in [false, true] {
            let setup = Setup::new(architecture, with_adapter);
            let generated = setup.generate(&options());
            assert_eq!(generated.samples[0].len(), 20);
            assert_eq!(generated.finish_reasons, [FinishReason::Length]);
            setup.check(&generated, &options());
        }
    }
}

#[test]
fn guidance_adds_the_statistics_over_the_score() {
    for architecture in ["llama", "qwen2"] {
        let setup = Setup::new(architecture, true);
        let guided = options().with(|o| o.guided = true);
        let generated = setup.generate(&guided);
        setup.check(&generated, &guided);
        assert!((generated.prompt_score.unwrap() - setup.sigma(&PROMPT)).abs() < 1e-5);
        assert_ne!(generated.samples, setup.generate(&options()).samples, "guidance changes something");
    }
}

#[test]
fn penalty_and_suppression_come_before_guidance_and_sampling() {
    let sampling = Sampling::new(0.8, 0.95, 50, 4);
    for (architecture, guided, num_samples, sampling) in
        [("llama", false, 1, GREEDY), ("qwen2", true, 1, GREEDY), ("llama", true, 4, sampling)]
    {
        let setup = Setup::new(architecture, true);
        let plain = options().with(|o| {
            o.guided = guided;
            o.num_samples = num_samples;
            o.sampling = sampling;
        });
        let free = setup.generate(&plain);
        let penalised = plain.clone().with(|o| o.repetition_penalty = Some(1.7));
        let generated = setup.generate(&penalised);
        setup.check(&generated, &penalised);
        assert_ne!(generated.samples, free.samples, "the penalty changes something");
        let one = plain.clone().with(|o| o.repetition_penalty = Some(1.0));
        assert_eq!(setup.generate(&one).samples, free.samples);
        let suppressing = plain.with(|o| {
            o.suppress_tokens = vec![free.samples[0][3], 100_000];
            o.begin_suppress_tokens = free.samples.iter().map(|sample| sample[0]).collect();
        });
        let generated = setup.generate(&suppressing);
        setup.check(&generated, &suppressing);
        assert!(generated.samples.iter().all(|sample| !sample.contains(&free.samples[0][3])));
    }
    let setup = Setup::new("llama", false);
    for penalty in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let wrong = options().with(|o| o.repetition_penalty = Some(penalty));
        assert_eq!(setup.refusal(&PROMPT, &wrong).kind(), ErrorKind::Usage, "{penalty}");
    }
}

#[test]
fn every_sample_is_drawn_from_its_own_logits() {
    let cases = [
        ("llama", Sampling::new(0.8, 0.9, 50, 42), true),
        ("qwen2", Sampling::new(1.5, 1.0, 0, 1), false),
        ("llama", Sampling::new(0.3, 0.5, 3, 2), true),
    ];
    for (architecture, sampling, guided) in cases {
        let setup = Setup::new(architecture, true);
        let options = options().with(|o| {
            o.num_samples = 5;
            o.sampling = sampling;
            o.guided = guided;
            o.max_new_tokens = 12;
        });
        let generated = setup.generate(&options);
        setup.check(&generated, &options);
        assert_ne!(generated.samples[0], generated.samples[1]);
        assert_eq!(generated.samples, setup.generate(&options).samples, "a seed gives the same samples");
        let other = sampling.with(|o| o.seed = sampling.seed + 1);
        let other = options.with(|o| o.sampling = other);
        assert_ne!(generated.samples, setup.generate(&other).samples);
    }
}

#[test]
fn rescoring_uses_the_score_of_the_text_so_far() {
    let setup = Setup::new("llama", true);
    let sampling = Sampling::new(0.9, 0.95, 50, 3);
    for every in [1, 3] {
        let rescored = options().with(|o| {
            o.guided = true;
            o.rescore_every = every;
            o.num_samples = 3;
            o.max_new_tokens = 10;
            o.sampling = sampling;
        });
        setup.check(&setup.generate(&rescored), &rescored);
    }
}

/// The check above must notice a strength that is not recomputed.
#[test]
fn rescoring_changes_the_logits() {
    let setup = Setup::new("llama", true);
    let once = options().with(|o| o.guided = true);
    let often = once.clone().with(|o| o.rescore_every = 1);
    let new: Vec<u32> = (40..60).collect();
    let difference = setup.logits(&new, &once).into_iter().zip(setup.logits(&new, &often));
    assert!(difference.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) > 10.0 * ROUNDING);
}

#[test]
fn stop_tokens_end_a_sample_and_only_that() {
    let setup = Setup::new("qwen2", false);
    let free = setup.generate(&options()).samples.remove(0);
    let at = 7;
    let first = free.iter().position(|&t| t == free[at]).unwrap();
    let stopped = setup.generate(&options().with(|o| o.stop_tokens = vec![free[at]]));
    assert_eq!(stopped.samples[0], free[..first]);
    assert_eq!(stopped.finish_reasons, [FinishReason::Stop]);

    let sampling = Sampling::new(1.0, 1.0, 0, 5);
    let many = options().with(|o| {
        o.num_samples = 4;
        o.sampling = sampling;
    });
    let free = setup.generate(&many);
    let stop = free.samples[2][3];
    let stopped = setup.generate(&many.with(|o| o.stop_tokens = vec![stop]));
    for (row, sample) in stopped.samples.iter().enumerate() {
        let end = free.samples[row].iter().position(|&t| t == stop);
        assert_eq!(sample, &free.samples[row][..end.unwrap_or(20)]);
        let reason = if end.is_some() { FinishReason::Stop } else { FinishReason::Length };
        assert_eq!(stopped.finish_reasons[row], reason);
    }
}

#[test]
fn the_model_s_end_of_text_token_ends_a_generation() {
    let tiny = Tiny::new("llama");
    let mut guard = DeepGuard::load(Cpu::new(), tiny.model().to_str().unwrap()).unwrap();
    let go_on = |_: usize, _: u32| true;
    let free = guard.generate("def f(x):", &options(), &mut { go_on }).unwrap();
    guard.generation.eos_token_ids = vec![free.samples[0][4]];
    let stopped = guard.generate("def f(x):", &options(), &mut { go_on }).unwrap();
    assert!(stopped.samples[0].len() <= 4);
    assert_eq!(stopped.finish_reasons, [FinishReason::Stop]);
}

#[test]
fn a_generation_can_be_cancelled() {
    let setup = Setup::new("llama", false);
    let sampling = Sampling::new(1.0, 1.0, 0, 5);
    let many = options().with(|o| {
        o.num_samples = 3;
        o.sampling = sampling;
    });
    let mut seen = Vec::new();
    let mut on_token = |sample: usize, token: u32| {
        seen.push((sample, token));
        seen.len() < 5
    };
    let cancelled = generate(&setup.model, None, &PROMPT, &many, &mut on_token).unwrap();
    assert_eq!(cancelled.finish_reasons, [FinishReason::Cancelled; 3]);
    assert_eq!(seen.iter().map(|(sample, _)| *sample).collect::<Vec<_>>(), [0, 1, 2, 0, 1]);
    let free = setup.generate(&many);
    for (row, sample) in cancelled.samples.iter().enumerate() {
        let delivered: Vec<u32> = seen.iter().filter(|(s, _)| *s == row).map(|(_, t)| *t).collect();
        assert_eq!(sample, &delivered);
        assert!(free.samples[row].starts_with(sample));
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let (plain, guarded) = (Setup::new("llama", false), Setup::new("llama", true));
    let sampling = |temperature, top_p| {
        GREEDY.with(|o| {
            o.temperature = temperature;
            o.top_p = top_p;
        })
    };
    let usage = [
        options().with(|o| o.max_new_tokens = 0),
        options().with(|o| o.num_samples = 0),
        options().with(|o| o.num_samples = 2),
        options().with(|o| o.sampling = sampling(-1.0, 1.0)),
        options().with(|o| o.sampling = sampling(f32::NAN, 1.0)),
        options().with(|o| o.sampling = sampling(f32::INFINITY, 1.0)),
        options().with(|o| o.sampling = sampling(1.0, 0.0)),
        options().with(|o| o.sampling = sampling(1.0, 1.5)),
        options().with(|o| o.sampling = sampling(1.0, f32::NAN)),
    ];
    for options in usage {
        let error = guarded.refusal(&PROMPT, &options);
        assert_eq!(error.kind(), ErrorKind::Usage, "{options:?}: {error}");
    }
    let of_guidance = [
        ("rescore_every", options().with(|o| o.rescore_every = 4)),
        ("guidance_strength", options().with(|o| o.guidance_strength = 0.5)),
        ("guidance_cap", options().with(|o| o.guidance_cap = Some(1.0))),
        ("unguided_tokens", options().with(|o| o.unguided_tokens = vec![3])),
    ];
    for (name, options) in of_guidance {
        let error = guarded.refusal(&PROMPT, &options);
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
        assert!(error.to_string().contains(&format!("`{name}` adjusts the guidance")), "{error}");
    }
    let guided = plain.refusal(&PROMPT, &options().with(|o| o.guided = true));
    assert_eq!(guided.kind(), ErrorKind::Usage, "{guided}");
    assert_eq!(plain.refusal(&[], &options()).kind(), ErrorKind::Data);
    for max_new_tokens in [2048, usize::MAX] {
        let error = plain.refusal(&PROMPT, &options().with(|o| o.max_new_tokens = max_new_tokens));
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.to_string().contains("context of 2048"), "{error}");
    }
    for num_samples in [1 << 40, usize::MAX] {
        let many = options().with(|o| {
            o.num_samples = num_samples;
            o.sampling = sampling(1.0, 1.0);
        });
        let error = plain.refusal(&PROMPT, &many);
        assert_eq!(error.kind(), ErrorKind::Device, "{error}");
    }
}

#[test]
fn damaged_weights_are_noticed() {
    let tiny = Tiny::new("llama");
    tiny.edit_tensor("model.norm.weight", |values| values[0] = f32::NAN);
    let setup = Setup { model: tiny.load(), attached: None };
    let error = setup.refusal(&PROMPT, &options());
    assert_eq!(error.kind(), ErrorKind::Model);
    assert!(error.to_string().contains("weights are damaged"), "{error}");
}

#[test]
fn a_text_beyond_the_context_is_scored_in_windows() {
    let mut setup = Setup::new("llama", true);
    let attached = setup.attached.as_ref().unwrap();
    let text: Vec<u32> = (0..45).map(|i| (i * 37 + 5) % 300).collect();
    let whole = score_with_attention(&setup.model, attached, &text).unwrap();
    // A text that fits is read in one pass.
    for prefix in [0, 1] {
        let one = score_in_windows(&setup.model, attached, &text, prefix).unwrap();
        assert_eq!((&one.scores, &one.attention), (&whole.scores, &whole.attention));
    }
    setup.model.config.max_position_embeddings = 20;
    for prefix in [0, 2] {
        let found = score_in_windows(&setup.model, attached, &text, prefix).unwrap();
        assert_eq!((found.scores.len(), found.attention.len()), (text.len(), whole.attention.len()));
        let taps = whole.attention.len() / text.len();
        for Window { start, scored } in windows(text.len() - prefix, 20 - prefix) {
            let read = [&text[..prefix], &text[prefix + start..prefix + scored.end]].concat();
            assert!(read.len() <= 20);
            let alone = score_with_attention(&setup.model, attached, &read).unwrap();
            let (at, of) = (prefix + scored.start, prefix + scored.start - start);
            let length = scored.len();
            assert_eq!(found.scores[at..at + length], alone.scores[of..of + length]);
            let attention = |of: &[f32], from: usize| of[from * taps..(from + length) * taps].to_vec();
            assert_eq!(attention(&found.attention, at), attention(&alone.attention, of));
        }
        // The first window is the beginning of the whole text.
        let same = found.scores[..20].iter().zip(&whole.scores).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(same, "{:?} {:?}", &found.scores[..20], &whole.scores[..20]);
        assert_ne!(found.scores[20..], whole.scores[20..]);
    }
}

#[test]
fn without_a_guard_nothing_is_scored_or_guided() {
    let model = Tiny::new("llama").load();
    let mut plain =
        Attached::new(&Cpu::new(), &model.config, LoraConfig::default_for(&model.config), None).unwrap();
    deepguard::init::initialize(&mut plain, 3);
    let setup = Setup { model, attached: Some(plain) };
    let generated = setup.generate(&options());
    assert!(generated.prompt_score.is_none());
    setup.check(&generated, &options());
    let guided = setup.refusal(&PROMPT, &options().with(|o| o.guided = true));
    let scored = score(&setup.model, setup.attached.as_ref().unwrap(), &PROMPT).unwrap_err();
    for error in [guided, scored] {
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains("plain adapter"), "{error}");
    }
}

#[test]
fn guidance_has_a_strength_a_cap_and_tokens_that_it_leaves_alone() {
    let setup = Setup::new("llama", true);
    let guided = options().with(|o| o.guided = true);
    let full = setup.generate(&guided).samples;
    let plain = setup.generate(&options()).samples;
    let changed = [
        guided.clone().with(|o| o.guidance_strength = 4.0),
        guided.clone().with(|o| o.guidance_cap = Some(0.5)),
        guided.clone().with(|o| o.unguided_tokens = vec![full[0][0], full[0][1], 100_000]),
    ];
    for options in changed {
        let generated = setup.generate(&options);
        setup.check(&generated, &options);
    }
    let off = guided.clone().with(|o| o.guidance_strength = 0.0);
    assert_eq!(setup.generate(&off).samples, plain);
    assert_eq!(setup.generate(&guided.clone().with(|o| o.guidance_cap = Some(0.0))).samples, plain);
    let everything = guided.clone().with(|o| o.unguided_tokens = (0..400).collect());
    assert_eq!(setup.generate(&everything).samples, plain);
    for wrong in [-1.0, f32::NAN, f32::INFINITY] {
        for options in [
            guided.clone().with(|o| o.guidance_strength = wrong),
            guided.clone().with(|o| o.guidance_cap = Some(wrong)),
        ] {
            assert_eq!(setup.refusal(&PROMPT, &options).kind(), ErrorKind::Usage, "{wrong}");
        }
    }
}
