//! Flags that make a process a rank of many.

use std::str::FromStr;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::dist::Engine;
use crate::dist::control::Timing;
use crate::dist::launch::{Flags, Launch, MAX_RANKS, Variables};
use crate::error::Error;

const RANKS: &str = "Ranks";

/// Longest time to wait, in seconds: a day.
const LONGEST: i64 = 86_400;

/// What connects the ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum DistChoice {
    /// MPI where it has started the ranks.
    #[default]
    Auto,
    /// MPI.
    Mpi,
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

    pub(super) fn engine(&self) -> Engine {
        match self.dist {
            DistChoice::Mpi => Engine::Mpi,
            DistChoice::Auto | DistChoice::None => Engine::Auto,
        }
    }

    pub(super) fn timing(&self) -> Timing {
        let [start, stall] = [self.dist_timeout, self.stall_timeout].map(Duration::from_secs);
        Timing { start, stall }
    }
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
