//! Work that was handed over but not done: a graph of operations, of which any that waits for nothing may be next.

use std::collections::HashMap;

use super::abi::Handle;
use super::random::Random;
use super::work::Work;

/// Names an operation; later ones have greater numbers.
pub type OpId = u64;

/// How seldom priorities are drawn again: once in this many operations.
const REDRAW: u64 = 4;

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
}

/// Operations that are not done.
#[derive(Default)]
pub struct Queue {
    pending: HashMap<OpId, Op>,
    ready: Vec<OpId>,
    /// Pending operations by context.
    counts: HashMap<Handle, usize>,
    priorities: HashMap<u64, u64>,
    last: OpId,
}

impl Queue {
    /// Adds an operation that follows `after`; those that are done already do not matter.
    pub fn push(&mut self, context: Handle, lane: u64, after: &[OpId], work: Work) -> OpId {
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
            self.ready.push(id);
        }
        *self.counts.entry(context).or_default() += 1;
        self.pending.insert(id, Op { context, work, lane, missing, dependents: Vec::new() });
        id
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
    ///
    /// Lanes have random priorities that are drawn again now and then. So one stream is often far ahead of another,
    /// which a fresh choice for every operation would hardly ever bring about.
    pub fn pick(&mut self, context: Option<Handle>, random: &mut Random) -> Option<(OpId, Handle, Work)> {
        if random.one_in(REDRAW) {
            self.priorities.clear();
        }
        let mut best: Option<(u64, usize)> = None;
        for (position, id) in self.ready.iter().enumerate() {
            let Some(op) = self.pending.get(id) else { continue };
            if context.is_some_and(|context| context != op.context) {
                continue;
            }
            let priority = *self.priorities.entry(op.lane).or_insert_with(|| random.bits());
            if best.is_none_or(|(greatest, _)| priority > greatest) {
                best = Some((priority, position));
            }
        }
        let id = self.ready.swap_remove(best?.1);
        let op = self.pending.get(&id)?;
        Some((id, op.context, op.work.clone()))
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
                    self.ready.push(dependent);
                }
            }
        }
    }
}
