//! Views of memory that is not an arena's: slices of cudarc, a program's own or another crate's, and weights
//! in them.
//!
//! # Order of streams
//!
//! Operations run on [`Cuda::stream`]. A slice may belong to another stream of the same context: cudarc keeps
//! an event for the last read and one for the last write of each slice. [`Cuda::view`] has our stream wait
//! for the last write, and [`Cuda::view_mut`] for the last read as well; when the view is dropped, its use is
//! recorded in the slice, so that whatever comes next on any stream of cudarc, freeing the memory included,
//! comes after the operations in between. **Keep a view until the operations that use it have been called**;
//! nobody has to wait for them to finish.
//!
//! This needs a context that tracks events (`CudaContext::is_managing_stream_synchronization`), which one
//! with more than the default stream does unless it has been told not to. Slices of the same stream need no
//! events.
//!
//! Making or dropping a view between the operations of a [`graph`](crate::ops::Device::graph) ends its
//! recording; views that outlive it do not.

use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream, CudaView, CudaViewMut, DevicePtr, DevicePtrMut, SyncOnDrop};
use half::bf16;

use super::Cuda;
use super::launch::VECTOR;
use super::weights::Weight;
use crate::error::{Error, Result};
use crate::ops::matrix::Matrix;
use crate::ops::{Element, Mut, Ref};

/// The types whose word about address and length is relied upon: cudarc's own. Its traits are safe to
/// implement for others.
mod sealed {
    pub trait Slice {}
}
impl<T> sealed::Slice for CudaSlice<T> {}
impl<T> sealed::Slice for CudaView<'_, T> {}
impl<T> sealed::Slice for CudaViewMut<'_, T> {}

/// A slice of cudarc as an operation's input, until it is dropped.
pub struct View<'a, T> {
    slice: UsedSlice<'a>,
    _borrow: PhantomData<&'a T>,
}

impl<T: Element> View<'_, T> {
    /// The elements.
    pub fn get(&self) -> Ref<'_, Cuda, T> {
        // SAFETY: cudarc's slice has so many initialised elements there, which nothing writes while it is
        // borrowed; our stream waits for earlier writes, and later ones wait for what is recorded when this
        // view is dropped.
        unsafe { Ref::from_raw(self.slice.address, self.slice.len) }
    }
}

/// A slice of cudarc as an operation's output, until it is dropped.
pub struct ViewMut<'a, T> {
    slice: UsedSlice<'a>,
    _borrow: PhantomData<&'a mut T>,
}

impl<T: Element> ViewMut<'_, T> {
    /// The elements.
    pub fn get(&mut self) -> Mut<'_, Cuda, T> {
        // SAFETY: as in `View::get`, and borrowed exclusively; our stream waits for earlier reads too.
        unsafe { Mut::from_raw(self.slice.address, self.slice.len) }
    }
}

/// Memory of cudarc that our stream uses.
struct UsedSlice<'a> {
    cuda: &'a Cuda,
    address: usize,
    len: usize,
    /// Records the use when dropped.
    _use: SyncOnDrop<'a>,
}

impl Drop for UsedSlice<'_> {
    fn drop(&mut self) {
        // An event of a recording would mean nothing to other streams.
        self.cuda.keep(self.cuda.end_recording(None));
    }
}

/// A frozen weight in memory that is borrowed.
pub struct WeightRef<'a> {
    weight: Weight,
    _borrow: PhantomData<&'a bf16>,
}

impl Deref for WeightRef<'_> {
    type Target = Weight;
    fn deref(&self) -> &Weight {
        &self.weight
    }
}

impl Cuda {
    /// A slice of `cudarc`, or a view of one, as an operation's input. See [`view`](self) for the order of
    /// streams.
    ///
    /// # Errors
    /// Kind `Usage` for a slice of another context, and for one of another stream whose context does not
    /// track events.
    pub fn view<'a, T: Element, S: DevicePtr<T> + sealed::Slice>(
        &'a self,
        slice: &'a S,
    ) -> Result<View<'a, T>> {
        self.before_use()?;
        let (address, used) = slice.device_ptr(self.stream());
        let slice = self.used(slice.stream(), address, slice.len(), used)?;
        Ok(View { slice, _borrow: PhantomData })
    }

    /// A slice of `cudarc`, or a mutable view of one, as an operation's output. Errors as with
    /// [`view`](Self::view).
    pub fn view_mut<'a, T: Element, S: DevicePtrMut<T> + sealed::Slice>(
        &'a self,
        slice: &'a mut S,
    ) -> Result<ViewMut<'a, T>> {
        self.before_use()?;
        let (of, len) = (slice.stream().clone(), slice.len());
        let (address, used) = slice.device_ptr_mut(self.stream());
        Ok(ViewMut { slice: self.used(&of, address, len, used)?, _borrow: PhantomData })
    }

    /// A matrix in device memory, `[out_features, in_features]`, as a frozen weight. It is read in place.
    ///
    /// # Errors
    /// Kind `Usage` where rows do not start on multiples of 16 bytes, as the kernels read them in vectors, or
    /// where there are fewer elements than the sizes say.
    pub fn weight<'a>(&self, matrix: Matrix<'a, Cuda, bf16>) -> Result<WeightRef<'a>> {
        let Matrix { data, rows, cols, stride } = matrix;
        matrix.check("a weight").map_err(Error::usage)?;
        if !data.address().is_multiple_of(VECTOR) || !stride.is_multiple_of(VECTOR / size_of::<bf16>()) {
            return Err(Error::usage(format!(
                "a weight [{rows}, {cols}] with a stride of {stride} at {:#x}: expected rows that start on multiples of \
                 {VECTOR} bytes; pad them",
                data.address()
            )));
        }
        Ok(WeightRef { weight: Weight::borrowed(matrix), _borrow: PhantomData })
    }

    /// What a slice's events are waited for with must not become part of a recording.
    fn before_use(&self) -> Result<()> {
        self.end_recording(None).map(|_| ())
    }

    fn used<'a>(
        &'a self,
        of: &Arc<CudaStream>,
        address: u64,
        len: usize,
        used: SyncOnDrop<'a>,
    ) -> Result<UsedSlice<'a>> {
        if of.context() != self.stream().context() {
            let (expected, found) = (self.stream().context().ordinal(), of.context().ordinal());
            return Err(Error::usage(format!(
                "a slice of another context (device {found}): expected one of that of Cuda::stream() (device {expected})"
            )));
        }
        let tracked = of.context().is_managing_stream_synchronization()
            && !matches!(used, SyncOnDrop::Record(None) | SyncOnDrop::Sync(None));
        if of.cu_stream() != self.stream().cu_stream() && !tracked {
            return Err(Error::usage(
                "a slice of another stream without events, whose work cannot be waited for: expected a CudaContext that \
                 tracks events; open Cuda with Cuda::on_stream on a new stream of the slice's context, or on its stream",
            ));
        }
        Ok(UsedSlice { cuda: self, address: address as usize, len, _use: used })
    }
}
