//! Co-decoding: an expert drafts, and the model takes what it finds likely enough.

use deepguard::attached::Attached;
use deepguard::cpu::Cpu;
use deepguard::decode::{CoDecoding, Decoder, Expert, GenerateOptions, Generated, Request, final_logits};
use deepguard::ops::sample::Sampling;
use deepguard::{Error, ErrorKind};

use super::batches::{batch, requests, varied};
use super::tiny::{self, Tiny, edit_tensors};
use super::{PROMPT, Setup, adjust, allowed, options};

/// Samples of a model, and an expert that has learnt something else.
struct CoDecoded {
    setup: Setup,
    expert: Attached<Cpu>,
}

impl CoDecoded {
    fn new(architecture: &str) -> Self {
        let setup = Setup::new(architecture, true);
        let expert = tiny::attached(&setup.model.config, 23);
        CoDecoded { setup, expert }
    }

    fn decoder(&self, coding: CoDecoding) -> Decoder<'_, Cpu> {
        let Setup { model, attached } = &self.setup;
        let expert = Some(Expert { model, attached: Some(&self.expert), options: coding });
        Decoder { model, attached: attached.as_ref(), expert }
    }

    fn generate(&self, options: &GenerateOptions, coding: CoDecoding) -> Generated {
        self.decoder(coding).generate(&PROMPT, options, &mut |_, _| true).unwrap()
    }

    /// Logits of the expert after `new`, with what the options adjust.
    fn logits(&self, new: &[u32], options: &GenerateOptions) -> Vec<f32> {
        let text = [&PROMPT[..], new].concat();
        let all = final_logits(&self.setup.model, Some(&self.expert), &text).unwrap();
        let mut last = all[all.len() - self.setup.model.config.vocab_size..].to_vec();
        adjust(&mut last, &text, new.is_empty(), options);
        last
    }
}

fn coding(temperature: f32, top_p: f32, threshold: f32) -> CoDecoding {
    CoDecoding::default().with(|o| (o.temperature, o.top_p, o.threshold) = (temperature, top_p, threshold))
}

/// How drafts are drawn.
fn drafting(coding: CoDecoding, seed: u64) -> Sampling {
    Sampling::new(coding.temperature, coding.top_p, 0, !seed)
}

fn sampled(penalty: f32) -> GenerateOptions {
    options().with(|o| {
        (o.num_samples, o.max_new_tokens) = (5, 12);
        o.sampling = Sampling::new(0.8, 0.95, 40, 3);
        o.repetition_penalty = Some(penalty);
        o.suppress_tokens = if penalty == 1.0 { Vec::new() } else { vec![3, 7] };
    })
}

/// Probabilities at a temperature.
fn softmax(logits: &[f32], temperature: f32) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> =
        logits.iter().map(|x| (f64::from(x - largest) / f64::from(temperature)).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|w| w / total).collect()
}

/// The probability of a token among the likeliest up to `top_p`.
fn in_nucleus(p: &[f64], top_p: f32, token: usize) -> f64 {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[b].total_cmp(&p[a]));
    let mut mass = 0.0;
    for t in order {
        if mass >= f64::from(top_p) {
            break;
        }
        mass += p[t];
    }
    p[token] / mass
}

/// Every token is the draft where that is likely enough, and else the model's own.
#[test]
fn a_token_is_the_draft_or_the_model_s_own() {
    for (architecture, penalty) in [("llama", 1.0), ("qwen2", 1.3)] {
        let co = CoDecoded::new(architecture);
        let (options, coding) = (sampled(penalty), coding(0.7, 0.9, 0.4));
        let generated = co.generate(&options, coding);
        let (mut taken, mut own) = (0, 0);
        for (row, sample) in generated.samples.iter().enumerate() {
            for (position, &token) in sample.iter().enumerate() {
                let of_model = co.setup.logits(&sample[..position], &options);
                let of_expert = co.logits(&sample[..position], &options);
                let drafting = drafting(coding, options.sampling.seed);
                let is_draft = |&draft: &u32| allowed(&of_expert, drafting, row, position, draft);
                let drafts: Vec<u32> = (0..of_expert.len() as u32).filter(is_draft).collect();
                let [draft] = drafts[..] else { continue }; // a draw within the rounding of two
                let q = in_nucleus(&softmax(&of_expert, coding.temperature), coding.top_p, draft as usize);
                let ratio = softmax(&of_model, 1.0)[draft as usize] / q;
                if (ratio / f64::from(coding.threshold) - 1.0).abs() < 1e-2 {
                    continue;
                }
                if ratio > f64::from(coding.threshold) {
                    assert_eq!(token, draft, "{architecture}: sample {row}, position {position}");
                    taken += 1;
                } else {
                    assert!(allowed(&of_model, options.sampling, row, position, token), "{row} {position}");
                    own += 1;
                }
            }
        }
        assert!(taken > 5 && own > 5, "{taken} drafts taken, {own} not");
    }
}

#[test]
fn the_threshold_goes_from_the_expert_to_the_model() {
    let co = CoDecoded::new("llama");
    let options = sampled(1.0);
    assert_eq!(co.generate(&options, coding(0.4, 0.95, 1.0)).samples, co.setup.generate(&options).samples);
    let all = coding(0.4, 0.95, 0.0);
    let alone = Setup {
        model: Tiny::new("llama").load(),
        attached: Some(tiny::attached(&co.setup.model.config, 23)),
    };
    let like_drafts = options.clone().with(|o| o.sampling = drafting(all, options.sampling.seed));
    assert_eq!(co.generate(&options, all).samples, alone.generate(&like_drafts).samples);
}

#[test]
fn co_decoded_samples_do_not_depend_on_their_batch() {
    let co = CoDecoded::new("qwen2");
    let (options, requests) = (sampled(1.2).with(|o| o.max_new_tokens = 40), requests(9));
    let decoder = co.decoder(coding(0.7, 0.9, 0.4));
    let batch = |requests: &[Request]| batch(&decoder, requests, &options, &varied);
    let all = batch(&requests);
    for (request, together) in requests.iter().zip(&all) {
        assert_eq!(batch(std::slice::from_ref(request))[0].samples, together.samples);
    }
}

/// A table of embeddings may be padded: the expert drafts none of the tokens that only it has, and the model
/// produces none that only it has.
#[test]
fn vocabularies_of_different_padding_share_what_both_have() {
    let wide = Tiny::new("llama");
    let common = wide.load().config.vocab_size;
    let padded = common + 40;
    wide.edit_config(|config| config["vocab_size"] = padded.into());
    edit_tensors(&wide.model().join("model.safetensors"), |tensors| {
        for (_, shape, values) in tensors.iter_mut().filter(|(_, shape, _)| shape[0] == common) {
            // The rows of the first tokens again.
            values.extend_from_within(..40 * (values.len() / common));
            shape[0] = padded;
        }
    });
    let (wide, narrow) = (wide.load(), Tiny::new("llama").load());
    let options = sampled(1.0).with(|o| o.num_samples = 20);
    let generated = |model, expert| {
        let expert = Some(Expert { model: expert, attached: None, options: coding(1.0, 1.0, 0.5) });
        let decoder = Decoder { model, attached: None, expert };
        let samples = decoder.generate(&PROMPT, &options, &mut |_, _| true).unwrap().samples;
        samples.into_iter().flatten().max().unwrap() as usize
    };
    let alone = Decoder { model: &wide, attached: None, expert: None };
    let all = alone.generate(&PROMPT, &options, &mut |_, _| true).unwrap().samples.concat();
    assert!(all.iter().any(|&token| token as usize >= common), "the padding is never drawn");
    assert!(generated(&wide, &narrow) < common);
    assert!(generated(&narrow, &wide) < common);
}

#[test]
fn options_of_an_expert_are_checked() {
    let co = CoDecoded::new("llama");
    for (bad, option) in [
        (coding(-0.1, 0.9, 0.3), "expert_temperature"),
        (coding(f32::NAN, 0.9, 0.3), "expert_temperature"),
        (coding(0.4, 0.0, 0.3), "expert_top_p"),
        (coding(0.4, 0.9, 1.5), "expert_threshold"),
    ] {
        let refused: Result<Generated, Error> =
            co.decoder(bad).generate(&PROMPT, &options(), &mut |_, _| true);
        let error = refused.unwrap_err();
        assert!(error.kind() == ErrorKind::Usage && error.to_string().contains(option), "{error}");
    }
}
