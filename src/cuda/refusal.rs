//! What kernels find in their data and leave out (`kernels/refusal.h`), told after the next wait.

use super::pinned::Pinned;
use super::tile::{
    REFUSED_ATTENTION_DECODE, REFUSED_CROSS_ENTROPY, REFUSED_EMBED, REFUSED_GATHER, REFUSED_ROPE_INTO_CACHE,
    REFUSED_SCATTER_ADD,
};
use crate::error::{Error, Result};
use crate::ops::contract::{refused, refused_filled};

/// `Refusal` of `kernels/refusal.h`: operation, row, what was found, and its limit.
type Refusal = [u32; 4];

/// Where kernels leave a refusal, in memory of the host: looking there after a wait costs nothing.
pub(super) struct Refusals {
    memory: Pinned,
}

impl Refusals {
    /// None so far. A context has to be current.
    pub fn new() -> Result<Self> {
        let mut memory = Pinned::new(size_of::<Refusal>())?;
        memory.slice::<u32>(0..size_of::<Refusal>()).fill(0);
        Ok(Refusals { memory })
    }

    /// What kernels are given.
    pub fn address(&self) -> u64 {
        self.memory.address() as u64
    }

    /// The refusal of a kernel that has been waited for, which is over with that.
    pub fn take(&mut self) -> Option<Error> {
        let at = self.memory.address() as *mut Refusal;
        // SAFETY: that many bytes of page-locked memory, aligned. A pointer and volatile, as kernels that
        // another thread has launched may be writing.
        let [operation, row, found, limit] = unsafe { at.read_volatile() };
        let beyond =
            |op, name| refused(op, format!("{name}[{row}]: expected less than {limit}, found {found}"));
        let error = match operation as usize {
            REFUSED_EMBED => beyond("embed", "ids"),
            REFUSED_GATHER => beyond("gather", "ids"),
            REFUSED_SCATTER_ADD => beyond("scatter_add", "ids"),
            REFUSED_CROSS_ENTROPY => beyond("cross_entropy_kl", "targets"),
            REFUSED_ATTENTION_DECODE => refused_filled("attention_decode", limit, found),
            REFUSED_ROPE_INTO_CACHE => refused_filled("rope_into_cache", limit, found),
            _ => return None,
        };
        // SAFETY: as above.
        unsafe { at.write_volatile([0; 4]) };
        Some(error)
    }
}
