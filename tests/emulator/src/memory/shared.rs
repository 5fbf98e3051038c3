//! Shared memory of a block, with a shadow that knows who wrote and read every granule and when.

use crate::report::{Fault, FaultKind};

use super::access::{self, Width};
use super::clock::WarpClock;

/// Epoch of a record whose asynchronous operation has not finished. No epoch reaches it.
const IN_FLIGHT: u32 = u32::MAX;
const ATOMIC: u8 = 1;
const ASYNC_PROXY: u8 = 2;

/// Who wrote a granule last: epoch (low 32 bits), lane (8), flags (8), actor (16).
#[derive(Clone, Copy, PartialEq, Eq)]
struct Record(u64);

impl Record {
    #[inline(always)]
    fn new(actor: usize, lane: usize, flags: u8, epoch: u32) -> Self {
        Record(u64::from(epoch) | (lane as u64) << 32 | u64::from(flags) << 40 | (actor as u64) << 48)
    }

    #[inline(always)]
    fn epoch(self) -> u32 {
        self.0 as u32
    }

    fn lane(self) -> usize {
        (self.0 >> 32) as u8 as usize
    }

    fn is(self, flag: u8) -> bool {
        (self.0 >> 40) as u8 & flag != 0
    }

    #[inline(always)]
    fn actor(self) -> usize {
        (self.0 >> 48) as usize
    }
}

/// How an access takes part in the order of accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Races with everything that is not ordered.
    Weak,
    /// Does not race with others of its kind: atomics and volatile accesses.
    Strong,
}

/// The shared memory of one block.
pub struct Shared {
    data: Box<[u128]>,
    size: u32,
    granule: u32,
    /// Records up to this epoch are older than the block.
    floor: u32,
    writes: Box<[Record]>,
    /// Epoch of the last read of every granule by every actor, actor-major.
    reads: Box<[u32]>,
    /// The latest epoch among those of a granule, or a later one: once it was read asynchronously, `reads`
    /// alone know.
    latest_read: Box<[u32]>,
}

impl Shared {
    /// `size` bytes in granules of `1 << granule` bytes, accessed by `actors`.
    pub fn new(size: u32, granule: u32, actors: usize) -> Self {
        let granules = (size as usize).div_ceil(1 << granule);
        Shared {
            data: vec![0; (size as usize).div_ceil(16)].into(),
            size,
            granule,
            floor: 0,
            writes: vec![Record(0); granules].into(),
            reads: vec![0; granules * actors].into(),
            latest_read: vec![0; granules].into(),
        }
    }

    /// Whether it is as large, in as many granules, for as many actors.
    pub fn is_of(&self, size: u32, granule: u32, actors: usize) -> bool {
        (self.size, self.granule, self.reads.len()) == (size, granule, self.writes.len() * actors)
    }

    /// Forgets everything, for the next block, whose epochs start after `floor`.
    pub fn restart(&mut self, floor: u32) {
        self.floor = floor;
    }

    /// Bytes.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// The bytes of an asynchronous copy or of a matrix, whose accesses were checked.
    pub fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.data)
    }

    /// As [`Shared::bytes`], to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.data)
    }

    /// Checks that an access lies inside and is aligned.
    #[inline(always)]
    pub fn check_place(&self, at: u32, bytes: u32, align: u32) -> Result<(), Box<Fault>> {
        if u64::from(at) + u64::from(bytes) > u64::from(self.size) || at < crate::decode::SHARED_BASE {
            return Err(self.outside(at, bytes));
        }
        if at & (align - 1) != 0 {
            let message = format!("expected a shared address that is a multiple of {align}");
            return Err(Fault::new(FaultKind::Misaligned, message).at(u64::from(at)));
        }
        Ok(())
    }

    #[cold]
    fn outside(&self, at: u32, bytes: u32) -> Box<Fault> {
        let first = crate::decode::SHARED_BASE;
        let message =
            format!("{bytes} bytes of shared memory, which goes from {first:#x} to {:#x}", self.size);
        Fault::new(FaultKind::OutOfBounds, message).at(u64::from(at))
    }

    #[inline(always)]
    fn granules(&self, at: u32, bytes: u32) -> std::ops::Range<usize> {
        (at >> self.granule) as usize..((at + bytes - 1) >> self.granule) as usize + 1
    }

    /// Notes who wrote.
    #[inline(always)]
    fn record(&mut self, granules: std::ops::Range<usize>, record: Record) {
        match &mut self.writes[granules] {
            [a, b, c, d] => (*a, *b, *c, *d) = (record, record, record, record),
            records => records.fill(record),
        }
    }

    /// Place of an actor's last read of a granule.
    #[inline(always)]
    fn read_index(&self, actor: usize, g: usize) -> usize {
        actor * self.writes.len() + g
    }

    /// The record of all granules, if they were written by the same access: the usual case.
    #[inline(always)]
    fn common_record(&self, granules: std::ops::Range<usize>) -> Option<Record> {
        let records = &self.writes[granules];
        let first = records[0];
        if let [a, b, c, d] = records {
            // 16 bytes in words: what matters for speed.
            return ((a.0 ^ b.0) | (a.0 ^ c.0) | (a.0 ^ d.0) == 0).then_some(first);
        }
        let mut differ = 0;
        for record in records {
            differ |= record.0 ^ first.0;
        }
        (differ == 0).then_some(first)
    }

    /// Checks and notes a read by a lane.
    #[inline(always)]
    pub fn read(
        &mut self,
        at: u32,
        bytes: u32,
        lane: usize,
        clock: &WarpClock,
        order: Order,
    ) -> Result<(), Box<Fault>> {
        let granules = self.granules(at, bytes);
        match self.common_record(granules.clone()) {
            Some(r) if r.epoch() <= clock.known.visible[r.actor()] && r.epoch() > self.floor => {}
            _ => self.check_read(granules.clone(), lane, clock, order)?,
        }
        self.note_read(granules, clock.actor, clock.epoch);
        Ok(())
    }

    #[inline(always)]
    fn note_read(&mut self, granules: std::ops::Range<usize>, actor: usize, epoch: u32) {
        let first = self.read_index(actor, granules.start);
        let reads = &mut self.reads[first..first + granules.len()];
        let latest = &mut self.latest_read[granules];
        if let (Ok(reads), Ok(latest)) =
            (<&mut [u32; 4]>::try_from(&mut *reads), <&mut [u32; 4]>::try_from(&mut *latest))
        {
            *reads = [epoch; 4];
            *latest = latest.map(|l| l.max(epoch));
            return;
        }
        reads.fill(epoch);
        latest.iter_mut().for_each(|l| *l = (*l).max(epoch));
    }

    /// Checks a read granule by granule.
    fn check_read(
        &self,
        granules: std::ops::Range<usize>,
        lane: usize,
        clock: &WarpClock,
        order: Order,
    ) -> Result<(), Box<Fault>> {
        for g in granules {
            let record = self.writes[g];
            if record.epoch() > clock.known.visible[record.actor()] || record.epoch() <= self.floor {
                self.explain_read(g, record, lane, clock, order)?;
            }
        }
        Ok(())
    }

    #[cold]
    fn explain_read(
        &self,
        g: usize,
        record: Record,
        lane: usize,
        clock: &WarpClock,
        order: Order,
    ) -> Result<(), Box<Fault>> {
        if record.epoch() == IN_FLIGHT {
            return Err(self.fault(
                FaultKind::InFlight,
                g,
                "read while an asynchronous copy still writes it",
            ));
        }
        if record.epoch() <= self.floor {
            return Err(self.fault(FaultKind::Uninitialised, g, "read, but nobody has written it"));
        }
        if record.actor() == clock.actor && record.lane() == lane
            || record.is(ATOMIC) && order == Order::Strong
        {
            return Ok(());
        }
        Err(self.fault(
            FaultKind::Race,
            g,
            &format!("read after {} wrote it, with no barrier between", who(record)),
        ))
    }

    /// Checks and notes a write by a lane. `same` says whether the bytes already have the value written: then
    /// no race with another write is reported.
    #[inline(always)]
    pub fn write(
        &mut self,
        at: u32,
        bytes: u32,
        lane: usize,
        clock: &WarpClock,
        order: Order,
        same: impl Fn(&Self) -> bool,
    ) -> Result<(), Box<Fault>> {
        let flags = if order == Order::Strong { ATOMIC } else { 0 };
        let granules = self.granules(at, bytes);
        self.check_write(granules.clone(), lane, clock, order, &same)?;
        self.record(granules, Record::new(clock.actor, lane, flags, clock.epoch));
        Ok(())
    }

    #[inline(always)]
    fn check_write(
        &self,
        granules: std::ops::Range<usize>,
        lane: usize,
        clock: &WarpClock,
        order: Order,
        same: &impl Fn(&Self) -> bool,
    ) -> Result<(), Box<Fault>> {
        match self.common_record(granules.clone()) {
            Some(r) if r.epoch() <= clock.known.visible[r.actor()] => {}
            _ => self.check_write_after_write(granules.clone(), lane, clock, order, same)?,
        }
        let unordered = match &self.latest_read[granules.clone()] {
            [a, b, c, d] => (*a).max(*b).max((*c).max(*d)) > clock.all_know,
            latest => latest.iter().any(|&l| l > clock.all_know),
        };
        if unordered { self.check_write_after_read(granules, clock, order) } else { Ok(()) }
    }

    /// Checks a write granule by granule.
    fn check_write_after_write(
        &self,
        granules: std::ops::Range<usize>,
        lane: usize,
        clock: &WarpClock,
        order: Order,
        same: &impl Fn(&Self) -> bool,
    ) -> Result<(), Box<Fault>> {
        for g in granules {
            let record = self.writes[g];
            if record.epoch() > clock.known.visible[record.actor()] {
                self.explain_write(g, record, lane, clock, order, same)?;
            }
        }
        Ok(())
    }

    /// Checks a write against the last read of every actor.
    fn check_write_after_read(
        &self,
        granules: std::ops::Range<usize>,
        clock: &WarpClock,
        order: Order,
    ) -> Result<(), Box<Fault>> {
        let mut unordered = false;
        for (actor, &known) in clock.known.visible.iter().enumerate() {
            let first = self.read_index(actor, granules.start);
            for &read in &self.reads[first..first + granules.len()] {
                unordered |= read > known;
            }
        }
        match unordered {
            true => granules.into_iter().try_for_each(|g| self.explain_write_after_read(g, clock, order)),
            false => Ok(()),
        }
    }

    #[cold]
    fn explain_write(
        &self,
        g: usize,
        record: Record,
        lane: usize,
        clock: &WarpClock,
        order: Order,
        same: &impl Fn(&Self) -> bool,
    ) -> Result<(), Box<Fault>> {
        if record.epoch() == IN_FLIGHT {
            return Err(self.fault(
                FaultKind::InFlight,
                g,
                "written while an asynchronous copy still writes it",
            ));
        }
        let own = record.actor() == clock.actor && record.lane() == lane;
        if own || record.is(ATOMIC) && order == Order::Strong || same(self) {
            return Ok(());
        }
        let message = format!("written after {} wrote another value, with no barrier between", who(record));
        Err(self.fault(FaultKind::Race, g, &message))
    }

    #[cold]
    fn explain_write_after_read(&self, g: usize, clock: &WarpClock, order: Order) -> Result<(), Box<Fault>> {
        for (actor, &known) in clock.known.visible.iter().enumerate() {
            let read = self.reads[self.read_index(actor, g)];
            if read <= known {
                continue;
            }
            if read == IN_FLIGHT {
                return Err(self.fault(
                    FaultKind::InFlight,
                    g,
                    "written while an asynchronous operation still reads it",
                ));
            }
            // A warp's own reads are behind it, and strong accesses do not race with each other.
            if actor != clock.actor && !(order == Order::Strong && self.writes[g].is(ATOMIC)) {
                let message = format!("written after warp {actor} read it, with no barrier between");
                return Err(self.fault(FaultKind::Race, g, &message));
            }
        }
        Ok(())
    }

    /// Begins an asynchronous write: nobody may touch the bytes until it ends.
    #[inline(always)]
    pub fn begin_write(
        &mut self,
        at: u32,
        bytes: u32,
        lane: usize,
        clock: &WarpClock,
    ) -> Result<(), Box<Fault>> {
        let granules = self.granules(at, bytes);
        self.check_write(granules.clone(), lane, clock, Order::Weak, &|_| false)?;
        self.record(granules, Record::new(clock.actor, lane, 0, IN_FLIGHT));
        Ok(())
    }

    /// Ends an asynchronous write of the generic proxy: it counts as the lane's own.
    #[inline(always)]
    pub fn end_write(&mut self, at: u32, bytes: u32, lane: usize, actor: usize, epoch: u32) {
        let granules = self.granules(at, bytes);
        self.record(granules, Record::new(actor, lane, 0, epoch));
    }

    /// Ends an asynchronous write of the async proxy.
    pub fn end_bulk_write(&mut self, at: u32, bytes: u32, actor: usize, epoch: u32) {
        let granules = self.granules(at, bytes);
        self.record(granules, Record::new(actor, 0, ASYNC_PROXY, epoch));
    }

    /// Begins an asynchronous read through the async proxy: what is read must be ordered and fenced, and
    /// nobody may write it until the read ends.
    pub fn begin_read(
        &mut self,
        at: u32,
        bytes: u32,
        lane: usize,
        clock: &WarpClock,
    ) -> Result<(), Box<Fault>> {
        for g in self.granules(at, bytes) {
            let record = self.writes[g];
            if record.epoch() > clock.known.visible[record.actor()] || record.epoch() <= self.floor {
                self.explain_read(g, record, lane, clock, Order::Weak)?;
            }
            if !record.is(ASYNC_PROXY) && record.epoch() > clock.known.fenced[record.actor()] {
                let message = format!(
                    "read through the async proxy after {} wrote it through the generic proxy, with no fence.proxy.async \
                     between",
                    who(record)
                );
                return Err(self.fault(FaultKind::MissingProxyFence, g, &message));
            }
            self.note_read(g..g + 1, clock.actor, IN_FLIGHT);
        }
        Ok(())
    }

    /// Ends an asynchronous read.
    pub fn end_read(&mut self, at: u32, bytes: u32, clock: &WarpClock) {
        for g in self.granules(at, bytes) {
            let own = self.read_index(clock.actor, g);
            self.reads[own] = clock.epoch;
        }
    }

    /// Checks that a mbarrier was initialised in an order that the warp knows of.
    pub fn check_visible(
        &self,
        at: u32,
        bytes: u32,
        lane: usize,
        clock: &WarpClock,
    ) -> Result<(), Box<Fault>> {
        self.check_read(self.granules(at, bytes), lane, clock, Order::Weak)
    }

    /// Loads; the place was checked.
    #[inline(always)]
    pub fn load(&self, at: u32, width: Width) -> u128 {
        let bytes = self.bytes();
        debug_assert!(at as usize + width.bytes() <= bytes.len());
        // SAFETY: `check_place` was called for this access: inside and aligned.
        unsafe { access::load(bytes.as_ptr().add(at as usize), width) }
    }

    /// Loads a word; the place was checked.
    #[inline(always)]
    pub fn word(&self, at: u32) -> u32 {
        self.load(at, Width::B4) as u32
    }

    /// Stores; the place was checked.
    #[inline(always)]
    pub fn store(&mut self, at: u32, width: Width, value: u128) {
        let bytes = self.bytes_mut();
        debug_assert!(at as usize + width.bytes() <= bytes.len());
        // SAFETY: as for `load`.
        unsafe { access::store(bytes.as_mut_ptr().add(at as usize), width, value) }
    }

    fn fault(&self, kind: FaultKind, granule: usize, message: &str) -> Box<Fault> {
        let at = (granule as u64) << self.granule;
        Fault::new(kind, format!("shared memory at {at:#x}: {message}")).at(at)
    }
}

fn who(record: Record) -> String {
    match record.is(ASYNC_PROXY) {
        true => "an asynchronous copy".to_owned(),
        false => format!("warp {} lane {}", record.actor(), record.lane()),
    }
}
