//! What started this process, and as which of how many ranks: torchrun, `srun`, `mpirun`, Kubernetes, flags,
//! or a person who wants one process. Nothing here looks at the machine: variables and flags come in, a
//! [`Launch`] goes out.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::slurm;
use crate::error::{Error, Result};

/// More ranks than any cluster has; a number beyond it is a mistake.
pub const MAX_RANKS: usize = 1 << 16;

/// The rendezvous where there is no flag, as `--rendezvous` takes it.
pub const RENDEZVOUS_VARIABLE: &str = "DG_RENDEZVOUS";

/// What all ranks of a job know and nobody else: the key of their messages.
pub const TOKEN_VARIABLE: &str = "DG_DIST_TOKEN";

/// What a process has that can start MPI: Open MPI's rank, PMI's and PMIx's.
const OF_MPI: [&str; 4] = ["OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMI_FD", "PMIX_RANK"];

const AT_FAULT: &str = "correct what starts the ranks, or give --dist none for a process on its own";

/// The environment, by name.
#[derive(Clone, Debug, Default)]
pub struct Variables(BTreeMap<String, String>);

/// What the command line says about ranks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--world-size`: ranks in all.
    pub world_size: Option<usize>,
    /// `--rank`: which of them this one is, from 0.
    pub rank: Option<usize>,
    /// `--rendezvous`: `HOST:PORT` of rank 0, or `file:DIR`.
    pub rendezvous: Option<String>,
}

/// What started the ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launcher {
    /// Nothing: a process on its own.
    Single,
    /// `--world-size` and `--rank`.
    Flags,
    /// `RANK` and `WORLD_SIZE`: torchrun, PyTorchJob, Ray Train, `--nproc`.
    Torch,
    /// `OMPI_COMM_WORLD_RANK`: Open MPI.
    OpenMpi,
    /// `PMI_RANK`: MPICH, Intel MPI, `srun --mpi=pmi2`.
    Pmi,
    /// `SLURM_PROCID` in a step.
    Slurm,
    /// `JOB_COMPLETION_INDEX`: an indexed Job of Kubernetes.
    Kubernetes,
}

/// Where the ranks meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rendezvous {
    /// Rank 0 listens there.
    Tcp {
        /// Name or address of the machine.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// Rank 0 writes where it listens into a file of this folder, which all ranks see.
    File(PathBuf),
    /// Rank 0 tells where it listens through MPI.
    Mpi,
}

/// A process as a rank of its job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// What started it.
    pub launcher: Launcher,
    /// Which rank it is, from 0.
    pub rank: usize,
    /// Ranks in all.
    pub world: usize,
    /// Which rank of its machine it is, from 0.
    pub local_rank: usize,
    /// Ranks on its machine, as far as the launcher tells; at least `local_rank + 1`.
    pub local_world: usize,
    /// Where the ranks meet; `None` for one rank.
    pub rendezvous: Option<Rendezvous>,
    /// Whether MPI, or a launcher that knows it, has started the ranks, so that MPI connects them.
    pub by_mpi: bool,
    /// What all ranks of this job know: `DG_DIST_TOKEN`, or the id that the launcher gave the job.
    pub token: Option<String>,
    /// Something a person may not have meant.
    pub note: Option<String>,
}

/// Rank and size by one launcher.
struct Place {
    launcher: Launcher,
    rank: usize,
    world: usize,
    local_rank: Option<usize>,
    local_world: Option<usize>,
}

impl Launch {
    /// A process on its own.
    pub fn single() -> Self {
        Launch {
            launcher: Launcher::Single,
            rank: 0,
            world: 1,
            local_rank: 0,
            local_world: 1,
            rendezvous: None,
            by_mpi: false,
            token: None,
            note: None,
        }
    }

    /// The rank that flags and variables make of this process: flags, then `RANK` and `WORLD_SIZE`, Open MPI,
    /// PMI, a step of Slurm, an indexed Job with `--world-size`; else a process on its own.
    ///
    /// # Errors
    /// Of kind `Usage`, with the name of what is wrong, missing or contradictory.
    pub fn of(flags: &Flags, variables: &Variables) -> Result<Self> {
        let place = match place_by_flags(flags, variables)? {
            Some(place) => Some(place),
            None => place_by_launcher(variables)?,
        };
        let rendezvous = flags.rendezvous.as_deref().map(|text| ("--rendezvous", text));
        let rendezvous =
            rendezvous.or_else(|| Some((RENDEZVOUS_VARIABLE, variables.get(RENDEZVOUS_VARIABLE)?)));
        let rendezvous = rendezvous.map(|(name, text)| parse_rendezvous(name, text)).transpose()?;
        let Some(place) = place else {
            return match (rendezvous, &flags.rendezvous) {
                (Some(_), Some(text)) => Err(Error::usage(format!(
                    "--rendezvous: found {text}, but neither a launcher's variables nor --world-size and --rank; give \
                     those two as well"
                ))),
                _ => Ok(Launch { note: note_on_single(variables), ..Launch::single() }),
            };
        };
        let rendezvous = match rendezvous {
            _ if place.world == 1 => None,
            Some(given) => Some(given),
            None => Some(rendezvous_of(&place, variables)?),
        };
        let local_rank = place.local_rank.unwrap_or(0);
        Ok(Launch {
            launcher: place.launcher,
            rank: place.rank,
            world: place.world,
            local_rank,
            local_world: place.local_world.unwrap_or(local_rank + 1),
            rendezvous,
            by_mpi: OF_MPI.iter().any(|name| variables.get(name).is_some()),
            token: token_of(place.launcher, variables),
            note: None,
        })
    }
}

fn place_by_flags(flags: &Flags, variables: &Variables) -> Result<Option<Place>> {
    let place = |launcher, rank, world| Place { launcher, rank, world, local_rank: None, local_world: None };
    let place = match (flags.world_size, flags.rank) {
        (None, None) => return Ok(None),
        (None, Some(rank)) => {
            let text = format!("--rank: found {rank}, but no --world-size; give the number of ranks as well");
            return Err(Error::usage(text));
        }
        (Some(world), Some(rank)) => {
            check_size("--world-size", world)?;
            check_rank("--rank", rank, world)?;
            place(Launcher::Flags, rank, world)
        }
        (Some(world), None) => {
            check_size("--world-size", world)?;
            let Some(index) = variables.number("JOB_COMPLETION_INDEX")? else {
                return Err(Error::usage(format!(
                    "--world-size: found {world}, but neither --rank nor the JOB_COMPLETION_INDEX of an indexed Job; \
                     give --rank as well"
                )));
            };
            check_rank("JOB_COMPLETION_INDEX", index, world)?;
            place(Launcher::Kubernetes, index, world)
        }
    };
    // Those of torchrun are right as well, where there are any.
    let local_rank = variables.number("LOCAL_RANK")?;
    let local_world = variables.number("LOCAL_WORLD_SIZE")?;
    Ok(Some(Place { local_rank, local_world, ..place }.checked(["LOCAL_RANK", "LOCAL_WORLD_SIZE"])?))
}

fn place_by_launcher(variables: &Variables) -> Result<Option<Place>> {
    type Names = [&'static str; 4];
    const NAMES: [(Launcher, Names); 3] = [
        (Launcher::Torch, ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"]),
        (
            Launcher::OpenMpi,
            [
                "OMPI_COMM_WORLD_RANK",
                "OMPI_COMM_WORLD_SIZE",
                "OMPI_COMM_WORLD_LOCAL_RANK",
                "OMPI_COMM_WORLD_LOCAL_SIZE",
            ],
        ),
        (Launcher::Pmi, ["PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"]),
    ];
    for (launcher, [rank_name, size_name, local_rank_name, local_world_name]) in NAMES {
        let (rank, world) = match (variables.number(rank_name)?, variables.number(size_name)?) {
            (None, None) => continue,
            (Some(rank), None) => return Err(lonely(rank_name, rank, size_name)),
            (None, Some(world)) => return Err(lonely(size_name, world, rank_name)),
            (Some(rank), Some(world)) => (rank, world),
        };
        check_size(size_name, world)?;
        check_rank(rank_name, rank, world)?;
        let local_rank = variables.number(local_rank_name)?;
        let local_world = variables.number(local_world_name)?;
        let place = Place { launcher, rank, world, local_rank, local_world };
        return Ok(Some(place.checked([local_rank_name, local_world_name])?));
    }
    place_by_slurm(variables)
}

fn place_by_slurm(variables: &Variables) -> Result<Option<Place>> {
    if slurm_step(variables)?.is_none() {
        return Ok(None);
    }
    let world = variables.required("SLURM_STEP_NUM_TASKS")?;
    let rank = variables.required("SLURM_PROCID")?;
    check_size("SLURM_STEP_NUM_TASKS", world)?;
    check_rank("SLURM_PROCID", rank, world)?;
    let node = variables.number("SLURM_NODEID")?.unwrap_or(0);
    let tasks = variables.get("SLURM_STEP_TASKS_PER_NODE").map(slurm::tasks_per_node).transpose();
    let tasks = tasks.map_err(|text| variables.complaint("SLURM_STEP_TASKS_PER_NODE", &text))?;
    let local_world = tasks.and_then(|tasks| tasks.get(node).copied());
    let local_rank = variables.number("SLURM_LOCALID")?;
    let place = Place { launcher: Launcher::Slurm, rank, world, local_rank, local_world };
    Ok(Some(place.checked(["SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"])?))
}

/// The number of the step that this process is a task of. The steps beyond [`slurm::LAST_STEP`] are Slurm's
/// own: a batch script, an interactive shell.
fn slurm_step(variables: &Variables) -> Result<Option<usize>> {
    Ok(variables.number("SLURM_STEP_ID")?.filter(|step| *step <= slurm::LAST_STEP))
}

impl Place {
    /// The place, if it is one on a machine as well; `names` are those of rank and size there.
    fn checked(self, [rank_name, size_name]: [&str; 2]) -> Result<Self> {
        if let Some(size) = self.local_world {
            check_size(size_name, size)?;
            if size > self.world {
                let text = format!("{size_name}: expected at most {}, all ranks, found {size}", self.world);
                return Err(Error::usage(format!("{text}; {AT_FAULT}")));
            }
            check_rank(rank_name, self.local_rank.unwrap_or(0), size)?;
        }
        if let Some(rank) = self.local_rank {
            check_rank(rank_name, rank, self.world)?;
        }
        Ok(self)
    }
}

fn lonely(name: &str, value: usize, missing: &str) -> Error {
    Error::usage(format!("{name}: found {value}, but no {missing}; {AT_FAULT}"))
}

fn check_size(name: &str, size: usize) -> Result<()> {
    match (1..=MAX_RANKS).contains(&size) {
        true => Ok(()),
        false => {
            let expected = format!("{name}: expected 1 to {MAX_RANKS} ranks, found {size}");
            Err(Error::usage(format!("{expected}; {AT_FAULT}")))
        }
    }
}

fn check_rank(name: &str, rank: usize, size: usize) -> Result<()> {
    match rank < size {
        true => Ok(()),
        false => {
            let expected = format!("{name}: expected a rank below {size}, the number of ranks, found {rank}");
            Err(Error::usage(format!("{expected}; {AT_FAULT}")))
        }
    }
}

/// Where the ranks of a launcher meet, if nobody says so.
fn rendezvous_of(place: &Place, variables: &Variables) -> Result<Rendezvous> {
    if place.launcher == Launcher::Slurm {
        return rendezvous_of_slurm(variables);
    }
    let through_mpi = matches!(place.launcher, Launcher::OpenMpi | Launcher::Pmi);
    match (variables.get("MASTER_ADDR"), variables.number("MASTER_PORT")?) {
        (Some(host), Some(port)) => {
            // torchrun itself listens at MASTER_PORT.
            let own = usize::from(variables.get("TORCHELASTIC_RUN_ID").is_some());
            let port = u16::try_from(port + own).ok().filter(|port| *port > 0);
            let port = port.ok_or_else(|| variables.complaint("MASTER_PORT", "expected a TCP port"))?;
            if host.is_empty() {
                return Err(variables.complaint("MASTER_ADDR", "expected the machine of rank 0"));
            }
            Ok(Rendezvous::Tcp { host: host.trim_matches(['[', ']']).to_owned(), port })
        }
        _ if through_mpi && is_task_of_slurm(place, variables)? => rendezvous_of_slurm(variables),
        _ if through_mpi => Ok(Rendezvous::Mpi),
        (Some(host), None) => Err(Error::usage(format!(
            "MASTER_ADDR: found {host:?}, but no MASTER_PORT; set it, or give --rendezvous HOST:PORT"
        ))),
        (None, _) => Err(Error::usage(format!(
            "rank {} of {} does not know where rank 0 is: there is no MASTER_ADDR; set it and MASTER_PORT, or give \
             --rendezvous HOST:PORT, or --rendezvous file:DIR with a folder that all ranks see",
            place.rank, place.world
        ))),
    }
}

/// Whether the ranks of `srun --mpi=pmi2` are Slurm's tasks: those of an `mpirun` in a job are not, whose
/// daemons are.
fn is_task_of_slurm(place: &Place, variables: &Variables) -> Result<bool> {
    let tasks = (variables.number("SLURM_PROCID")?, variables.number("SLURM_STEP_NUM_TASKS")?);
    Ok(slurm_step(variables)?.is_some() && tasks == (Some(place.rank), Some(place.world)))
}

fn rendezvous_of_slurm(variables: &Variables) -> Result<Rendezvous> {
    const FIRST_PORT: usize = 20_000;
    const PORTS: usize = 40_000;
    let step = slurm_step(variables)?.unwrap_or(0);
    let job = variables.required("SLURM_JOB_ID")?;
    let list = variables.get("SLURM_STEP_NODELIST").ok_or_else(|| missing("SLURM_STEP_NODELIST"))?;
    let hosts = slurm::hosts(list).map_err(|text| variables.complaint("SLURM_STEP_NODELIST", &text))?;
    let port = FIRST_PORT + (job % 20_000 + step) % PORTS;
    Ok(Rendezvous::Tcp { host: hosts[0].clone(), port: port as u16 })
}

fn token_of(launcher: Launcher, variables: &Variables) -> Option<String> {
    let given = variables.get(TOKEN_VARIABLE).filter(|token| !token.is_empty());
    given.map(str::to_owned).or_else(|| match launcher {
        Launcher::Torch => {
            let restart = variables.get("TORCHELASTIC_RESTART_COUNT").unwrap_or("0");
            Some(format!("torchrun {} {restart}", variables.get("TORCHELASTIC_RUN_ID")?))
        }
        Launcher::Slurm | Launcher::Pmi => {
            let restart = variables.get("SLURM_RESTART_COUNT").unwrap_or("0");
            let [job, step] = [variables.get("SLURM_JOB_ID")?, variables.get("SLURM_STEP_ID")?];
            Some(format!("slurm {job}.{step} {restart}"))
        }
        _ => None,
    })
}

/// What is said to somebody who may have meant more than one process.
fn note_on_single(variables: &Variables) -> Option<String> {
    let tasks = variables.get("SLURM_NTASKS").filter(|tasks| *tasks != "1");
    if let (Some(_), Some(tasks)) = (variables.get("SLURM_JOB_ID"), tasks) {
        return Some(format!(
            "one process, as this is no step of Slurm; srun starts all {tasks} tasks of the job"
        ));
    }
    let index = variables.get("JOB_COMPLETION_INDEX")?;
    Some(format!(
        "one process, with JOB_COMPLETION_INDEX {index}; --world-size makes the Job's pods ranks of one job"
    ))
}

/// `HOST:PORT`, `[ADDRESS]:PORT` or `file:DIR`.
fn parse_rendezvous(name: &str, text: &str) -> Result<Rendezvous> {
    if let Some(dir) = text.strip_prefix("file:").filter(|dir| !dir.is_empty()) {
        return Ok(Rendezvous::File(dir.into()));
    }
    let parts = text.rsplit_once(':').filter(|(host, _)| is_host(host));
    let parsed =
        parts.and_then(|(host, port)| Some((host, port.parse::<u16>().ok().filter(|port| *port > 0)?)));
    match parsed {
        Some((host, port)) => Ok(Rendezvous::Tcp { host: host.trim_matches(['[', ']']).to_owned(), port }),
        None => Err(Error::usage(format!(
            "{name}: expected HOST:PORT, [ADDRESS]:PORT for IPv6, or file:DIR, found {text:?}"
        ))),
    }
}

/// A name, an IPv4 address, or an IPv6 address in brackets.
fn is_host(host: &str) -> bool {
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    bracketed.map_or(!host.is_empty() && !host.contains([':', '[', ']', '/']), |address| {
        address.parse::<std::net::Ipv6Addr>().is_ok()
    })
}

fn missing(name: &str) -> Error {
    Error::usage(format!("{name}: expected it of a step of Slurm, found nothing; {AT_FAULT}"))
}

impl Variables {
    /// Those of this process. What is not UTF-8 has other characters in place of its own.
    pub fn of_process() -> Self {
        let text = |name: std::ffi::OsString| name.to_string_lossy().into_owned();
        Variables(std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> Result<Option<usize>> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text.trim().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(self.complaint(name, "expected a number from 0")),
        }
    }

    fn required(&self, name: &str) -> Result<usize> {
        self.number(name)?.ok_or_else(|| missing(name))
    }

    fn complaint(&self, name: &str, expected: &str) -> Error {
        let found = self.get(name).unwrap_or_default();
        Error::usage(format!("{name}: {expected}, found {found:?}; {AT_FAULT}"))
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Variables {
    fn from_iter<T: IntoIterator<Item = (&'a str, &'a str)>>(pairs: T) -> Self {
        Variables(pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

impl fmt::Display for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Launcher::Single => "nothing",
            Launcher::Flags => "--world-size and --rank",
            Launcher::Torch => "RANK and WORLD_SIZE",
            Launcher::OpenMpi => "Open MPI",
            Launcher::Pmi => "PMI",
            Launcher::Slurm => "Slurm",
            Launcher::Kubernetes => "JOB_COMPLETION_INDEX",
        })
    }
}

impl fmt::Display for Rendezvous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rendezvous::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Rendezvous::Tcp { host, port } => write!(f, "{host}:{port}"),
            Rendezvous::File(dir) => write!(f, "file:{}", dir.display()),
            Rendezvous::Mpi => f.write_str("where MPI says"),
        }
    }
}
