//! A process as a rank: its launch, the control plane and the collectives together.

use std::time::Instant;

use super::control::{Control, Member, OnFailure, Timing};
use super::fabric::{Alone, Fabric};
use super::launch::{Launch, Rendezvous};
#[cfg(all(feature = "cli", unix))]
use super::mpi::Mpi;
use crate::error::{Error, Result};

/// What collectives go through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// MPI, where it has started the ranks; else none.
    #[default]
    Auto,
    /// MPI, or an error.
    Mpi,
}

/// All ranks of a job, as one of them sees them.
pub struct World {
    launch: Launch,
    control: Control,
    fabric: Option<Box<dyn Fabric>>,
}

impl World {
    /// A process on its own.
    pub fn alone() -> Self {
        World { launch: Launch::single(), control: Control::alone(), fabric: Some(Box::new(Alone)) }
    }

    /// A rank whose collectives go through `fabric`, and which nobody watches: whoever has made that does.
    pub fn over(fabric: Box<dyn Fabric>) -> Self {
        let launch = Launch { rank: fabric.rank(), world: fabric.world(), ..Launch::single() };
        World { launch, control: Control::alone(), fabric: Some(fabric) }
    }

    /// Meets all other ranks: see [`Control::join`]. `member` is told the collectives' library, `None` for
    /// none.
    ///
    /// # Errors
    /// Those of [`Control::join`]; of kind `Cluster` if the engine does not connect the ranks.
    pub fn join(
        launch: Launch,
        engine: Engine,
        timing: Timing,
        member: impl FnOnce(Option<&str>) -> Member,
        tell: &dyn Fn(&str),
        on_failure: OnFailure,
    ) -> Result<Self> {
        let mut fabric = start(&launch, engine, Instant::now() + timing.start)?;
        let name = fabric.as_ref().map(|fabric| fabric.name());
        let through_mpi = matches!(launch.rendezvous, Some(Rendezvous::Mpi));
        let mut exchange = |mut bytes: Vec<u8>| {
            let fabric = fabric.as_mut().filter(|_| through_mpi);
            let fabric = fabric.ok_or_else(|| Error::internal("a rendezvous by nothing"))?;
            fabric.broadcast(0, &mut bytes)?;
            Ok(bytes)
        };
        let control =
            Control::join(&launch, member(name.as_deref()), timing, tell, &mut exchange, on_failure)?;
        if let Some(fabric) = &mut fabric {
            fabric.heed(control.sentinel());
        }
        Ok(World { launch, control, fabric })
    }

    /// What started this rank, and which it is.
    pub fn launch(&self) -> &Launch {
        &self.launch
    }

    /// This rank, from 0.
    pub fn rank(&self) -> usize {
        self.launch.rank
    }

    /// Ranks in all.
    pub fn ranks(&self) -> usize {
        self.launch.world
    }

    /// Whether there is one rank only.
    pub fn is_alone(&self) -> bool {
        self.ranks() == 1
    }

    /// This rank is at another step, from 1, or in another phase of it.
    pub fn enter(&self, step: usize, phase: &str) {
        self.control.enter(step as u64, phase);
    }

    /// This rank is in another phase of the same step. Others wait for whoever goes on.
    pub fn go_on(&self, phase: &str) {
        self.control.go_on(phase);
    }

    /// The control plane.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// What collectives go through, if there is anything.
    pub fn fabric(&self) -> Option<&dyn Fabric> {
        self.fabric.as_deref()
    }

    /// Does a collective that others see as `phase`.
    ///
    /// # Errors
    /// Those of the collective; of kind `Cluster` where nothing connects the ranks.
    pub fn collective<T>(
        &mut self,
        phase: &str,
        work: impl FnOnce(&mut dyn Fabric) -> Result<T>,
    ) -> Result<T> {
        self.require_collectives()?;
        let Some(fabric) = &mut self.fabric else { return Err(Error::internal("collectives by nothing")) };
        self.control.collective(phase, || work(fabric.as_mut()))
    }

    /// Refuses ranks that cannot compute together.
    ///
    /// # Errors
    /// Of kind `Cluster` where nothing connects them.
    pub fn require_collectives(&self) -> Result<()> {
        match self.fabric {
            Some(_) => Ok(()),
            None => Err(Error::cluster(
                "nothing connects the ranks but the control plane; start them with mpiexec -n N, or with srun --mpi=pmi2 \
                 or --mpi=pmix",
            )),
        }
    }

    /// [`Fabric::all_reduce`] of a phase.
    ///
    /// # Errors
    /// Those of [`Self::collective`].
    pub fn all_reduce(&mut self, phase: &str, values: &mut [i64]) -> Result<()> {
        self.collective(phase, |fabric| fabric.all_reduce(values))
    }

    /// [`Fabric::broadcast`] of a phase.
    ///
    /// # Errors
    /// Those of [`Self::collective`].
    pub fn broadcast(&mut self, phase: &str, root: usize, bytes: &mut Vec<u8>) -> Result<()> {
        self.collective(phase, |fabric| fabric.broadcast(root, bytes))
    }

    /// [`Fabric::all_gather`] of a phase.
    ///
    /// # Errors
    /// Those of [`Self::collective`].
    pub fn all_gather(&mut self, phase: &str, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.collective(phase, |fabric| fabric.all_gather(own))
    }

    /// An error that every rank has found by itself: waits until all have, so that none ends because of
    /// another one.
    pub fn agree(&self, error: Error) -> Error {
        self.control.agree(error)
    }

    /// This rank ends with an error, which the others are told.
    pub fn leave(self, error: &Error) {
        self.control.leave(error);
    }

    /// Waits until all ranks have done everything.
    ///
    /// # Errors
    /// Of kind `Cluster`, if some fail after all.
    pub fn finish(self) -> Result<()> {
        self.control.finish()?;
        self.fabric.map_or(Ok(()), |fabric| fabric.finish())
    }
}

/// The engine, started; `None` where nothing connects the ranks but the control plane.
fn start(launch: &Launch, engine: Engine, deadline: Instant) -> Result<Option<Box<dyn Fabric>>> {
    let is_needed = engine == Engine::Mpi || launch.by_mpi;
    match launch.world {
        1 => Ok(Some(Box::new(Alone))),
        _ if is_needed => start_mpi(launch, deadline).map(Some),
        _ => Ok(None),
    }
}

#[cfg(all(feature = "cli", unix))]
fn start_mpi(launch: &Launch, deadline: Instant) -> Result<Box<dyn Fabric>> {
    Ok(Box::new(Mpi::start(launch, deadline)?))
}

#[cfg(not(all(feature = "cli", unix)))]
fn start_mpi(_: &Launch, _: Instant) -> Result<Box<dyn Fabric>> {
    Err(Error::cluster("this build cannot load MPI; it needs Unix and the feature `cli`"))
}
