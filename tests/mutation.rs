//! Do the emulator's checks find bugs? Correct kernels, with a wait, fence, barrier, index or mask removed or
//! changed, have to fault or to give a wrong result; the originals must not, in whatever order their warps
//! run.
//!
//! A mutant that lives is a hole in the checks. Each says why it is wrong, so that a dead one is no false
//! alarm.

#[path = "mutation/arrival.rs"]
mod arrival;
#[path = "mutation/attention_sm90.rs"]
mod attention_sm90;
#[path = "mutation/blocks.rs"]
mod blocks;
#[path = "mutation/clusters.rs"]
mod clusters;
#[path = "mutation/compile.rs"]
mod compile;
#[path = "mutation/decode.rs"]
mod decode;
#[path = "mutation/edit.rs"]
mod edit;
#[path = "mutation/gemm.rs"]
mod gemm;
#[path = "mutation/gemm_sm90.rs"]
mod gemm_sm90;
#[path = "mutation/harness.rs"]
mod harness;
#[path = "mutation/inputs.rs"]
mod inputs;
#[path = "mutation/loss.rs"]
mod loss;
#[path = "mutation/rows.rs"]
mod rows;
#[path = "mutation/warps.rs"]
mod warps;

use std::sync::Mutex;
use std::thread;

use harness::{Case, Death, Mutant};

/// Orders of execution in which an original must be right.
const SEEDS_OF_ORIGINALS: u64 = 20;
/// Orders of execution that may show what is wrong with a mutant.
const SEEDS_OF_MUTANTS: u64 = 5;
/// Mutants that there are at least, and those of a hundred that have to die.
const MUTANTS: usize = 40;
const KILLED: usize = 95;
/// What the emulator is known not to see: accesses of global memory that only the order of execution, which
/// is sequential there, keeps apart; lanes of a warp that get ahead of others, as they run in step.
const KNOWN_HOLES: [(&str, &str); 2] = [
    ("grid_exchange", "the arrival is no atomic"),
    ("warp_exchange", "syncwarp between load and store removed"),
];

fn cases() -> Vec<Case> {
    let crate_kernels =
        [gemm::cases, gemm_sm90::cases, rows::cases, attention_sm90::cases, decode::cases, loss::cases];
    let small_kernels = [warps::cases, blocks::cases, clusters::cases];
    let rooms = crate_kernels.into_iter().chain(small_kernels);
    rooms.flat_map(|cases| cases()).collect()
}

/// Does all the work on all cores, results in order.
fn in_parallel<J: Sync, R: Send>(jobs: &[J], work: impl Fn(&J) -> R + Sync) -> Vec<R> {
    let queue = Mutex::new(jobs.iter().enumerate());
    let next = || queue.lock().expect("no panic while taking a job").next();
    let worker = || std::iter::from_fn(next).map(|(n, job)| (n, work(job))).collect::<Vec<_>>();
    let threads = thread::available_parallelism().map_or(1, |n| n.get());
    let mut results: Vec<(usize, R)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("the message is above")).collect()
    });
    results.sort_by_key(|&(n, _)| n);
    results.into_iter().map(|(_, result)| result).collect()
}

#[test]
fn originals_raise_no_alarm() {
    let cases = cases();
    let results = in_parallel(&cases, |case| case.run(None, 0..SEEDS_OF_ORIGINALS));
    let alarms = cases.iter().zip(&results).filter_map(|(case, result)| {
        let (seed, death) = result.as_ref()?;
        Some(format!("{} at seed {seed}: {}: {}", case.kernel, death.cause(), death.detail()))
    });
    let alarms: Vec<String> = alarms.collect();
    assert!(alarms.is_empty(), "{}", alarms.join("\n"));
}

#[test]
fn mutants_die() {
    let cases = cases();
    let jobs: Vec<(&Case, &Mutant)> =
        cases.iter().flat_map(|c| c.mutants.iter().map(move |m| (c, m))).collect();
    assert!(jobs.len() >= MUTANTS, "only {} mutants", jobs.len());
    let results = in_parallel(&jobs, |(case, mutant)| case.run(Some(mutant), 0..SEEDS_OF_MUTANTS));
    let mut alive = Vec::new();
    for ((case, mutant), result) in jobs.iter().zip(&results) {
        let verdict = verdict(result);
        if result.is_none() {
            alive.push((case.kernel, mutant.name));
        }
        println!("{:<22} {:<44} {verdict:<30} {}", case.kernel, mutant.name, mutant.why);
    }
    let killed = jobs.len() - alive.len();
    println!("{killed} of {} mutants killed", jobs.len());
    assert!(100 * killed >= KILLED * jobs.len(), "{} of {} mutants live", alive.len(), jobs.len());
    alive.retain(|mutant| !KNOWN_HOLES.contains(mutant));
    assert!(alive.is_empty(), "new holes in the checks: {alive:?}");
}

fn verdict(result: &Option<(u64, Death)>) -> String {
    match result {
        Some((seed, death)) => format!("{} at seed {seed}", death.cause()),
        None => "SURVIVED".to_owned(),
    }
}
