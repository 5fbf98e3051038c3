//! Work that was handed over but not done: a graph of operations, of which any that waits for nothing may be
//! next.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::abi::Handle;
use super::work::{Kernel, Work};
use crate::memory::footprint::Footprint;
use crate::schedule::random::Random;

/// Names an operation; later ones have greater numbers.
pub type OpId = u64;

/// How seldom priorities are drawn again: once in this many operations.
const REDRAW: usize = 4;

/// An operation.
pub struct Op {
    /// The context it runs in.
    pub context: Handle,
    /// What it does.
    pub work: Work,
    /// Operations of one lane (a stream) share a priority.
    lane: u64,
    missing: usize,
    dependents: Vec<OpId>,
    /// Kernels before that need not have ended (programmatic dependent launch).
    programmatic: Vec<OpId>,
    /// What those of them that have run did.
    footprints: Vec<Arc<Footprint>>,
}

/// Decides by chance, the same way for the same seed.
///
/// Lanes have random priorities that are drawn again now and then. So one stream is often far ahead of
/// another, which a fresh choice for every operation would hardly ever bring about.
pub struct Chooser {
    random: Random,
    priorities: HashMap<u64, u64>,
}

impl Chooser {
    /// A chooser whose choices depend on the seed alone.
    pub fn new(seed: u64) -> Self {
        Chooser { random: Random::new(seed, 0), priorities: HashMap::new() }
    }

    /// Whether a kernel and its dependent run at the same time.
    pub fn overlaps(&mut self) -> bool {
        self.random.below(2) == 0
    }

    /// A seed for the order within a kernel.
    pub fn seed(&mut self) -> u64 {
        self.random.bits()
    }

    fn redraw_sometimes(&mut self) {
        if self.random.below(REDRAW) == 0 {
            self.priorities.clear();
        }
    }

    fn priority(&mut self, lane: u64) -> u64 {
        *self.priorities.entry(lane).or_insert_with(|| self.random.bits())
    }
}

/// Operations that are not done.
#[derive(Default)]
pub struct Queue {
    pending: HashMap<OpId, Op>,
    /// Those that wait for nothing; in order, so that priorities are drawn in the same order every time.
    ready: BTreeSet<OpId>,
    /// Pending operations by context.
    counts: HashMap<Handle, usize>,
    last: OpId,
}

impl Queue {
    /// Adds an operation that follows `after`; those that are done already do not matter.
    pub fn push(&mut self, context: Handle, lane: u64, after: &[OpId], work: Work) -> OpId {
        self.push_programmatic(context, lane, after, &[], work)
    }

    /// The same for a kernel that need not wait for the end of some of the kernels that it follows.
    pub fn push_programmatic(
        &mut self,
        context: Handle,
        lane: u64,
        after: &[OpId],
        programmatic: &[OpId],
        work: Work,
    ) -> OpId {
        self.last += 1;
        let id = self.last;
        let mut missing = 0;
        for dependency in after {
            if let Some(op) = self.pending.get_mut(dependency) {
                op.dependents.push(id);
                missing += 1;
            }
        }
        if missing == 0 {
            self.ready.insert(id);
        }
        *self.counts.entry(context).or_default() += 1;
        let is_kernel =
            |id: &&OpId| self.pending.get(id).is_some_and(|op| matches!(op.work, Work::Kernel(_)));
        let programmatic = programmatic.iter().filter(is_kernel).copied().collect();
        let (dependents, footprints) = (Vec::new(), Vec::new());
        self.pending.insert(id, Op { context, work, lane, missing, dependents, programmatic, footprints });
        id
    }

    /// Whether a kernel need not wait for the end of those before, and what these did, as far as they have
    /// run.
    pub fn footprints(&self, id: OpId) -> Option<Vec<Arc<Footprint>>> {
        let op = self.pending.get(&id)?;
        (!op.programmatic.is_empty()).then(|| op.footprints.clone())
    }

    /// Kernels that need not wait for the end of this one.
    fn programmatic_dependents(&self, id: OpId) -> Vec<OpId> {
        let Some(op) = self.pending.get(&id) else { return Vec::new() };
        let dependents = op.dependents.iter().copied();
        dependents.filter(|d| self.pending.get(d).is_some_and(|d| d.programmatic.contains(&id))).collect()
    }

    /// Whether there are such kernels.
    pub fn is_primary(&self, id: OpId) -> bool {
        !self.programmatic_dependents(id).is_empty()
    }

    /// Takes the work of one of them that waits for nothing else.
    pub fn take_dependent(&mut self, id: OpId) -> Option<(OpId, Arc<Kernel>)> {
        let free = |dependent: &OpId| self.pending.get(dependent).is_some_and(|op| op.missing == 1);
        let dependent = self.programmatic_dependents(id).into_iter().find(free)?;
        let op = self.pending.get_mut(&dependent)?;
        match &op.work {
            Work::Kernel(kernel) if !kernel.launch.cooperative => {
                let kernel = Arc::clone(kernel);
                op.work = Work::Nothing;
                Some((dependent, kernel))
            }
            _ => None,
        }
    }

    /// Tells the kernels that need not wait for the end of this one what they may run beside.
    pub fn tell_dependents(&mut self, id: OpId, footprints: &[Arc<Footprint>]) {
        for dependent in self.programmatic_dependents(id) {
            if let Some(op) = self.pending.get_mut(&dependent) {
                op.footprints.extend_from_slice(footprints);
            }
        }
    }

    /// Whether an operation was done.
    pub fn is_done(&self, id: OpId) -> bool {
        !self.pending.contains_key(&id)
    }

    /// Whether nothing is left to do in a context.
    pub fn is_idle(&self, context: Handle) -> bool {
        self.counts.get(&context).is_none_or(|count| *count == 0)
    }

    /// Picks one of the operations that wait for nothing, of one context or of all, and returns its work.
    pub fn pick(&mut self, context: Option<Handle>, chooser: &mut Chooser) -> Option<(OpId, Handle, Work)> {
        chooser.redraw_sometimes();
        let mut best: Option<(u64, OpId)> = None;
        for id in &self.ready {
            let Some(op) = self.pending.get(id) else { continue };
            if context.is_some_and(|context| context != op.context) {
                continue;
            }
            let priority = chooser.priority(op.lane);
            if best.is_none_or(|(greatest, _)| priority > greatest) {
                best = Some((priority, *id));
            }
        }
        let (_, id) = best?;
        self.ready.remove(&id);
        let op = self.pending.get(&id)?;
        Some((id, op.context, op.work.clone()))
    }

    /// Puts back what was picked and can't be done yet.
    pub fn put_back(&mut self, id: OpId) {
        self.ready.insert(id);
    }

    /// Notes that an operation is done, which may let others go.
    pub fn finish(&mut self, id: OpId) {
        let Some(op) = self.pending.remove(&id) else { return };
        if let Some(count) = self.counts.get_mut(&op.context) {
            *count -= 1;
        }
        for dependent in op.dependents {
            if let Some(op) = self.pending.get_mut(&dependent) {
                op.missing -= 1;
                if op.missing == 0 {
                    self.ready.insert(dependent);
                }
            }
        }
    }
}
