//! Converts models of other formats into Hugging Face directories.
//!
//! ```text
//! source     map the .gguf file, or extract the only one of an archive
//! reader     checked reads from untrusted bytes
//! metadata   key-value section, read by type          gguf     header, tensor table, tensor data
//! arch       hyperparameters, config.json, tensors    weights  pair, convert and write tensors
//! keys       what becomes of every metadata key
//! dequant    tensor types as f32                       vocabulary, tokenizer, bpe, spm   tokenizer.json
//! ```
//! Whatever cannot be converted exactly (an architecture, tensor type, scaling, tokenizer, tensor or
//! hyperparameter that is not known here) is refused by name: a model that is silently a little wrong is
//! worse than none.

mod arch;
mod bpe;
mod dequant;
mod gguf;
mod k_quants;
mod keys;
mod metadata;
mod pipeline;
mod reader;
mod source;
mod spm;
#[cfg(test)]
mod tests;
mod tokenizer;
mod vocabulary;
mod weights;

use crate::error::{Error, Result};
use crate::files::{require_space, write_json, write_vacant_dir};
use arch::{Architecture, Config};
use gguf::Gguf;
use std::path::Path;
use tokenizer::TokenizerFiles;
use vocabulary::Vocabulary;
use weights::Weight;

/// The type in which an imported model's weights are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImportDtype {
    /// Rounded to nearest even; half the size, and what training stores anyway.
    #[default]
    Bf16,
    /// Exactly the values that the GGUF file stands for.
    F32,
}

impl ImportDtype {
    /// The name in `config.json`: `bfloat16` or `float32`.
    pub fn name(self) -> &'static str {
        match self {
            ImportDtype::Bf16 => "bfloat16",
            ImportDtype::F32 => "float32",
        }
    }
}

/// What [`import_gguf`] wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportReport {
    /// `llama` or `qwen2`.
    pub architecture: String,
    /// The kind of tokenizer, as GGUF names it: `gpt2 (qwen2)`, `llama`.
    pub tokenizer: String,
    /// Tokens in the vocabulary: rows of the embedding.
    pub vocab_size: usize,
    /// Tensors in `model.safetensors`.
    pub tensors: usize,
    /// Values in all tensors together.
    pub parameters: u64,
    /// Element type of the written weights.
    pub dtype: ImportDtype,
    /// What was found in the file and not read; one sentence each.
    pub notes: Vec<String>,
}

/// Converts the GGUF model in `file` into a Hugging Face directory `out`: `config.json`,
/// `generation_config.json`, `model.safetensors`, `tokenizer.json`, `tokenizer_config.json`,
/// `special_tokens_map.json`.
///
/// `file` is a GGUF file of architecture `llama` or `qwen2` with tensors of type F32, F16, BF16, Q4_0, Q4_1,
/// Q5_0, Q5_1, Q8_0, Q2_K to Q6_K, IQ4_NL or IQ4_XS, or a .zip or .whl archive that holds exactly one. `out`
/// appears complete or not at all: it is built in a hidden directory beside it, flushed and renamed; where
/// that cannot be, it is filled, `config.json` last ([`write_vacant_dir`]).
///
/// # Errors
/// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) where `out` exists and is not an empty directory;
/// `Model` for a file that is damaged, or that holds anything which cannot be converted exactly; `Device`
/// where writing fails.
pub fn import_gguf(file: &Path, out: &Path, dtype: ImportDtype) -> Result<ImportReport> {
    let mut report = None;
    write_vacant_dir(out, "config.json", |dir| {
        // What an archive holds is unpacked to an unnamed file there.
        let bytes = source::map(file, dir)?;
        let model = Model::read(&bytes)?;
        require_space(out, weights::bytes(&model.weights, dtype))?;
        model.write(dtype, dir)?;
        report = Some(model.report(dtype));
        Ok(())
    })
    .map_err(|e| e.context(format_args!("import of `{}`", file.display())))?;
    report.ok_or_else(|| Error::internal("nothing was imported"))
}

/// A GGUF file, checked and paired with what the Hugging Face directory will hold.
struct Model<'a> {
    config: Config,
    weights: Vec<Weight<'a>>,
    tokenizer: TokenizerFiles,
    /// A sentence about metadata that was not read.
    unknown: Option<String>,
}

impl<'a> Model<'a> {
    /// Everything but the conversion of the weights: no file is written, no tensor data read.
    fn read(bytes: &'a [u8]) -> Result<Self> {
        let Gguf { metadata, tensors } = Gguf::parse(bytes)?;
        refuse_other_contents(&metadata)?;
        let unknown = keys::check(&metadata, Architecture::read(&metadata)?.name())?;
        let tied = !tensors.iter().any(|tensor| tensor.name == "output.weight");
        let config = Config::read(&metadata, tied)?;
        let weights = weights::pair(&config, tensors)?;
        let vocabulary = Vocabulary::read(&metadata)?;
        let tokenizer = TokenizerFiles::build(&vocabulary, config.max_position_embeddings)?;
        // What is written must be what is read.
        let written = config.to_json(ImportDtype::default(), &tokenizer.generation_config).to_string();
        crate::model::config::Config::from_json(&written)
            .map_err(|e| e.context("the model's configuration"))?;
        Ok(Model { config, weights, tokenizer, unknown })
    }

    /// Writes into the directory `out`.
    fn write(&self, dtype: ImportDtype, out: &Path) -> Result<()> {
        let roles = &self.tokenizer.generation_config;
        write_json(&out.join("config.json"), &self.config.to_json(dtype, roles))?;
        write_json(&out.join("generation_config.json"), roles)?;
        write_json(&out.join("tokenizer.json"), &self.tokenizer.tokenizer)?;
        write_json(&out.join("tokenizer_config.json"), &self.tokenizer.tokenizer_config)?;
        write_json(&out.join("special_tokens_map.json"), &self.tokenizer.special_tokens_map)?;
        weights::write(&self.weights, dtype, &out.join("model.safetensors"))
    }

    fn report(&self, dtype: ImportDtype) -> ImportReport {
        ImportReport {
            architecture: self.config.architecture.name().into(),
            tokenizer: self.tokenizer.kind.clone(),
            vocab_size: self.config.vocab_size,
            tensors: self.weights.len(),
            parameters: weights::parameters(&self.weights),
            dtype,
            notes: self.unknown.iter().cloned().collect(),
        }
    }
}

/// GGUF also carries adapters, projectors and parts of models.
fn refuse_other_contents(metadata: &metadata::Metadata<'_>) -> Result<()> {
    let contents = metadata.get("general.type")?.unwrap_or("model");
    if contents != "model" {
        return Err(Error::model(format!(
            "metadata key `general.type`: expected `model`, found `{contents}`; import the model file"
        )));
    }
    match metadata.get("split.count")? {
        None | Some(0 | 1) => Ok(()),
        Some(parts @ 2u64..) => Err(Error::model(format!(
            "metadata key `split.count`: expected a whole model, found one of {parts} parts; merge them first with \
             llama-gguf-split --merge"
        ))),
    }
}
