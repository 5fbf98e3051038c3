//! RMSNorm, as written in `ops/norm.rs`, on bf16 activations.

use cudarc::driver::{DevicePtr, DevicePtrMut};
use half::bf16;

use super::Cuda;
use super::launch::{Launch, Shape, VECTOR};
use super::tile::ROW_THREADS;
use crate::error::{Error, Result};

impl Cuda {
    /// `y = w · x · rstd`, `rstd = 1/√(mean(x²) + eps)`: y `[rows, width]`, rstd `[rows]`, x `[rows, width]`, weight
    /// `[width]`. Computed in f32, rounded once. rows is the length of rstd, width that of weight.
    ///
    /// Usage errors: a length that does not fit the others; with a width that is a multiple of 8, x, y or weight not
    /// starting at a multiple of 16 bytes.
    pub fn rms_norm(
        &self,
        y: &mut impl DevicePtrMut<bf16>,
        rstd: &mut impl DevicePtrMut<f32>,
        x: &impl DevicePtr<bf16>,
        weight: &impl DevicePtr<f32>,
        eps: f32,
    ) -> Result<()> {
        let rows = Rows::new(rstd.len(), weight.len())?;
        if rows.elements == 0 {
            return Ok(());
        }
        Launch::new(&self.kernels.rms_norm, &self.stream)
            .write("y", y, rows.elements, rows.alignment)?
            .write("rstd", rstd, rows.rows, 4)?
            .read("x", x, rows.elements, rows.alignment)?
            .read("weight", weight, rows.width as usize, rows.alignment)?
            .value(rows.width)
            .value(eps)
            .run(rows.shape())
    }

    /// `dx_acc += rstd · (w·dy − x·rstd²·mean(w·dy·x))`: dx, dy, x `[rows, width]`, rstd `[rows]`, weight `[width]`.
    /// Computed in f32, rounded once. Errors as with [`rms_norm`](Self::rms_norm).
    pub fn rms_norm_backward(
        &self,
        dx_acc: &mut impl DevicePtrMut<bf16>,
        dy: &impl DevicePtr<bf16>,
        x: &impl DevicePtr<bf16>,
        rstd: &impl DevicePtr<f32>,
        weight: &impl DevicePtr<f32>,
    ) -> Result<()> {
        let rows = Rows::new(rstd.len(), weight.len())?;
        if rows.elements == 0 {
            return Ok(());
        }
        Launch::new(&self.kernels.rms_norm_backward, &self.stream)
            .write("dx_acc", dx_acc, rows.elements, rows.alignment)?
            .read("dy", dy, rows.elements, rows.alignment)?
            .read("x", x, rows.elements, rows.alignment)?
            .read("rstd", rstd, rows.rows, 4)?
            .read("weight", weight, rows.width as usize, rows.alignment)?
            .value(rows.width)
            .run(rows.shape())
    }
}

/// Rows that have a block each.
struct Rows {
    rows: usize,
    width: i32,
    elements: usize,
    alignment: usize,
    /// Elements that a thread reads at once.
    vector: usize,
}

impl Rows {
    fn new(rows: usize, width: usize) -> Result<Self> {
        let elements = rows.checked_mul(width);
        let (Some(elements), Ok(width32)) = (elements, i32::try_from(width)) else {
            return Err(Error::usage(format!("RMSNorm of {rows} rows of {width}: too large")));
        };
        let (vector, alignment) = if width.is_multiple_of(8) { (8, VECTOR) } else { (1, 1) };
        Ok(Rows { rows, width: width32, elements, alignment, vector })
    }

    /// As many threads as there are vectors in a row, in whole warps.
    fn shape(&self) -> Shape {
        let vectors = (self.width as usize).div_ceil(self.vector);
        let block = vectors.next_multiple_of(32).min(ROW_THREADS);
        Shape { grid: (self.rows, 1), block, shared: 0 }
    }
}
