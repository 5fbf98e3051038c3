//! Tensors in host memory, from which backends load weights: mapped from a file and read in place, or copied.

use std::ops::Range;
use std::sync::Arc;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use memmap2::Mmap;

use crate::error::{Error, Result};

/// The storage types of weights that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE single precision.
    F32,
    /// Brain float: the upper half of an `F32`.
    Bf16,
    /// IEEE half precision.
    F16,
}

impl Dtype {
    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::Bf16 | Dtype::F16 => 2,
        }
    }
}

/// Name and shape of a tensor that a model consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name in Hugging Face's layout, such as `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// Row-major shape; matrices are `[out, in]`.
    pub shape: Vec<usize>,
}

/// A tensor, row-major and contiguous. Cheap to clone; keeps its file mapped, if it lies in one.
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
    /// The words of a tensor that no file holds at an aligned address. `u32` is aligned for all three types.
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
    /// A copy of `bytes`, the little-endian elements of a tensor of this type and shape.
    ///
    /// # Errors
    /// Kind `Usage` for another number of bytes than type and shape ask for.
    pub fn from_bytes(name: &str, dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Result<TensorView> {
        check_len(name, dtype, shape, bytes.len())?;
        let storage = Storage::Copied(copy_aligned(bytes));
        Ok(TensorView { name: name.to_owned(), dtype, shape: shape.to_vec(), storage, range: 0..bytes.len() })
    }

    /// The tensor at the bytes `range` of a mapped file, in place; a copy if they are not aligned for
    /// `dtype`.
    ///
    /// # Errors
    /// Kind `Usage`: as [`TensorView::from_bytes`], or a range beyond the end of the file.
    pub fn mapped(
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        map: &Arc<Mmap>,
        range: Range<usize>,
    ) -> Result<TensorView> {
        let Some(bytes) = map.get(range.clone()) else {
            return Err(Error::usage(format!("{name}: bytes {range:?} of a file of {}", map.len())));
        };
        if !bytes.as_ptr().addr().is_multiple_of(dtype.size()) {
            return Self::from_bytes(name, dtype, shape, bytes);
        }
        check_len(name, dtype, shape, bytes.len())?;
        let storage = Storage::Mapped(map.clone());
        Ok(TensorView { name: name.to_owned(), dtype, shape: shape.to_vec(), storage, range })
    }

    /// The tensor's name, by which errors call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type of its elements.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The tensor's shape; matrices are `[out, in]`.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.range.len() / self.dtype.size()
    }

    /// Whether the tensor has no elements.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// The tensor's elements as they lie in memory, little-endian.
    pub fn bytes(&self) -> &[u8] {
        &self.storage.bytes()[self.range.clone()]
    }

    /// The tensor's elements, if they are of type F32.
    ///
    /// # Errors
    /// Kind `Internal` for another type: ask [`TensorView::dtype`] first.
    pub fn as_f32(&self) -> Result<&[f32]> {
        self.as_slice(Dtype::F32)
    }

    /// The tensor's elements, if they are of type BF16.
    ///
    /// # Errors
    /// As [`TensorView::as_f32`].
    pub fn as_bf16(&self) -> Result<&[bf16]> {
        self.as_slice(Dtype::Bf16)
    }

    /// The tensor's elements, if they are of type F16.
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

fn check_len(name: &str, dtype: Dtype, shape: &[usize], len: usize) -> Result<()> {
    let expected = shape.iter().try_fold(dtype.size(), |n, &d| n.checked_mul(d));
    if expected == Some(len) {
        return Ok(());
    }
    Err(Error::usage(format!(
        "{name}: expected the bytes of shape {shape:?} in {dtype:?}, found {len} bytes"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn bytes_have_the_length_that_type_and_shape_ask_for() {
        let values = [1.0f32, -2.0, 0.5, 3.0, 4.0, 5.0];
        let bytes = bytemuck::cast_slice::<f32, u8>(&values);
        let view = TensorView::from_bytes("w", Dtype::F32, &[2, 3], bytes).unwrap();
        assert_eq!(view.to_f32_vec(), values);
        assert_eq!(view.rows(1..2).unwrap().as_f32().unwrap(), &values[3..]);
        for shape in [&[2, 2][..], &[usize::MAX, 2], &[]] {
            let error = TensorView::from_bytes("w", Dtype::F32, shape, bytes).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
        }
    }

    #[test]
    fn a_mapped_tensor_lies_within_its_file() {
        use std::io::Write;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytemuck::cast_slice(&[0.0f32, 1.0, 2.0])).unwrap();
        // SAFETY: a temporary file that nobody else has.
        let map = Arc::new(unsafe { Mmap::map(&file).unwrap() });
        let mapped = |range| TensorView::mapped("w", Dtype::F32, &[2], &map, range);
        assert_eq!(mapped(4..12).unwrap().as_f32().unwrap(), [1.0, 2.0]);
        assert_eq!(mapped(2..10).unwrap().len(), 2, "a copy where the bytes are not aligned");
        assert!(mapped(8..16).is_err() && mapped(0..12).is_err());
    }
}
