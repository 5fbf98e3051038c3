//! What a cluster of blocks consists of while it runs.

use std::collections::HashMap;
use std::sync::Arc;

use crate::counters::Counters;
use crate::decode::program::{BarrierKind, Program};
use crate::exec::copies::{CopyState, Pending};
use crate::exec::counting::Patterns;
use crate::exec::in_flight::LoadsInFlight;
use crate::exec::registers::Registers;
use crate::exec::tensor::{FRAGMENT_ROWS, WgmmaState};
use crate::memory::clock::{Clock, WarpClock};
use crate::memory::exchange::{Exchange, Knowledge, Lesson};
use crate::memory::global::{Allocation, GlobalMemory};
use crate::memory::l2::{L2, Trace};
use crate::memory::shared::Shared;
use cuda_emulator_alu::row::{LANES, Row};

use super::beside::Beside;
use super::random::Random;

/// What all blocks of a launch have in common.
pub struct Grid<'a> {
    /// The kernel.
    pub program: &'a Program,
    /// Global memory.
    pub memory: &'a GlobalMemory,
    /// Bytes of `.param` space.
    pub params: &'a [u8],
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Blocks of a cluster.
    pub cluster: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: u32,
    /// Number of the launch.
    pub id: u64,
    /// Address of what the blocks of a cooperative launch synchronise through; 0 without one.
    pub workspace: u64,
    /// What blocks know of each other, where they may hand values to each other.
    pub exchange: Option<Exchange>,
    /// The L2 cache, where its traffic is to be counted.
    pub l2: Option<L2>,
    /// Its part in a programmatic dependent launch.
    pub beside: Option<&'a Beside>,
    /// Whether some blocks run only.
    pub sampled: bool,
    /// Multiprocessors of the device.
    pub processors: u32,
    /// Instructions of a warp after which the kernel is stopped.
    pub instruction_limit: u64,
}

impl Grid<'_> {
    /// Threads of a block.
    pub fn threads(&self) -> u32 {
        self.block.iter().product()
    }

    /// Warps of a block.
    pub fn warps(&self) -> usize {
        self.threads().div_ceil(LANES as u32) as usize
    }

    /// Blocks of a cluster.
    pub fn cluster_blocks(&self) -> usize {
        self.cluster.iter().product::<u32>() as usize
    }

    /// Bytes of shared memory that a block may address, those it must not touch included.
    pub fn shared_end(&self) -> u32 {
        match self.dynamic_shared {
            0 => crate::decode::SHARED_BASE + self.program.static_shared,
            bytes => self.program.dynamic_shared_at + bytes,
        }
    }
}

/// Lanes of a warp that stand at the same instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// The instruction.
    pub pc: u32,
    /// The lanes.
    pub mask: u32,
    /// Waiting for other lanes to arrive at the same `.sync` instruction.
    pub parked: bool,
    /// Waiting for something outside the warp, until it runs again.
    pub asleep: bool,
}

impl Group {
    /// Lanes that can run.
    pub fn new(pc: u32, mask: u32) -> Self {
        Group { pc, mask, parked: false, asleep: false }
    }
}

/// What a warp is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Can run.
    Ready,
    /// Waits at a barrier of its block.
    Barrier,
    /// Waits at the barrier of its cluster.
    ClusterBarrier,
    /// Waits for a phase of the mbarrier of a block at an offset.
    Mbarrier(usize, u32),
    /// Waits for the end of the grids before.
    GridWait,
    /// Waits until its block has as many registers to give.
    Registers(u32),
    /// All lanes have exited.
    Done,
}

/// A warp.
pub struct Warp {
    /// Its number in the cluster.
    pub index: usize,
    /// Rank of its block in the cluster.
    pub block: usize,
    /// Its number in the block.
    pub in_block: usize,
    /// Registers.
    pub rows: Vec<Row>,
    /// Predicates.
    pub predicates: Vec<u32>,
    /// Room for the operands of a `mma`.
    pub fragments: [Row; FRAGMENT_ROWS],
    /// Where its lanes are; one group unless they diverged.
    pub groups: Vec<Group>,
    /// Lanes that have not exited.
    pub live: u32,
    /// Its clock.
    pub clock: WarpClock,
    /// What it is doing.
    pub state: State,
    /// Whether it only waited the last time it ran.
    pub spun: bool,
    /// Whether a `try_wait` is to give up.
    pub give_up: bool,
    /// Instructions executed.
    pub instructions: u64,
    /// Local memory, a stretch per lane.
    pub local: Vec<u8>,
    /// Copies under way.
    pub copies: CopyState,
    /// `wgmma`s under way.
    pub wgmma: WgmmaState,
    /// Loads under way, where they are to be counted.
    pub loads: Option<Box<LoadsInFlight>>,
    /// What the reducing barrier it waits at does with its result.
    pub barrier_reduction: Option<(BarrierKind, u32)>,
    /// Threads with a true predicate, and all that gave one, of the last barrier.
    pub barrier_result: (u32, u32),
    /// Phase of the cluster barrier it arrived at and has not waited for.
    pub cluster_arrival: Option<u64>,
    /// Lanes that have waited for the grids before.
    pub grid_waited: u32,
    /// Registers of each of its threads, where the kernel changes them.
    pub registers: Registers,
    /// What was ordered by the last fence, for a relaxed arrival.
    pub fenced: Option<Box<Clock>>,
    /// The same for other blocks.
    pub released: Option<Box<Knowledge>>,
    /// What other blocks have released where it read, which it may rely on after a fence.
    pub seen: Option<Box<Knowledge>>,
}

/// One of the sixteen barriers of a block.
#[derive(Clone, Debug, Default)]
pub struct NamedBarrier {
    /// Threads it waits for; 0 for all of the block; none if nobody has arrived.
    pub expected: Option<u32>,
    /// Threads that arrived.
    pub arrived: u32,
    /// Warps that wait, with what they do there.
    pub waiting: Vec<usize>,
    /// What those that arrived released.
    pub clock: Option<Clock>,
    /// Threads with a true predicate, for reductions.
    pub trues: u32,
    /// Threads that gave a predicate.
    pub voters: u32,
}

/// A `mbarrier` object.
#[derive(Clone, Debug)]
pub struct MbarrierObject {
    /// Arrivals of a phase.
    pub expected: u32,
    /// Arrivals that this phase still waits for.
    pub pending: u32,
    /// Bytes that this phase still waits for.
    pub bytes: i64,
    /// Number of phases that completed.
    pub phase: u64,
    /// What arrivals of this phase released.
    pub clock: Clock,
    /// What arrivals of completed phases released.
    pub completed: Clock,
}

/// A block.
pub struct Block {
    /// `%ctaid`
    pub id: [u32; 3],
    /// Shared memory.
    pub shared: Shared,
    /// Its barriers.
    pub barriers: [NamedBarrier; 16],
    /// Its mbarriers by offset.
    pub mbarriers: HashMap<u32, MbarrierObject>,
    /// Clocks of locations that threads synchronise through.
    pub locations: HashMap<u32, Clock>,
    /// Whether it has let dependent grids start.
    pub triggered: bool,
    /// Registers that its warps gave back.
    pub spare_registers: u32,
    /// Warps that have not exited.
    pub live_warps: usize,
}

/// The barrier of a cluster.
#[derive(Clone, Debug)]
pub struct ClusterBarrier {
    /// Warps that arrived in this phase.
    pub arrived: usize,
    /// Phases completed.
    pub phase: u64,
    /// What arrivals of this phase released.
    pub clock: Clock,
    /// What those of the last phase released.
    pub completed: Clock,
}

/// Blocks that run together.
pub struct Cluster {
    /// `%clusterid`
    pub id: [u32; 3],
    /// Its number in the grid.
    pub number: u32,
    /// Its blocks by rank.
    pub blocks: Vec<Block>,
    /// All warps; the running one is taken out.
    pub warps: Vec<Option<Box<Warp>>>,
    /// Asynchronous operations that nobody has waited for.
    pub pending: Vec<Pending>,
    /// The block whose operations among them are held up.
    pub held_up: usize,
    /// Warps that have waited for the grids before, and their epochs at the time.
    pub grid_waits: Vec<(usize, u32)>,
    /// The cluster's barrier.
    pub barrier: ClusterBarrier,
    /// Epoch of the next asynchronous copy.
    pub copy_epoch: u32,
    /// Random order.
    pub random: Random,
    /// Times that waits gave up in a row.
    pub stalls: u32,
    /// What its warps have learned of other clusters.
    pub lessons: Vec<Lesson>,
    /// What it counted.
    pub counters: Counters,
    /// Its accesses to global memory, where they are to be replayed.
    pub trace: Option<Trace>,
    /// Patterns of accesses to shared memory.
    pub patterns: Patterns,
    /// The allocation that was accessed last.
    pub allocation: Option<Arc<Allocation>>,
}

impl Cluster {
    /// The actor that asynchronous copies to a block count as.
    pub fn copy_actor(&self, block: usize) -> usize {
        self.warps.len() + block
    }

    /// Whether all warps have exited.
    pub fn done(&self) -> bool {
        self.blocks.iter().all(|block| block.live_warps == 0)
    }
}
