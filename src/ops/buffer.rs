//! Device memory: owned buffers carved from an arena, and borrowed views of them.
//!
//! A [`Buffer`] owns a disjoint piece of one allocation; [`Ref`] and [`Mut`] borrow (parts of) it under
//! Rust's usual rules. All three are an address and a length: only a backend can look behind them.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use super::Device;
use crate::error::{Error, Result};

/// A plain element type that can live in device memory.
pub trait Element: bytemuck::Pod + Send + Sync {
    /// The name shown in memory plans.
    const NAME: &'static str;
}

macro_rules! element {
    ($($t:ty => $name:literal),*) => { $(impl Element for $t { const NAME: &'static str = $name; })* };
}
element!(
    f32 => "f32", half::bf16 => "bf16", f64 => "f64", i64 => "i64", u32 => "u32", i32 => "i32", u8 => "u8"
);

/// Every buffer starts on a multiple of this many bytes, which suits any vector load and a GPU's memory
/// sectors.
pub const ALIGNMENT: usize = 256;

/// An owned piece of device memory holding `len` elements, zero at the start.
pub struct Buffer<D: Device, T> {
    address: usize,
    len: usize,
    /// Keeps the arena's allocation alive; `None` while only planning.
    _memory: Option<Arc<D::Memory>>,
    _element: PhantomData<T>,
}

impl<D: Device, T: Element> Buffer<D, T> {
    /// `len` elements in [memory of the host](Device::allocate_host), which may hold anything.
    pub fn on_host(device: &D, len: usize) -> Result<Self> {
        let memory = Arc::new(device.allocate_host(len * size_of::<T>())?);
        let address = D::address(&memory);
        Ok(Buffer { address, len, _memory: Some(memory), _element: PhantomData })
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Borrows everything.
    pub fn view(&self) -> Ref<'_, D, T> {
        Ref { address: self.address, len: self.len, _borrow: PhantomData }
    }

    /// Borrows everything for writing.
    pub fn view_mut(&mut self) -> Mut<'_, D, T> {
        Mut { address: self.address, len: self.len, _borrow: PhantomData }
    }

    /// Borrows the elements of `range`.
    pub fn slice(&self, range: Range<usize>) -> Ref<'_, D, T> {
        self.view().slice(range)
    }

    /// Borrows the elements of `range` for writing.
    pub fn slice_mut(&mut self, range: Range<usize>) -> Mut<'_, D, T> {
        self.view_mut().slice(range)
    }

    /// Borrows the first `len` elements.
    pub fn first(&self, len: usize) -> Ref<'_, D, T> {
        self.slice(0..len)
    }

    /// Borrows the first `len` elements for writing.
    pub fn first_mut(&mut self, len: usize) -> Mut<'_, D, T> {
        self.slice_mut(0..len)
    }
}

/// Marks a borrow of elements, `&T` or `&mut T`, that lie on a device.
type Borrow<R, D> = PhantomData<(R, fn() -> D)>;

/// A shared borrow of device memory.
pub struct Ref<'a, D: Device, T> {
    address: usize,
    len: usize,
    _borrow: Borrow<&'a T, D>,
}

impl<D: Device, T> Clone for Ref<'_, D, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<D: Device, T> Copy for Ref<'_, D, T> {}

impl<'a, D: Device, T: Element> Ref<'a, D, T> {
    /// Number of elements.
    pub fn len(self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Address in device memory.
    pub fn address(self) -> usize {
        self.address
    }

    /// The elements of `range`.
    pub fn slice(self, range: Range<usize>) -> Self {
        Ref {
            address: element_address::<T>(self.address, self.len, &range),
            len: range.len(),
            _borrow: PhantomData,
        }
    }

    /// Borrows `len` elements at `address`, in memory of whatever origin.
    ///
    /// # Safety
    /// - `address` is that of `len` initialised elements in memory of the device, aligned to their size.
    ///   Kernels that read in vectors refuse what does not start on a multiple of 16 bytes.
    /// - During `'a`, and until the operations that were given the view are done on the device, the memory
    ///   stays allocated, and nothing writes it.
    /// - On a device with streams, what writes it before comes earlier in the order of the device's stream,
    ///   or has been waited for.
    pub unsafe fn from_raw(address: usize, len: usize) -> Self {
        Ref { address, len, _borrow: PhantomData }
    }

    /// The memory as another element type, if both types are the same after all.
    ///
    /// Lets backends whose activations are `f32` read the `f32` master weights in place.
    pub fn same_type<U: Element>(self) -> Option<Ref<'a, D, U>> {
        let same = std::any::TypeId::of::<T>() == std::any::TypeId::of::<U>();
        same.then_some(Ref { address: self.address, len: self.len, _borrow: PhantomData })
    }
}

/// An exclusive borrow of device memory.
pub struct Mut<'a, D: Device, T> {
    address: usize,
    len: usize,
    _borrow: Borrow<&'a mut T, D>,
}

impl<'a, D: Device, T: Element> Mut<'a, D, T> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Address in device memory.
    pub fn address(&self) -> usize {
        self.address
    }

    /// The elements of `range`.
    pub fn slice(self, range: Range<usize>) -> Self {
        Mut {
            address: element_address::<T>(self.address, self.len, &range),
            len: range.len(),
            _borrow: PhantomData,
        }
    }

    /// Borrows `len` elements at `address` for writing, in memory of whatever origin.
    ///
    /// # Safety
    /// As for [`Ref::from_raw`]; and nothing else reads the memory either.
    pub unsafe fn from_raw(address: usize, len: usize) -> Self {
        Mut { address, len, _borrow: PhantomData }
    }

    /// The bytes as elements of another type, as many as fit; the start must suit it.
    pub(crate) fn cast<U: Element>(self) -> Mut<'a, D, U> {
        assert!(self.address.is_multiple_of(align_of::<U>()), "a cast to {} of unaligned memory", U::NAME);
        let len = self.len * size_of::<T>() / size_of::<U>();
        Mut { address: self.address, len, _borrow: PhantomData }
    }

    /// Borrows the same elements again for a shorter time.
    pub fn reborrow(&mut self) -> Mut<'_, D, T> {
        Mut { address: self.address, len: self.len, _borrow: PhantomData }
    }

    /// Borrows the same elements for reading.
    pub fn view(&self) -> Ref<'_, D, T> {
        Ref { address: self.address, len: self.len, _borrow: PhantomData }
    }

    /// The elements of several ranges, none of which starts before the end of the one before.
    pub fn ranges(self, ranges: impl Iterator<Item = Range<usize>>) -> Vec<Self> {
        let (mut rest, mut start, mut parts) = (self, 0, Vec::new());
        for range in ranges {
            let (_, from_here) = rest.split_at(range.start - start);
            let (part, behind) = from_here.split_at(range.len());
            parts.push(part);
            (rest, start) = (behind, range.end);
        }
        parts
    }

    /// Splits into the first `mid` elements and the rest.
    pub fn split_at(self, mid: usize) -> (Self, Self) {
        let len = self.len;
        let tail = element_address::<T>(self.address, len, &(mid..len));
        (
            Mut { address: self.address, len: mid, _borrow: PhantomData },
            Mut { address: tail, len: len - mid, _borrow: PhantomData },
        )
    }
}

/// Address of `range.start`; panics when the range leaves the buffer, which is a defect of the calling code.
fn element_address<T>(address: usize, len: usize, range: &Range<usize>) -> usize {
    assert!(range.start <= range.end && range.end <= len, "range {range:?} of a buffer of {len} elements");
    address + range.start * size_of::<T>()
}

/// One line of a memory plan.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanRow {
    /// Name of the tensor.
    pub name: String,
    /// The tensor's shape, row-major.
    pub shape: Vec<usize>,
    /// The tensor's element type.
    pub dtype: &'static str,
    /// The tensor's size in bytes, padded to [`ALIGNMENT`].
    pub bytes: usize,
}

impl PlanRow {
    /// Bytes of all lines.
    pub fn total(rows: &[PlanRow]) -> usize {
        rows.iter().map(|row| row.bytes).sum()
    }
}

/// Hands out buffers from one allocation, in the order of a plan made beforehand.
pub struct Arena<D: Device> {
    memory: Option<Arc<D::Memory>>,
    base: usize,
    used: usize,
    capacity: usize,
    rows: Vec<PlanRow>,
}

impl<D: Device> Arena<D> {
    /// Runs `layout` twice: once to plan (its buffers must not be touched), once on a single zeroed
    /// allocation of exactly the planned size. Returns what `layout` built and the plan.
    pub fn build<S>(device: &D, layout: impl Fn(&mut Arena<D>) -> Result<S>) -> Result<(S, Vec<PlanRow>)> {
        let mut arena = Arena::allocate(device, PlanRow::total(&Self::plan(&layout)?))?;
        let built = layout(&mut arena)?;
        Ok((built, arena.rows))
    }

    /// Bytes that `layout` asks for.
    pub fn plan<S>(layout: impl Fn(&mut Arena<D>) -> Result<S>) -> Result<Vec<PlanRow>> {
        let mut planning =
            Arena { memory: None, base: ALIGNMENT, used: 0, capacity: usize::MAX, rows: Vec::new() };
        layout(&mut planning)?;
        Ok(planning.rows)
    }

    fn allocate(device: &D, capacity: usize) -> Result<Self> {
        let memory = Arc::new(device.allocate(capacity)?);
        let base = D::address(&memory);
        Ok(Arena { memory: Some(memory), base, used: 0, capacity, rows: Vec::new() })
    }

    /// The next buffer: `shape` elements of type `T`.
    pub fn buffer<T: Element>(&mut self, name: impl Into<String>, shape: &[usize]) -> Result<Buffer<D, T>> {
        let name = name.into();
        let too_large = || Error::device(format!("{name}: shape {shape:?} does not fit any memory"));
        let len = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).ok_or_else(too_large)?;
        let bytes = len.checked_mul(size_of::<T>()).and_then(|b| b.checked_next_multiple_of(ALIGNMENT));
        let bytes = bytes.ok_or_else(too_large)?;
        if bytes > self.capacity - self.used {
            return Err(match self.memory {
                Some(_) => Error::internal(format!("{name}: {bytes} bytes were not planned")),
                None => too_large(),
            });
        }
        let address = self.base + self.used;
        self.used += bytes;
        self.rows.push(PlanRow { name, shape: shape.to_vec(), dtype: T::NAME, bytes });
        Ok(Buffer { address, len, _memory: self.memory.clone(), _element: PhantomData })
    }
}
