//! Ranks as processes, one of which is killed, stopped or fails: all others end with exit code 6 and name it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use deepguard::Error;
use deepguard::dist::control::{Control, Timing};
use deepguard::dist::launch::{Launch, Launcher, Rendezvous};

use super::mpi::member;

const WORLD: usize = 3;

/// Where a rank goes wrong.
const PHASES: [&str; 4] = ["join", "step", "all-reduce", "end"];

/// How, and what the others say of it.
const FAULTS: [(&str, &str); 6] = [
    ("kill", "its connection closed"),
    ("stop", "nothing was heard of it"),
    ("exit", "its connection closed"),
    ("abort", "its connection closed"),
    ("panic", "ended with exit code 101: a panic"),
    ("error", "ended with exit code 5: out of memory"),
];

/// Until a rank has surely joined, on a machine with other work.
const JOINED: Duration = Duration::from_millis(1500);

/// Until the others have to have ended.
const LIMIT: Duration = Duration::from_secs(5);

/// One case: `rank fault phase folder`.
const CASE: &str = "DG_TEST_RANK";

fn timing() -> Timing {
    // A stopped rank is lost after two seconds.
    Timing { start: Duration::from_secs(20), stall: Duration::from_secs(6) }
}

/// What a rank of these tests does: this function in a process of its own.
#[test]
#[ignore = "a process of the tests below"]
fn a_rank() {
    let case = std::env::var(CASE).expect("a case");
    let words: Vec<&str> = case.split(' ').collect();
    let [rank, fault, phase, dir] = words[..] else { panic!("{case}") };
    let rank: usize = rank.parse().unwrap();
    let launch = Launch {
        launcher: Launcher::Flags,
        rank,
        world: WORLD,
        rendezvous: Some(Rendezvous::File(dir.into())),
        ..Launch::single()
    };
    let goes_wrong = |here: &str| if here == phase { go_wrong(fault) } else { None };
    if phase == "join" && fault != "none" {
        // While it waits for the last rank.
        let fault = fault.to_owned();
        thread::spawn(move || {
            thread::sleep(JOINED);
            match fault.as_str() {
                // What a main thread does that panics or fails before it has joined.
                "panic" => std::process::exit(101),
                "error" => std::process::exit(5),
                fault => go_wrong(fault),
            }
        });
    }
    let end = |error: Error| {
        eprintln!("{error}");
        std::process::exit(error.kind().exit_code().into());
    };
    let on_failure = Box::new(end);
    let joined = Control::join(&launch, member(rank), timing(), &|_| (), &mut |_| unreachable!(), on_failure);
    let control = joined.unwrap_or_else(|error| {
        eprintln!("{error}");
        std::process::exit(error.kind().exit_code().into())
    });
    control.enter(1, "step");
    thread::sleep(Duration::from_millis(100));
    if let Some(error) = goes_wrong("step") {
        return control.leave(&error);
    }
    let error = control.collective("all-reduce", || {
        let error = goes_wrong("all-reduce");
        // The others wait for whoever is gone.
        let fails = fault != "none" && phase != "end" || phase == "all-reduce";
        while error.is_none() && fails && control.failure().is_none() {
            thread::sleep(Duration::from_millis(5));
        }
        error
    });
    if let Some(error) = error.or_else(|| goes_wrong("end")) {
        return control.leave(&error);
    }
    // The others of a case wait in `end` for the one that goes wrong there.
    control.finish().unwrap_or_else(|error| {
        eprintln!("{error}");
        std::process::exit(error.kind().exit_code().into());
    });
}

/// The error of a rank that says why it goes; nothing comes back from the other faults.
fn go_wrong(fault: &str) -> Option<Error> {
    let signal = |number| {
        // SAFETY: a signal to this very process; no memory is passed.
        unsafe { libc::kill(libc::getpid(), number) };
        thread::sleep(Duration::from_secs(60));
    };
    match fault {
        "kill" => signal(libc::SIGKILL),
        "stop" => signal(libc::SIGSTOP),
        "exit" => std::process::exit(5),
        "abort" => std::process::abort(),
        "panic" => panic!("on purpose"),
        "error" => return Some(Error::device("out of memory")),
        _ => {}
    }
    None
}

/// Starts a rank that behaves as `fault` and `phase` say.
fn start(rank: usize, fault: &str, phase: &str, dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["faults::a_rank", "--exact", "--ignored", "--nocapture"])
        .env(CASE, format!("{rank} {fault} {phase} {}", dir.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Exit code (`None` for a signal) and standard error of a rank that has to end by `deadline`.
fn end(mut child: Child, deadline: Instant, what: &str) -> (Option<i32>, String) {
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            let text = child.wait_with_output().unwrap().stderr;
            panic!("{what}: a rank did not end: {}", String::from_utf8_lossy(&text));
        }
        thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Has one rank go wrong, and looks at the others.
fn case(victim: usize, (fault, reason): (&str, &str), phase: &str) {
    let what = format!("{fault} of rank {victim} in {phase}");
    let dir = tempfile::tempdir().unwrap();
    let mut ranks: Vec<(usize, Child)> = Vec::new();
    for rank in (0..WORLD).rev() {
        if phase == "join" && rank == last_to_join(victim) {
            continue;
        }
        let fault = if rank == victim {
            fault
        } else if phase == "end" {
            "none"
        } else {
            "waits"
        };
        ranks.push((rank, start(rank, fault, phase, dir.path())));
    }
    // That one has stopped is noticed once all have joined.
    if phase == "join" && fault == "stop" && victim != 0 {
        thread::sleep(2 * JOINED);
        let rank = last_to_join(victim);
        ranks.push((rank, start(rank, "none", "end", dir.path())));
    }
    let goes_wrong_after = if phase == "join" { JOINED } else { Duration::ZERO };
    let deadline = Instant::now() + goes_wrong_after + LIMIT;
    let (of_victim, others): (Vec<_>, Vec<_>) = ranks.into_iter().partition(|(rank, _)| *rank == victim);
    for (rank, child) in others {
        let (code, text) = end(child, deadline, &what);
        assert_eq!(code, Some(6), "{what}: rank {rank}: {text}");
        let named = text.contains(&format!("rank {victim} (here, pid "));
        // A rank that has not joined yet has nobody to tell it.
        let reason =
            if phase == "join" && reason.starts_with("ended") { "its connection closed" } else { reason };
        assert!(named && text.contains(reason), "{what}: rank {rank}: {text}");
    }
    for (_, mut child) in of_victim {
        let _ = child.kill();
        child.wait().unwrap();
    }
}

/// The rank for which all others wait, the victim included.
fn last_to_join(victim: usize) -> usize {
    if victim == 2 { 1 } else { 2 }
}

/// Several cases at a time, as they mostly wait.
fn all(cases: &[(usize, (&'static str, &'static str), &'static str)]) {
    const AT_ONCE: usize = 4;
    for cases in cases.chunks(AT_ONCE) {
        thread::scope(|scope| {
            let run = |(victim, fault, phase): &(usize, _, &'static str)| {
                let (victim, fault, phase) = (*victim, *fault, *phase);
                scope.spawn(move || case(victim, fault, phase))
            };
            let threads: Vec<_> = cases.iter().map(run).collect();
            threads
                .into_iter()
                .for_each(|thread| thread.join().unwrap_or_else(|e| std::panic::resume_unwind(e)));
        });
    }
}

#[test]
fn whatever_becomes_of_a_rank_the_others_end_and_name_it() {
    let mut cases = Vec::new();
    for (p, phase) in PHASES.into_iter().enumerate() {
        for (f, fault) in FAULTS.into_iter().enumerate() {
            cases.push(((p + f) % WORLD, fault, phase));
        }
    }
    all(&cases);
}

/// A part of `make test-long`: every fault of every rank in every phase, a hundred times in all.
#[test]
#[ignore = "many minutes"]
fn whatever_becomes_of_a_rank_a_hundred_times() {
    let mut cases = Vec::new();
    for victim in 0..WORLD {
        for phase in PHASES {
            cases.extend(FAULTS.map(|fault| (victim, fault, phase)));
        }
    }
    let repeated: Vec<_> = cases.iter().copied().cycle().take(2 * cases.len()).collect();
    assert!(repeated.len() >= 100);
    all(&repeated);
}
