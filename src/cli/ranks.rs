//! Flags that make a process a rank of many.

use std::io::Write;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};
use signal_hook::low_level;

use super::device::DeviceArgs;
use super::say::{note, warn};
use super::{kind, with_flags};
use crate::dist::control::{Member, Timing};
use crate::dist::launch::{Flags, Launch, MAX_RANKS, Variables};
use crate::dist::{Crew, Engine, World};
use crate::error::Error;
use crate::{files, platform};

/// The heading of these flags in the help.
pub(super) const RANKS: &str = "Ranks";

/// Longest time to wait, in seconds: a day.
const LONGEST: i64 = 86_400;

/// What connects the ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum DistChoice {
    /// MPI where it has started the ranks, else NCCL where they compute on GPUs.
    #[default]
    Auto,
    /// MPI.
    Mpi,
    /// NCCL.
    Nccl,
    /// Nothing: this process is on its own, whatever has started it.
    None,
}

/// How many ranks to start here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nproc {
    /// One for each GPU.
    Auto,
    Number(usize),
}

/// Which rank this process is, of how many, and how long it waits for the others.
#[derive(Args, Debug)]
pub(super) struct RanksArgs {
    /// Start so many ranks on this machine; auto for one on each GPU.
    #[arg(long, value_name = "N|auto", conflicts_with_all = ["world_size", "rank", "rendezvous"], help_heading = RANKS)]
    pub(super) nproc: Option<Nproc>,
    /// Ranks in all, where no launcher says so.
    #[arg(long, value_name = "N", help_heading = RANKS)]
    world_size: Option<usize>,
    /// Which of them this one is, from 0.
    #[arg(long, value_name = "R", help_heading = RANKS)]
    rank: Option<usize>,
    /// Where the ranks meet: HOST:PORT of rank 0, or file:DIR with a folder that all of them see.
    #[arg(long, value_name = "HOST:PORT|file:DIR", help_heading = RANKS)]
    rendezvous: Option<String>,
    /// What connects the ranks.
    #[arg(long, value_enum, default_value = "auto", help_heading = RANKS)]
    dist: DistChoice,
    /// Seconds until all ranks have to be there.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=LONGEST as u64), help_heading = RANKS)]
    dist_timeout: u64,
    /// Seconds that the others wait for a rank which does not go on; a third of it without a sign of life,
    /// and it is lost.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(3..=LONGEST as u64), help_heading = RANKS)]
    stall_timeout: u64,
}

impl RanksArgs {
    /// The rank that flags and environment make of this process.
    pub(super) fn launch(&self) -> Result<Launch> {
        let flags =
            Flags { world_size: self.world_size, rank: self.rank, rendezvous: self.rendezvous.clone() };
        if self.dist != DistChoice::None {
            return Ok(Launch::of(&flags, &Variables::of_process())?);
        }
        match flags == Flags::default() && self.nproc.is_none() {
            true => Ok(Launch::single()),
            false => Err(Error::usage(
                "--dist none: a process on its own has neither --nproc nor --world-size, --rank or --rendezvous; leave \
                 one of them out",
            )
            .into()),
        }
    }

    /// Whether NCCL is asked for, which connects GPUs alone.
    pub(super) fn needs_gpus(&self) -> bool {
        self.dist == DistChoice::Nccl
    }

    /// Meets all other ranks, as one that computes on `device`. If it has none, they hear why. `tell` gets a
    /// line now and then while some are waited for.
    pub(super) fn join(
        &self,
        launch: Launch,
        device: Result<DeviceArgs>,
        tell: &dyn Fn(&str),
    ) -> Result<(World, DeviceArgs)> {
        launch.note.iter().for_each(|text| note(text));
        let rank = launch.rank;
        let engine = self.engine(device.as_ref().ok().and_then(DeviceArgs::gpu));
        let member = |fabric: &str| member(rank, device.as_ref().ok(), fabric);
        let joined = World::join(launch, engine, self.timing(), member, tell, Box::new(end_process));
        with_device(joined, device, World::leave)
    }

    /// Refuses a choice of collectives for work that has none.
    pub(super) fn refuse_collectives(&self) -> Result<()> {
        let name = match self.dist {
            DistChoice::Auto | DistChoice::None => return Ok(()),
            DistChoice::Mpi => "mpi",
            DistChoice::Nccl => "nccl",
        };
        Err(Error::usage(format!(
            "--dist {name}: the ranks of this command need nothing between them but their connections to rank 0, whatever \
             has started them; leave it out"
        ))
        .into())
    }

    /// [`Self::join`] for work that is leased.
    pub(super) fn join_crew(
        &self,
        launch: Launch,
        device: Result<DeviceArgs>,
        tell: &dyn Fn(&str),
    ) -> Result<(Crew, DeviceArgs)> {
        launch.note.iter().for_each(|text| note(text));
        let member = member(launch.rank, device.as_ref().ok(), "none");
        let (end, on_loss) = (Box::new(end_process), Box::new(warn));
        let joined = Crew::join(launch, self.timing(), member, tell, end, on_loss);
        with_device(joined, device, Crew::leave)
    }

    fn engine(&self, gpu: Option<usize>) -> Engine {
        match self.dist {
            DistChoice::Mpi => Engine::Mpi,
            DistChoice::Nccl => Engine::Nccl { gpu },
            DistChoice::Auto | DistChoice::None => Engine::Auto { gpu },
        }
    }

    fn timing(&self) -> Timing {
        let [start, stall] = [self.dist_timeout, self.stall_timeout].map(Duration::from_secs);
        Timing { start, stall }
    }
}

/// What a rank has joined, and its device; without one it leaves, and the others hear why.
fn with_device<T>(
    joined: crate::Result<T>,
    device: Result<DeviceArgs>,
    leave: impl FnOnce(T, &Error),
) -> Result<(T, DeviceArgs)> {
    match (joined, device) {
        (Ok(joined), Ok(device)) => Ok((joined, device)),
        (Ok(joined), Err(error)) => {
            leave(joined, &Error::new(kind(&error), format!("{error:#}")));
            Err(error)
        }
        (Err(error), Ok(_)) => Err(error.into()),
        (Err(_), Err(own)) => Err(own),
    }
}

/// This process as a rank, on its device if it has one.
fn member(rank: usize, device: Option<&DeviceArgs>, fabric: &str) -> Member {
    Member {
        rank,
        host: platform::host_name(),
        pid: std::process::id(),
        device: device.map_or("no device".to_owned(), DeviceArgs::name),
        sole: device.and_then(DeviceArgs::uuid),
        invitation: None,
        facts: vec![
            ("version of dg-run".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("collectives".to_owned(), fabric.to_owned()),
        ],
    }
}

/// The end of a rank because of another one, whatever its own threads wait for.
fn end_process(error: Error) {
    let _ = writeln!(std::io::stderr(), "dg-run: {}", with_flags(&error.to_string()));
    files::abandon();
    // Without the last words of libraries, which may wait for the others.
    low_level::exit(error.kind().exit_code().into())
}

/// Threads of one of several ranks of a machine, unless somebody has said how many: its share of the cores.
/// `None` for all that there are, which are the share already where the launcher has bound the rank to some.
pub(super) fn share_of_cores(launch: &Launch) -> Option<usize> {
    let cores = std::thread::available_parallelism().ok()?.get();
    let is_bound = cores < platform::cores()?;
    let is_free = !is_bound && launch.local_world > 1 && std::env::var_os("RAYON_NUM_THREADS").is_none();
    is_free.then(|| (cores / launch.local_world).max(1))
}

impl FromStr for Nproc {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "auto" => Ok(Nproc::Auto),
            number => match number.parse() {
                Ok(number) if (1..=MAX_RANKS).contains(&number) => Ok(Nproc::Number(number)),
                _ => Err(format!("expected auto or 1 to {MAX_RANKS}")),
            },
        }
    }
}
