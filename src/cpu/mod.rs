//! The CPU backend: f32 activations, weights read in place as they are stored, deterministic for any thread
//! count.
//!
//! This backend is both what a machine without a GPU runs and the oracle that every other backend is tested
//! against.

mod aggregate;
mod analyzer;
mod attention;
pub mod blas;
mod dropout;
mod elementwise;
mod embedding;
mod linear;
mod loss;
mod math;
mod matmul;
mod matrix;
mod mlp;
mod norm;
mod optim;
mod parallel;
mod prefix;
mod rope;
mod sample;
mod scratch;
mod team;
mod weight;

use std::sync::{Arc, Mutex, PoisonError};

use memmap2::MmapMut;

use crate::error::{Error, Result};
use crate::ops::{Backend, Device, Element, Mut, Ref, TensorView};
use crate::system::available_memory;
use scratch::Scratch;
pub use weight::Weight;

/// Bytes for what is not planned: scratch vectors, stacks, what is read and written.
const RESERVE: usize = 64 << 20;

/// Instruction sets that this backend has code for, and the processor has.
pub fn features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    let known = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let known: [(&str, bool); 0] = [];
    known.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
}

/// The CPU backend. Cloning shares its scratch memory, and the error of operations. Threads are rayon's
/// current pool.
#[derive(Clone, Default)]
pub struct Cpu {
    scratch: Arc<Scratch>,
    /// The first error since the last [`finish`](Device::finish).
    failure: Arc<Mutex<Option<Error>>>,
}

impl Cpu {
    /// A backend with empty scratch memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether an operation takes its arguments; why not is kept for [`finish`](Device::finish).
    fn accepts(&self, check: Result<()>) -> bool {
        let accepted = check.is_ok();
        if let Err(error) = check {
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
        accepted
    }
}

impl Backend for Cpu {}

impl<'a, T: Element> Ref<'a, Cpu, T> {
    /// The elements.
    pub fn as_slice(self) -> &'a [T] {
        // SAFETY: address and length are as promised to `Ref::from_raw`, or come from a `Buffer`, which owns
        // that part of an allocation that the
        // `Arc` it holds keeps alive, aligned and initialised (zeroed); the borrow `'a` is one of that
        // buffer, and `Mut` is the only way to write to it. Buffers of a planning arena are dropped unread:
        // `Arena::build` sees to it.
        unsafe { std::slice::from_raw_parts(self.address() as *const T, self.len()) }
    }
}

impl<'a, T: Element> Mut<'a, Cpu, T> {
    /// The elements, for writing.
    pub fn into_slice(self) -> &'a mut [T] {
        // SAFETY: as in `Ref::as_slice`; the borrow is exclusive because `Mut` is neither `Clone` nor `Copy`
        // and `Buffer`s of one arena never overlap. The `Mut`s of `QkvMut::packed`, which do between their
        // columns, never come here: `SharedRows::of` hands out rows of them.
        unsafe { std::slice::from_raw_parts_mut(self.address() as *mut T, self.len()) }
    }
}

impl Device for Cpu {
    type Act = f32;
    type Memory = MmapMut;
    type Weight = Weight;
    const IN_SYSTEM_MEMORY: bool = true;

    fn description(&self) -> String {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let line = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let model = line.map_or("CPU", |(_, name)| name.trim());
        format!("{model} ({})", features().join(", "))
    }

    fn independent_rows(&self) -> usize {
        blas::SKINNY_ROWS
    }

    fn allocate(&self, bytes: usize) -> Result<MmapMut> {
        // The system may promise more than it has, and end the process later.
        let free = self.free_memory();
        if bytes > free {
            let (needed, free) = (bytes >> 20, free >> 20);
            return Err(Error::memory(format!("{needed} MiB of memory are needed, {free} MiB are free")));
        }
        let map = MmapMut::map_anon(bytes.max(1))
            .map_err(|e| Error::memory(format!("cannot reserve {bytes} bytes of memory")).with_source(e))?;
        // Large pages spare the TLB; where the system has none, small ones do.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(map)
    }

    /// What this process may have of the system's memory, under all limits, less a reserve.
    fn free_memory(&self) -> usize {
        available_memory().saturating_sub(RESERVE)
    }

    fn address(memory: &MmapMut) -> usize {
        memory.as_ptr() as usize
    }

    fn upload<T: Element>(&self, to: Mut<'_, Self, T>, from: &[T]) {
        to.into_slice().copy_from_slice(from);
    }

    fn download<T: Element>(&self, to: &mut [T], from: Ref<'_, Self, T>) {
        to.copy_from_slice(from.as_slice());
    }

    fn copy<T: Element>(&self, to: Mut<'_, Self, T>, from: Ref<'_, Self, T>) {
        to.into_slice().copy_from_slice(from.as_slice());
    }

    fn zero<T: Element>(&self, to: Mut<'_, Self, T>) {
        to.into_slice().fill(T::zeroed());
    }

    fn load_weight(&self, parts: &[TensorView]) -> Result<Weight> {
        Weight::new(parts)
    }

    fn download_act(&self, from: Ref<'_, Self, f32>) -> Vec<f32> {
        from.as_slice().to_vec()
    }

    fn upload_act(&self, to: Mut<'_, Self, f32>, from: &[f32]) {
        self.upload(to, from);
    }

    /// Operations are done when they return; what they refuse is kept.
    fn finish(&self) -> Result<()> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }
}
