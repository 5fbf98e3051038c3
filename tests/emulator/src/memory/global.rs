//! Global memory: allocations far apart, each with a bit per byte that says whether it was ever written.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use memmap2::MmapRaw;

use super::access::{self, Width};
use super::between::{self, Exported, Place};
use super::zeroed::{Zeroed, atomic_bytes};
use crate::report::{Fault, FaultKind};

/// First address ever given out.
const FIRST: u64 = 0x7_0000_0000;
/// Alignment of allocations, that of `cuMemAlloc`.
const ALIGN: u64 = 512;
/// Addresses between two allocations that belong to nobody.
const RED_ZONE: u64 = 4096;
/// Freed allocations that are remembered, to tell use after free from other wild accesses.
const TOMBSTONES: usize = 4096;

/// Where the bytes of an allocation are.
#[derive(Debug)]
enum Storage {
    /// In memory of our own.
    Own(#[expect(dead_code, reason = "owned, so that it is freed with the allocation")] Zeroed),
    /// In memory of our own that other processes may map.
    Exported(Exported),
    /// In memory of another process.
    Imported(#[expect(dead_code, reason = "as above")] MmapRaw),
    /// In host memory that the driver mapped; its owner keeps it alive.
    Host,
}

/// One allocation.
#[derive(Debug)]
pub struct Allocation {
    base: u64,
    len: u64,
    data: *mut u8,
    storage: Storage,
    /// A bit per byte; empty where everything counts as written: host memory, memory that other processes
    /// may write to, and what is not tracked.
    written: Box<[AtomicU8]>,
}

// SAFETY: `data` is only accessed through atomics or raw copies, as a GPU's memory is by its threads; the
// allocation lives as long as the value.
unsafe impl Send for Allocation {}
// SAFETY: as above.
unsafe impl Sync for Allocation {}

impl Allocation {
    fn own(base: u64, len: u64, tracks: bool) -> Option<Self> {
        let memory = Zeroed::new(len as usize, 64)?;
        let written = atomic_bytes(if tracks { (len as usize).div_ceil(8) } else { 0 })?;
        Some(Allocation { base, len, data: memory.as_ptr(), storage: Storage::Own(memory), written })
    }

    fn exported(base: u64, len: u64, memory: Exported) -> Self {
        let data = memory.as_mut_ptr();
        Allocation { base, len, data, storage: Storage::Exported(memory), written: Box::default() }
    }

    fn imported(base: u64, memory: MmapRaw) -> Self {
        let (len, data) = (memory.len() as u64, memory.as_mut_ptr());
        Allocation { base, len, data, storage: Storage::Imported(memory), written: Box::default() }
    }

    /// First address.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `[address, address + size)` lies inside.
    #[inline(always)]
    pub fn contains(&self, address: u64, size: u64) -> bool {
        address >= self.base && size <= self.len && address - self.base <= self.len - size
    }

    /// Pointer to the byte at `address`, which must lie inside.
    #[inline(always)]
    pub fn pointer(&self, address: u64) -> *mut u8 {
        debug_assert!(self.contains(address, 1));
        self.data.wrapping_add((address - self.base) as usize)
    }

    /// Whether all of `size` bytes at `address`, which lie inside, were written.
    #[inline(always)]
    pub fn is_written(&self, address: u64, size: u64) -> bool {
        self.written.is_empty()
            || bits(address - self.base, size).all(|(at, mask)| self.has_written(at, mask))
    }

    #[inline(always)]
    fn has_written(&self, at: usize, mask: u8) -> bool {
        self.written[at].load(Ordering::Relaxed) & mask == mask
    }

    /// Notes that `size` bytes at `address`, which lie inside, are written (or not).
    #[inline(always)]
    pub fn mark_written(&self, address: u64, size: u64, yes: bool) {
        if self.written.is_empty() {
            return;
        }
        for (at, mask) in bits(address - self.base, size) {
            if !yes {
                self.written[at].fetch_and(!mask, Ordering::Relaxed);
            } else if !self.has_written(at, mask) {
                self.written[at].fetch_or(mask, Ordering::Relaxed);
            }
        }
    }

    /// Loads bytes; `address` is aligned to the width and inside.
    #[inline(always)]
    pub fn load(&self, address: u64, width: Width) -> u128 {
        // SAFETY: inside and aligned, by the caller; `data` is at least 16-byte aligned as `base` is.
        unsafe { access::load(self.pointer(address), width) }
    }

    /// Stores bytes; `address` is aligned to the width and inside.
    #[inline(always)]
    pub fn store(&self, address: u64, width: Width, value: u128) {
        // SAFETY: as for `load`.
        unsafe { access::store(self.pointer(address), width, value) }
        self.mark_written(address, width.bytes() as u64, true);
    }

    /// The aligned 32-bit word at `address`, for atomics.
    pub fn word(&self, address: u64) -> &AtomicU32 {
        // SAFETY: inside and aligned, by the caller; only atomics and raw copies access it.
        unsafe { &*self.pointer(address & !3).cast::<AtomicU32>() }
    }

    /// The aligned 64-bit word at `address`, for atomics.
    pub fn double_word(&self, address: u64) -> &AtomicU64 {
        // SAFETY: as for `word`.
        unsafe { &*self.pointer(address & !7).cast::<AtomicU64>() }
    }
}

/// Why memory could not be allocated or freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryError {
    /// More than is free.
    OutOfMemory,
    /// Not the start of an allocation.
    NotAllocated,
}

#[derive(Default)]
struct Table {
    live: BTreeMap<u64, Arc<Allocation>>,
    dead: BTreeMap<u64, u64>,
    next: u64,
    used: u64,
}

/// The memory of a device.
pub struct GlobalMemory {
    table: RwLock<Table>,
    total: AtomicU64,
    /// Whether new allocations remember which of their bytes were written.
    tracks: AtomicBool,
    /// Serialises atomics wider than the machine's.
    pub(crate) wide_atomics: Mutex<()>,
}

impl GlobalMemory {
    /// Bytes that there are.
    fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// For what is allocated from here on: memory of `total` bytes, in which every byte counts as written.
    pub fn stop_tracking(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
        self.tracks.store(false, Ordering::Relaxed);
    }

    /// Memory of `total` bytes.
    pub fn new(total: u64) -> Self {
        let table = Table { next: FIRST, ..Table::default() };
        GlobalMemory {
            table: RwLock::new(table),
            total: AtomicU64::new(total),
            tracks: AtomicBool::new(true),
            wide_atomics: Mutex::new(()),
        }
    }

    /// Bytes that are free, and all bytes.
    pub fn info(&self) -> (u64, u64) {
        (self.total() - self.read_table().used, self.total())
    }

    /// Allocates `len` bytes, unwritten. Addresses are never given out twice.
    pub fn alloc(&self, len: u64) -> Result<u64, MemoryError> {
        let mut table = self.write_table();
        let charged = charge(len);
        if len > self.total() || table.used + charged > self.total() {
            return Err(MemoryError::OutOfMemory);
        }
        let base = table.next;
        let allocation = Allocation::own(base, len, self.tracks.load(Ordering::Relaxed))
            .ok_or(MemoryError::OutOfMemory)?;
        table.next += charged + RED_ZONE;
        table.used += charged;
        table.live.insert(base, Arc::new(allocation));
        Ok(base)
    }

    /// Makes `len` bytes of host memory accessible at their own address. Everything in them counts as
    /// written.
    ///
    /// # Safety
    /// The memory stays valid until [`GlobalMemory::free`] is called with its address.
    pub unsafe fn map_host(&self, pointer: *mut u8, len: u64) -> u64 {
        let base = pointer as u64;
        let allocation =
            Allocation { base, len, data: pointer, storage: Storage::Host, written: Box::default() };
        self.write_table().live.insert(base, Arc::new(allocation));
        base
    }

    /// Moves the allocation at `base` to where other processes can map it, unless it is there already. Its
    /// address stays, and all of it counts as written from here on, for what others write is not known here.
    ///
    /// # Safety
    /// Nobody accesses the allocation meanwhile.
    pub unsafe fn export(&self, base: u64) -> io::Result<Place> {
        let mut table = self.write_table();
        let allocation = table.live.get_mut(&base).ok_or(io::ErrorKind::NotFound)?;
        if let Storage::Exported(memory) = &allocation.storage {
            return memory.place();
        }
        let len = allocation.len;
        // SAFETY: the bytes are those of the allocation, which nobody changes, by the caller.
        let bytes = unsafe { std::slice::from_raw_parts(allocation.data, len as usize) };
        let memory = Exported::copy_of(bytes)?;
        let place = memory.place()?;
        *allocation = Arc::new(Allocation::exported(base, len, memory));
        Ok(place)
    }

    /// Makes memory that another process has exported accessible, at an address of its own. It takes none of
    /// this device's memory. Returns address and bytes.
    pub fn import(&self, place: &Place) -> io::Result<(u64, u64)> {
        let memory = between::import(place)?;
        let mut table = self.write_table();
        let allocation = Allocation::imported(table.next, memory);
        let (base, len) = (allocation.base, allocation.len);
        table.next += charge(len) + RED_ZONE;
        table.live.insert(base, Arc::new(allocation));
        Ok((base, len))
    }

    /// Frees the allocation that starts at `base`; where it was exported, what others have mapped stays.
    pub fn free(&self, base: u64) -> Result<(), MemoryError> {
        let mut table = self.write_table();
        let allocation = table.live.remove(&base).ok_or(MemoryError::NotAllocated)?;
        if matches!(allocation.storage, Storage::Own(_) | Storage::Exported(_)) {
            table.used -= charge(allocation.len);
        }
        if !matches!(allocation.storage, Storage::Host) {
            if table.dead.len() == TOMBSTONES {
                table.dead.pop_first();
            }
            table.dead.insert(base, allocation.len);
        }
        Ok(())
    }

    /// The allocation that contains all of `[address, address + size)`.
    pub fn find(&self, address: u64, size: u64) -> Result<Arc<Allocation>, Box<Fault>> {
        let table = self.read_table();
        if let Some((_, allocation)) = table.live.range(..=address).next_back()
            && allocation.contains(address, size)
        {
            return Ok(Arc::clone(allocation));
        }
        Err(explain(&table, address, size))
    }

    /// Copies to the host. Unwritten bytes are read as they are.
    pub fn read(&self, address: u64, to: &mut [u8]) -> Result<(), Box<Fault>> {
        if to.is_empty() {
            return Ok(());
        }
        let allocation = self.find(address, to.len() as u64)?;
        // SAFETY: the range is inside; the destination is another, exclusively borrowed, piece of memory.
        unsafe { std::ptr::copy(allocation.pointer(address), to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    /// Copies from the host.
    pub fn write(&self, address: u64, from: &[u8]) -> Result<(), Box<Fault>> {
        if from.is_empty() {
            return Ok(());
        }
        let allocation = self.find(address, from.len() as u64)?;
        // SAFETY: the range is inside.
        unsafe { std::ptr::copy(from.as_ptr(), allocation.pointer(address), from.len()) };
        allocation.mark_written(address, from.len() as u64, true);
        Ok(())
    }

    /// Writes `pattern` `count` times.
    pub fn fill(&self, address: u64, pattern: &[u8], count: u64) -> Result<(), Box<Fault>> {
        let bytes = pattern.len() as u64 * count;
        if bytes == 0 {
            return Ok(());
        }
        let allocation = self.find(address, bytes)?;
        // SAFETY: the range is inside; nobody else holds a reference to it.
        let to = unsafe { std::slice::from_raw_parts_mut(allocation.pointer(address), bytes as usize) };
        if let [byte] = pattern {
            to.fill(*byte);
        } else {
            to.chunks_exact_mut(pattern.len()).for_each(|to| to.copy_from_slice(pattern));
        }
        allocation.mark_written(address, bytes, true);
        Ok(())
    }

    /// Copies on the device; whether bytes were written is copied along.
    pub fn copy(&self, to: u64, from: u64, len: u64) -> Result<(), Box<Fault>> {
        if len == 0 {
            return Ok(());
        }
        let (source, destination) = (self.find(from, len)?, self.find(to, len)?);
        // SAFETY: both ranges are inside.
        unsafe { std::ptr::copy(source.pointer(from), destination.pointer(to), len as usize) };
        if source.is_written(from, len) {
            destination.mark_written(to, len, true);
        } else {
            for i in 0..len {
                destination.mark_written(to + i, 1, source.is_written(from + i, 1));
            }
        }
        Ok(())
    }

    /// All live allocations as (address, bytes).
    pub fn allocations(&self) -> Vec<(u64, u64)> {
        self.read_table().live.values().map(|a| (a.base, a.len)).collect()
    }

    fn read_table(&self) -> std::sync::RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write_table(&self) -> std::sync::RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Bytes of a bitmap, with the bits in each, for `size` bits from `from`.
#[inline(always)]
fn bits(from: u64, size: u64) -> impl Iterator<Item = (usize, u8)> {
    let (mut from, to) = (from as usize, (from + size) as usize);
    std::iter::from_fn(move || {
        let count = (8 - from % 8).min(to - from);
        let item = (from / 8, (((1u16 << count) - 1) << (from % 8)) as u8);
        from += count;
        (count > 0).then_some(item)
    })
}

/// Bytes that an allocation of `len` takes of the device.
fn charge(len: u64) -> u64 {
    len.max(1).next_multiple_of(ALIGN)
}

/// Says what is near a wild address.
fn explain(table: &Table, address: u64, size: u64) -> Box<Fault> {
    let end = address.saturating_add(size);
    if let Some((&base, &len)) = table.dead.range(..end).next_back()
        && address < base + len.max(1)
    {
        let message = format!("{size} bytes in an allocation of {len} bytes at {base:#x} that was freed");
        return Fault::new(FaultKind::UseAfterFree, message).at(address);
    }
    let below = table.live.range(..=address).next_back().map(|(_, a)| a);
    let message = match below {
        Some(a) if address < a.base + a.len + RED_ZONE => format!(
            "{size} bytes that start at byte {} of an allocation of {} bytes at {:#x}",
            address - a.base,
            a.len,
            a.base
        ),
        _ => match table.live.range(address..).next() {
            Some((&base, a)) if base - address <= RED_ZONE => {
                format!(
                    "{size} bytes that start {} bytes before an allocation of {} bytes",
                    base - address,
                    a.len
                )
            }
            _ => format!("{size} bytes outside every allocation"),
        },
    };
    Fault::new(FaultKind::OutOfBounds, message).at(address)
}
