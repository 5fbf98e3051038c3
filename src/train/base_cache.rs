//! Hidden states of the base model, which do not change between epochs: kept on the device where all of them
//! have room there, else in memory of the host up to a budget, then on disk.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::ops::Range;

use bytemuck::Zeroable;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::files;
use crate::ops::{Arena, Backend, Buffer, Mut, PlanRow, Ref};
use crate::platform::{read_exact_at, write_all_at};

/// What to do where the disk is full.
const ADVICE: &str = "free disk space there, set TMPDIR, or raise `base_cache_mib`";
/// Bytes of host memory that are allocated at a time.
const SLAB: usize = 64 << 20;

/// Where the states of a pair are.
enum Place {
    /// Elements on the device.
    Device(Range<usize>),
    /// Number of a slab, and elements of it.
    Host(usize, Range<usize>),
    /// Byte offset.
    Disk(u64),
}

/// Memory that is filled from its start.
struct Region<B: Backend> {
    buffer: Buffer<B, B::Act>,
    used: usize,
}

impl<B: Backend> Region<B> {
    /// Elements that are free.
    fn left(&self) -> usize {
        self.buffer.len() - self.used
    }

    /// The next `len` elements, if there are as many.
    fn take(&mut self, len: usize) -> Option<Range<usize>> {
        let start = self.used;
        (len <= self.left()).then(|| {
            self.used += len;
            start..self.used
        })
    }
}

/// Pre-head hidden states `[tokens, hidden_size]` per pair, in the type that they were computed in.
///
/// They are copied in and out in the order of the device's work: nothing waits for them but a file.
pub struct BaseCache<B: Backend> {
    places: HashMap<usize, Place>,
    /// Pairs that have a place, and no states in it.
    vacant: HashSet<usize>,
    /// `[rows, hidden_size]` of what is to be on the device.
    on_device: Option<[usize; 2]>,
    device: Option<Region<B>>,
    host: Vec<Region<B>>,
    /// Bytes of memory of the host that may still be allocated.
    host_left: usize,
    file: Option<File>,
    file_len: u64,
}

impl<B: Backend> BaseCache<B> {
    /// An empty cache that keeps at most `memory_budget` bytes in memory of the host.
    pub fn new(memory_budget: usize) -> Self {
        BaseCache {
            places: HashMap::new(),
            vacant: HashSet::new(),
            on_device: None,
            device: None,
            host: Vec::new(),
            host_left: memory_budget,
            file: None,
            file_len: 0,
        }
    }

    /// One that has room for `[rows, hidden_size]` on the device, which a
    /// [`Stepper`](crate::train::step::Stepper) allocates.
    pub fn on_device(self, shape: [usize; 2]) -> Self {
        BaseCache { on_device: Some(shape), ..self }
    }

    /// The memory that it takes on the device.
    ///
    /// # Errors
    /// Where sizes are beyond what can be counted.
    pub fn plan(&self) -> Result<Vec<PlanRow>> {
        Arena::<B>::plan(|arena| self.lay_out(arena))
    }

    fn lay_out(&self, arena: &mut Arena<B>) -> Result<Option<Buffer<B, B::Act>>> {
        self.on_device.map(|shape| arena.buffer("base states", &shape)).transpose()
    }

    /// Allocates what is to be on the device, and returns the plan of that.
    pub(super) fn allocate(&mut self, device: &B) -> Result<Vec<PlanRow>> {
        if self.on_device.is_none() {
            return Ok(Vec::new());
        }
        let (buffer, plan) = Arena::build(device, |arena| self.lay_out(arena))?;
        self.device = buffer.map(|buffer| Region { buffer, used: 0 });
        Ok(plan)
    }

    /// Refuses to begin what will not fit: `elements` in all, of which those beyond the budget go to disk.
    pub fn require_space(&self, elements: usize) -> Result<()> {
        if self.on_device.is_some_and(|[rows, width]| elements <= rows * width) {
            return Ok(());
        }
        let bytes = elements.saturating_mul(size_of::<B::Act>());
        let on_disk = bytes.saturating_sub(self.host_left) as u64;
        if on_disk == 0 {
            return Ok(());
        }
        let file = std::env::temp_dir().join("the base model's hidden states");
        files::require_space(&file, on_disk).map_err(|e| e.advice(ADVICE))
    }

    /// Whether the states of a pair are there.
    pub fn contains(&self, pair: usize) -> bool {
        self.places.contains_key(&pair) && !self.vacant.contains(&pair)
    }

    /// Whether [inserting](Self::insert) states of so many elements, each of a pair, allocates nothing and
    /// waits for nothing.
    pub(super) fn has_room(&self, elements: usize) -> bool {
        let mut regions = self.device.iter().chain(&self.host);
        elements == 0 || regions.any(|region| elements <= region.left())
    }

    /// What was inserted of a pair will not be there: the device was not given the work.
    pub(super) fn retract(&mut self, pair: usize) {
        if self.places.contains_key(&pair) {
            self.vacant.insert(pair);
        }
    }

    /// Whether some are on disk.
    pub(super) fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// Keeps the states of a pair, unless there are some.
    pub fn insert(&mut self, device: &B, pair: usize, states: Ref<'_, B, B::Act>) -> Result<()> {
        if self.contains(pair) {
            return Ok(());
        }
        let vacant = if self.vacant.remove(&pair) { self.places.remove(&pair) } else { None };
        let place = match vacant.or_else(|| self.take(device, states.len())) {
            Some(place) => place,
            None => self.write(device, states)?,
        };
        match &place {
            Place::Device(range) => {
                let Some(region) = &mut self.device else { return Ok(()) };
                device.copy(region.buffer.slice_mut(range.clone()), states);
            }
            Place::Host(slab, range) => {
                device.offload(self.host[*slab].buffer.slice_mut(range.clone()), states);
            }
            Place::Disk(_) => {}
        }
        self.places.insert(pair, place);
        Ok(())
    }

    /// Copies the states of a pair from element `first` on to `to`, as many as that holds; prefetches are
    /// still to be [joined](crate::ops::Device::join_prefetches). Nothing where there are none of the pair.
    pub fn recall(&self, device: &B, pair: usize, first: usize, to: Mut<'_, B, B::Act>) -> Result<()> {
        let wanted = |range: &Range<usize>| range.start + first..range.start + first + to.len();
        match (self.places.get(&pair), &self.device, &self.file) {
            (Some(Place::Device(range)), Some(region), _) => {
                let from = region.buffer.slice(wanted(range));
                device.copy(to, from);
            }
            (Some(Place::Host(slab, range)), ..) => {
                let from = self.host[*slab].buffer.slice(wanted(range));
                device.prefetch(to, from);
            }
            (Some(&Place::Disk(offset)), _, Some(file)) => {
                let mut states = vec![B::Act::zeroed(); to.len()];
                let offset = offset + (first * size_of::<B::Act>()) as u64;
                read_exact_at(file, bytemuck::cast_slice_mut(&mut states), offset)
                    .kind(ErrorKind::Device, || "cannot read the base model's hidden states back".into())?;
                device.upload(to, &states);
            }
            _ => {}
        }
        Ok(())
    }

    /// Room for `len` elements in memory, of the device or else of the host.
    fn take(&mut self, device: &B, len: usize) -> Option<Place> {
        if let Some(range) = self.device.as_mut().and_then(|region| region.take(len)) {
            return Some(Place::Device(range));
        }
        if let Some(place) = self.take_on_host(len) {
            return Some(place);
        }
        self.grow(device, len)?;
        self.take_on_host(len)
    }

    fn take_on_host(&mut self, len: usize) -> Option<Place> {
        let slabs = self.host.iter_mut().enumerate();
        slabs.filter_map(|(i, slab)| slab.take(len).map(|range| Place::Host(i, range))).next()
    }

    /// Another slab for `len` elements or more, if the budget has it and the system too.
    fn grow(&mut self, device: &B, len: usize) -> Option<()> {
        let size = size_of::<B::Act>();
        let most = self.host_left / size;
        if len > most {
            return None;
        }
        let wanted = len.max(SLAB / size).min(most);
        let Ok(buffer) = Buffer::on_host(device, wanted) else {
            self.host_left = 0; // the rest goes to disk
            return None;
        };
        self.host_left -= wanted * size;
        self.host.push(Region { buffer, used: 0 });
        Some(())
    }

    /// Appends to an unnamed file, which vanishes with the process.
    fn write(&mut self, device: &B, states: Ref<'_, B, B::Act>) -> Result<Place> {
        let complain =
            || format!("cannot keep the base model's hidden states in {}", std::env::temp_dir().display());
        let advised = |e: Error| e.advice(ADVICE);
        let mut host = vec![B::Act::zeroed(); states.len()];
        device.fetch(&mut host, states)?;
        let file = match self.file {
            Some(ref file) => file,
            ref mut none => {
                none.insert(tempfile::tempfile().kind(ErrorKind::Device, complain).map_err(advised)?)
            }
        };
        let offset = self.file_len;
        write_all_at(file, bytemuck::cast_slice(&host), offset)
            .kind(ErrorKind::Device, complain)
            .map_err(advised)?;
        self.file_len += size_of_val(host.as_slice()) as u64;
        Ok(Place::Disk(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Cpu;
    use crate::ops::Device;

    /// Three pairs on the device, two in memory, one on disk.
    #[test]
    fn device_memory_and_disk_give_back_the_same() {
        let cpu = Cpu::new();
        let states = |i: usize| (0..10).map(|j| (i * 10 + j) as f32).collect::<Vec<_>>();
        let (mut buffer, _) = Arena::build(&cpu, |arena| arena.buffer::<f32>("states", &[10])).unwrap();
        let mut cache = BaseCache::new(2 * 10 * size_of::<f32>()).on_device([3, 10]);
        assert_eq!(PlanRow::total(&cache.plan().unwrap()), 256);
        cache.allocate(&cpu).unwrap();
        for i in 0..6 {
            cpu.upload(buffer.view_mut(), &states(i));
            cache.insert(&cpu, i, buffer.view()).unwrap();
        }
        let place = |pair: usize| match cache.places[&pair] {
            Place::Device(_) => "device",
            Place::Host(..) => "host",
            Place::Disk(_) => "disk",
        };
        assert_eq!([0, 2, 3, 4, 5].map(place), ["device", "device", "host", "host", "disk"]);
        for i in 0..6 {
            cache.recall(&cpu, i, 4, buffer.first_mut(6)).unwrap();
            assert_eq!(cpu.to_host(buffer.first(6)), states(i)[4..]);
        }
        assert!(!cache.contains(6));
    }
    /// What was inserted and retracted is missing, and its place is used when it comes again.
    #[test]
    fn retracted_states_leave_their_place() {
        let cpu = Cpu::new();
        let (mut buffer, _) = Arena::build(&cpu, |arena| arena.buffer::<f32>("states", &[10])).unwrap();
        let mut cache = BaseCache::new(0).on_device([2, 10]);
        assert!(cache.has_room(0) && !cache.has_room(10), "nothing is allocated yet");
        cache.allocate(&cpu).unwrap();
        assert!(cache.has_room(20) && !cache.has_room(21));
        for pair in 0..2 {
            cache.insert(&cpu, pair, buffer.view()).unwrap();
        }
        cache.retract(0);
        cache.retract(7);
        assert!(!cache.contains(0) && cache.contains(1) && !cache.contains(7) && !cache.has_room(1));
        cpu.upload(buffer.view_mut(), &[3.0; 10]);
        cache.insert(&cpu, 0, buffer.view()).unwrap();
        assert!(cache.contains(0) && !cache.has_file());
        cpu.zero(buffer.view_mut());
        cache.recall(&cpu, 0, 0, buffer.view_mut()).unwrap();
        assert_eq!(cpu.to_host(buffer.view()), [3.0; 10]);
    }
}
