//! A process as a rank: its launch, the control plane and the collectives together.

use std::time::Instant;

use super::control::{Control, Invitation, Member, OnFailure, Timing};
use super::fabric::{Alone, Fabric};
use super::launch::{Launch, Rendezvous};
#[cfg(all(feature = "cli", unix))]
use super::mpi::Mpi;
#[cfg(all(feature = "cuda", unix))]
use super::nccl::Prepared;
#[cfg(all(feature = "cuda", unix))]
use crate::error::ErrorKind;
use crate::error::{Error, Result};

/// What collectives go through, and the number of the GPU that the rank computes on, if it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// MPI, where it has started the ranks; else NCCL, where they compute on GPUs; else nothing.
    Auto {
        /// The GPU.
        gpu: Option<usize>,
    },
    /// MPI, or an error.
    Mpi,
    /// NCCL, or an error, also of a rank on its own.
    Nccl {
        /// The GPU.
        gpu: Option<usize>,
    },
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

    /// Meets all other ranks: see [`Control::join`]. `member` is told the collectives' library, or why there
    /// is none.
    ///
    /// # Errors
    /// Those of [`Control::join`]; of kind `Cluster` if the engine does not connect the ranks.
    pub fn join(
        launch: Launch,
        engine: Engine,
        timing: Timing,
        member: impl FnOnce(&str) -> Member,
        tell: &dyn Fn(&str),
        on_failure: OnFailure,
    ) -> Result<Self> {
        let deadline = Instant::now() + timing.start;
        let mut link = Link::start(&launch, engine, deadline)?;
        let own = Member { invitation: link.invitation(), ..member(&link.name()) };
        let mut guide = link.guide(&launch, deadline)?;
        let mut exchange = |bytes: Vec<u8>| by_broadcast(guide.as_mut().or(link.fabric()), bytes);
        let control = Control::join(&launch, own, timing, tell, &mut exchange, on_failure)?;
        guide.map_or(Ok(()), |guide| guide.finish())?;
        let fabric = match link.connect(&launch, &control, Instant::now() + timing.start) {
            Ok(fabric) => fabric,
            Err(error) => {
                control.leave(&error);
                return Err(error);
            }
        };
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
                 or --mpi=pmix, or give each a GPU, which NCCL connects",
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

/// What is to connect the ranks, before they have met.
enum Link {
    /// The control plane alone.
    Nothing,
    /// Something that needs nobody to tell it where the others are.
    Fabric(Box<dyn Fabric>),
    /// NCCL, or why not: the others hear of it.
    #[cfg(all(feature = "cuda", unix))]
    Nccl(Result<Prepared>),
}

impl Link {
    fn start(launch: &Launch, engine: Engine, deadline: Instant) -> Result<Self> {
        match engine {
            Engine::Nccl { gpu } => start_nccl(launch, gpu),
            _ if launch.world == 1 => Ok(Link::Fabric(Box::new(Alone))),
            Engine::Mpi => start_mpi(launch, deadline).map(Link::Fabric),
            Engine::Auto { .. } if launch.by_mpi => start_mpi(launch, deadline).map(Link::Fabric),
            Engine::Auto { gpu: None } => Ok(Link::Nothing),
            Engine::Auto { gpu } => start_nccl(launch, gpu),
        }
    }

    /// The library, or why there is none.
    fn name(&self) -> String {
        match self {
            Link::Nothing => "none".to_owned(),
            Link::Fabric(fabric) => fabric.name(),
            #[cfg(all(feature = "cuda", unix))]
            Link::Nccl(Ok(prepared)) => prepared.title().to_owned(),
            #[cfg(all(feature = "cuda", unix))]
            Link::Nccl(Err(error)) => error.to_string(),
        }
    }

    fn invitation(&self) -> Option<Invitation> {
        match self {
            #[cfg(all(feature = "cuda", unix))]
            Link::Nccl(Ok(prepared)) => prepared.invitation(),
            _ => None,
        }
    }

    fn fabric(&mut self) -> Option<&mut Box<dyn Fabric>> {
        match self {
            Link::Fabric(fabric) => Some(fabric),
            _ => None,
        }
    }

    /// MPI, where it alone knows where rank 0 is and computes nothing.
    fn guide(&self, launch: &Launch, deadline: Instant) -> Result<Option<Box<dyn Fabric>>> {
        match self {
            Link::Fabric(_) => Ok(None),
            _ => guide(launch, deadline),
        }
    }

    /// Connects ranks that have met.
    #[cfg_attr(
        not(all(feature = "cuda", unix)),
        expect(unused_variables, reason = "NCCL alone needs to know more")
    )]
    fn connect(
        self,
        launch: &Launch,
        control: &Control,
        deadline: Instant,
    ) -> Result<Option<Box<dyn Fabric>>> {
        match self {
            Link::Nothing => Ok(None),
            Link::Fabric(mut fabric) => {
                fabric.heed(control.sentinel());
                Ok(Some(fabric))
            }
            #[cfg(all(feature = "cuda", unix))]
            Link::Nccl(Ok(prepared)) => {
                control.go_on("start of NCCL");
                let nccl = prepared.connect(launch, control, deadline)?;
                control.go_on("start");
                Ok(Some(Box::new(nccl)))
            }
            // All ranks have the same name of it, and so the same error.
            #[cfg(all(feature = "cuda", unix))]
            Link::Nccl(Err(error)) => Err(control.agree(error)),
        }
    }
}

/// MPI, where it alone knows where rank 0 is.
pub(super) fn guide(launch: &Launch, deadline: Instant) -> Result<Option<Box<dyn Fabric>>> {
    let through_mpi = matches!(launch.rendezvous, Some(Rendezvous::Mpi));
    through_mpi.then(|| start_mpi(launch, deadline)).transpose()
}

/// What rank 0 has, for a rendezvous.
pub(super) fn by_broadcast(fabric: Option<&mut Box<dyn Fabric>>, mut bytes: Vec<u8>) -> Result<Vec<u8>> {
    let fabric = fabric.ok_or_else(|| Error::internal("a rendezvous by nothing"))?;
    fabric.broadcast(0, &mut bytes)?;
    Ok(bytes)
}

#[cfg(all(feature = "cuda", unix))]
fn start_nccl(launch: &Launch, gpu: Option<usize>) -> Result<Link> {
    let no_gpu = || {
        Error::usage(
            "--dist nccl: expected ranks that compute on GPUs, found one that does not; leave it out, or choose \
             --device cuda",
        )
    };
    let prepared = gpu.ok_or_else(no_gpu).and_then(|gpu| Prepared::new(launch, gpu));
    Ok(Link::Nccl(prepared.map_err(|error| match error.kind() {
        ErrorKind::Cluster => error.advice("or start the ranks with mpiexec, with MPI between them"),
        _ => error,
    })))
}

#[cfg(not(all(feature = "cuda", unix)))]
fn start_nccl(_: &Launch, _: Option<usize>) -> Result<Link> {
    Err(Error::cluster("this build cannot load NCCL; it needs Unix and the feature `cuda`"))
}

#[cfg(all(feature = "cli", unix))]
fn start_mpi(launch: &Launch, deadline: Instant) -> Result<Box<dyn Fabric>> {
    Ok(Box::new(Mpi::start(launch, deadline)?))
}

#[cfg(not(all(feature = "cli", unix)))]
fn start_mpi(_: &Launch, _: Instant) -> Result<Box<dyn Fabric>> {
    Err(Error::cluster("this build cannot load MPI; it needs Unix and the feature `cli`"))
}
