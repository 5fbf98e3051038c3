//! Clusters at their start.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::counters::Counters;
use crate::decode::program::Special;
use crate::exec::copies::CopyState;
use crate::exec::counting::Patterns;
use crate::exec::registers::Registers;
use crate::exec::tensor::{FRAGMENT_ROWS, WgmmaState};
use crate::memory::clock::{Clock, WarpClock};
use crate::memory::l2::Trace;
use crate::memory::shared::Shared;
use cuda_emulator_alu::row::{LANES, Row};

use super::random::Random;
use super::state::{Block, Cluster, ClusterBarrier, Grid, Group, State, Warp};

/// What a register holds that nothing has been written to: a NaN, so that it is not taken for a value.
const UNWRITTEN: Row = Row([0x7fde_ad00; LANES]);

/// Most that a nursery keeps: warps, and shared memories of blocks. The system takes longer to give such
/// memory than most launches of tests take.
const MOST_KEPT: [usize; 2] = [192, 16];

/// Those that no launch uses.
static NURSERIES: Mutex<Vec<Nursery>> = Mutex::new(Vec::new());

fn nurseries() -> MutexGuard<'static, Vec<Nursery>> {
    NURSERIES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory of a warp.
#[derive(Default)]
struct Spare {
    rows: Vec<Row>,
    predicates: Vec<u32>,
    local: Vec<u8>,
}

/// Makes clusters from what others left: registers and shared memory are large.
#[derive(Default)]
pub struct Nursery {
    spare: Vec<Spare>,
    shared: Vec<Shared>,
    patterns: Patterns,
    /// Epochs that all clusters so far have used.
    floor: u32,
}

impl Nursery {
    /// One that an earlier launch has left, or else a new one.
    pub fn take() -> Self {
        nurseries().pop().unwrap_or_default()
    }

    /// Leaves it to later launches.
    pub fn leave(mut self) {
        let [warps, shared] = MOST_KEPT;
        self.spare.truncate(warps);
        self.shared.drain(..self.shared.len().saturating_sub(shared));
        nurseries().push(self);
    }

    /// Cluster number `n` of a grid.
    pub fn start(&mut self, grid: &Grid, n: u64, seed: u64) -> Cluster {
        let counts: [u64; 3] = std::array::from_fn(|i| u64::from(grid.grid[i] / grid.cluster[i]));
        let id = [n % counts[0], n / counts[0] % counts[1], n / counts[0] / counts[1]].map(|i| i as u32);
        let ranks = grid.cluster_blocks();
        let warps = ranks * grid.warps();
        let actors = warps + ranks; // the last ones are the asynchronous copies to each block
        let floor = self.floor;
        let blocks = (0..ranks).map(|rank| self.block(grid, id, rank, actors, floor)).collect();
        let warps = (0..warps).map(|index| Some(self.warp(grid, id, index, actors, floor))).collect();
        let clock = Clock::new(actors, floor);
        Cluster {
            id,
            number: n as u32,
            blocks,
            warps,
            pending: Vec::new(),
            held_up: 0,
            grid_waits: Vec::new(),
            barrier: ClusterBarrier { arrived: 0, phase: 0, completed: clock.clone(), clock },
            copy_epoch: floor + 1,
            random: Random::new(seed, n),
            stalls: 0,
            lessons: Vec::new(),
            counters: Counters::default(),
            trace: grid.l2.is_some().then(Trace::default),
            patterns: std::mem::take(&mut self.patterns),
            allocation: None,
        }
    }

    /// Takes back what a cluster used.
    pub fn end(&mut self, cluster: Cluster) {
        self.floor = self.floor.max(cluster.copy_epoch);
        self.patterns = cluster.patterns;
        for warp in cluster.warps.into_iter().flatten() {
            self.floor = self.floor.max(warp.clock.epoch);
            let Warp { rows, predicates, local, .. } = *warp;
            self.spare.push(Spare { rows, predicates, local });
        }
        // Records of asynchronous operations that never ended would look unfinished for ever: start afresh,
        // as when epochs run out.
        if self.floor > u32::MAX / 2 {
            self.floor = 0;
            self.shared.clear();
        } else {
            self.shared.extend(cluster.blocks.into_iter().map(|block| block.shared));
        }
    }

    fn block(&mut self, grid: &Grid, cluster: [u32; 3], rank: usize, actors: usize, floor: u32) -> Block {
        let (end, granule) = (grid.shared_end(), grid.program.shared_granule);
        let same = self.shared.iter().rposition(|shared| shared.is_of(end, granule, actors));
        let mut shared = match same {
            Some(place) => self.shared.swap_remove(place),
            None => Shared::new(end, granule, actors),
        };
        shared.restart(floor);
        let place = place(grid, rank);
        Block {
            id: std::array::from_fn(|i| cluster[i] * grid.cluster[i] + place[i]),
            shared,
            barriers: Default::default(),
            mbarriers: HashMap::new(),
            locations: HashMap::new(),
            triggered: false,
            spare_registers: 0,
            live_warps: grid.warps(),
        }
    }

    fn warp(&mut self, grid: &Grid, cluster: [u32; 3], index: usize, actors: usize, floor: u32) -> Box<Warp> {
        let program = grid.program;
        let (block, in_block) = (index / grid.warps(), index % grid.warps());
        let Spare { rows, predicates, local } = self.spare.pop().unwrap_or_default();
        let threads = grid.threads() as usize - in_block * LANES;
        let live = u32::MAX >> (LANES - threads.min(LANES));
        let mut warp = Box::new(Warp {
            index,
            block,
            in_block,
            rows,
            predicates,
            fragments: [Row::ZERO; FRAGMENT_ROWS],
            groups: vec![Group::new(0, live)],
            live,
            clock: WarpClock::new(index, grid.cluster_blocks() * grid.warps(), actors, floor),
            state: State::Ready,
            spun: false,
            give_up: false,
            instructions: 0,
            local,
            copies: CopyState::default(),
            wgmma: WgmmaState::default(),
            loads: grid.l2.is_some().then(Box::default),
            barrier_reduction: None,
            barrier_result: (0, 0),
            cluster_arrival: None,
            grid_waited: 0,
            registers: Registers::new(program.registers.unwrap_or(0)),
            fenced: None,
            released: None,
            seen: None,
        });
        warp.rows.resize(program.template.len(), UNWRITTEN);
        for rows in &program.initial {
            warp.rows[rows.clone()].copy_from_slice(&program.template[rows.clone()]);
        }
        warp.predicates.clear();
        warp.predicates.extend_from_slice(&program.predicates);
        warp.local.clear();
        warp.local.resize(program.local as usize * LANES, 0);
        specials(grid, cluster, &mut warp);
        warp
    }
}

/// Coordinates of a block in its cluster.
fn place(grid: &Grid, rank: usize) -> [u32; 3] {
    let [x, y, _] = grid.cluster;
    let rank = rank as u32;
    [rank % x, rank / x % y, rank / x / y]
}

/// Fills the rows of special registers.
fn specials(grid: &Grid, cluster: [u32; 3], warp: &mut Warp) {
    for &(row, special) in &grid.program.specials {
        for lane in 0..LANES {
            let value = special_value(grid, cluster, warp, special, lane);
            if special == Special::GridId {
                // 64 bits, the high half zero: see `Row`.
                let at = 2 * lane;
                warp.rows[row as usize + at / LANES].0[at % LANES] = value;
            } else {
                warp.rows[row as usize].0[lane] = value;
            }
        }
    }
}

fn special_value(grid: &Grid, cluster: [u32; 3], warp: &Warp, special: Special, lane: usize) -> u32 {
    let thread = (warp.in_block * LANES + lane) as u32;
    let [bx, by, _] = grid.block;
    let in_cluster = place(grid, warp.block);
    let bit = 1u32 << lane;
    match special {
        Special::Tid(i) => [thread % bx, thread / bx % by, thread / bx / by][usize::from(i)],
        Special::Ntid(i) => grid.block[usize::from(i)],
        Special::Ctaid(i) => {
            cluster[usize::from(i)] * grid.cluster[usize::from(i)] + in_cluster[usize::from(i)]
        }
        Special::Nctaid(i) => grid.grid[usize::from(i)],
        Special::ClusterId(i) => cluster[usize::from(i)],
        Special::NclusterId(i) => grid.grid[usize::from(i)] / grid.cluster[usize::from(i)],
        Special::ClusterCtaid(i) => in_cluster[usize::from(i)],
        Special::ClusterNctaid(i) => grid.cluster[usize::from(i)],
        Special::ClusterCtarank => warp.block as u32,
        Special::ClusterNctarank => grid.cluster_blocks() as u32,
        Special::LaneId => lane as u32,
        Special::WarpId => warp.in_block as u32,
        Special::NwarpId => grid.warps() as u32,
        Special::SmId => block_number(grid, cluster, in_cluster) % grid.processors,
        Special::NsmId => grid.processors,
        Special::GridId => grid.id as u32,
        Special::LanemaskEq => bit,
        Special::LanemaskLt => bit - 1,
        Special::LanemaskLe => bit | (bit - 1),
        Special::LanemaskGt => !(bit | (bit - 1)),
        Special::LanemaskGe => !(bit - 1),
        Special::Workspace(high) => (grid.workspace >> if high { 32 } else { 0 }) as u32,
        Special::DynamicShared => grid.dynamic_shared,
        Special::TotalShared => grid.shared_end() - crate::decode::SHARED_BASE,
    }
}

fn block_number(grid: &Grid, cluster: [u32; 3], in_cluster: [u32; 3]) -> u32 {
    let at: [u32; 3] = std::array::from_fn(|i| cluster[i] * grid.cluster[i] + in_cluster[i]);
    at[0] + grid.grid[0] * (at[1] + grid.grid[1] * at[2])
}
