//! Who computes which unit of work, where ranks need no sums: each leases a unit, computes it and gets the
//! next. A unit that a lost rank held goes to another one. Events come in, decisions go out: there is neither
//! a clock nor a socket here.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

/// What has to be the same on all ranks, by name: hashes of weights and options.
pub type Facts = Vec<(String, String)>;

/// Ranks that are lost while they hold a unit, until it is given up: it may be the cause.
const MOST_LOSSES: usize = 2;

/// A part of the work that one rank computes. It is the same for any number of ranks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// What it is, for people.
    pub name: String,
    /// All that a rank has to know of it.
    pub input: Vec<u8>,
}

/// A unit that this rank is to compute.
#[derive(Debug)]
pub(super) struct Lease {
    /// Its place in the work.
    pub(super) number: usize,
    pub(super) unit: Unit,
}

/// What becomes of a unit whose rank was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Another rank gets it.
    Again,
    /// Nobody gets it any more.
    GivenUp,
}

/// Which units are waiting, and who holds the others.
#[derive(Debug)]
pub struct Leases {
    /// Units that nobody has held yet.
    fresh: Range<usize>,
    /// Units that have come back, which go first.
    back: VecDeque<usize>,
    /// Ranks that were lost with a unit.
    losses: BTreeMap<usize, usize>,
    /// The unit of each rank that has one.
    held: BTreeMap<usize, usize>,
}

impl Leases {
    /// Of so many units, all of them waiting.
    pub fn new(units: usize) -> Self {
        Leases { fresh: 0..units, back: VecDeque::new(), losses: BTreeMap::new(), held: BTreeMap::new() }
    }

    /// The next unit of a rank, if there is one for it. A `cautious` one gets none that a rank was lost with.
    /// A rank that holds a unit gets no other.
    pub fn next(&mut self, rank: usize, cautious: bool) -> Option<usize> {
        if self.held.contains_key(&rank) {
            return None;
        }
        let is_for_it = |unit: &usize| !cautious || !self.losses.contains_key(unit);
        let at = self.back.iter().position(is_for_it);
        let unit = at.and_then(|at| self.back.remove(at)).or_else(|| self.fresh.next())?;
        self.held.insert(rank, unit);
        Some(unit)
    }

    /// A rank has computed a unit. Returns whether it held that.
    pub fn finish(&mut self, rank: usize, unit: usize) -> bool {
        let is_held = self.held.get(&rank) == Some(&unit);
        if is_held {
            self.held.remove(&rank);
        }
        is_held
    }

    /// A rank gives its unit back, if it has one: nothing speaks against that unit.
    pub fn give_back(&mut self, rank: usize) -> Option<usize> {
        let unit = self.held.remove(&rank)?;
        self.back.push_back(unit);
        Some(unit)
    }

    /// A rank is lost. Returns what becomes of its unit, if it had one.
    pub fn lose(&mut self, rank: usize) -> Option<(usize, Fate)> {
        let unit = self.held.remove(&rank)?;
        let losses = self.losses.entry(unit).or_default();
        *losses += 1;
        if *losses >= MOST_LOSSES {
            return Some((unit, Fate::GivenUp));
        }
        self.back.push_back(unit);
        Some((unit, Fate::Again))
    }

    /// Whether every unit is computed or given up.
    pub fn is_done(&self) -> bool {
        self.fresh.is_empty() && self.back.is_empty() && self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_leased_once() {
        let mut leases = Leases::new(5);
        let mut computed = Vec::new();
        for turn in 0.. {
            let rank = turn % 3;
            let Some(unit) = leases.next(rank, rank == 0) else { break };
            assert_eq!(leases.next(rank, false), None, "it has one");
            assert!(!leases.finish(rank + 1, unit) && !leases.finish(rank, unit + 1) && !leases.is_done());
            assert!(leases.finish(rank, unit) && !leases.finish(rank, unit));
            computed.push(unit);
        }
        assert_eq!(computed, [0, 1, 2, 3, 4]);
        assert!(leases.is_done() && Leases::new(0).is_done());
    }

    #[test]
    fn what_a_lost_rank_held_goes_to_another_and_the_second_time_to_nobody() {
        let mut leases = Leases::new(3);
        assert_eq!([1, 2, 3].map(|rank| leases.next(rank, false)), [Some(0), Some(1), Some(2)]);
        assert_eq!(leases.lose(1), Some((0, Fate::Again)));
        assert_eq!(leases.lose(1), None, "once");
        assert!(!leases.finish(1, 0), "a result that comes too late");
        // Whoever must not be lost does not take it.
        assert_eq!(leases.next(0, true), None);
        assert!(leases.finish(2, 1));
        assert_eq!(leases.next(2, false), Some(0));
        assert_eq!(leases.lose(2), Some((0, Fate::GivenUp)));
        assert!(!leases.is_done());
        assert!(leases.finish(3, 2));
        assert_eq!(leases.next(3, false), None);
        assert!(leases.is_done());
    }

    #[test]
    fn a_unit_that_is_given_back_counts_as_new_and_goes_first() {
        let mut leases = Leases::new(3);
        for rank in [1, 2, 1, 2] {
            assert_eq!(leases.next(rank, false), Some(0));
            assert_eq!(leases.give_back(rank), Some(0));
            assert_eq!(leases.give_back(rank), None);
        }
        assert_eq!([leases.next(0, true), leases.next(1, false)], [Some(0), Some(1)]);
        assert_eq!(leases.lose(0), Some((0, Fate::Again)));
        assert_eq!(leases.next(3, true), Some(2));
        assert_eq!(leases.next(2, false), Some(0));
    }
}
