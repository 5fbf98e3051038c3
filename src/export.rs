//! Merging an adapter into its base model: `W' = W + scale · B A`, in f32, written as a plain Hugging Face
//! directory.

use std::borrow::Cow;
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::{Dtype as FileDtype, View};

use crate::attached::Attached;
use crate::cpu::Cpu;
use crate::cpu::blas::{MatMut, MatRef, gemm};
use crate::decode::final_logits;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::files::{copy_file, require_space, require_vacant, write_json, write_tensors, write_vacant_dir};
use crate::model::config::Config;
use crate::model::lora::{LoraPair, Projection};
use crate::model::transformer::Transformer;
use crate::model::weights::Weights;
use crate::ops::{Dtype, TensorView};

/// The file without which a folder is no model.
const CONFIG: &str = "config.json";

/// Files of a model directory that are copied as they are.
const COPIED: &[&str] = &[
    CONFIG,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
];

/// How the merged model compares with base and adapter on a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MergeCheck {
    /// ‖difference‖ / ‖logits‖ over all positions of the text.
    pub relative_error: f64,
    /// Share of positions whose likeliest token is the same.
    pub same_top_token: f64,
    /// What `relative_error` may be for the type of the weights.
    pub tolerance: f64,
}

/// Where a merged tensor gets its update from.
struct Update {
    scale: f32,
    rank: usize,
    a: Vec<f32>,
    b: Vec<f32>,
}

/// One tensor of the merged model, computed when it is written.
struct Merged {
    tensor: TensorView,
    update: Option<Update>,
}

impl View for Merged {
    fn dtype(&self) -> FileDtype {
        match self.tensor.dtype() {
            Dtype::F32 => FileDtype::F32,
            Dtype::Bf16 => FileDtype::BF16,
            Dtype::F16 => FileDtype::F16,
        }
    }

    fn shape(&self) -> &[usize] {
        self.tensor.shape()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let Some(update) = &self.update else { return Cow::Borrowed(self.tensor.bytes()) };
        let (out, input) = (self.tensor.shape()[0], self.tensor.shape()[1]);
        let mut values = self.tensor.to_f32_vec();
        let b = MatRef::new(&*update.b, out, update.rank);
        let a = MatRef::new(&*update.a, update.rank, input);
        gemm(MatMut::new(&mut values, out, input), b, a, update.scale, 1.0);
        Cow::Owned(match self.tensor.dtype() {
            Dtype::F32 => bytemuck::cast_slice(&values).to_vec(),
            Dtype::Bf16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
            Dtype::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
        })
    }

    fn data_len(&self) -> usize {
        self.tensor.bytes().len()
    }
}

/// Writes the model with the adapter merged in to `out`, in the base model's element types, and
/// compares the result with base and adapter on the tokens of a text.
///
/// # Errors
/// Kind `Usage` if `out` is there and not an empty folder, or for a prefix, which has no place in weights;
/// kind `Model` if the merged model's logits are off by more than rounding explains (then nothing is
/// written).
pub fn merge(
    model: &Transformer<Cpu>,
    attached: &Attached<Cpu>,
    out: &Path,
    check_tokens: &[u32],
) -> Result<MergeCheck> {
    attached.refuse_prefix("a merge")?;
    require_vacant(out)?;
    let mut result = None;
    let base_dir = model.dir();
    let weights = Weights::open(base_dir)?;
    require_space(out, weights.bytes())?;
    write_vacant_dir(out, CONFIG, |dir| {
        copy_files(base_dir, dir)?;
        if weights.has_own_head(&Config::from_dir(base_dir)?) {
            untie(&dir.join(CONFIG))?;
        }
        write_weights(model, attached, &weights, dir)?;
        let merged = Transformer::load(model.backend.clone(), dir)?;
        let check = compare(model, attached, &merged, check_tokens)?;
        // Asked so that NaN is not.
        let within = check.relative_error <= check.tolerance;
        if !within {
            return Err(Error::model(format!(
                "the merged model's logits differ from those of base and adapter by {:.2e} (relative), more than the \
                 {:.0e} that rounding explains; nothing was written",
                check.relative_error, check.tolerance
            )));
        }
        result = Some(check);
        Ok(())
    })?;
    result.ok_or_else(|| Error::internal("the merge was not checked"))
}

fn copy_files(base: &Path, dir: &Path) -> Result<()> {
    for name in COPIED {
        let from = base.join(name);
        if from.is_file() {
            copy_file(&from, &dir.join(name))?;
        }
    }
    Ok(())
}

/// Says that the head is a matrix of its own: loaders differ about one that is stored although it is tied.
fn untie(path: &Path) -> Result<()> {
    let complain = || format!("cannot rewrite {}", path.display());
    let text = std::fs::read(path).kind(ErrorKind::Device, complain)?;
    let mut config: serde_json::Value = serde_json::from_slice(&text).kind(ErrorKind::Model, complain)?;
    config["tie_word_embeddings"] = false.into();
    write_json(path, &config)
}

fn write_weights(
    model: &Transformer<Cpu>,
    attached: &Attached<Cpu>,
    weights: &Weights,
    dir: &Path,
) -> Result<()> {
    let mut tensors = Vec::new();
    for name in weights.names() {
        let update = update_of(model, attached, name)?;
        tensors.push((name.to_owned(), Merged { tensor: weights.tensor(name)?, update }));
    }
    write_tensors(&dir.join("model.safetensors"), tensors)
}

/// The update of the tensor `name`, if it is an adapted layer's weight.
fn update_of(model: &Transformer<Cpu>, attached: &Attached<Cpu>, name: &str) -> Result<Option<Update>> {
    let Some(pair) = adapter_of(model, attached, name) else { return Ok(None) };
    let Some(lora) = &attached.lora else { return Ok(None) };
    let config = &lora.config;
    let (a, b) = (attached.params.download(&pair.a)?, attached.params.download(&pair.b)?);
    Ok(Some(Update { scale: config.scale(), rank: config.rank, a, b }))
}

fn adapter_of<'a>(model: &Transformer<Cpu>, attached: &'a Attached<Cpu>, name: &str) -> Option<&'a LoraPair> {
    let rest = name.strip_prefix("model.layers.")?;
    let (layer, path) = rest.split_once('.')?;
    let layer: usize = layer.parse().ok().filter(|&l| l < model.config.num_hidden_layers)?;
    let projection = Projection::ALL.into_iter().find(|p| path == format!("{}.weight", p.path()))?;
    attached.lora.as_ref()?.get(layer, projection)
}

fn compare(
    model: &Transformer<Cpu>,
    attached: &Attached<Cpu>,
    merged: &Transformer<Cpu>,
    tokens: &[u32],
) -> Result<MergeCheck> {
    let expected = final_logits(model, Some(attached), tokens)?;
    let found = final_logits(merged, None, tokens)?;
    let square = |x: f32| f64::from(x) * f64::from(x);
    let difference: f64 = expected.iter().zip(&found).map(|(e, f)| square(e - f)).sum();
    let norm: f64 = expected.iter().map(|&e| square(e)).sum();
    let top = |row: &[f32]| row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(i, _)| i);
    let vocab_size = model.config.vocab_size;
    let rows = expected.chunks(vocab_size).zip(found.chunks(vocab_size));
    let same = rows.filter(|(e, f)| top(e) == top(f)).count();
    // Rounding every weight to n bits moves the logits by about 2⁻ⁿ relative, more in deep models.
    let tolerance = match merged.dtype {
        Dtype::F32 => 1e-4,
        Dtype::F16 => 1e-2,
        Dtype::Bf16 => 5e-2,
    };
    Ok(MergeCheck {
        relative_error: (difference / norm).sqrt(),
        same_top_token: same as f64 / tokens.len() as f64,
        tolerance,
    })
}
