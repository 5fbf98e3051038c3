//! What a step is computed from, and what is known of it before its results are.

use std::collections::HashSet;

use crate::ops::Recording;
use crate::train::batch::{TokenPair, Totals};
use crate::train::objective::{Objective, Regime, Sums};
use crate::train::results::Pending;

/// Name of the graph of a step.
pub(super) const STEP: &str = "training step";

/// What gradients and losses of a step are computed from.
#[derive(Clone, Copy)]
pub(super) struct Work<'a> {
    pub(super) micro_batches: &'a [Vec<&'a TokenPair>],
    /// Keys the dropout masks; there is no dropout without.
    pub(super) step: Option<u32>,
    pub(super) totals: Totals,
    /// Numbers of the pairs whose base states have to be computed.
    pub(super) missing: &'a HashSet<usize>,
}

/// What is known of a step that the device has been given, or that has been recorded.
pub(super) struct Accumulated {
    /// `[micro-batches]` losses, as far as they have been fetched.
    pub(super) sums: Vec<Sums>,
    /// The micro-batches whose results have not.
    pub(super) pending: Vec<Pending>,
}

/// A step that has been recorded and not begun.
pub(super) struct Prepared {
    pub(super) recording: Recording,
    pub(super) accumulated: Accumulated,
    pub(super) key: Key,
    /// Numbers of the pairs whose base states it computes.
    pub(super) missing: HashSet<usize>,
}

/// What a recording depends on.
#[derive(PartialEq)]
pub(super) struct Key {
    pub(super) objective: Objective,
    pub(super) regime: Regime,
    pub(super) step: Option<u32>,
    /// Numbers of the pairs of each micro-batch.
    pub(super) pairs: Vec<Vec<usize>>,
}
