//! Writes the tensors of a GGUF file as `model.safetensors`, one tensor in memory at a time.

use super::ImportDtype;
use super::arch::{Config, TensorSpec};
use super::gguf::Tensor;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::files::write_tensors;
use half::bf16;
use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::tensor::{Dtype, SafeTensors, View};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::OnceLock;

/// A tensor of the model with its place in the source file.
#[derive(Debug)]
pub(super) struct Weight<'a> {
    spec: TensorSpec,
    source: Tensor<'a>,
}

/// Pairs every tensor that `config` asks for with the file's; none may be missing, of another shape, or left over.
///
/// # Errors
/// [`ErrorKind::Model`], naming the tensor.
pub(super) fn pair<'a>(config: &Config, tensors: Vec<Tensor<'a>>) -> Result<Vec<Weight<'a>>> {
    // Before the table is built: its size is the file's word until now.
    if config.tensor_count() > tensors.len() {
        return Err(Error::model(format!(
            "tensors: expected {} for this architecture and number of layers, found {}; the file is incomplete, \
             download or convert it again (a file split in parts must be merged first)",
            config.tensor_count(),
            tensors.len()
        )));
    }
    let mut found: HashMap<&str, Tensor<'a>> = tensors.into_iter().map(|t| (t.name, t)).collect();
    let weights =
        config.tensors().into_iter().map(|spec| take(&mut found, spec)).collect::<Result<Vec<_>>>()?;
    refuse_left_over(found.into_keys())?;
    Ok(weights)
}

fn take<'a>(found: &mut HashMap<&str, Tensor<'a>>, spec: TensorSpec) -> Result<Weight<'a>> {
    let name = &spec.gguf_name;
    let Some(source) = found.remove(name.as_str()) else {
        return Err(Error::model(format!(
            "tensor `{name}`: expected shape {:?}, found no such tensor; the file is incomplete, download or \
             convert it again",
            spec.shape
        )));
    };
    if source.shape != spec.shape {
        return Err(Error::model(format!(
            "tensor `{name}`: expected shape {:?} from the hyperparameters, found {:?}; convert the model again",
            spec.shape, source.shape
        )));
    }
    Ok(Weight { spec, source })
}

fn refuse_left_over<'a>(names: impl Iterator<Item = &'a str>) -> Result<()> {
    match names.min() {
        None => Ok(()),
        Some("rope_freqs.weight") => Err(Error::model(
            "tensor `rope_freqs.weight`: expected a model without llama3 rope scaling, found its frequency factors, \
             from which the scaling parameters cannot be recovered exactly; use the Hugging Face directory of this \
             model instead",
        )),
        Some(name) => Err(Error::model(format!(
            "tensor `{name}`: expected only the tensors of a dense model of this architecture, found one more; this \
             variant is not supported, import a plain one"
        ))),
    }
}

/// Values in all tensors together.
pub(super) fn parameters(weights: &[Weight<'_>]) -> u64 {
    weights.iter().map(|w| w.spec.shape.iter().product::<usize>() as u64).sum()
}

/// Bytes of all tensors together, as `dtype`.
pub(super) fn bytes(weights: &[Weight<'_>], dtype: ImportDtype) -> u64 {
    parameters(weights) * dtype.size() as u64
}

/// Writes `file` and reads its table back.
///
/// # Errors
/// [`ErrorKind::Model`] for a weight that is not finite in `dtype`; [`ErrorKind::Device`] where writing fails.
pub(super) fn write(weights: &[Weight<'_>], dtype: ImportDtype, file: &Path) -> Result<()> {
    let not_finite = OnceLock::new();
    let views = weights
        .iter()
        .map(|weight| (&weight.spec.name, Converted { weight, dtype, not_finite: &not_finite }));
    write_tensors(file, views).map_err(|e| e.advice("free disk space and try again"))?;
    match not_finite.into_inner() {
        Some(name) => Err(Error::model(format!(
            "tensor `{name}`: expected finite weights in {}, found NaN or infinity; use another file of this model",
            dtype.name()
        ))),
        None => verify(weights, dtype, file),
    }
}

/// Reads the written table back: names, types and shapes, and that the data is whole.
fn verify(weights: &[Weight<'_>], dtype: ImportDtype, file: &Path) -> Result<()> {
    let what = || format!("`{}` cannot be read back; free disk space and try again", file.display());
    let written = File::open(file).kind(ErrorKind::Device, what)?;
    // SAFETY: the file lies in a directory that only this process knows, so nobody truncates it meanwhile.
    let bytes = unsafe { Mmap::map(&written) }.kind(ErrorKind::Device, what)?;
    let model = SafeTensors::deserialize(&bytes).kind(ErrorKind::Device, what)?;
    for Weight { spec, .. } in weights {
        let view = model.tensor(&spec.name).kind(ErrorKind::Device, what)?;
        if view.shape() != spec.shape || view.dtype() != dtype.stored() {
            return Err(Error::internal(format!(
                "tensor `{}` was written with another shape or type",
                spec.name
            )));
        }
    }
    Ok(())
}

/// A weight as safetensors asks for it; its bytes exist only while they are being written.
struct Converted<'w> {
    weight: &'w Weight<'w>,
    dtype: ImportDtype,
    /// Receives the name of a tensor with a value that is not finite: [`View::data`] has no way to fail.
    not_finite: &'w OnceLock<String>,
}

impl View for Converted<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype.stored()
    }

    fn shape(&self) -> &[usize] {
        &self.weight.spec.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.convert().into()
    }

    fn data_len(&self) -> usize {
        self.shape().iter().product::<usize>() * self.dtype.size()
    }
}

impl Converted<'_> {
    /// Row by row: find the source row, decode it, encode it.
    fn convert(&self) -> Vec<u8> {
        let Weight { spec, source } = self.weight;
        let columns = spec.shape.last().copied().unwrap_or(1);
        let rows = spec.shape.iter().product::<usize>() / columns;
        let source_row_size = source.data.len() / rows;
        let mut bytes = vec![0; self.data_len()];
        bytes.par_chunks_mut(columns * self.dtype.size()).enumerate().for_each_init(
            || vec![0.0; columns],
            |values, (row, out)| {
                let from = source_row(row, rows, spec.interleaved_heads) * source_row_size;
                source.kind.decode(&source.data[from..from + source_row_size], values);
                if !self.dtype.encode(values, out) {
                    let _already_named = self.not_finite.set(spec.name.clone());
                }
            },
        );
        bytes
    }
}

/// The row of the GGUF tensor that becomes `row`. llama.cpp stores rows `i` and `i + head_dim / 2` of a head, which
/// rotate together, side by side as `2 i` and `2 i + 1`.
fn source_row(row: usize, rows: usize, interleaved_heads: Option<usize>) -> usize {
    let Some(heads) = interleaved_heads else { return row };
    let head_dim = rows / heads;
    let (head, within) = (row / head_dim, row % head_dim);
    let (half, i) = (within / (head_dim / 2), within % (head_dim / 2));
    head * head_dim + 2 * i + half
}

impl ImportDtype {
    fn stored(self) -> Dtype {
        match self {
            ImportDtype::Bf16 => Dtype::BF16,
            ImportDtype::F32 => Dtype::F32,
        }
    }

    fn size(self) -> usize {
        match self {
            ImportDtype::Bf16 => 2,
            ImportDtype::F32 => 4,
        }
    }

    /// Writes `values` to `out`, rounding to nearest even; returns whether all results are finite.
    fn encode(self, values: &[f32], out: &mut [u8]) -> bool {
        match self {
            ImportDtype::Bf16 => {
                values.iter().zip(out.chunks_exact_mut(2)).fold(true, |finite, (value, out)| {
                    let rounded = bf16::from_f32(*value);
                    out.copy_from_slice(&rounded.to_le_bytes());
                    finite & rounded.is_finite()
                })
            }
            ImportDtype::F32 => {
                values.iter().zip(out.chunks_exact_mut(4)).fold(true, |finite, (value, out)| {
                    out.copy_from_slice(&value.to_le_bytes());
                    finite & value.is_finite()
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_rows_undo_the_interleaving() {
        let (heads, head_dim) = (3, 10);
        for row in 0..heads * head_dim {
            // llama.cpp's converter: [heads, 2, head_dim / 2] becomes [heads, head_dim / 2, 2].
            let (head, half, i) = (row / 10, row % 10 / 5, row % 5);
            let stored = head * 10 + i * 2 + half;
            assert_eq!(source_row(row, heads * head_dim, Some(heads)), stored);
            assert_eq!(source_row(row, heads * head_dim, None), row);
        }
    }
}
