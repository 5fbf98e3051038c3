//! Sampling completions of a suite into a run's folder: `samples.jsonl`, and `sampling.json`, which says of
//! what they are samples. Scenarios are written whole, in the order of the suite, whatever ends first, and
//! what is there is never sampled again.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::lines::{Lines, read};
use super::presets::Preset;
use super::run::{SAMPLES, SAMPLING};
use super::samples::{Finish, SampleLine};
use super::stop::{self, Completion};
use super::suite::{Language, Scenario, Suite};
use crate::decode::{FinishReason, GenerateOptions, Generated, Next, Request, Watcher, context};
use crate::deepguard::DeepGuard;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::model::tokenizer::StreamDecoder;
use crate::ops::Backend;
use crate::{files, manifest};

/// Version of that file.
const FORMAT: u32 = 1;

/// Tokens of the prompt that the text of the first new token may depend on.
const CONTEXT: usize = 8;

/// What to sample, and how.
#[derive(Clone, Debug)]
pub struct SampleOptions<'a> {
    /// Name of the method in tables.
    pub method: String,
    /// The preset that the options come from.
    pub preset: &'a Preset,
    /// Folder of the adapter, if one is attached.
    pub adapter: Option<&'a Path>,
    /// How tokens are chosen, with the seed of all scenarios.
    pub generate: GenerateOptions,
    /// End prompts in the middle of the indentation of the next line.
    pub open_indent: bool,
    /// Sample the first scenarios only, so many.
    pub limit: Option<usize>,
    /// Go on with what is in the folder.
    pub resume: bool,
}

/// `sampling.json`: all that the bits of samples depend on.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Version of this form.
    pub format: u32,
    /// Name of the method in tables.
    pub method: String,
    /// Name of the preset.
    pub preset: String,
    /// What is not as the preset's publication has it.
    pub differences: Vec<String>,
    /// BLAKE3 of the base model's weights.
    pub model: String,
    /// BLAKE3 of the adapter's files.
    pub adapter: Option<String>,
    /// What computed: its sums may be in another order elsewhere.
    pub device: String,
    /// Samples of every scenario.
    pub num_samples: usize,
    /// How tokens are chosen, option by option.
    pub generate: Map<String, Value>,
    /// Rules by which completions end.
    pub stop_rule: String,
    /// Whether prompts end in the middle of the indentation of the next line.
    pub open_indent: bool,
    /// BLAKE3 of all of the above.
    pub key: String,
    /// Ids of the scenarios, in the order of the samples.
    pub scenarios: Vec<String>,
    /// BLAKE3 of every scenario's prompt.
    pub prompts: BTreeMap<String, String>,
    /// Scenarios that cannot be sampled, with the reason.
    pub unsampled: BTreeMap<String, String>,
}

/// How far sampling is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Scenarios that are written.
    pub scenarios: usize,
    /// All scenarios that can be sampled.
    pub of: usize,
}

/// What sampling came to.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Scenarios in the folder.
    pub scenarios: usize,
    /// Scenarios that were there before.
    pub resumed: usize,
    /// Samples in the folder.
    pub samples: usize,
    /// New samples that are complete functions, or that their model ended.
    pub ended: usize,
    /// Tokens of new samples.
    pub tokens: usize,
    /// Seconds for them.
    pub seconds: f64,
    /// Scenarios that cannot be sampled, with the reason.
    pub unsampled: BTreeMap<String, String>,
    /// What is not as the preset's publication has it.
    pub differences: Vec<String>,
}

/// Samples what `options` says into `folder`. `should_stop` is asked after every token.
///
/// # Errors
/// Kind `Usage`: the folder has samples already, and they are not to be gone on with. Kind `Data`: they are
/// samples of something else; every option that differs is named. Kind `Preempted`: it was asked to stop.
/// What is complete is kept.
pub fn sample<B: Backend>(
    guard: &DeepGuard<B>,
    suite: &Suite,
    options: &SampleOptions<'_>,
    folder: &Path,
    should_stop: &dyn Fn() -> bool,
    on_progress: &mut dyn FnMut(Progress),
) -> Result<Summary> {
    let generate = guard.with_model_options(&options.generate)?;
    generate.validate()?;
    let limit = options.limit.unwrap_or(usize::MAX);
    let scenarios: Vec<&Scenario> = suite.scenarios.iter().take(limit).collect();
    let mut plan = Plan::new(guard, &scenarios, options, &generate)?;
    let resumed = plan.is_begun(folder, options.resume)?;
    let (mut lines, there) = Lines::open::<SampleLine>(&folder.join(SAMPLES))?;
    let kept = whole_scenarios(&plan.samplable, generate.num_samples, &there, &folder.join(SAMPLES))?;
    if !resumed && !there.is_empty() {
        return Err(Error::data(format!(
            "{}: there are samples without {SAMPLING}; choose another --output-dir",
            folder.join(SAMPLES).display()
        )));
    }
    if !resumed {
        files::write_json(&folder.join(SAMPLING), &plan.settings)?;
    }
    let kept_lines = kept * generate.num_samples;
    if kept_lines < there.len() {
        lines.replace(&there[..kept_lines])?;
    }
    plan.samplable.drain(..kept);
    let mut run = Run {
        guard,
        num_samples: generate.num_samples,
        samples: plan.samplable.iter().map(|_| None).collect(),
        plan: &plan,
        lines,
        finished: BTreeMap::new(),
        written: 0,
        kept,
        ended: 0,
        tokens: 0,
        should_stop,
        on_progress,
        stopped: false,
        failure: None,
    };
    (run.on_progress)(Progress { scenarios: kept, of: kept + plan.samplable.len() });
    let started = std::time::Instant::now();
    let requests: Vec<Request> = plan.samplable.iter().map(|prompt| prompt.request.clone()).collect();
    guard.generate_all(&requests, &generate, &mut run)?;
    run.result(started.elapsed().as_secs_f64())
}

/// A scenario with what the model reads.
struct Prompt<'a> {
    scenario: &'a Scenario,
    /// What is added to its prompt; part of the completion.
    opening: String,
    request: Request,
}

/// What is to be sampled.
struct Plan<'a> {
    settings: Settings,
    samplable: Vec<Prompt<'a>>,
}

impl<'a> Plan<'a> {
    fn new<B: Backend>(
        guard: &DeepGuard<B>,
        scenarios: &[&'a Scenario],
        options: &SampleOptions<'_>,
        generate: &GenerateOptions,
    ) -> Result<Self> {
        let context = context(&guard.model, guard.attached.as_ref());
        let (mut samplable, mut prompts, mut unsampled) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        for scenario in scenarios {
            let id = &scenario.meta.id;
            let opening = if options.open_indent { opening(scenario) } else { String::new() };
            let text = format!("{}{opening}", scenario.prompt);
            prompts.insert(id.clone(), blake3::hash(text.as_bytes()).to_hex().to_string());
            let tokens = guard.tokenizer.encode_prompt(&text)?;
            if tokens.is_empty() || tokens.len() >= context {
                let reason = format!(
                    "its prompt has {} tokens; the model's context of {context} has no room for more",
                    tokens.len()
                );
                unsampled.insert(id.clone(), reason);
                continue;
            }
            let request = Request { prompt: tokens, seed: seed_of(generate.sampling.seed, id) };
            samplable.push(Prompt { scenario, opening, request });
        }
        let mut settings = Settings {
            format: FORMAT,
            method: options.method.clone(),
            preset: options.preset.name.to_owned(),
            differences: differences(options),
            model: guard.model.weights_hash().to_hex().to_string(),
            adapter: options.adapter.map(manifest::fingerprint).transpose()?,
            device: guard.model.backend.description(),
            num_samples: generate.num_samples,
            generate: options_by_name(generate),
            stop_rule: stop::RULE.to_owned(),
            open_indent: options.open_indent,
            key: String::new(),
            scenarios: scenarios.iter().map(|scenario| scenario.meta.id.clone()).collect(),
            prompts,
            unsampled,
        };
        settings.key = settings.own_key()?;
        Ok(Plan { settings, samplable })
    }

    /// Whether a folder has settings, which then have to be these.
    fn is_begun(&self, folder: &Path, resume: bool) -> Result<bool> {
        let path = folder.join(SAMPLING);
        if !path.exists() {
            return Ok(false);
        }
        if !resume {
            return Err(Error::usage(format!(
                "{}: a run was begun here; go on with it with --resume, or choose another --output-dir",
                folder.display()
            )));
        }
        let complain = || format!("{}: expected what a run's samples are samples of", path.display());
        let there: Settings = serde_json::from_slice(&read(&path)?).kind(ErrorKind::Data, complain)?;
        let differing = there.differences_from(&self.settings)?;
        if differing.is_empty() {
            return Ok(true);
        }
        Err(Error::data(format!(
            "{}: the samples here are of something else: {}; choose another --output-dir",
            folder.display(),
            differing.join("; ")
        )))
    }
}

impl Settings {
    /// BLAKE3 of all that every sample depends on, but for prompts.
    fn own_key(&self) -> Result<String> {
        let of_all = Settings {
            key: String::new(),
            scenarios: Vec::new(),
            prompts: BTreeMap::new(),
            unsampled: BTreeMap::new(),
            ..self.clone()
        };
        Ok(blake3::hash(files::json_text(&of_all)?.as_bytes()).to_hex().to_string())
    }

    /// Options by name that are others in `now`.
    fn differences_from(&self, now: &Settings) -> Result<Vec<String>> {
        let json = |settings: &Settings| {
            serde_json::to_value(settings).kind(ErrorKind::Internal, || "cannot write JSON".into())
        };
        let mut found = Vec::new();
        differ("", &json(self)?, &json(now)?, &mut found);
        // It only says that there is another difference.
        if found.len() > 1 {
            found.retain(|difference| !difference.starts_with("key: "));
        }
        Ok(found)
    }
}

/// Values that differ, by the names of their fields.
fn differ(name: &str, there: &Value, now: &Value, found: &mut Vec<String>) {
    match (there, now) {
        (Value::Object(there), Value::Object(now)) => {
            let names: std::collections::BTreeSet<&String> = there.keys().chain(now.keys()).collect();
            for field in names {
                let inner = if name.is_empty() { field.clone() } else { format!("{name}.{field}") };
                let of = |map: &Map<String, Value>| map.get(field).cloned().unwrap_or_default();
                differ(&inner, &of(there), &of(now), found);
            }
        }
        _ if there == now => {}
        (Value::Array(there), Value::Array(now)) => {
            found.push(format!("{name}: {} there, {} now, not all of them the same", there.len(), now.len()));
        }
        _ => found.push(format!("{name}: {there} there, {now} now")),
    }
}

/// Scenarios at the beginning of the samples that are there that have all of theirs.
fn whole_scenarios(
    prompts: &[Prompt<'_>],
    samples: usize,
    there: &[SampleLine],
    path: &Path,
) -> Result<usize> {
    for (i, line) in there.iter().enumerate() {
        let id = prompts.get(i / samples).map(|prompt| &prompt.scenario.meta.id);
        if id != Some(&line.id) || line.sample as usize != i % samples {
            return Err(Error::data(format!(
                "{}: line {}: expected sample {} of {}, found sample {} of {}; choose another --output-dir",
                path.display(),
                i + 1,
                i % samples,
                id.map_or("nothing", String::as_str),
                line.sample,
                line.id
            )));
        }
    }
    Ok(there.len() / samples)
}

/// What a scenario's random numbers depend on beside its samples and positions.
fn seed_of(seed: u64, id: &str) -> u64 {
    let hash = blake3::keyed_hash(blake3::hash(&seed.to_le_bytes()).as_bytes(), id.as_bytes());
    hash.as_bytes().first_chunk().map_or(seed, |bytes| u64::from_le_bytes(*bytes))
}

/// The line break and all but one space of the indentation of the function's next line: tokens of code begin
/// with a space, and a prompt that ends with its line invites prose. Nothing where it cannot be known.
fn opening(scenario: &Scenario) -> String {
    const STEP: usize = 4;
    let last = scenario.prompt.lines().last().unwrap_or_default();
    let indentation = last.len() - last.trim_start_matches(' ').len();
    let opens = match scenario.meta.language {
        Language::Python => last.trim_end().ends_with(':'),
        _ => last.trim_end().ends_with('{'),
    };
    let next = if opens { indentation + STEP } else { indentation };
    if next == 0 || last.starts_with('\t') { String::new() } else { format!("\n{}", " ".repeat(next - 1)) }
}

/// What is not as the publication of the preset has it.
fn differences(options: &SampleOptions<'_>) -> Vec<String> {
    let (preset, generate) = (options.preset, &options.generate);
    let mut all: Vec<String> = preset.differences.iter().map(|&text| text.to_owned()).collect();
    for (name, there, here) in [
        ("num_samples", preset.num_samples as f64, generate.num_samples as f64),
        ("temperature", f64::from(preset.temperature), f64::from(generate.sampling.temperature)),
        ("top_p", f64::from(preset.top_p), f64::from(generate.sampling.top_p)),
        ("top_k", preset.top_k as f64, generate.sampling.top_k as f64),
        ("max_new_tokens", preset.max_new_tokens as f64, generate.max_new_tokens as f64),
    ] {
        if there != here {
            let [there, here] = [there, here].map(|value| value as f32);
            all.push(format!("{name} is {here}; the preset's is {there}."));
        }
    }
    if preset.guided && options.adapter.is_some() && !generate.guided {
        all.push("Decoding is not guided; the publication's is.".to_owned());
    }
    if options.open_indent {
        all.push("Prompts end in the middle of the indentation of the next line.".to_owned());
    }
    if let Some(limit) = options.limit {
        all.push(format!("Only the first {limit} scenarios are sampled."));
    }
    all
}

/// Every option of a generation that changes a sample.
fn options_by_name(options: &GenerateOptions) -> Map<String, Value> {
    let GenerateOptions { sampling, .. } = options;
    let number =
        |value: f32| -> Value { value.to_string().parse::<f64>().unwrap_or(f64::from(value)).into() };
    let list = |tokens: &[u32]| -> Value {
        let mut sorted = tokens.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        sorted.into()
    };
    let all = [
        ("max_new_tokens", options.max_new_tokens.into()),
        ("temperature", number(sampling.temperature)),
        ("top_p", number(sampling.top_p)),
        ("top_k", sampling.top_k.into()),
        ("seed", sampling.seed.into()),
        ("repetition_penalty", options.repetition_penalty.map(number).unwrap_or_default()),
        ("stop_tokens", list(&options.stop_tokens)),
        ("suppress_tokens", list(&options.suppress_tokens)),
        ("begin_suppress_tokens", list(&options.begin_suppress_tokens)),
        ("guided", options.guided.into()),
        ("guidance_strength", number(options.guidance_strength)),
        ("guidance_cap", options.guidance_cap.map(number).unwrap_or_default()),
        ("unguided_tokens", list(&options.unguided_tokens)),
        ("rescore_every", options.rescore_every.into()),
    ];
    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A sample in progress.
struct Open<'a> {
    decoder: StreamDecoder<'a>,
    completion: Completion,
    complete: bool,
}

/// Follows the generation.
struct Run<'a, B: Backend> {
    guard: &'a DeepGuard<B>,
    plan: &'a Plan<'a>,
    num_samples: usize,
    /// Samples of the prompts that are being continued.
    samples: Vec<Option<Vec<Open<'a>>>>,
    lines: Lines,
    /// Lines of prompts that wait for those before them.
    finished: BTreeMap<usize, Vec<SampleLine>>,
    /// Prompts that are written.
    written: usize,
    /// Scenarios that were there before.
    kept: usize,
    ended: usize,
    tokens: usize,
    should_stop: &'a dyn Fn() -> bool,
    on_progress: &'a mut dyn FnMut(Progress),
    stopped: bool,
    failure: Option<Error>,
}

impl<'a, B: Backend> Run<'a, B> {
    /// The samples of a prompt, none of which has a token.
    fn begin(&self, prompt: &Prompt<'_>) -> Result<Vec<Open<'a>>> {
        let mut decoder = self.guard.tokenizer.stream_decoder();
        let tokens = &prompt.request.prompt;
        for &token in &tokens[tokens.len().saturating_sub(CONTEXT)..] {
            decoder.push(token)?;
        }
        let mut completion = Completion::new(prompt.scenario.meta.language, &prompt.scenario.prompt);
        completion.push(&prompt.opening);
        let open = || Open { decoder: decoder.clone(), completion: completion.clone(), complete: false };
        Ok((0..self.num_samples).map(|_| open()).collect())
    }

    /// The samples of a request as they are.
    fn take(&mut self, request: usize) -> Result<Vec<Open<'a>>> {
        match self.samples[request].take() {
            Some(samples) => Ok(samples),
            None => self.begin(&self.plan.samplable[request]),
        }
    }

    fn push(&mut self, request: usize, sample: usize, token: u32) -> Result<bool> {
        let mut samples = self.take(request)?;
        let open = &mut samples[sample];
        let text = open.decoder.push(token)?;
        open.complete = open.completion.push(&text);
        let is_complete = open.complete;
        self.samples[request] = Some(samples);
        Ok(is_complete)
    }

    fn lines_of(&mut self, request: usize, generated: &Generated) -> Result<Vec<SampleLine>> {
        let samples = self.take(request)?;
        let id = &self.plan.samplable[request].scenario.meta.id;
        let mut lines = Vec::new();
        for (number, Open { decoder, mut completion, complete }) in samples.into_iter().enumerate() {
            if !complete {
                completion.push(&decoder.finish()?);
            }
            let finish = match generated.finish_reasons[number] {
                FinishReason::Stop if complete => Finish::Stop,
                FinishReason::Stop => Finish::EndOfText,
                FinishReason::Length | FinishReason::Cancelled => Finish::Length,
            };
            let tokens = generated.samples[number].len();
            self.tokens += tokens;
            self.ended += usize::from(finish != Finish::Length);
            lines.push(SampleLine {
                id: id.clone(),
                sample: number as u32,
                completion: completion.finish(),
                tokens: Some(tokens as u32),
                finish: Some(finish),
            });
        }
        Ok(lines)
    }

    fn result(self, seconds: f64) -> Result<Summary> {
        let Run { plan, kept, written, .. } = self;
        if let Some(error) = self.failure {
            return Err(error);
        }
        if self.stopped {
            let (done, all) = (kept + written, kept + plan.samplable.len());
            let text = format!("stopped after {done} of {all} scenarios; --resume goes on from there");
            return Err(Error::new(ErrorKind::Preempted, text));
        }
        Ok(Summary {
            scenarios: kept + written,
            resumed: kept,
            samples: (kept + written) * self.num_samples,
            ended: self.ended,
            tokens: self.tokens,
            seconds,
            unsampled: plan.settings.unsampled.clone(),
            differences: plan.settings.differences.clone(),
        })
    }
}

impl<B: Backend> Watcher for Run<'_, B> {
    fn on_token(&mut self, request: usize, sample: usize, token: u32) -> Next {
        if (self.should_stop)() {
            self.stopped = true;
            return Next::Cancel;
        }
        match self.push(request, sample, token) {
            Ok(false) => Next::GoOn,
            Ok(true) => Next::End,
            Err(error) => {
                self.failure = Some(error);
                Next::Cancel
            }
        }
    }

    fn on_finished(&mut self, request: usize, generated: Generated) -> Result<()> {
        if self.stopped || self.failure.is_some() {
            return Ok(());
        }
        let lines = self.lines_of(request, &generated)?;
        self.finished.insert(request, lines);
        while let Some(lines) = self.finished.remove(&self.written) {
            self.lines.add_all(&lines)?;
            self.written += 1;
            let of = self.kept + self.plan.samplable.len();
            (self.on_progress)(Progress { scenarios: self.kept + self.written, of });
        }
        Ok(())
    }
}
