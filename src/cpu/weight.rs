//! Frozen weights, read in place.

use super::blas::{Elems, MatRef};
use crate::error::{Error, Result};
use crate::ops::{Dtype, TensorView};

/// Frozen matrices with the same number of columns, read in place from the mapped file.
pub struct Weight {
    parts: Vec<TensorView>,
    in_features: usize,
}

impl Weight {
    pub(super) fn new(parts: &[TensorView]) -> Result<Self> {
        let in_features = parts.first().map_or(0, |p| p.shape()[p.shape().len() - 1]);
        for part in parts {
            if part.shape().len() != 2 || part.shape()[1] != in_features {
                return Err(Error::internal(format!(
                    "{}: shape {:?} cannot be stacked on {in_features} columns",
                    part.name(),
                    part.shape()
                )));
            }
            elements(part)?;
        }
        Ok(Weight { parts: parts.to_vec(), in_features })
    }

    /// Number of columns of every part.
    pub(super) fn in_features(&self) -> usize {
        self.in_features
    }

    /// Number of rows of all parts.
    pub(super) fn out_features(&self) -> usize {
        self.parts.iter().map(|p| p.shape()[0]).sum()
    }

    /// Every part with its first output column.
    pub(super) fn parts(&self) -> impl Iterator<Item = (usize, MatRef<'_>)> {
        self.parts.iter().scan(0, |column, part| {
            let first = *column;
            *column += part.shape()[0];
            Some((first, MatRef::new(checked_elements(part), part.shape()[0], self.in_features)))
        })
    }

    /// Writes row `row` of the stacked matrix as f32.
    pub(super) fn read_row(&self, row: usize, out: &mut [f32]) {
        let mut row = row;
        for part in &self.parts {
            if row < part.shape()[0] {
                let range = row * self.in_features..(row + 1) * self.in_features;
                match checked_elements(part) {
                    Elems::F32(x) => out.copy_from_slice(&x[range]),
                    Elems::Bf16(x) => convert(out, &x[range], |x| x.to_f32()),
                    Elems::F16(x) => convert(out, &x[range], |x| x.to_f32()),
                }
                return;
            }
            row -= part.shape()[0];
        }
        panic!("row {row} lies past the end of the weight");
    }
}

fn convert<T: Copy>(out: &mut [f32], from: &[T], f: impl Fn(T) -> f32) {
    for (out, &x) in out.iter_mut().zip(from) {
        *out = f(x);
    }
}

fn elements(view: &TensorView) -> Result<Elems<'_>> {
    Ok(match view.dtype() {
        Dtype::F32 => Elems::F32(view.as_f32()?),
        Dtype::Bf16 => Elems::Bf16(view.as_bf16()?),
        Dtype::F16 => Elems::F16(view.as_f16()?),
    })
}

/// The elements of a part; `Weight::new` has read them once, so this cannot fail.
fn checked_elements(view: &TensorView) -> Elems<'_> {
    elements(view).unwrap_or(Elems::F32(&[]))
}
