//! The operations a model is made of, as contracts that every backend fulfils.
//!
//! One stem per operation family and one trait per stem: `ops/norm.rs` states the contract, `cpu/norm.rs`
//! implements it. Matrices are row-major; `rows` is the number of packed tokens; a buffer's shape stands
//! beside its name.
//!
//! Write contract, everywhere: **activation gradients overwrite, parameter gradients and the residual
//! gradient accumulate**; an accumulating argument ends in `_acc`. Outputs may hold anything (NaN included)
//! before. Argument order: outputs, saved values, inputs, scalars.

pub mod aggregate;
pub mod analyzer;
pub mod attention;
pub mod buffer;
pub(crate) mod contract;
pub mod elementwise;
pub mod embedding;
pub mod linear;
pub mod loss;
pub mod matmul;
pub mod matrix;
pub mod mlp;
pub mod norm;
pub mod optim;
pub mod philox;
pub mod prefix;
pub mod rope;
pub mod sample;
pub mod tensor;

pub use buffer::{Arena, Buffer, Element, Mut, PlanRow, Ref};
pub use philox::DropoutKey;
pub use tensor::{Dtype, TensorSpec, TensorView};

use crate::error::Result;

/// Elements on their way to the host.
pub struct Fetch<T>(Box<dyn FnOnce() -> Result<Vec<T>>>);

impl<T: Element> Fetch<T> {
    pub(crate) fn new(wait: impl FnOnce() -> Result<Vec<T>> + 'static) -> Self {
        Fetch(Box::new(wait))
    }

    /// Waits for the elements, not for what was started after the fetch.
    ///
    /// # Errors
    /// The first error of an operation that the device knows of by then. What an operation refuses of its
    /// data, the next [`finish`](Device::finish) tells.
    pub fn wait(self) -> Result<Vec<T>> {
        (self.0)()
    }
}

/// What a device has recorded of work, for [`Device::repeat`] or [`Device::start`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recording(pub(crate) Option<u64>);

impl Recording {
    /// Nothing. Only this crate repeats work: memory that operations were given has to be there still.
    pub(crate) fn none() -> Self {
        Recording(None)
    }
}

/// Memory of a device, and the types a backend computes with.
pub trait Device: Clone + Send + Sync + 'static {
    /// Element type of activations (f32 on the CPU).
    type Act: Element;
    /// An allocation.
    type Memory: Send + Sync;
    /// A frozen weight matrix `[out_features, in_features]`, possibly several matrices stacked along
    /// `out_features`.
    type Weight: Send + Sync;

    /// Whether its memory is that of the system.
    const IN_SYSTEM_MEMORY: bool;

    /// Most rows of a pass without a backward up to which the bits of a row do not depend on how many rows
    /// there are; 0 where they always may.
    fn independent_rows(&self) -> usize {
        0
    }
    /// Name of the device, for people.
    fn description(&self) -> String;
    /// A zeroed allocation of `bytes`, aligned to [`buffer::ALIGNMENT`]. Fails with a device error:
    /// [`Error::memory`] if there is not that much.
    ///
    /// [`Error::memory`]: crate::error::Error::memory
    fn allocate(&self, bytes: usize) -> Result<Self::Memory>;
    /// Memory of the host that the device copies to and from by itself, page-locked where it is not the
    /// device's own anyway; it may hold anything. Fails as [`allocate`](Self::allocate) does. Such memory is
    /// for [`offload`](Self::offload) and [`prefetch`](Self::prefetch) alone.
    fn allocate_host(&self, bytes: usize) -> Result<Self::Memory> {
        self.allocate(bytes)
    }
    /// Bytes that can still be allocated.
    fn free_memory(&self) -> usize;
    /// Start address of an allocation.
    fn address(memory: &Self::Memory) -> usize;
    /// Announces that the next uploads up to a wait are of at most `bytes` in all, each rounded up to
    /// [`buffer::ALIGNMENT`], so that none of them has to wait.
    fn reserve_inputs(&self, _bytes: usize) {}
    /// Copies host elements to the device; the lengths must be equal.
    fn upload<T: Element>(&self, to: Mut<'_, Self, T>, from: &[T]);
    /// Copies device elements to the host; the lengths must be equal. Waits for all earlier work.
    fn download<T: Element>(&self, to: &mut [T], from: Ref<'_, Self, T>);
    /// Copies device elements; the lengths must be equal.
    fn copy<T: Element>(&self, to: Mut<'_, Self, T>, from: Ref<'_, Self, T>);
    /// Copies from the device to memory of the host, in the order of all work; the lengths must be equal.
    fn offload<T: Element>(&self, to: Mut<'_, Self, T>, from: Ref<'_, Self, T>) {
        self.copy(to, from);
    }
    /// Copies from memory of the host to the device, after all earlier work and beside what follows, which
    /// may use `to` after [`join_prefetches`](Self::join_prefetches) only; the lengths must be equal.
    fn prefetch<T: Element>(&self, to: Mut<'_, Self, T>, from: Ref<'_, Self, T>) {
        self.copy(to, from);
    }
    /// Orders all prefetches before the work that follows.
    fn join_prefetches(&self) {}
    /// Sets all elements to zero.
    fn zero<T: Element>(&self, to: Mut<'_, Self, T>);
    /// Bytes of its memory that a model of these frozen tensors takes, with what the device needs for itself;
    /// a device error if the tensors do not fit. Memory of the system, which files are mapped into, does not
    /// count.
    fn room_for(&self, _tensors: &[TensorSpec]) -> Result<usize> {
        Ok(0)
    }
    /// Makes matrices with the same `in_features` one weight, stacked in the given order.
    fn load_weight(&self, parts: &[TensorView]) -> Result<Self::Weight>;
    /// The weights of a block, each as [`load_weight`](Self::load_weight) makes it. A device that shares
    /// blocks with others keeps a part of each alone; such weights have to be
    /// [gathered](Self::gather_block) before they are used.
    fn load_block(&self, _layer: usize, matrices: &[Vec<TensorView>]) -> Result<Vec<Self::Weight>> {
        matrices.iter().map(|parts| self.load_weight(parts)).collect()
    }
    /// Has all weights there that were loaded for a block together with `block`, until another block than
    /// that of `next` is asked for; and starts to copy those of `next` beside the work that follows. Nothing
    /// where all weights are there anyway.
    fn gather_block(&self, _block: &Self::Weight, _next: Option<&Self::Weight>) {}
    /// Reads the elements as host f32.
    fn download_act(&self, from: Ref<'_, Self, Self::Act>) -> Vec<f32>;
    /// Writes host f32 as activations.
    fn upload_act(&self, to: Mut<'_, Self, Self::Act>, from: &[f32]);

    /// How often tiles of a product `[rows, columns]` fill the device: the time of one whose sums are long,
    /// in times of a tile. 1 where products are not cut into tiles that processors take one by one.
    fn waves(&self, _rows: usize, _columns: usize) -> usize {
        1
    }

    /// Does `work`, whose operations a device may launch as one graph. Work of the same `name` is expected to
    /// consist of the same operations each time.
    fn graph<T>(&self, _name: &'static str, work: impl FnOnce() -> T) -> T {
        work()
    }

    /// As [`graph`](Self::graph), but a device that has a recording of the work may do the operations that it
    /// has recorded, with the arguments that they had then, instead of `work`. What their memory holds may
    /// have changed since.
    fn repeat(&self, _name: &'static str, _recording: &mut Recording, work: impl FnOnce()) {
        work();
    }

    /// Records `work`, whose uploads are of at most `inputs` bytes as
    /// [`reserve_inputs`](Self::reserve_inputs) counts them, while the device is at what it has been given
    /// before; [`start`](Self::start) has it done. `None`, and the device has done nothing of it, where some
    /// of the work cannot be recorded: where it fetches, waits or allocates, and on devices that do not
    /// record.
    fn prepare<T>(
        &self,
        _name: &'static str,
        _inputs: usize,
        _work: impl FnOnce() -> T,
    ) -> Option<(T, Recording)> {
        None
    }

    /// Does what was [prepared](Self::prepare) last, with the arguments and inputs that it had then. `false`,
    /// and nothing is done, where it was started before, or where one of its arguments may be no more.
    fn start(&self, _recording: Recording) -> bool {
        false
    }

    /// Whether operations may return before they are done, so that the host has time for other things.
    fn runs_behind(&self) -> bool {
        false
    }

    /// Starts to copy to the host, after all earlier work. Later operations may overwrite the elements.
    fn start_fetch<T: Element>(&self, from: Ref<'_, Self, T>) -> Fetch<T> {
        let (host, device) = (self.to_host(from), self.clone());
        Fetch::new(move || device.finish().map(|()| host))
    }

    /// Waits for all earlier work and returns the first error of any of it: operations do not return errors
    /// of their own, as a device may be far behind. After an error nothing that was computed since can be
    /// trusted.
    fn finish(&self) -> Result<()>;

    /// [`download`](Self::download), then [`finish`](Self::finish), in one wait.
    fn fetch<T: Element>(&self, to: &mut [T], from: Ref<'_, Self, T>) -> Result<()> {
        self.download(to, from);
        self.finish()
    }

    /// Copies frozen vectors (a norm's weight, biases) to the device as one f32 vector.
    fn load_vectors(&self, parts: &[TensorView]) -> Result<Buffer<Self, f32>> {
        let values: Vec<f32> = parts.iter().flat_map(TensorView::to_f32_vec).collect();
        let (mut buffer, _) = Arena::build(self, |arena| arena.buffer("frozen vector", &[values.len()]))?;
        self.upload(buffer.view_mut(), &values);
        Ok(buffer)
    }

    /// All elements on the host.
    fn to_host<T: Element>(&self, from: Ref<'_, Self, T>) -> Vec<T> {
        let mut host = vec![T::zeroed(); from.len()];
        self.download(&mut host, from);
        host
    }
}

/// Everything a model needs from a device.
pub trait Backend:
    Device
    + aggregate::Aggregate
    + analyzer::Analyzer
    + attention::Attention
    + elementwise::Elementwise
    + embedding::Embedding
    + linear::Linear
    + loss::Loss
    + matmul::Matmul
    + mlp::Mlp
    + norm::Norm
    + optim::Optim
    + prefix::Prefix
    + rope::Rope
    + sample::Sample
{
}

/// A dropout applied to packed rows.
pub struct Dropout<'a, D: Device> {
    /// Seed, step, site and rate.
    pub key: DropoutKey,
    /// `[rows]` keys of the rows, so that a mask does not depend on the row's place in the batch.
    pub row_keys: Ref<'a, D, u32>,
}

impl<D: Device> Clone for Dropout<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<D: Device> Copy for Dropout<'_, D> {}
