//! Blocks, warps and the order they run in.
//!
//! Clusters are dealt to threads in the order of their numbers. Within a cluster one warp runs at a time: a
//! random one, until it blocks, only waits in a loop, or has had its slice. Asynchronous operations complete
//! when no warp can move.

pub mod beside;
mod create;
pub mod random;
pub mod state;

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::counters::Counters;
use crate::exec::{Exec, Stop};
use crate::report::{Fault, FaultKind};

use create::Nursery;
use random::Random;
use state::{Cluster, Grid, State, Warp};

type Result<T> = std::result::Result<T, Box<Fault>>;

/// Instructions that a warp runs before another gets its turn.
const SLICE: u64 = 4096;
/// Times that waits may give up without anybody getting further before that is a deadlock.
const STALLS: u32 = 256;
/// Asynchronous operations, on average, after which those to another block of a cluster are held up.
const HOLDS: usize = 8;
/// Times, for each of the clusters that are there together, that all may only wait in loops before that is a
/// deadlock.
const IDLE: u64 = 1 << 12;

/// How a launch is run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Seed of every random order.
    pub seed: u64,
    /// Threads.
    pub threads: usize,
    /// Whether all blocks are there from the start.
    pub cooperative: bool,
    /// Whether another grid runs at the same time, on the same thread.
    pub beside: bool,
    /// Clusters that run; where there are more, at equal distances, or of a cooperative grid the first.
    pub most_clusters: u64,
}

/// Runs all blocks of a grid.
///
/// # Errors
/// The first fault.
pub fn run(grid: &Grid, plan: Plan) -> Result<Counters> {
    let launch = Launch::new(grid, plan);
    let threads = plan.threads.clamp(1, usize::try_from(launch.clusters).unwrap_or(usize::MAX).max(1));
    let outcome = Mutex::new((Counters::default(), None));
    let work = |thread| {
        let mut worker = Worker::new(&launch, thread);
        let result = worker.run();
        let mut outcome = outcome.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        outcome.0 += &worker.counters;
        if let Err(fault) = result {
            launch.stop.store(true, Ordering::Relaxed);
            outcome.1.get_or_insert(fault);
        }
    };
    if threads == 1 {
        work(0);
    } else {
        std::thread::scope(|scope| (0..threads).for_each(|thread| drop(scope.spawn(move || work(thread)))));
    }
    let (counters, fault) = outcome.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    fault.map_or_else(|| Ok(launch.complete(counters)), Err)
}

/// What the threads of a launch share.
struct Launch<'a> {
    grid: &'a Grid<'a>,
    plan: Plan,
    /// Clusters of the grid, and those of them that run.
    all: u64,
    clusters: u64,
    next: AtomicU64,
    stop: AtomicBool,
}

impl<'a> Launch<'a> {
    fn new(grid: &'a Grid<'a>, plan: Plan) -> Self {
        let all: u64 = grid.grid.iter().zip(grid.cluster).map(|(g, c)| u64::from(g / c)).product();
        let clusters = all.min(plan.most_clusters);
        Launch { grid, plan, all, clusters, next: AtomicU64::new(0), stop: AtomicBool::new(false) }
    }

    /// What was counted, once all clusters have ended.
    fn complete(&self, mut counters: Counters) -> Counters {
        counters.launches = 1;
        if let Some(l2) = &self.grid.l2 {
            l2.add_to(&mut counters);
        }
        counters
    }

    /// Whether there are clusters that have not started.
    fn has_more(&self) -> bool {
        self.next.load(Ordering::Relaxed) < self.clusters
    }

    /// The number of the next cluster to start.
    fn deal(&self) -> Option<u64> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        // Of each of as many equal parts of the grid the middle; but one alone is the first, which has the
        // most to do where clusters stay for several tiles.
        match self.clusters {
            1 => (n == 0).then_some(0),
            clusters => (n < clusters).then(|| (2 * n + 1) * self.all / (2 * clusters)),
        }
    }
}

/// A thread that runs clusters.
struct Worker<'a> {
    launch: &'a Launch<'a>,
    thread: usize,
    nursery: Nursery,
    resident: VecDeque<Cluster>,
    counters: Counters,
    /// Which of the clusters that are there together has its turn.
    random: Random,
    /// Times since a warp did more than wait in a loop that a cluster had nothing but such warps.
    idle: u64,
    /// Clusters in a row that only waited.
    waiting: usize,
}

/// What became of a worker's turn.
#[derive(PartialEq, Eq)]
enum Turn {
    /// A cluster has run.
    Ran,
    /// No cluster is left.
    Nothing,
}

/// How far a cluster got.
#[derive(PartialEq, Eq)]
enum Progress {
    /// All warps have exited.
    Done,
    /// Warps only wait in loops, for somebody else.
    Waiting,
    /// Another cluster shall have its turn.
    Paused,
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        std::mem::take(&mut self.nursery).leave();
    }
}

impl<'a> Worker<'a> {
    fn new(launch: &'a Launch<'a>, thread: usize) -> Self {
        Worker {
            launch,
            thread,
            nursery: Nursery::take(),
            resident: VecDeque::new(),
            counters: Counters::default(),
            random: Random::new(launch.plan.seed, launch.clusters + thread as u64),
            idle: 0,
            waiting: 0,
        }
    }

    /// What its clusters did, all of which have ended.
    fn finish(mut self) -> Counters {
        self.launch.complete(std::mem::take(&mut self.counters))
    }

    fn run(&mut self) -> Result<()> {
        if self.launch.plan.cooperative {
            // All of this thread's share at once, so that every block runs while others wait for it.
            let threads = self.launch.plan.threads.max(1) as u64;
            let share = (self.thread as u64..self.launch.clusters).step_by(threads as usize);
            for n in share {
                self.admit(n);
            }
        }
        while self.turn()? == Turn::Ran {}
        Ok(())
    }

    /// Lets one cluster run until it is done, or another shall have its turn.
    fn turn(&mut self) -> Result<Turn> {
        if self.launch.stop.load(Ordering::Relaxed) || self.resident.is_empty() && !self.admit_next() {
            return Ok(Turn::Nothing);
        }
        if self.launch.plan.cooperative {
            // Whose turn it is must not matter.
            let next = self.random.below(self.resident.len());
            self.resident.swap(0, next);
        }
        if self.launch.plan.beside {
            self.choose_beside();
        }
        let Some(mut cluster) = self.resident.pop_front() else { return Ok(Turn::Nothing) };
        let progress = self.advance(&mut cluster)?;
        self.waiting = if progress == Progress::Waiting { self.waiting + 1 } else { 0 };
        if progress == Progress::Done {
            self.retire(cluster);
            return Ok(Turn::Ran);
        }
        if progress == Progress::Waiting {
            self.idle += 1;
            if self.is_hopeless() {
                return Err(deadlock(self.launch, &cluster));
            }
        }
        self.resident.push_back(cluster);
        if self.waiting >= self.resident.len() {
            self.waiting = 0;
            // For other threads of the launch: on a busy machine, this takes a while.
            if self.launch.plan.threads > 1 {
                std::thread::yield_now();
            }
        }
        Ok(Turn::Ran)
    }

    /// Whether all that could end the waiting wait themselves.
    fn is_hopeless(&self) -> bool {
        self.launch.plan.threads == 1 && self.idle >= IDLE * (self.resident.len() as u64 + 1)
    }

    fn admit_next(&mut self) -> bool {
        if self.launch.plan.cooperative {
            return false;
        }
        match self.launch.deal() {
            Some(n) => {
                self.admit(n);
                true
            }
            None => false,
        }
    }

    /// Starts a cluster; it runs next.
    fn admit(&mut self, n: u64) {
        let cluster = self.nursery.start(self.launch.grid, n, self.launch.plan.seed);
        self.resident.push_front(cluster);
    }

    fn retire(&mut self, mut cluster: Cluster) {
        if let (Some(l2), Some(trace)) = (&self.launch.grid.l2, cluster.trace.take()) {
            let in_sample = match self.launch.plan.cooperative {
                true => cluster.number.into(),
                false => u64::from(cluster.number) * self.launch.clusters / self.launch.all,
            };
            l2.submit(in_sample, trace);
        }
        self.counters += &cluster.counters;
        self.counters.blocks += cluster.blocks.len() as u64;
        self.nursery.end(cluster);
    }

    /// Runs a cluster until it is done or only waits.
    fn advance(&mut self, cluster: &mut Cluster) -> Result<Progress> {
        let grid = self.launch.grid;
        while !self.launch.stop.load(Ordering::Relaxed) {
            let Some(index) = pick(cluster) else {
                if cluster.done() {
                    return self.drain(cluster);
                }
                if self.complete_one(cluster)? || give_up_one(cluster) {
                    continue;
                }
                if beside::waits_for_primary(cluster) {
                    return Ok(Progress::Waiting);
                }
                if spinning(cluster) {
                    cluster.warps.iter_mut().flatten().for_each(|warp| warp.spun = false);
                    return Ok(Progress::Waiting);
                }
                return Err(deadlock(self.launch, cluster));
            };
            let Some(mut warp) = cluster.warps[index].take() else { continue };
            let before = written(cluster);
            let stop = Exec::new(grid, cluster, &mut warp).run(SLICE)?;
            if stop != Stop::Spun || written(cluster) != before {
                self.idle = 0;
            }
            warp.spun = stop == Stop::Spun;
            cluster.warps[index] = Some(warp);
            // Blocks that hand values to each other must not rely on how far another got.
            if (self.launch.plan.cooperative || self.launch.plan.beside) && cluster.random.below(4) == 0 {
                return Ok(Progress::Paused);
            }
        }
        Ok(Progress::Done)
    }

    /// Completes a random asynchronous operation; whether there was one.
    fn complete_one(&self, cluster: &mut Cluster) -> Result<bool> {
        if cluster.pending.is_empty() {
            return Ok(false);
        }
        let n = arrives_next(cluster);
        cluster.complete_pending(self.launch.grid.memory, n)?;
        cluster.warps.iter_mut().flatten().for_each(|warp| warp.spun = false);
        Ok(true)
    }

    /// Copies that nobody waited for still happen.
    fn drain(&self, cluster: &mut Cluster) -> Result<Progress> {
        while self.complete_one(cluster)? {}
        Ok(Progress::Done)
    }
}

/// The asynchronous operation to be completed next. Blocks of a cluster get what was sent to all of them at
/// different times: what goes to one of them, by chance, waits until nothing else is left.
fn arrives_next(cluster: &mut Cluster) -> usize {
    let Cluster { pending, blocks, held_up, random, .. } = cluster;
    if blocks.len() > 1 {
        if random.below(HOLDS) == 0 {
            *held_up = random.below(blocks.len());
        }
        let others: Vec<usize> = (0..pending.len()).filter(|&n| pending[n].block() != *held_up).collect();
        if !others.is_empty() {
            return others[random.below(others.len())];
        }
    }
    random.below(pending.len())
}

/// A random warp that can get further.
fn pick(cluster: &mut Cluster) -> Option<usize> {
    let can_run = |warp: &Warp| warp.state == State::Ready && !warp.spun;
    let count = cluster.warps.iter().flatten().filter(|warp| can_run(warp)).count();
    if count == 0 {
        return None;
    }
    let n = cluster.random.below(count);
    cluster.warps.iter().flatten().filter(|warp| can_run(warp)).nth(n).map(|warp| warp.index)
}

/// What others may see of a cluster.
fn written(cluster: &Cluster) -> u64 {
    cluster.counters.global_store_requests + cluster.counters.global_atomics
}

fn spinning(cluster: &Cluster) -> bool {
    cluster.warps.iter().flatten().any(|warp| warp.state == State::Ready)
}

/// Lets one `try_wait` return without success, as it may after a time; whether one did.
fn give_up_one(cluster: &mut Cluster) -> bool {
    if spinning(cluster) || cluster.stalls >= STALLS {
        return false;
    }
    let waits = |warp: &Warp| matches!(warp.state, State::Mbarrier(..));
    let waiting: Vec<usize> = cluster.warps.iter().flatten().filter(|w| waits(w)).map(|w| w.index).collect();
    if waiting.is_empty() {
        return false;
    }
    cluster.stalls += 1;
    let n = waiting[cluster.random.below(waiting.len())];
    if let Some(warp) = &mut cluster.warps[n] {
        warp.give_up = true;
        warp.state = State::Ready;
    }
    true
}

fn deadlock(launch: &Launch, cluster: &Cluster) -> Box<Fault> {
    let program = launch.grid.program;
    let mut places: Vec<String> = Vec::new();
    let mut first = None;
    for warp in cluster.warps.iter().flatten().filter(|warp| warp.state != State::Done) {
        // A warp at a barrier stands behind it.
        let behind = u32::from(warp.state == State::Barrier);
        let pc = warp.groups.first().map_or(0, |group| group.pc.saturating_sub(behind));
        let line = program.sites[pc as usize].ptx_line;
        first.get_or_insert((pc, warp.block));
        let what = match warp.state {
            State::Barrier => "a barrier".to_owned(),
            State::ClusterBarrier => "the cluster's barrier".to_owned(),
            State::Mbarrier(block, at) => match cluster.blocks[block].mbarriers.get(&at) {
                Some(m) => format!(
                    "the mbarrier at {at:#x}, which lacks {} arrivals and {} bytes",
                    m.pending, m.bytes
                ),
                None => format!("the mbarrier at {at:#x}"),
            },
            State::Registers(needed) => format!(
                "{needed} registers, of which the warps of its block have given back {} that nobody took",
                cluster.blocks[warp.block].spare_registers
            ),
            State::GridWait => "the grids before".to_owned(),
            State::Ready | State::Done => "others, in a loop".to_owned(),
        };
        places.push(format!("warp {} waits for {what} (PTX line {line})", warp.index));
    }
    if !launch.plan.cooperative && spinning(cluster) {
        places.push(
            "blocks with higher numbers need not run before it ends: only in a cooperative launch".to_owned(),
        );
    }
    let mut fault = Fault::new(FaultKind::Deadlock, format!("nobody can move: {}", places.join("; ")));
    let (pc, block) = first.unwrap_or_default();
    let site = program.sites[pc as usize];
    fault.kernel.clone_from(&program.name);
    fault.block = cluster.blocks[block].id;
    fault.ptx_line = site.ptx_line;
    fault.instruction = program.text(site.ptx_line).to_owned();
    fault.source =
        site.source.map(|(file, line)| (program.files.get(&file).cloned().unwrap_or_default(), line));
    fault
}
