//! Ranks that share work without collectives: rank 0 leases its units, one to each rank at a time, and puts
//! the results together in their order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::control::{Control, Member, OnFailure, Timing};
use super::launch::Launch;
use super::leases::{Facts, Lease, Unit};
use super::root::{Computed, OnLoss};
use super::world::{by_broadcast, guide};
use crate::error::{Error, ErrorKind, Result, list};

/// Between two looks whether somebody asks to stop.
const LOOK: Duration = Duration::from_millis(20);

/// All ranks that share work, as one of them sees them.
pub struct Crew {
    launch: Launch,
    control: Control,
    leases: Receiver<Lease>,
}

/// The result of a unit; nothing, if it was given up.
pub type Outcome = Option<Vec<u8>>;

/// What rank 0 has to do.
pub struct Work<'a> {
    /// All units, in the order of their results.
    pub units: Vec<Unit>,
    /// What has to be the same on all ranks.
    pub facts: Facts,
    /// Computes a unit from its input.
    pub compute: &'a mut dyn FnMut(&[u8]) -> Result<Vec<u8>>,
    /// Takes the results, in order.
    pub merge: &'a mut (dyn FnMut(usize, Outcome) -> Result<()> + Send),
    /// Asked while others compute.
    pub should_stop: &'a dyn Fn() -> bool,
}

impl Crew {
    /// A process on its own.
    pub fn alone() -> Self {
        Crew { launch: Launch::single(), control: Control::alone(), leases: mpsc::channel().1 }
    }

    /// Meets all other ranks: see [`Control::join`]. `tell` gets a line now and then while some are waited
    /// for, and `on_loss` one for each that is lost later.
    ///
    /// # Errors
    /// Those of [`Control::join`].
    pub fn join(
        launch: Launch,
        timing: Timing,
        member: Member,
        tell: &dyn Fn(&str),
        on_failure: OnFailure,
        on_loss: OnLoss,
    ) -> Result<Self> {
        let mut guide = guide(&launch, Instant::now() + timing.start)?;
        let mut exchange = |bytes: Vec<u8>| by_broadcast(guide.as_mut(), bytes);
        let (control, leases) =
            Control::join_to_lease(&launch, member, timing, tell, &mut exchange, on_failure, on_loss)?;
        guide.map_or(Ok(()), |guide| guide.finish())?;
        Ok(Crew { launch, control, leases })
    }

    /// Ranks there were at the start.
    pub fn ranks(&self) -> usize {
        self.launch.world
    }

    /// Whether there is one rank only.
    pub fn is_alone(&self) -> bool {
        self.ranks() == 1
    }

    /// Whether this is rank 0, which alone knows the work and writes what comes of it.
    pub fn is_first(&self) -> bool {
        self.launch.rank == 0
    }

    /// Rank 0's part: leases units, computes some itself, and merges all.
    ///
    /// # Errors
    /// Those of `compute` and `merge`; of kind `Interrupted` after `should_stop`; of kind `Usage` if ranks
    /// differ in a fact; of kind `Verdict`, after all else is merged, if units were given up, because two
    /// ranks were lost with them.
    pub fn lend(&self, work: Work<'_>) -> Result<()> {
        let names: Vec<String> = work.units.iter().map(|unit| unit.name.clone()).collect();
        let lost = if self.is_alone() { work.alone() } else { self.lend_to_all(work) }?;
        if lost.is_empty() {
            return Ok(());
        }
        let lost = lost
            .into_iter()
            .map(|number| format!("{} was lost twice, and a rank with it each time", names[number]));
        Err(Error::new(ErrorKind::Verdict, list("not all was computed", lost)))
    }

    /// Returns the units that were given up.
    fn lend_to_all(&self, work: Work<'_>) -> Result<Vec<usize>> {
        let Work { units, facts, compute, merge, should_stop } = work;
        let (sender, results) = mpsc::channel();
        self.control.lend(facts, units, sender);
        let is_over = &AtomicBool::new(false);
        // A result is merged as soon as those before it are, whatever is computed here.
        thread::scope(|scope| {
            let merger = scope.spawn(move || {
                let merged = in_order(&results, is_over, merge);
                is_over.fetch_or(merged.is_err(), Ordering::Relaxed);
                merged
            });
            let should_stop = || is_over.load(Ordering::Relaxed) || should_stop();
            let computed = self.compute_units(compute, &should_stop);
            is_over.fetch_or(computed.is_err(), Ordering::Relaxed);
            let merged =
                merger.join().unwrap_or_else(|_| Err(Error::internal("a panic of what merges results")));
            // What stops the computing may be that nothing can be merged.
            merged.and_then(|lost| computed.map(|()| lost))
        })
    }

    /// The part of any other rank: computes what it is leased, until there is no more. `should_stop` is asked
    /// while there is nothing to compute.
    ///
    /// # Errors
    /// Those of `compute`; of kind `Interrupted` after `should_stop`; of kind `Cluster` if all ranks have to
    /// end.
    pub fn serve(
        &self,
        facts: Facts,
        compute: &mut dyn FnMut(&[u8]) -> Result<Vec<u8>>,
        should_stop: &dyn Fn() -> bool,
    ) -> Result<()> {
        self.control.ready(facts);
        self.compute_units(compute, should_stop)
    }

    /// Whether nobody needs any more what this rank computes.
    pub fn is_over(&self) -> bool {
        self.control.is_over()
    }

    fn compute_units(
        &self,
        compute: &mut dyn FnMut(&[u8]) -> Result<Vec<u8>>,
        should_stop: &dyn Fn() -> bool,
    ) -> Result<()> {
        loop {
            self.control.enter(0, "the wait for work");
            match self.next(should_stop)? {
                Some(Lease { number, unit: Unit { name, input } }) => {
                    self.control.enter(0, &name);
                    self.control.give(number, compute(&input)?);
                }
                None => return self.control.failure().map_or(Ok(()), Err),
            }
        }
    }

    /// The next unit of this rank, once there is one; none after the last.
    fn next(&self, should_stop: &dyn Fn() -> bool) -> Result<Option<Lease>> {
        loop {
            match self.leases.recv_timeout(LOOK) {
                Ok(lease) => return Ok(Some(lease)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) if should_stop() => return Err(Error::interrupted()),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// This rank ends with an error, which the others are told.
    pub fn leave(self, error: &Error) {
        self.control.leave(error);
    }

    /// All is done, or nobody needs the rest: the others may go, and this rank goes on by itself.
    ///
    /// # Errors
    /// Of kind `Cluster`, if some have failed after all.
    pub fn finish(&self) -> Result<()> {
        self.control.conclude();
        self.control.failure().map_or(Ok(()), Err)
    }
}

impl Work<'_> {
    /// The same without anybody else.
    fn alone(self) -> Result<Vec<usize>> {
        for (number, unit) in self.units.iter().enumerate() {
            if (self.should_stop)() {
                return Err(Error::interrupted());
            }
            (self.merge)(number, Some((self.compute)(&unit.input)?))?;
        }
        Ok(Vec::new())
    }
}

/// Merges results in the order of their units. Returns those that were given up.
fn in_order(
    results: &Receiver<Computed>,
    is_over: &AtomicBool,
    merge: &mut (dyn FnMut(usize, Outcome) -> Result<()> + Send),
) -> Result<Vec<usize>> {
    let (mut early, mut turn, mut lost) = (BTreeMap::new(), 0, Vec::new());
    loop {
        match results.recv_timeout(LOOK) {
            Ok((number, outcome)) => early.insert(number, outcome),
            Err(RecvTimeoutError::Timeout) if !is_over.load(Ordering::Relaxed) => continue,
            Err(_) => return Ok(lost),
        };
        while let Some(outcome) = early.remove(&turn) {
            lost.extend(outcome.is_none().then_some(turn));
            merge(turn, outcome)?;
            turn += 1;
        }
    }
}
