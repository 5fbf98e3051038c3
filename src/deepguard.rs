//! The library's front door: a model with its tokenizer and, after training, its adapter and guard.

mod any;

use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::adapter;
use crate::attached::Attached;
use crate::decode::{self, GenerateOptions, Generated, GuardScores};
use crate::error::{Error, Result};
use crate::model::generation::GenerationConfig;
use crate::model::tokenizer::Tokenizer;
use crate::model::transformer::Transformer;
use crate::ops::Backend;
use crate::train::records::CodePair;
use crate::train::run_folder::FINAL_ADAPTER;
use crate::train::{Observer, RunData, RunFolder, RunSummary, TrainConfig, train_in, train_on};

pub use any::{AnyDevice, AnyGuard, DeviceChoice, Visitor};

/// A base model, its tokenizer and, if attached, adapter and guard.
pub struct DeepGuard<B: Backend> {
    /// The frozen base model.
    pub model: Transformer<B>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// What its files say about generating.
    pub generation: GenerationConfig,
    /// Adapter, guard and token statistics.
    pub attached: Option<Attached<B>>,
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
    /// One entry per token.
    pub tokens: Vec<TokenScore>,
    /// Their mean.
    pub mean: f64,
    /// The layers of the model that the guard looks at, counted from 1.
    pub layers: Vec<usize>,
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
        Ok(DeepGuard { model, tokenizer, generation, attached: None })
    }

    /// What was found in the model's files and is not used as it stands; one sentence each.
    pub fn notes(&self) -> impl Iterator<Item = &str> {
        self.model.notes().iter().chain(self.tokenizer.notes()).map(String::as_str)
    }

    /// Attaches an adapter folder, or the finished adapter of a run folder.
    ///
    /// # Errors
    /// Kind `Model`: the folder does not fit the base model or is not complete.
    pub fn attach(&mut self, adapter: &Path) -> Result<()> {
        let dir = adapter_dir(adapter)?;
        self.attached = Some(adapter::load(&self.model.backend, &dir, &self.model.config)?);
        Ok(())
    }

    /// Trains an adapter and a guard on the pairs that `config` names, writes them to `config.output_dir` and attaches
    /// the result.
    ///
    /// # Errors
    /// Of all kinds; see [`crate::error::ErrorKind`].
    pub fn train(&mut self, config: &TrainConfig, observer: &mut dyn Observer) -> Result<RunSummary> {
        config.validate()?;
        self.train_in(&RunFolder::open(&config.output_dir)?, config, observer)
    }

    /// [`Self::train`] into a folder that was taken before, for instance before the model was loaded;
    /// `config.output_dir` is not looked at.
    ///
    /// # Errors
    /// Of all kinds; see [`crate::error::ErrorKind`].
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
    /// Of all kinds; see [`crate::error::ErrorKind`].
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

    /// Scores every token of `text`.
    ///
    /// # Errors
    /// Kind `Usage` without a guard; kind `Data` for a text that is empty or longer than the model's context.
    pub fn score(&self, text: &str) -> Result<TextScores> {
        let attached = self.attached.as_ref();
        let attached =
            attached.ok_or_else(|| Error::usage("scoring needs a guard: attach an adapter first"))?;
        let encoded = self.tokenizer.encode_with_offsets(text)?;
        let limit = self.model.config.max_position_embeddings;
        if encoded.is_empty() || encoded.len() > limit {
            return Err(Error::data(format!(
                "expected a text of 1 to {limit} tokens, found {}",
                encoded.len()
            )));
        }
        let ids: Vec<u32> = encoded.iter().map(|(id, _)| *id).collect();
        let GuardScores { scores, attention } = decode::score_with_attention(&self.model, attached, &ids)?;
        let mean = scores.iter().map(|&s| f64::from(s)).sum::<f64>() / scores.len() as f64;
        let layers: Vec<usize> = attached.guard.tapped_layers(self.model.config.num_hidden_layers).collect();
        // A guard that does not attend has nothing to chunk.
        let mut attention = attention.chunks(layers.len()).map(<[f32]>::to_vec);
        let token = |((token, range), score)| {
            let attention = attention.next().unwrap_or_default();
            TokenScore { token, range, score, attention }
        };
        Ok(TextScores { tokens: encoded.into_iter().zip(scores).map(token).collect(), mean, layers })
    }

    /// Continues `prompt`; `on_token` gets (sample, token) as they come and stops by returning `false`. What
    /// [`DeepGuard::generation`] says is added to the options: end-of-text tokens, suppressed tokens, and its repetition
    /// penalty where the options have none.
    ///
    /// # Errors
    /// Kind `Usage` for options that contradict each other, kind `Data` for a prompt that does not fit, kind `Model` where
    /// the model's files ask for what is not computed.
    pub fn generate(
        &self,
        prompt: &str,
        options: &GenerateOptions,
        on_token: &mut dyn FnMut(usize, u32) -> bool,
    ) -> Result<Generated> {
        let ids = self.tokenizer.encode_prompt(prompt)?;
        let (mut options, generation) = (options.clone(), &self.generation);
        generation.check()?;
        options.stop_tokens.extend(&generation.eos_token_ids);
        options.suppress_tokens.extend(&generation.suppress_tokens);
        options.begin_suppress_tokens.extend(&generation.begin_suppress_tokens);
        options.repetition_penalty.get_or_insert(generation.repetition_penalty);
        decode::generate(&self.model, self.attached.as_ref(), &ids, &options, on_token)
    }
}

/// `dir` itself if it is an adapter folder, else the finished adapter of the run folder `dir`.
fn adapter_dir(dir: &Path) -> Result<PathBuf> {
    let candidates = [dir.to_owned(), dir.join(FINAL_ADAPTER)];
    let found = candidates.into_iter().find(|d| d.join(adapter::ADAPTER_CONFIG).is_file());
    found.ok_or_else(|| {
        Error::model(format!(
            "{}: there is no {} in it, nor in its folder {FINAL_ADAPTER}; expected an adapter or a finished run",
            dir.display(),
            adapter::ADAPTER_CONFIG
        ))
    })
}
