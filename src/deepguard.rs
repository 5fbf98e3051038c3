//! The library's front door: a model with its tokenizer and, after training, its adapter and guard.

mod any;
#[cfg(feature = "cuda")]
mod shards;

use std::ops::Range;
use std::path::Path;

use crate::adapter::{self, AdapterFolder};
use crate::attached::Attached;
use crate::decode::windows::score_batch;
use crate::decode::{CoDecoding, Decoder, Expert, GenerateOptions, Generated, GuardScores, Request, Watcher};
use crate::error::{Error, Result};
use crate::model::generation::GenerationConfig;
use crate::model::tokenizer::{Tokenizer, without_mark};
use crate::model::transformer::Transformer;
use crate::ops::Backend;
use crate::train::records::CodePair;
use crate::train::{Observer, RunData, RunFolder, RunSummary, TrainConfig, train_in, train_on};

pub use any::{AnyDevice, AnyGuard, DeviceChoice, Visitor};
#[cfg(feature = "cuda")]
pub use shards::{BaseShares, ShardBase, share_base};

/// A base model, its tokenizer and, if attached, adapter and guard.
pub struct DeepGuard<B: Backend> {
    /// The frozen base model.
    pub model: Transformer<B>,
    /// The model's tokenizer.
    pub tokenizer: Tokenizer,
    /// What its files say about generating.
    pub generation: GenerationConfig,
    /// Adapter and, if it has one, guard with token statistics.
    pub attached: Option<Attached<B>>,
    /// A security expert that drafts the tokens that are generated, if there is one.
    pub expert: Option<SecurityExpert<B>>,
}

/// A model that drafts tokens of secure code for another one (CoSec).
pub struct SecurityExpert<B: Backend> {
    /// Its base model, unless that is the one that it drafts for.
    pub model: Option<Transformer<B>>,
    /// What was trained.
    pub attached: Attached<B>,
    /// How it drafts, and which of its tokens are taken.
    pub options: CoDecoding,
}

/// The score of one token.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TokenScore {
    /// Token id.
    pub token: u32,
    /// Bytes of the text it covers.
    pub range: Range<usize>,
    /// Score in (0, 1); high is secure.
    pub score: f32,
    /// How much the guard looked at each of [`TextScores::layers`]; sums to 1. Empty if it does not attend.
    pub attention: Vec<f32>,
}

/// The scores of a text.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TextScores {
    /// Scores of the tokens in their order.
    pub tokens: Vec<TokenScore>,
    /// Mean of the tokens' scores; NaN for a text without tokens.
    pub mean: f64,
    /// The layers of the model that the guard looks at, counted from 1.
    pub layers: Vec<usize>,
}

impl TextScores {
    /// The mean and the number of tokens, for people.
    pub fn summary(&self) -> String {
        match self.tokens.len() {
            0 => "nothing to score".to_owned(),
            n => format!("mean score {:.4} over {n} tokens", self.mean),
        }
    }
}

/// Tokens with the bytes of the text that they stand for.
type Encoded = Vec<(u32, Range<usize>)>;

impl TextScores {
    fn new(encoded: Encoded, found: GuardScores, layers: &[usize]) -> Self {
        let GuardScores { scores, attention } = found;
        // Not a number where there is no token.
        let mean = scores.iter().map(|&s| f64::from(s)).sum::<f64>() / scores.len() as f64;
        // A guard that does not attend has nothing to chunk.
        let mut attention = attention.chunks(layers.len().max(1)).map(<[f32]>::to_vec);
        let token = |((token, range), score)| {
            let attention = attention.next().unwrap_or_default();
            TokenScore { token, range, score, attention }
        };
        TextScores {
            tokens: encoded.into_iter().zip(scores).map(token).collect(),
            mean,
            layers: layers.to_vec(),
        }
    }
}

impl<B: Backend> DeepGuard<B> {
    /// Loads a base model from a Hugging Face directory. That of a hub id in the local cache is found by
    /// [`resolve_model`](crate::hub::resolve_model); [`obtain`](crate::hub::download::obtain) downloads it.
    ///
    /// # Errors
    /// Kind `Model` for everything that cannot be used about it.
    pub fn load(backend: B, dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let model = Transformer::load(backend, dir)?;
        let tokenizer = Tokenizer::from_dir(dir)?.for_model(&model.config)?;
        let generation = GenerationConfig::from_dir(dir, model.config.vocab_size);
        Ok(DeepGuard { model, tokenizer, generation, attached: None, expert: None })
    }

    /// What was found in the model's files and is not used as it stands; one sentence each.
    pub fn notes(&self) -> impl Iterator<Item = &str> {
        self.model.notes().iter().chain(self.tokenizer.notes()).map(String::as_str)
    }

    /// Attaches an adapter folder, or the finished adapter of a run folder. A plain PEFT adapter has no
    /// guard: it changes what is generated, but cannot guide it, nor score.
    ///
    /// # Errors
    /// Kind `Model`: the folder does not fit the base model or is not complete.
    pub fn attach(&mut self, adapter: &Path) -> Result<()> {
        let folder = AdapterFolder::find(adapter)?;
        self.attached = Some(adapter::load(&self.model.backend, folder.path(), &self.model.config)?);
        Ok(())
    }

    /// Lets an expert draft what is generated: the adapter folder, or run folder, of the method `cosec`, for
    /// the base model in the Hugging Face directory `model`, or for this one. The two models need the same
    /// vocabulary, but for padding at its end.
    ///
    /// # Errors
    /// Kind `Usage` for options out of range; kind `Model` for a model or adapter that cannot be used, or for
    /// another vocabulary.
    pub fn attach_expert(&mut self, model: Option<&Path>, adapter: &Path, options: CoDecoding) -> Result<()> {
        options.validate()?;
        let folder = AdapterFolder::find(adapter)?;
        let backend = self.model.backend.clone();
        if let Some(dir) = model {
            self.require_same_vocabulary(dir)?;
        }
        let model = model.map(|dir| Transformer::load(backend.clone(), dir)).transpose()?;
        let config = &model.as_ref().unwrap_or(&self.model).config;
        let attached = adapter::load(&backend, folder.path(), config)?;
        self.expert = Some(SecurityExpert { model, attached, options });
        Ok(())
    }

    /// Refuses a model whose tokens are others, as far as both have any.
    fn require_same_vocabulary(&self, dir: &Path) -> Result<()> {
        let other = Tokenizer::from_dir(dir)?;
        let common = self.tokenizer.vocab_size().min(other.vocab_size()) as u32;
        let texts = |id: u32| [&self.tokenizer, &other].map(|tokenizer| tokenizer.token_str(id));
        let Some((id, [own, of_expert])) =
            (0..common).map(|id| (id, texts(id))).find(|(_, [own, of_expert])| own != of_expert)
        else {
            return Ok(());
        };
        let shown = |text: Option<String>| text.map_or("none".to_owned(), |text| format!("{text:?}"));
        Err(Error::model(format!(
            "{}: expected an expert with the model's vocabulary, found another: token {id} is {} there and {} here",
            dir.display(),
            shown(of_expert),
            shown(own)
        )))
    }

    /// What decodes.
    fn decoder(&self) -> Decoder<'_, B> {
        let expert = self.expert.as_ref().map(|expert| Expert {
            model: expert.model.as_ref().unwrap_or(&self.model),
            attached: Some(&expert.attached),
            options: expert.options,
        });
        Decoder { model: &self.model, attached: self.attached.as_ref(), expert }
    }

    /// Tokens that a prompt and what is generated from it may have together.
    pub fn context(&self) -> usize {
        self.decoder().context()
    }

    /// Trains an adapter and a guard on the pairs that `config` names, writes them to `config.output_dir` and
    /// attaches the result.
    ///
    /// # Errors
    /// Errors of all kinds; see [`crate::error::ErrorKind`].
    pub fn train(&mut self, config: &TrainConfig, observer: &mut dyn Observer) -> Result<RunSummary> {
        config.validate()?;
        self.train_in(&RunFolder::open(&config.output_dir)?, config, observer)
    }

    /// [`Self::train`] into a folder that was taken before, for instance before the model was loaded;
    /// `config.output_dir` is not looked at.
    ///
    /// # Errors
    /// Errors of all kinds; see [`crate::error::ErrorKind`].
    pub fn train_in(
        &mut self,
        folder: &RunFolder,
        config: &TrainConfig,
        observer: &mut dyn Observer,
    ) -> Result<RunSummary> {
        let summary = train_in(folder, &self.model, &self.tokenizer, config, observer)?;
        self.attach_result(folder, summary)
    }

    /// [`Self::train`] on pairs in memory instead of those that `config` names. Without `validation` pairs,
    /// `config.val_fraction` of the pairs are set aside.
    ///
    /// # Errors
    /// Errors of all kinds; see [`crate::error::ErrorKind`].
    pub fn train_on(
        &mut self,
        pairs: Vec<CodePair>,
        validation: Option<Vec<CodePair>>,
        config: &TrainConfig,
        observer: &mut dyn Observer,
    ) -> Result<RunSummary> {
        config.validate()?;
        let folder = &RunFolder::open(&config.output_dir)?;
        let for_model = config.for_model(&self.model.config)?;
        let data = RunData::from_pairs(pairs, validation, &for_model, &self.tokenizer, observer)?;
        let summary = train_on(folder, &self.model, data, config, observer)?;
        self.attach_result(folder, summary)
    }

    fn attach_result(&mut self, folder: &RunFolder, summary: RunSummary) -> Result<RunSummary> {
        if !summary.interrupted {
            self.attach(folder.path())?;
        }
        Ok(summary)
    }

    /// Scores every token of `text`. One that is longer than the model's context is read in
    /// [`windows`](crate::decode::windows) that overlap; a byte order mark at the beginning is not read.
    ///
    /// # Errors
    /// Kind `Usage` without a guard; kind `Device` for a text that does not fit the memory.
    pub fn score(&self, text: &str) -> Result<TextScores> {
        let scores = self.score_batch(&[text])?.pop();
        scores.ok_or_else(|| Error::internal("no scores of a text"))
    }

    /// Scores several texts, in their order. Short ones are read together, up to a few thousand tokens in a
    /// pass, which takes less time than [one after the other](Self::score); the last digits of scores may
    /// differ.
    ///
    /// # Errors
    /// As [`DeepGuard::score`].
    pub fn score_batch<T: AsRef<str>>(&self, texts: &[T]) -> Result<Vec<TextScores>> {
        let attached = self.attached.as_ref();
        let attached =
            attached.ok_or_else(|| Error::usage("scoring needs a guard: attach an adapter first"))?;
        attached.require_guard().map_err(|e| e.context("scoring needs a guard"))?;
        let layers = attached.tapped_layers(self.model.config.num_hidden_layers);
        let encoded: Vec<Encoded> =
            texts.iter().map(|text| self.encode_source(text.as_ref())).collect::<Result<_>>()?;
        let ids = |text: &Encoded| text.iter().map(|(id, _)| *id).collect();
        let read: Vec<Vec<u32>> = encoded.iter().filter(|text| !text.is_empty()).map(ids).collect();
        let mut found = score_batch(&self.model, attached, &read, self.tokenizer.start_len())?.into_iter();
        let scores = |encoded: Encoded| {
            let scores = if encoded.is_empty() { None } else { found.next() };
            TextScores::new(encoded, scores.unwrap_or_default(), &layers)
        };
        Ok(encoded.into_iter().map(scores).collect())
    }

    /// Tokens and their bytes in `text`; none of a text in which there is nothing but a byte order mark.
    fn encode_source(&self, text: &str) -> Result<Encoded> {
        match without_mark(text) {
            "" => Ok(Encoded::new()),
            _ => self.tokenizer.encode_with_offsets(text),
        }
    }

    /// Continues `prompt`; `on_token` gets (sample, token) as they come and stops by returning `false`. What
    /// [`DeepGuard::generation`] says is added to the options: end-of-text tokens, suppressed tokens, and its
    /// repetition penalty where the options have none.
    ///
    /// # Errors
    /// Kind `Usage` for options that contradict each other, kind `Data` for a prompt that does not fit, kind
    /// `Model` where the model's files ask for what is not computed.
    pub fn generate(
        &self,
        prompt: &str,
        options: &GenerateOptions,
        on_token: &mut dyn FnMut(usize, u32) -> bool,
    ) -> Result<Generated> {
        self.generate_some(prompt, options, 0..options.num_samples, on_token)
    }

    /// Some of the samples of [`DeepGuard::generate`]: see [`Decoder::generate_some`].
    ///
    /// # Errors
    /// As [`DeepGuard::generate`].
    pub fn generate_some(
        &self,
        prompt: &str,
        options: &GenerateOptions,
        numbers: Range<usize>,
        on_token: &mut dyn FnMut(usize, u32) -> bool,
    ) -> Result<Generated> {
        let ids = self.tokenizer.encode_prompt(prompt)?;
        let options = self.with_model_options(options)?;
        self.decoder().generate_some(&ids, &options, numbers, on_token)
    }

    /// Refuses options of a generation that do not go together, or not with what is attached.
    ///
    /// # Errors
    /// Kind `Usage`, naming the option.
    pub fn validate(&self, options: &GenerateOptions) -> Result<()> {
        self.decoder().validate(options)
    }

    /// Continues many prompts in one batch; see [`generate_all`](crate::decode::generate_all). The options
    /// are taken as they are: [`DeepGuard::with_model_options`] adds what the model's files say.
    ///
    /// # Errors
    /// As [`generate_all`](crate::decode::generate_all).
    pub fn generate_all(
        &self,
        requests: &[Request],
        options: &GenerateOptions,
        watcher: &mut dyn Watcher,
    ) -> Result<()> {
        self.decoder().generate_all(requests, options, watcher)
    }

    /// Options with what [`DeepGuard::generation`] says added: end-of-text tokens, suppressed tokens, and its
    /// repetition penalty where the options have none.
    ///
    /// # Errors
    /// Kind `Model` where the model's files ask for what is not computed.
    pub fn with_model_options(&self, options: &GenerateOptions) -> Result<GenerateOptions> {
        let (mut options, generation) = (options.clone(), &self.generation);
        generation.check()?;
        options.stop_tokens.extend(&generation.eos_token_ids);
        options.suppress_tokens.extend(&generation.suppress_tokens);
        options.begin_suppress_tokens.extend(&generation.begin_suppress_tokens);
        options.repetition_penalty.get_or_insert(generation.repetition_penalty);
        Ok(options)
    }
}
