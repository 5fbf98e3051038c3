//! `dg-run dist check`: whether ranks meet, and what lies between them.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Args, Subcommand};

use super::device::DeviceArgs;
use super::ranks::RanksArgs;
use super::say::note;
use super::signals::Signals;
use super::spawn::{self, Success};
use super::{on_threads, print};
#[cfg(unix)]
use crate::cuda::BounceBuffer;
use crate::dist::World;
use crate::dist::control::Member;
use crate::dist::fabric::Fabric;
use crate::dist::launch::Launch;
use crate::error::Error;

/// Values of a large sum: 64 MiB.
const LARGE: usize = 8 << 20;

/// Sums of one value, of which the median counts.
const SMALL_SUMS: usize = 51;

/// Large sums, of which the shortest counts.
const LARGE_SUMS: usize = 3;

/// What to do with ranks.
#[derive(Args)]
pub(super) struct DistArgs {
    #[command(subcommand)]
    command: DistCommand,
}

#[derive(Subcommand)]
enum DistCommand {
    /// Start all ranks as for a run, and show who they are and how fast they are connected.
    Check(CheckArgs),
}

/// Options of `dg-run dist check`.
#[derive(Args)]
struct CheckArgs {
    /// Go on for so long: connections may break every now and then.
    #[arg(long, default_value_t = 0)]
    seconds: u64,
    #[command(flatten)]
    ranks: RanksArgs,
}

pub(super) fn run(args: &DistArgs, threads: Option<usize>, signals: &Signals) -> Result<()> {
    let DistCommand::Check(args) = &args.command;
    let launch = args.ranks.launch()?;
    if let Some(nproc) = args.ranks.nproc {
        return spawn::run(nproc, &launch, signals, Success::OfEach);
    }
    on_threads(threads, || check(args, launch))
}

fn check(args: &CheckArgs, launch: Launch) -> Result<()> {
    let tells = launch.rank == 0;
    let tell = |text: &str| {
        if tells {
            note(text)
        }
    };
    let device = match args.ranks.needs_gpus() {
        true => DeviceArgs::any_gpu().of_rank(&launch),
        false => Ok(DeviceArgs::processor()),
    };
    let (mut world, device) = args.ranks.join(launch, device, &tell)?;
    if world.launch().world > 1 {
        tell(&format!("{} are there", counted(world.launch().world)));
    }
    match look(&mut world, device.gpu(), Duration::from_secs(args.seconds)) {
        Ok(text) => {
            world.finish()?;
            if tells {
                print(&text)?;
            }
            Ok(())
        }
        Err(error) => {
            world.leave(&error);
            Err(error.into())
        }
    }
}

/// What rank 0 shows.
fn look(world: &mut World, gpu: Option<usize>, seconds: Duration) -> crate::Result<String> {
    let mut text = format!("{}, started by {}\n", counted(world.launch().world), world.launch().launcher);
    if world.fabric().is_none() {
        text += &table(world, None);
        text += "collectives: none, as MPI has not started the ranks; mpiexec -n N dg-run dist check looks at those, and \
                 --dist nccl at those between GPUs\n";
        world.control().enter(0, "check");
        std::thread::sleep(seconds);
        return Ok(text);
    }
    let measured = Measured::of(world, gpu)?;
    text += &table(world, Some(&measured));
    text += &format!(
        "collectives: {}\n{}",
        world.fabric().map(|f| f.name()).unwrap_or_default(),
        measured.to_text()
    );
    if !seconds.is_zero() {
        text += &repeat(world, seconds)?;
    }
    Ok(text)
}

fn counted(ranks: usize) -> String {
    if ranks == 1 { "1 rank".to_owned() } else { format!("{ranks} ranks") }
}

/// A line for each rank.
fn table(world: &World, measured: Option<&Measured>) -> String {
    let members: Vec<&Member> = world.control().members().collect();
    let width = members.iter().map(|member| member.host.len()).max().unwrap_or(0).max("machine".len());
    let row = |rank: &str, host: &str, pid: &str, device: &str, from: &str| {
        format!("{rank:>5}  {host:<width$}  {pid:>8}  {device:<10}  {from}").trim_end().to_owned() + "\n"
    };
    let from = if measured.is_some() { "64 MiB from it" } else { "" };
    let mut text = "\n".to_owned() + &row("rank", "machine", "process", "device", from);
    for Member { rank, host, pid, device, .. } in members {
        let from = measured.and_then(|measured| measured.from.get(*rank)).map(|took| speed(*took));
        text += &row(&rank.to_string(), host, &pid.to_string(), device, &from.unwrap_or_default());
    }
    text + "\n"
}

/// How fast 64 MiB are.
fn speed(took: Duration) -> String {
    let bytes = (LARGE * size_of::<i64>()) as f64;
    format!("{:.1} ms, {:.2} GB/s", 1e3 * took.as_secs_f64(), bytes / took.as_secs_f64() / 1e9)
}

/// Times of collectives.
struct Measured {
    small: Duration,
    large: Duration,
    /// Of a large sum in memory of GPUs, where they are reached.
    on_gpus: Option<Duration>,
    /// 64 MiB from each rank to all others.
    from: Vec<Duration>,
}

impl Measured {
    fn of(world: &mut World, gpu: Option<usize>) -> crate::Result<Self> {
        let mut small = times(SMALL_SUMS, || sum(world, 1))?;
        small.sort();
        let shortest = |times: Vec<Duration>| times.into_iter().min().unwrap_or_default();
        let large = shortest(times(LARGE_SUMS, || sum(world, LARGE))?);
        let gpu = gpu.filter(|_| world.fabric().is_some_and(|fabric| fabric.reaches_gpus()));
        let on_gpus = gpu.map(|gpu| times(LARGE_SUMS, || sum_on_gpus(world, gpu))).transpose()?.map(shortest);
        let from = (0..world.launch().world).map(|root| send(world, root)).collect::<crate::Result<_>>()?;
        Ok(Measured { small: small[SMALL_SUMS / 2], large, on_gpus, from })
    }

    fn to_text(&self) -> String {
        let small = 1e6 * self.small.as_secs_f64();
        let mut text = format!("sum of 8 bytes: {small:.1} µs\nsum of 64 MiB: {}\n", speed(self.large));
        if let Some(took) = self.on_gpus {
            text += &format!("sum of 64 MiB in memory of GPUs: {}\n", speed(took));
        }
        text
    }
}

/// How long something takes, `count` times.
fn times(count: usize, mut work: impl FnMut() -> crate::Result<Duration>) -> crate::Result<Vec<Duration>> {
    (0..count).map(|_| work()).collect()
}

/// How long a sum over all ranks takes, which has to be right.
fn sum(world: &mut World, length: usize) -> crate::Result<Duration> {
    let mut values = summands(world, length);
    let began = Instant::now();
    world.collective("a sum", |fabric| fabric.all_reduce(&mut values))?;
    let took = began.elapsed();
    check_sums(world, &values).map(|()| took)
}

/// The same of 64 MiB in memory of GPUs, of which this rank has one.
#[cfg(unix)]
fn sum_on_gpus(world: &mut World, gpu: usize) -> crate::Result<Duration> {
    let mut values = summands(world, LARGE);
    let mut memory = BounceBuffer::new(gpu, LARGE * size_of::<i64>())?;
    memory.upload(0, bytemuck::cast_slice(&values))?;
    memory.finish()?;
    let began = Instant::now();
    // SAFETY: the memory has so many values, all of which are there.
    world.collective("a sum", |fabric| unsafe {
        fabric.all_reduce_on_gpu(memory.address(0) as usize, LARGE)
    })?;
    let took = began.elapsed();
    memory.download(0, bytemuck::cast_slice_mut(&mut values))?;
    check_sums(world, &values).map(|()| took)
}

/// Nothing reaches GPUs there.
#[cfg(not(unix))]
fn sum_on_gpus(_: &mut World, _: usize) -> crate::Result<Duration> {
    Err(Error::internal("a sum on GPUs by nothing"))
}

/// Values of this rank to add up.
fn summands(world: &World, length: usize) -> Vec<i64> {
    let rank = world.rank() as i64;
    (0..length as i64).map(|i| rank + i).collect()
}

/// Sees that the [`summands`] of all ranks were added up.
fn check_sums(world: &World, values: &[i64]) -> crate::Result<()> {
    let (rank, ranks, length) = (world.rank(), world.ranks() as i64, values.len());
    let expected = |i: usize| ranks * (ranks - 1) / 2 + ranks * i as i64;
    match values.iter().enumerate().find(|(i, value)| **value != expected(*i)) {
        None => Ok(()),
        Some((i, value)) => Err(Error::cluster(format!(
            "rank {rank}: value {i} of {length} of a sum over {ranks} ranks is {value} instead of {}; do not train with \
             this library or network",
            expected(i)
        ))),
    }
}

/// How long 64 MiB take from one rank to all others, which have to arrive as they are.
fn send(world: &mut World, root: usize) -> crate::Result<Duration> {
    let byte = |i: usize| (7 * i + root) as u8;
    let length = LARGE * size_of::<i64>();
    let mut bytes = if world.launch().rank == root { (0..length).map(byte).collect() } else { Vec::new() };
    let meet = |fabric: &mut dyn Fabric| fabric.all_reduce(&mut [0]);
    world.collective("a broadcast", meet)?;
    let began = Instant::now();
    world.collective("a broadcast", |fabric| {
        fabric.broadcast(root, &mut bytes)?;
        fabric.all_reduce(&mut [0])
    })?;
    let took = began.elapsed();
    let rank = world.launch().rank;
    let is_right = bytes.len() == length && bytes.iter().enumerate().all(|(i, found)| *found == byte(i));
    match is_right {
        true => Ok(took),
        false => Err(Error::cluster(format!(
            "rank {rank}: what came from rank {root} is not what was sent; do not train with this library or network"
        ))),
    }
}

/// Sums until the time is over, by rank 0's clock.
fn repeat(world: &mut World, seconds: Duration) -> crate::Result<String> {
    let until = Instant::now() + seconds;
    let (mut count, mut slowest) = (0, Duration::ZERO);
    loop {
        let mut goes_on = vec![u8::from(Instant::now() < until)];
        world.collective("a broadcast", |fabric| fabric.broadcast(0, &mut goes_on))?;
        if goes_on != [1] {
            let seconds = seconds.as_secs();
            return Ok(format!("{count} sums of 64 MiB in {seconds} s, the slowest {}\n", speed(slowest)));
        }
        slowest = slowest.max(sum(world, LARGE)?);
        count += 1;
        world.control().enter(count, "check");
    }
}
