//! The control plane: every rank is connected to rank 0, which notices who is gone or does not go on, and
//! ends all of them. Computations do not pass through here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use super::caller::Caller;
use super::launch::Launch;
use super::leases::{Facts, Lease, Unit};
pub use super::meeting::Exchange;
use super::meeting::Listening;
pub use super::message::{Invitation, Member, Progress};
use super::root::{Computed, Handle, OnLoss, Root};
pub use super::shared::OnFailure;
use super::shared::{Outcome, Shared};
pub use super::watch::Timing;
use crate::error::{Error, ErrorKind, Result};

/// Until rank 0 has told the others that it ends.
const FAREWELL: Duration = Duration::from_secs(3);

/// This process among the ranks of its job.
pub struct Control {
    members: BTreeMap<usize, Member>,
    shared: Arc<Shared>,
    role: Role,
}

enum Role {
    Single,
    Root(Handle),
    Caller(Caller),
}

impl Control {
    /// A process on its own, which has nobody to meet.
    pub(super) fn alone() -> Self {
        let shared = Arc::new(Shared::new(Box::new(drop)));
        Control { members: BTreeMap::new(), shared, role: Role::Single }
    }

    /// Meets all other ranks of the launch, and from then on watches them. `tell` gets a line now and then
    /// while some are waited for; `exchange` is only needed for a rendezvous through MPI. One rank has nobody
    /// to meet.
    ///
    /// # Errors
    /// Of kind `Cluster` if some do not come in time, cannot be reached or are lost meanwhile; of kind
    /// `Usage` if they do not go together, which all ranks hear of; of kind `Device` if two of them have the
    /// same GPU.
    pub fn join(
        launch: &Launch,
        member: Member,
        timing: Timing,
        tell: &dyn Fn(&str),
        exchange: &mut Exchange,
        on_failure: OnFailure,
    ) -> Result<Self> {
        let watch = |root: Root, shared| Ok((root.watch(shared)?, mpsc::channel().1));
        let joined = Self::meet(launch, member, timing, tell, exchange, on_failure, watch);
        joined.map(|(control, _)| control)
    }

    /// [`Self::join`] for work that ranks lease: one that is lost costs a unit of it. `on_loss` is told
    /// of that. The units of this rank come out of the receiver.
    pub(super) fn join_to_lease(
        launch: &Launch,
        member: Member,
        timing: Timing,
        tell: &dyn Fn(&str),
        exchange: &mut Exchange,
        on_failure: OnFailure,
        on_loss: OnLoss,
    ) -> Result<(Self, Receiver<Lease>)> {
        let lend = |root: Root, shared| root.lend(shared, on_loss);
        Self::meet(launch, member, timing, tell, exchange, on_failure, lend)
    }

    fn meet(
        launch: &Launch,
        member: Member,
        timing: Timing,
        tell: &dyn Fn(&str),
        exchange: &mut Exchange,
        on_failure: OnFailure,
        watch: impl FnOnce(Root, Arc<Shared>) -> Result<(Handle, Receiver<Lease>)>,
    ) -> Result<(Self, Receiver<Lease>)> {
        let shared = Arc::new(Shared::new(on_failure));
        let deadline = Instant::now() + timing.start;
        let (members, role, leases) = match (launch.world, launch.rank) {
            (1, _) => (BTreeMap::from([(0, member)]), Role::Single, mpsc::channel().1),
            (_, 0) => {
                let mut root = Root::new(launch, member, timing, deadline);
                root.gather(Listening::start(launch, deadline, exchange)?, tell)?;
                let members = root.members().clone();
                let (handle, leases) = watch(root, shared.clone())?;
                (members, Role::Root(handle), leases)
            }
            _ => {
                let (root, caller, leases) =
                    Caller::join(launch, &member, timing, deadline, exchange, shared.clone())?;
                (BTreeMap::from([(0, root), (member.rank, member)]), Role::Caller(caller), leases)
            }
        };
        Ok((Control { members, shared, role }, leases))
    }

    /// Gives rank 0's control plane the units to lease. `results` gets each once.
    pub(super) fn lend(&self, facts: Facts, units: Vec<Unit>, results: Sender<Computed>) {
        if let Role::Root(root) = &self.role {
            root.work(facts, units, results);
        }
    }

    /// Whether all ranks have finished, or have to end.
    pub(super) fn is_over(&self) -> bool {
        self.shared.is_over()
    }

    /// This rank can compute units.
    pub(super) fn ready(&self, facts: Facts) {
        if let Role::Caller(caller) = &self.role {
            caller.ready(facts);
        }
    }

    /// This rank has computed a unit.
    pub(super) fn give(&self, number: usize, result: Vec<u8>) {
        match &self.role {
            Role::Single => {}
            Role::Root(root) => root.give(number, result),
            Role::Caller(caller) => caller.give(number, &result),
        }
    }

    /// All ranks in order, on rank 0; elsewhere rank 0 and this one.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// What rank 0 has told of how its collectives' library is reached.
    #[cfg(all(feature = "cuda", unix))]
    pub(super) fn invitation(&self) -> Option<&Invitation> {
        self.members.get(&0)?.invitation.as_ref()
    }

    /// This rank is at another step, from 1, or in another phase of it.
    pub fn enter(&self, step: u64, phase: &str) {
        self.shared.advance(|progress| {
            progress.step = step;
            phase.clone_into(&mut progress.phase);
        });
    }

    /// This rank is in another phase of the same step.
    pub fn go_on(&self, phase: &str) {
        self.shared.advance(|progress| phase.clone_into(&mut progress.phase));
    }

    /// Does `work`, which ends on no rank before all have begun it.
    pub fn collective<T>(&self, phase: &str, work: impl FnOnce() -> T) -> T {
        let before = self.shared.progress().phase;
        self.shared.advance(|progress| {
            progress.collectives += 1;
            progress.waits = true;
            phase.clone_into(&mut progress.phase);
        });
        let done = work();
        self.shared.advance(|progress| {
            progress.waits = false;
            progress.phase = before;
        });
        done
    }

    /// What to do after a failure: the end of rank 0's messages about it.
    pub fn advise(&self, advice: impl Into<String>) {
        self.shared.advise(advice.into());
    }

    /// Why all ranks have to end, if they do. Collectives that wait ask for it.
    pub fn failure(&self) -> Option<Error> {
        self.shared.failure()
    }

    /// Asks [`Self::failure`] from elsewhere, without its text.
    pub fn sentinel(&self) -> Box<dyn Fn() -> bool + Send> {
        let shared = self.shared.clone();
        Box::new(move || shared.failure().is_some())
    }

    /// An error that every rank has found by itself: waits until all have, so that none ends because of
    /// another one.
    pub fn agree(&self, error: Error) -> Error {
        self.conclude();
        error
    }

    /// This rank ends with an error, which the others are told.
    pub fn leave(self, error: &Error) {
        self.shared.set(Outcome::Left);
        self.say_farewell(error.kind().exit_code(), &error.to_string());
    }

    /// Waits until all ranks have done everything.
    ///
    /// # Errors
    /// That of [`Self::failure`], if some fail after all.
    pub fn finish(self) -> Result<()> {
        self.conclude();
        self.failure().map_or(Ok(()), Err)
    }

    /// Waits until all ranks have come here, or some have failed.
    pub(super) fn conclude(&self) {
        self.enter(self.shared.progress().step, "end");
        match &self.role {
            Role::Single => self.shared.finish(),
            Role::Root(root) => root.done(),
            Role::Caller(caller) => caller.done(),
        }
        self.shared.wait_for_outcome();
    }

    fn say_farewell(&self, code: u8, message: &str) {
        match &self.role {
            Role::Single => {}
            Role::Root(root) => root.leave(code, message, FAREWELL),
            Role::Caller(caller) => caller.leave(code, message),
        }
    }
}

/// A rank that is dropped in the middle has failed.
impl Drop for Control {
    fn drop(&mut self) {
        if self.shared.set(Outcome::Left) {
            match std::thread::panicking() {
                true => self.say_farewell(101, "a panic"),
                false => self.say_farewell(ErrorKind::Internal.exit_code(), "it went without a word"),
            }
        }
        if let Role::Caller(caller) = &self.role {
            caller.close();
        }
    }
}
