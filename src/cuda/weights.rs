//! Frozen weights on the device, and how they get there.

use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::{CudaEvent, CudaStream, result};
use half::bf16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use super::Cuda;
use super::driver::complaint;
use super::launch::weight_stride;
use super::pinned::Pinned;
use super::shards::Shards;
use crate::error::{Error, Result};
use crate::ops::buffer::ALIGNMENT;
use crate::ops::matrix::Matrix;
use crate::ops::{Arena, Buffer, Dtype, Mut, Ref, TensorSpec, TensorView};

/// Bytes of each of the two page-locked buffers through which weights are loaded.
const STAGE: usize = 32 << 20;

/// A frozen matrix `[rows, columns]` in bf16, whose rows start on multiples of 16 bytes: loaded from a file,
/// in memory that is borrowed ([`Cuda::weight`]), or gathered from all devices that share it.
pub struct Weight {
    address: usize,
    len: usize,
    rows: usize,
    columns: usize,
    stride: usize,
    elements: Elements,
}

/// What keeps the elements of a weight.
enum Elements {
    /// Somebody else.
    Borrowed,
    Loaded {
        _buffer: Buffer<Cuda, bf16>,
    },
    /// They are there while the block is, which is that of this layer.
    Gathered(Arc<Shards>, usize),
}

impl Weight {
    /// One whose elements are `matrix`'s, whose borrow the caller has to see to.
    pub(super) fn borrowed(matrix: Matrix<'_, Cuda, bf16>) -> Self {
        let Matrix { data, rows, cols, stride } = matrix;
        let (address, len) = (data.address(), data.len());
        Weight { address, len, rows, columns: cols, stride, elements: Elements::Borrowed }
    }

    /// One that will be at `address` whenever block `layer` has been gathered.
    pub(super) fn shared(
        address: usize,
        [rows, columns]: [usize; 2],
        shards: Arc<Shards>,
        layer: usize,
    ) -> Self {
        let stride = weight_stride(columns);
        let elements = Elements::Gathered(shards, layer);
        Weight { address, len: rows * stride, rows, columns, stride, elements }
    }

    /// What it is gathered from, and its layer.
    pub(super) fn shards(&self) -> Option<(&Shards, usize)> {
        match &self.elements {
            Elements::Gathered(shards, layer) => Some((shards, *layer)),
            Elements::Borrowed | Elements::Loaded { .. } => None,
        }
    }

    /// The weight as an operand.
    pub(super) fn matrix(&self) -> Matrix<'_, Cuda, bf16> {
        let (rows, cols, stride) = (self.rows, self.columns, self.stride);
        // SAFETY: they are in the buffer, or in what `borrowed` was given, whose lifetime `WeightRef` has;
        // nothing writes to a frozen weight.
        let data = unsafe { Ref::from_raw(self.address, self.len) };
        Matrix { data, rows, cols, stride }
    }

    /// out_features
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// in_features
    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// Elements from one row to the next.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }
}

/// Bytes of a frozen tensor: a matrix as in [`Weight`], a vector in f32.
fn frozen_bytes(tensor: &TensorSpec) -> usize {
    let bytes = match tensor.shape[..] {
        [rows, columns] => rows.saturating_mul(weight_stride(columns)).saturating_mul(size_of::<bf16>()),
        _ => tensor.shape.iter().product::<usize>().saturating_mul(size_of::<f32>()),
    };
    bytes.checked_next_multiple_of(ALIGNMENT).unwrap_or(usize::MAX)
}

/// Whether it is one of the matrices that [`Cuda::load_share`] divides.
fn is_of_block(tensor: &TensorSpec) -> bool {
    tensor.shape.len() == 2 && tensor.name.starts_with("model.layers.")
}

fn not_a_matrix(shape: &[usize]) -> Error {
    Error::internal(format!(
        "a part of a weight, of the shape {shape:?}: expected a matrix as wide as the others"
    ))
}

impl Cuda {
    /// Bytes that frozen tensors take; a device error if they do not fit. Blocks that are shared have their
    /// memory already.
    pub(super) fn room_for_weights(&self, tensors: &[TensorSpec]) -> Result<usize> {
        let shared = self.shared_bytes();
        let own = tensors.iter().filter(|tensor| shared.is_none() || !is_of_block(tensor));
        let bytes = own.map(frozen_bytes).fold(0, usize::saturating_add);
        let free = self.driver_free()?;
        if bytes <= free {
            return Ok(bytes.saturating_add(shared.unwrap_or(0)));
        }
        Err(Error::memory(format!(
            "{}: the model's weights need {} MiB of device memory, {} MiB are free",
            self.info().name,
            bytes.div_ceil(1 << 20),
            free >> 20
        )))
    }

    /// Makes matrices with the same number of columns one weight.
    pub(super) fn load(&self, parts: &[TensorView]) -> Result<Weight> {
        let shape = parts.first().map(TensorView::shape).unwrap_or_default();
        let &[_, columns] = shape else {
            return Err(not_a_matrix(shape));
        };
        let stride = weight_stride(columns);
        let rows = parts.iter().map(|part| part.shape()[0]).sum();
        let (mut data, _) = Arena::build(self, |arena| arena.buffer("weight", &[rows, stride]))?;
        self.load_rows(data.view_mut(), parts, 0..rows, [rows, columns])?;
        let (address, len) = (data.view().address(), data.len());
        let elements = Elements::Loaded { _buffer: data };
        Ok(Weight { address, len, rows, columns, stride, elements })
    }

    /// Loads some rows of stacked matrices of a shape `[rows, columns]`.
    pub(super) fn load_rows(
        &self,
        mut to: Mut<'_, Cuda, bf16>,
        parts: &[TensorView],
        wanted: Range<usize>,
        shape: [usize; 2],
    ) -> Result<()> {
        let stride = weight_stride(shape[1]);
        let mut staging = self.staging();
        let loader = match staging.loader {
            Some(ref mut loader) => loader,
            ref mut none => none.insert(Loader::new(self)?),
        };
        loader.begin(self)?;
        let mut first = 0;
        for part in parts {
            let &[rows, columns] = part.shape() else { return Err(not_a_matrix(part.shape())) };
            if columns != shape[1] {
                return Err(not_a_matrix(part.shape()));
            }
            let (start, end) = (wanted.start.max(first), wanted.end.min(first + rows));
            if start < end {
                let piece = (start - wanted.start) * stride..(end - wanted.start) * stride;
                let to = to.reborrow().slice(piece);
                loader.rows(to, &part.rows(start - first..end - first)?, stride)?;
            }
            first += rows;
        }
        loader.end(self)
    }
}

/// Loads weights: while one piece is copied on a stream of its own, the next is read from the mapped file.
pub(super) struct Loader {
    stream: Arc<CudaStream>,
    stages: [Pinned; 2],
    /// When each stage has been copied.
    copied: [Option<CudaEvent>; 2],
    next: usize,
}

impl Drop for Loader {
    fn drop(&mut self) {
        // The stages are read until then. An error shows at the next use of the device.
        let _ = self.stream.synchronize();
    }
}

fn loading(error: cudarc::driver::DriverError) -> Error {
    complaint("loading weights", error)
}

impl Loader {
    fn new(cuda: &Cuda) -> Result<Self> {
        let stream = cuda.stream().fork().map_err(loading)?;
        let stages = [Pinned::new(STAGE)?, Pinned::new(STAGE)?];
        Ok(Loader { stream, stages, copied: [None, None], next: 0 })
    }

    /// Orders earlier work of the device, such as zeroing the weight's memory, before the copies.
    fn begin(&self, cuda: &Cuda) -> Result<()> {
        self.stream.join(cuda.stream()).map_err(loading)
    }

    /// The copies come before what the device does from here on.
    fn end(&self, cuda: &Cuda) -> Result<()> {
        cuda.stream().join(&self.stream).map_err(loading)
    }

    /// Copies `[rows, columns]` to rows of `stride` elements.
    fn rows(&mut self, mut to: Mut<'_, Cuda, bf16>, from: &TensorView, stride: usize) -> Result<()> {
        let rows = from.shape()[0];
        let at_once = (STAGE / size_of::<bf16>() / stride.max(1)).max(1);
        for first in (0..rows).step_by(at_once) {
            let end = rows.min(first + at_once);
            let piece = to.reborrow().slice(first * stride..end * stride);
            self.piece(piece, &from.rows(first..end)?, stride)?;
        }
        Ok(())
    }

    fn piece(&mut self, to: Mut<'_, Cuda, bf16>, from: &TensorView, stride: usize) -> Result<()> {
        let this = self.next;
        self.next = 1 - this;
        if let Some(copied) = self.copied[this].take() {
            copied.synchronize().map_err(loading)?;
        }
        let bytes = to.len() * size_of::<bf16>();
        if bytes > STAGE {
            return Err(Error::device(format!("{}: a row of {bytes} bytes is too long", from.name())));
        }
        let stage = self.stages[this].slice::<bf16>(0..bytes);
        as_bf16(stage, from, stride)?;
        // SAFETY: as many elements on both sides; the stage is not written again before the event.
        let copied =
            unsafe { result::memcpy_htod_async(to.address() as u64, stage, self.stream.cu_stream()) };
        copied.map_err(loading)?;
        self.copied[this] = Some(self.stream.record_event(None).map_err(loading)?);
        Ok(())
    }
}

/// The elements rounded to bf16, each row padded with zeros to `stride`.
fn as_bf16(to: &mut [bf16], from: &TensorView, stride: usize) -> Result<()> {
    let columns = from.shape()[1];
    let mut by_row = |fill: &(dyn Fn(usize, &mut [bf16]) + Sync)| {
        to.par_chunks_exact_mut(stride.max(1)).enumerate().for_each(|(i, row)| {
            let (row, padding) = row.split_at_mut(columns);
            fill(i * columns, row);
            padding.fill(bf16::ZERO);
        });
    };
    match from.dtype() {
        Dtype::F32 => {
            let values = from.as_f32()?;
            by_row(&|at, row| row.convert_from_f32_slice(&values[at..at + columns]));
        }
        Dtype::Bf16 => {
            let values = from.as_bf16()?;
            by_row(&|at, row| row.copy_from_slice(&values[at..at + columns]));
        }
        Dtype::F16 => {
            let values = from.as_f16()?;
            by_row(&|at, row| row.convert_from_f32_slice(&values[at..at + columns].to_f32_vec()));
        }
    }
    Ok(())
}
