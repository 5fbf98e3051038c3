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
        let Some(fabric) = &mut self.fabric else {
            return Err(Error::cluster(
                "nothing connects the ranks but the control plane; start them with mpiexec",
            ));
        };
        self.control.collective(phase, || work(fabric.as_mut()))
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
