//! Programmatic dependent launch: a grid that starts while the one before it runs.
//!
//! The dependent may start as soon as every block of its primary has executed
//! `griddepcontrol.launch_dependents` or ended. What it does before `griddepcontrol.wait` is not ordered with
//! anything that the primary does, nor with the grids that the primary itself may have overtaken; the wait is
//! for all of them.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

use crate::counters::Counters;
use crate::memory::footprint::{Footprint, Usage};
use crate::report::{Fault, FaultKind};

use super::random::Random;
use super::state::{Cluster, Grid, State};
use super::{Launch, Plan, Result, Turn, Worker};

/// Clusters of each grid that are there together.
pub(super) const TOGETHER: usize = 8;

/// A grid's part in such launches.
#[derive(Debug, Default)]
pub struct Beside {
    /// Whether it may start before its primary has ended.
    pub is_dependent: bool,
    /// What it does.
    pub all: Arc<Footprint>,
    /// What it does before it waits.
    pub early: Arc<Footprint>,
    /// What the grids have done that it may run beside until it waits.
    primaries: OnceLock<Vec<Arc<Footprint>>>,
    /// What a grid that runs beside it does before it waits.
    dependent: Option<Arc<Footprint>>,
    /// Whether its primary is still running.
    pending: AtomicBool,
    /// Blocks that let dependents start.
    pub triggered: AtomicU64,
    /// Whether one of them knew that the primary of its own grid has completed.
    pub waited: AtomicBool,
}

impl Beside {
    /// A grid that other grids may follow before it ends.
    pub fn primary() -> Self {
        Beside::default()
    }

    /// A grid that need not wait for the end of others.
    pub fn dependent_on(primaries: Vec<Arc<Footprint>>) -> Self {
        Beside { is_dependent: true, primaries: primaries.into(), ..Beside::default() }
    }

    /// What grids have done that a dependent of this one may run beside: this one, and those before it that
    /// it did not wait for in any block.
    pub fn primaries_of_dependents(&self) -> Vec<Arc<Footprint>> {
        let mut primaries = vec![Arc::clone(&self.all)];
        if !self.waited.load(SeqCst) {
            primaries.extend(self.primaries.get().into_iter().flatten().cloned());
        }
        primaries
    }

    /// Whether to wait for the primary.
    pub fn is_pending(&self) -> bool {
        self.pending.load(SeqCst)
    }

    /// The number of the access, if any, that is not ordered with what a dependent does early.
    pub fn dependents_conflict(
        &self,
        accesses: impl Iterator<Item = (u64, u64)>,
        usage: Usage,
    ) -> Option<usize> {
        self.dependent.as_ref()?.conflict(accesses, usage)
    }

    /// The number of the access, if any, that is not ordered with what a primary does.
    pub fn primaries_conflict<I: Iterator<Item = (u64, u64)>>(
        &self,
        accesses: impl Fn() -> I,
        usage: Usage,
    ) -> Option<usize> {
        self.primaries.get()?.iter().find_map(|primary| primary.conflict(accesses(), usage))
    }
}

/// Prepares two grids to run at the same time.
pub fn pair(mut primary: Beside) -> [Beside; 2] {
    let dependent = Beside { is_dependent: true, pending: AtomicBool::new(true), ..Beside::default() };
    primary.dependent = Some(Arc::clone(&dependent.early));
    [primary, dependent]
}

/// Runs a grid and its dependent at the same time.
///
/// # Errors
/// The first fault.
pub fn run(grids: [&Grid; 2], plan: Plan) -> Result<[Counters; 2]> {
    let [primary, dependent] = grids.map(|grid| Launch::new(grid, Plan { beside: true, ..plan }));
    let (mut first, mut second) = (Worker::new(&primary, 0), Worker::new(&dependent, 0));
    let mut random = Random::new(plan.seed, u64::MAX);
    let (Some(primary), Some(dependent)) = (grids[0].beside, grids[1].beside) else {
        return Err(Fault::new(FaultKind::Unsupported, "grids that do not know of each other"));
    };
    let blocks: u64 = grids[0].grid.iter().map(|&n| u64::from(n)).product();
    loop {
        let may_start = primary.triggered.load(SeqCst) == blocks;
        if may_start {
            dependent.primaries.get_or_init(|| primary.primaries_of_dependents());
        }
        if may_start && !second.is_held_up() && random.below(2) == 0 {
            second.turn()?;
        } else if first.turn()? == Turn::Nothing {
            break;
        }
    }
    dependent.primaries.get_or_init(|| primary.primaries_of_dependents());
    dependent.pending.store(false, SeqCst);
    second.resident.iter_mut().for_each(go_on);
    while second.turn()? != Turn::Nothing {}
    Ok([first.finish(), second.finish()])
}

/// Lets warps go on that have waited for the primary.
fn go_on(cluster: &mut Cluster) {
    for warp in cluster.warps.iter_mut().flatten() {
        if warp.state == State::GridWait {
            warp.state = State::Ready;
        }
    }
}

/// Whether a cluster waits for the primary.
pub(super) fn waits_for_primary(cluster: &Cluster) -> bool {
    cluster.warps.iter().flatten().any(|warp| warp.state == State::GridWait)
}

impl Worker<'_> {
    /// Whether all clusters that can be there wait for the primary.
    fn is_held_up(&self) -> bool {
        let all_dealt = !self.launch.has_more();
        self.resident.iter().all(waits_for_primary) && (self.resident.len() >= TOGETHER || all_dealt)
    }

    /// Puts the cluster that has its turn in front. Clusters that have let dependents start, or that wait for
    /// their primary, stay while others come, so that the two grids are really there at the same time.
    pub(super) fn choose_beside(&mut self) {
        let stays = |cluster: &Cluster| {
            waits_for_primary(cluster) || cluster.blocks.iter().all(|block| block.triggered)
        };
        let busy: Vec<usize> = (0..self.resident.len()).filter(|&n| !stays(&self.resident[n])).collect();
        if busy.is_empty() && self.resident.len() < TOGETHER && self.admit_next() {
            return;
        }
        // The others must have their turn too: somebody may wait for them.
        let next = match &busy[..] {
            [] => self.random.below(self.resident.len().max(1)),
            busy if self.random.below(4) > 0 => busy[self.random.below(busy.len())],
            _ => self.random.below(self.resident.len()),
        };
        if next < self.resident.len() {
            self.resident.swap(0, next);
        }
    }
}
