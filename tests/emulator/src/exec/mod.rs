//! Instructions of a warp.

mod atomics;
mod barriers;
pub mod bulk;
pub mod copies;
pub mod counting;
mod dependents;
mod exchange;
mod global;
pub mod in_flight;
mod mbarriers;
mod memory;
mod moves;
mod print;
pub mod registers;
pub mod remote_store;
mod shared;
pub mod tensor;
mod warp;

use crate::decode::program::{NONE, Op};
use crate::report::{Fault, FaultKind};
use crate::schedule::state::{Cluster, Grid, Group, State, Warp};
use cuda_emulator_alu::row::{AluArgs, AluFn, LANES};

type Result<T> = std::result::Result<T, Box<Fault>>;

/// Why a warp stopped running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It waits for something.
    Blocked,
    /// It only waited, in a loop.
    Spun,
    /// Its time is over.
    Sliced,
    /// All lanes have exited.
    Done,
}

/// What an instruction does to the flow of control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// On to the next instruction.
    Next,
    /// The lanes' places were changed.
    Moved,
    /// The warp waits and will go on with the next instruction.
    Wait(State),
    /// The warp waits and will execute this instruction again.
    Retry(State),
    /// On to the next instruction, but others should run first.
    Yield,
}

/// Polls of memory by a warp before others run.
const PATIENCE: u32 = 32;

/// A warp and what surrounds it.
pub struct Exec<'a> {
    /// The launch.
    pub grid: &'a Grid<'a>,
    /// Its cluster.
    pub cluster: &'a mut Cluster,
    /// The warp.
    pub warp: &'a mut Warp,
    patience: u32,
    /// The current instruction.
    pc: u32,
}

/// The lanes of a mask.
#[inline(always)]
pub(crate) fn lanes(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        if mask == 0 {
            return None;
        }
        let lane = mask.trailing_zeros() as usize;
        mask &= mask - 1;
        Some(lane)
    })
}

/// Whether lanes that have exited, or never were, make the result undefined.
fn needs_full_warp(op: &Op) -> bool {
    let moves = matches!(op, Op::LoadMatrix(_) | Op::StoreMatrix(_) | Op::MoveMatrix { .. });
    moves || matches!(op, Op::Mma(_) | Op::Wgmma(_))
}

/// Whether the lanes of a warp may come to a barrier one after another.
fn is_unaligned(op: &Op) -> bool {
    match op {
        Op::Barrier(barrier) => !barrier.aligned,
        Op::ClusterArrive { aligned, .. } | Op::ClusterWait { aligned } => !aligned,
        _ => false,
    }
}

impl<'a> Exec<'a> {
    /// Prepares to run a warp.
    pub fn new(grid: &'a Grid<'a>, cluster: &'a mut Cluster, warp: &'a mut Warp) -> Self {
        Exec { grid, cluster, warp, patience: PATIENCE, pc: 0 }
    }

    /// Runs up to `budget` instructions.
    ///
    /// # Errors
    /// A fault, with its place.
    pub fn run(&mut self, budget: u64) -> Result<Stop> {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2") {
            // SAFETY: the features were just detected.
            return unsafe { self.run_wide(budget) };
        }
        self.run_any(budget)
    }

    /// The same, with loops over lanes in wide registers.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    fn run_wide(&mut self, budget: u64) -> Result<Stop> {
        self.run_any(budget)
    }

    #[inline(always)]
    fn run_any(&mut self, budget: u64) -> Result<Stop> {
        self.warp.groups.iter_mut().for_each(|group| group.asleep = false);
        let end = (self.warp.instructions + budget).min(self.grid.instruction_limit);
        while self.warp.instructions < end {
            let current = self.current()?;
            let flow = self.step(current).map_err(|fault| self.locate(fault, current))?;
            match flow {
                Flow::Next => self.advance(current, self.warp.groups[current].pc + 1),
                Flow::Moved if self.warp.live == 0 => {
                    self.exited().map_err(|fault| self.locate(fault, current))?;
                    return Ok(Stop::Done);
                }
                Flow::Moved if self.all_wait() => return Ok(Stop::Spun),
                Flow::Moved => {}
                Flow::Yield => {
                    self.warp.groups[current].asleep = true;
                    self.advance(current, self.warp.groups[current].pc + 1);
                    if !self.others_awake() {
                        return Ok(Stop::Spun);
                    }
                }
                Flow::Wait(state) => {
                    self.advance(current, self.warp.groups[current].pc + 1);
                    self.warp.state = state;
                    return Ok(Stop::Blocked);
                }
                Flow::Retry(state) => {
                    self.warp.groups[current].asleep = true;
                    if !self.others_awake() {
                        self.warp.state = state;
                        return Ok(Stop::Blocked);
                    }
                }
            }
        }
        if end == self.grid.instruction_limit {
            let message = format!("expected an end within {end} instructions of a warp");
            return Err(self.locate(Fault::new(FaultKind::Timeout, message), self.current()?));
        }
        Ok(Stop::Sliced)
    }

    /// The group to run: of those that can, the one with the lowest place.
    #[inline(always)]
    fn current(&self) -> Result<usize> {
        if self.warp.groups.len() == 1 && !self.warp.groups[0].parked {
            return Ok(0);
        }
        self.lowest_group()
    }

    /// Whether lanes elsewhere in the warp can run while a group waits.
    fn others_awake(&self) -> bool {
        self.warp.groups.iter().any(|g| !g.parked && !g.asleep)
    }

    /// Whether no lane can run before something outside the warp happens: some wait for that, the others for
    /// those.
    #[inline(always)]
    fn all_wait(&self) -> bool {
        let groups = &self.warp.groups;
        groups.len() > 1 && !self.others_awake() && groups.iter().any(|g| g.asleep)
    }

    #[cold]
    fn lowest_group(&self) -> Result<usize> {
        let groups = self.warp.groups.iter().enumerate().filter(|(_, g)| !g.parked && !g.asleep);
        if let Some((i, _)) = groups.min_by_key(|(_, g)| g.pc) {
            return Ok(i);
        }
        let places: Vec<String> = self
            .warp
            .groups
            .iter()
            .map(|g| {
                format!(
                    "lanes {:#010x} at PTX line {}",
                    g.mask, self.grid.program.sites[g.pc as usize].ptx_line
                )
            })
            .collect();
        let message = format!("lanes wait for each other at different places: {}", places.join(", "));
        Err(self.locate(Fault::new(FaultKind::NotConverged, message), 0))
    }

    /// Moves a group on, and merges it with one that is there already.
    #[inline(always)]
    fn advance(&mut self, group: usize, pc: u32) {
        self.warp.groups[group].pc = pc;
        if self.warp.groups.len() > 1 {
            self.merge(group);
        }
    }

    #[cold]
    fn merge(&mut self, group: usize) {
        let Group { pc, mask, .. } = self.warp.groups[group];
        if let Some(other) = (0..self.warp.groups.len()).find(|&i| i != group && self.warp.groups[i].pc == pc)
        {
            let asleep = self.warp.groups[group].asleep && self.warp.groups[other].asleep;
            self.warp.groups[other] = Group { asleep, ..Group::new(pc, self.warp.groups[other].mask | mask) };
            self.warp.groups.swap_remove(group);
        }
    }

    /// Executes one instruction of a group.
    #[inline(always)]
    fn step(&mut self, current: usize) -> Result<Flow> {
        let Group { pc, mask, .. } = self.warp.groups[current];
        let instruction = &self.grid.program.instructions[pc as usize];
        self.warp.instructions += 1;
        self.cluster.counters.instructions[instruction.class as usize] += 1;
        let active = match instruction.guard {
            NONE => mask,
            guard => mask & (self.warp.predicates[guard as usize] ^ instruction.guard_xor),
        };
        if instruction.touches_wgmma && active != 0 && self.must_wait_for_wgmma(instruction, pc, active)? {
            return Ok(Flow::Next);
        }
        if instruction.touches_loaded && self.warp.loads.is_some() {
            self.await_loads(instruction);
        }
        if let Op::Alu(run, args) = &instruction.op {
            self.compute(*run, args, active);
            return Ok(Flow::Next);
        }
        self.pc = pc;
        self.operation(&instruction.op, current, active)
    }

    #[inline(always)]
    fn compute(&mut self, run: AluFn, args: &AluArgs, active: u32) {
        // SAFETY: the decoder took every index from this program's register file, whose size the warp's has.
        unsafe { run(self.warp.rows.as_mut_ptr(), self.warp.predicates.as_mut_ptr(), args, active) };
    }

    #[inline(always)]
    fn operation(&mut self, op: &'a Op, current: usize, active: u32) -> Result<Flow> {
        match op {
            Op::Branch(target) => return Ok(self.branch(current, active, *target)),
            Op::Exit => return self.exit(current, active),
            Op::BranchIndexed { index, targets } => {
                return self.branch_indexed(current, active, *index, targets);
            }
            _ if active == 0 => return Ok(Flow::Next),
            Op::Load(access) => return self.load(access, active),
            Op::Store(access) => self.store(access, active)?,
            Op::StoreAsync(store) => self.store_async(store, active)?,
            Op::Atomic(atomic) => return self.atomic(atomic, active),
            Op::Prefetch(address) => self.prefetch(address, active)?,
            Op::Pack { dst, src, part } => self.pack(*dst, src, *part, active),
            Op::Unpack { dst, src, part } => self.unpack(dst, *src, *part, active),
            Op::Cvta { dst, src, space, to_generic } => self.cvta(*dst, *src, *space, *to_generic, active)?,
            Op::IsSpace { dst, src, space, own_only } => self.is_space(*dst, *src, *space, *own_only, active),
            Op::Mapa { dst, src, rank, generic } => self.mapa(*dst, *src, *rank, *generic, active)?,
            Op::CtaRank { dst, src } => self.cta_rank(*dst, *src, active),
            Op::Clock { dst } => self.clock(*dst, active),
            Op::ActiveMask { dst } => self.broadcast(*dst, active, active),
            Op::Trap(what) => {
                return Err(self.lane_fault(FaultKind::Trap, *what, active.trailing_zeros() as usize));
            }
            Op::Printf { format, values } => self.printf(*format, *values, active)?,
            Op::Assert { message, file, line } => {
                return Err(self.assert_failed(*message, *file, *line, active));
            }
            Op::Nop => {}
            Op::Yield => return Ok(Flow::Yield),
            Op::Shuffle(shuffle) => return self.shuffle(shuffle, current, active),
            Op::Collective(collective) => return self.collective(collective, current, active),
            Op::BarWarp { members } => return self.warp_barrier(*members, current, active),
            Op::Fence(fence) => self.fence(*fence),
            Op::GridWait => return Ok(self.grid_wait(active)),
            Op::LaunchDependents => return Ok(self.launch_dependents(active)),
            Op::Mbarrier(mbarrier) => return self.mbarrier(mbarrier, active),
            Op::CpAsync(copy) => self.cp_async(copy, active)?,
            Op::CpCommit => self.cp_commit(active),
            Op::CpWaitAll => self.cp_wait_all(active)?,
            Op::CpWait(groups) => self.cp_wait(*groups, active)?,
            Op::CpArrive { address, noinc } => self.cp_arrive(address, *noinc, active)?,
            Op::Bulk(bulk) => self.bulk(bulk, active)?,
            Op::BulkCommit => self.bulk_commit(active),
            Op::BulkWait { groups, read } => self.bulk_wait(*groups, *read, active)?,
            Op::TensorMapReplace(replace) => self.tensor_map_replace(replace, active)?,
            Op::TensorMapCopy { to, from } => self.tensor_map_copy(to, from, active)?,
            Op::Alu(..) => {}
            _ if is_unaligned(op) => {
                if !self.converge(u32::MAX, current, active)? {
                    return Ok(Flow::Moved);
                }
                return self.aligned_operation(op, active);
            }
            // The rest is `.aligned`: all lanes of the warp take part.
            _ => {
                if active != self.warp.live {
                    return self.gather(current, active);
                }
                return self.aligned_operation(op, active);
            }
        }
        Ok(Flow::Next)
    }

    #[inline(always)]
    fn aligned_operation(&mut self, op: &'a Op, active: u32) -> Result<Flow> {
        match op {
            Op::Barrier(barrier) => return self.barrier(barrier, active),
            Op::ClusterArrive { relaxed, .. } => self.cluster_arrive(*relaxed)?,
            Op::ClusterWait { .. } => return self.cluster_wait(),
            Op::SetRegisters { each, more } => {
                self.pc = self.warp.groups[0].pc;
                return self.set_registers(*each, *more);
            }
            _ if active != u32::MAX && needs_full_warp(op) => {
                let message = format!("expected all 32 lanes of a warp, found {active:#010x}");
                return Err(Fault::new(FaultKind::NotConverged, message));
            }
            Op::LoadMatrix(access) => self.load_matrix(access)?,
            Op::StoreMatrix(access) => self.store_matrix(access)?,
            Op::MoveMatrix { dst, src } => self.move_matrix(*dst, *src),
            Op::Mma(mma) => self.mma(mma),
            Op::Wgmma(wgmma) => self.wgmma(wgmma)?,
            Op::WgmmaFence => self.wgmma_fence(),
            Op::WgmmaCommit => self.wgmma_commit(),
            Op::WgmmaWait(groups) => self.wgmma_wait(*groups)?,
            _ => return Err(Fault::new(FaultKind::Unsupported, "an operation without an implementation")),
        }
        Ok(Flow::Next)
    }

    /// Lanes that come to an `.aligned` instruction before others of their warp wait for them where these are
    /// busy waiting for something else, as one lane does for all: `if (lane == 0) while (!ready);
    /// __syncthreads();`.
    #[cold]
    fn gather(&mut self, current: usize, active: u32) -> Result<Flow> {
        let whole_group = active == self.warp.groups[current].mask;
        if whole_group && self.warp.groups.iter().any(|g| g.asleep) {
            self.warp.groups[current].parked = true;
            return Ok(Flow::Moved);
        }
        let message = format!(
            "expected all lanes of the warp ({:#010x}) at an .aligned instruction, found {active:#010x}",
            self.warp.live
        );
        Err(Fault::new(FaultKind::NotConverged, message))
    }

    /// `.sync` with a member mask: parks the group until all members are here.
    ///
    /// Returns whether to go on.
    fn converge(&mut self, members: u32, current: usize, active: u32) -> Result<bool> {
        let strangers = active & !members;
        if strangers != 0 {
            let message =
                format!("lanes {strangers:#010x} execute it but are not in its member mask {members:#010x}");
            return Err(Fault::new(FaultKind::NotConverged, message));
        }
        if members & !self.warp.live != 0 && members != u32::MAX {
            let message = format!("lanes {:#010x} of its member mask have exited", members & !self.warp.live);
            return Err(Fault::new(FaultKind::NotConverged, message));
        }
        if members & self.warp.live & !active == 0 {
            return Ok(true);
        }
        self.warp.groups[current].parked = true;
        Ok(false)
    }

    fn branch(&mut self, current: usize, taken: u32, target: u32) -> Flow {
        let Group { pc, mask, .. } = self.warp.groups[current];
        if taken == mask {
            self.advance(current, target);
        } else if taken == 0 {
            self.advance(current, pc + 1);
        } else {
            self.split(current, &[(target, taken), (pc + 1, mask & !taken)]);
        }
        Flow::Moved
    }

    /// Puts lanes of a group to different places.
    #[cold]
    fn split(&mut self, current: usize, parts: &[(u32, u32)]) {
        self.warp.groups.swap_remove(current);
        for &(pc, mask) in parts {
            match self.warp.groups.iter_mut().find(|g| g.pc == pc) {
                Some(group) => *group = Group::new(pc, group.mask | mask),
                None => self.warp.groups.push(Group::new(pc, mask)),
            }
        }
    }

    fn branch_indexed(&mut self, current: usize, active: u32, index: u32, targets: &[u32]) -> Result<Flow> {
        let Group { pc, mask, .. } = self.warp.groups[current];
        let mut parts: Vec<(u32, u32)> = Vec::new();
        let stay = mask & !active;
        if stay != 0 {
            parts.push((pc + 1, stay));
        }
        for lane in lanes(active) {
            let n = self.warp.rows[index as usize].0[lane] as usize;
            let Some(&target) = targets.get(n) else {
                let message = format!("branch index {n} of {} targets", targets.len());
                return Err(self.lane_fault(FaultKind::Trap, message, lane));
            };
            match parts.iter_mut().find(|(pc, _)| *pc == target) {
                Some((_, mask)) => *mask |= 1 << lane,
                None => parts.push((target, 1 << lane)),
            }
        }
        self.split(current, &parts);
        Ok(Flow::Moved)
    }

    fn exit(&mut self, current: usize, active: u32) -> Result<Flow> {
        let Group { pc, mask, .. } = self.warp.groups[current];
        self.warp.live &= !active;
        if self.warp.live == 0 {
            // The last group stays: a fault on exit happens here.
        } else if mask == active {
            self.warp.groups.swap_remove(current);
        } else {
            self.warp.groups[current].mask = mask & !active;
            self.advance(current, pc + 1);
        }
        // Others may have waited only for those that are gone.
        self.warp.groups.iter_mut().for_each(|g| g.parked = false);
        Ok(Flow::Moved)
    }

    /// A fault that one lane is to blame for.
    fn lane_fault(&self, kind: FaultKind, message: impl Into<String>, lane: usize) -> Box<Fault> {
        self.blame(Fault::new(kind, message), lane)
    }

    /// The fault, blamed on a lane.
    fn blame(&self, mut fault: Box<Fault>, lane: usize) -> Box<Fault> {
        let thread = (self.warp.in_block * LANES + lane) as u32;
        let [x, y, _] = self.grid.block;
        fault.thread = Some([thread % x, thread / x % y, thread / x / y]);
        fault
    }

    /// Fills in where a fault happened.
    #[cold]
    fn locate(&self, mut fault: Box<Fault>, group: usize) -> Box<Fault> {
        let program = self.grid.program;
        fault.kernel.clone_from(&program.name);
        fault.block = self.cluster.blocks[self.warp.block].id;
        if let Some(group) = self.warp.groups.get(group) {
            let site = program.sites[group.pc as usize];
            fault.ptx_line = site.ptx_line;
            fault.instruction = program.text(site.ptx_line).to_owned();
            fault.source = site.source.map(|(file, line)| {
                (program.files.get(&file).cloned().unwrap_or_else(|| format!("file {file}")), line)
            });
        }
        fault
    }
}
