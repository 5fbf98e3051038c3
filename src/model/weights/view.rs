//! One tensor of a weights file, read in place.

use std::ops::Range;
use std::sync::Arc;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use memmap2::Mmap;

use super::Entry;
use crate::error::{Error, Result};
use crate::model::config::Dtype;

/// A tensor, row-major and contiguous. Cheap to clone; keeps its file mapped.
#[derive(Clone, Debug)]
pub struct TensorView {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    storage: Storage,
    /// Bytes of the tensor in `storage`; aligned for `dtype` and as long as `shape` says.
    range: Range<usize>,
}

#[derive(Clone, Debug)]
enum Storage {
    Mapped(Arc<Mmap>),
    /// Of a tensor that its file holds at an unaligned address. `u32` is aligned for all three types.
    Copied(Arc<[u32]>),
}

impl Storage {
    fn bytes(&self) -> &[u8] {
        match self {
            Storage::Mapped(map) => map,
            Storage::Copied(words) => bytemuck::cast_slice(words),
        }
    }
}

impl TensorView {
    pub(super) fn new(name: &str, entry: &Entry) -> Result<TensorView> {
        let dtype = dtype(name, entry.info.dtype)?;
        let (start, end) = entry.info.data_offsets;
        let range = entry.data_start + start..entry.data_start + end;
        let bytes = &entry.map[range.clone()];
        let (storage, range) = if bytes.as_ptr().addr().is_multiple_of(dtype.size()) {
            (Storage::Mapped(entry.map.clone()), range)
        } else {
            (Storage::Copied(copy_aligned(bytes)), 0..bytes.len())
        };
        Ok(TensorView { name: name.to_owned(), dtype, shape: entry.info.shape.clone(), storage, range })
    }

    /// The name it has in its file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type of its elements.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Its shape; matrices are `[out, in]`.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.range.len() / self.dtype.size()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Its elements as they lie in the file, little-endian.
    pub fn bytes(&self) -> &[u8] {
        &self.storage.bytes()[self.range.clone()]
    }

    /// Its elements, if they are of type F32.
    ///
    /// # Errors
    /// Kind `Internal` for another type: ask [`TensorView::dtype`] first.
    pub fn as_f32(&self) -> Result<&[f32]> {
        self.as_slice(Dtype::F32)
    }

    /// Its elements, if they are of type BF16.
    ///
    /// # Errors
    /// As [`TensorView::as_f32`].
    pub fn as_bf16(&self) -> Result<&[bf16]> {
        self.as_slice(Dtype::Bf16)
    }

    /// Its elements, if they are of type F16.
    ///
    /// # Errors
    /// As [`TensorView::as_f32`].
    pub fn as_f16(&self) -> Result<&[f16]> {
        self.as_slice(Dtype::F16)
    }

    /// A copy of its elements, whichever type they are of; exact.
    pub fn to_f32_vec(&self) -> Vec<f32> {
        match self.dtype {
            Dtype::F32 => self.elements::<f32>().to_vec(),
            Dtype::Bf16 => self.elements::<bf16>().to_f32_vec(),
            Dtype::F16 => self.elements::<f16>().to_f32_vec(),
        }
    }

    /// The part `rows` of the first dimension, in place.
    ///
    /// # Errors
    /// Kind `Internal` if the tensor has no such rows.
    pub fn rows(&self, rows: Range<usize>) -> Result<TensorView> {
        let Some((&height, row_shape)) = self.shape.split_first() else {
            return Err(Error::internal(format!("{}: a scalar has no rows", self.name)));
        };
        if rows.start > rows.end || rows.end > height {
            return Err(Error::internal(format!("{}: there are no rows {rows:?} among {height}", self.name)));
        }
        // Not the product of `row_shape`, which may overflow where there are no rows.
        let row_bytes = self.range.len().checked_div(height).unwrap_or(0);
        let start = self.range.start + rows.start * row_bytes;
        let range = start..start + rows.len() * row_bytes;
        let shape = [&[rows.len()], row_shape].concat();
        Ok(TensorView { shape, range, ..self.clone() })
    }

    fn as_slice<T: bytemuck::AnyBitPattern>(&self, dtype: Dtype) -> Result<&[T]> {
        if self.dtype != dtype {
            return Err(Error::internal(format!(
                "{}: read as {dtype:?}, but it is {:?}",
                self.name, self.dtype
            )));
        }
        Ok(self.elements())
    }

    /// `T` must be the type that `dtype` names: then neither alignment nor length can make the cast panic.
    fn elements<T: bytemuck::AnyBitPattern>(&self) -> &[T] {
        bytemuck::cast_slice(self.bytes())
    }
}

fn copy_aligned(bytes: &[u8]) -> Arc<[u32]> {
    let mut words = vec![0u32; bytes.len().div_ceil(4)];
    bytemuck::cast_slice_mut::<u32, u8>(&mut words)[..bytes.len()].copy_from_slice(bytes);
    words.into()
}

/// The element type, if it is one that can be computed with.
pub(super) fn dtype(name: &str, found: safetensors::Dtype) -> Result<Dtype> {
    match found {
        safetensors::Dtype::F32 => Ok(Dtype::F32),
        safetensors::Dtype::BF16 => Ok(Dtype::Bf16),
        safetensors::Dtype::F16 => Ok(Dtype::F16),
        _ => Err(Error::model(format!("{name}: expected one of the types F32, BF16, F16, found {found:?}"))),
    }
}
