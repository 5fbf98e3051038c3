//! Units of work that ranks lease, with ranks that are killed, stopped, or fail: nobody else ends, and what
//! they held is computed by others. Rank 0 is the test itself, the others are processes.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use deepguard::cpu::Cpu;
use deepguard::decode::GenerateOptions;
use deepguard::dist::control::Timing;
use deepguard::dist::launch::{Launch, Launcher, Rendezvous};
use deepguard::dist::leases::{Facts, Unit};
use deepguard::dist::{Crew, Work};
use deepguard::eval::presets::PRESETS;
use deepguard::eval::sampling::{SampleOptions, Sharing, sample};
use deepguard::eval::suite::Suite;
use deepguard::{DeepGuard, Error, ErrorKind, Result};

use super::mpi::member;
use super::places;
use super::tiny::Tiny;

/// One rank: `rank world fault folder`.
const CASE: &str = "DG_TEST_CREW";

const UNITS: usize = 12;

/// Longer than two frames.
const RESULT: usize = 150_000;

/// Until whatever these tests wait for has happened.
const SOON: Duration = Duration::from_secs(20);

fn join(rank: usize, world: usize, dir: &Path, told: &Arc<Mutex<Vec<String>>>) -> Result<Crew> {
    let launch = Launch {
        launcher: Launcher::Flags,
        rank,
        world,
        rendezvous: Some(Rendezvous::File(dir.into())),
        ..Launch::single()
    };
    // A stopped rank is lost after a second.
    let timing = Timing { start: SOON, stall: Duration::from_secs(3) };
    let told = told.clone();
    let on_loss = Box::new(move |text: &str| told.lock().unwrap().push(text.to_owned()));
    // Rank 0 hears of a failure where it waits; another rank ends, as a program does.
    let on_failure = move |error: Error| {
        if rank > 0 {
            eprintln!("{error}");
            std::process::exit(error.kind().exit_code().into());
        }
    };
    Crew::join(launch, timing, member(rank), &|_| (), Box::new(on_failure), on_loss)
}

fn facts(fault: &str) -> Facts {
    vec![("weights".to_owned(), if fault == "differs" { "ef" } else { "ab" }.to_owned())]
}

/// What is computed of a unit, whose beginning is kept in a file.
fn compute(input: &[u8], dir: &Path) -> Vec<u8> {
    let file = std::fs::OpenOptions::new().append(true).create(true).open(dir.join("begun"));
    file.unwrap().write_all(&[input, b"\n"].concat()).unwrap();
    input.repeat(RESULT / input.len())
}

/// What a rank of these tests does: this function in a process of its own.
#[test]
#[ignore = "a process of the tests below"]
fn a_rank() {
    let case = std::env::var(CASE).expect("a case");
    let words: Vec<&str> = case.split(' ').collect();
    let [rank, world, fault, dir] = words[..] else { panic!("{case}") };
    let (rank, dir) = (rank.parse().unwrap(), Path::new(dir));
    let end = |error: Error| -> ! {
        eprintln!("{error}");
        std::process::exit(error.kind().exit_code().into())
    };
    let crew = join(rank, world.parse().unwrap(), dir, &Arc::default()).unwrap_or_else(|error| end(error));
    let (kind, unit) = fault.split_once(':').unwrap_or((fault, ""));
    let mut work = |input: &[u8]| {
        let result = compute(input, dir);
        if unit != "any" && unit.as_bytes() != input {
            return Ok(result);
        }
        match kind {
            "fails" => return Err(Error::device("out of memory")),
            "leaves" => return Err(Error::new(ErrorKind::Preempted, "stopped by SIGTERM")),
            _ => {}
        }
        std::fs::write(dir.join(format!("holds-{rank}")), input).unwrap();
        thread::sleep(Duration::from_secs(60));
        Ok(result)
    };
    if let Err(error) = crew.serve(facts(fault), &mut work, &|| false) {
        crew.leave(&error);
        end(error);
    }
    crew.finish().unwrap_or_else(|error| end(error));
}

/// The other ranks of a test, each with its fault.
struct Others {
    dir: tempfile::TempDir,
    processes: Vec<Child>,
    told: Arc<Mutex<Vec<String>>>,
}

impl Others {
    fn start(faults: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let start = |(i, fault): (usize, &&str)| {
            Command::new(std::env::current_exe().unwrap())
                .args(["crew::a_rank", "--exact", "--ignored", "--nocapture"])
                .env(CASE, format!("{} {} {fault} {}", i + 1, faults.len() + 1, dir.path().display()))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        };
        let processes = faults.iter().enumerate().map(start).collect();
        Others { dir, processes, told: Arc::default() }
    }

    /// Sends a signal to ranks as soon as each holds its unit.
    fn signal_holders(&self, ranks: &[usize], number: libc::c_int) {
        for rank in ranks {
            let file = self.dir.path().join(format!("holds-{rank}"));
            let until = Instant::now() + SOON;
            while !file.exists() {
                assert!(Instant::now() < until, "rank {rank} holds nothing");
                thread::sleep(Duration::from_millis(2));
            }
            self.signal(*rank, number);
        }
    }

    fn signal(&self, rank: usize, number: libc::c_int) {
        // SAFETY: a signal to a child that has not been waited for; no memory is passed.
        assert_eq!(unsafe { libc::kill(self.processes[rank - 1].id() as i32, number) }, 0);
    }

    /// Rank 0: what it has merged, and what came of it.
    fn lend(&self) -> (BTreeMap<usize, Vec<u8>>, Result<()>) {
        let crew = join(0, self.processes.len() + 1, self.dir.path(), &self.told).unwrap();
        let unit = |i: usize| Unit { name: format!("unit {i}"), input: format!("{i}").into_bytes() };
        let (mut merged, mut turn) = (BTreeMap::new(), 0);
        let mut merge = |number: usize, result: Option<Vec<u8>>| {
            assert_eq!(number, turn, "in order");
            turn += 1;
            merged.extend(result.map(|result| (number, result)));
            Ok(())
        };
        let mut work = |input: &[u8]| {
            thread::sleep(Duration::from_millis(5));
            Ok(compute(input, self.dir.path()))
        };
        let lent = crew.lend(Work {
            units: (0..UNITS).map(unit).collect(),
            facts: facts(""),
            compute: &mut work,
            merge: &mut merge,
            should_stop: &|| false,
        });
        match &lent {
            Ok(()) => crew.finish().unwrap(),
            Err(error) if error.kind() == ErrorKind::Verdict => crew.finish().unwrap(),
            Err(error) => crew.leave(error),
        }
        (merged, lent)
    }

    /// How often each unit was begun.
    fn begun(&self) -> Vec<usize> {
        let text = std::fs::read_to_string(self.dir.path().join("begun")).unwrap_or_default();
        let count = |i: usize| text.lines().filter(|line| *line == i.to_string()).count();
        (0..UNITS).map(count).collect()
    }

    fn told(&self) -> String {
        self.told.lock().unwrap().join("\n")
    }

    /// Exit code (`None` for a signal) and last words of a rank.
    fn end(&mut self, rank: usize) -> (Option<i32>, String) {
        let child = &mut self.processes[rank - 1];
        let until = Instant::now() + SOON;
        while child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "rank {rank} does not end");
            thread::sleep(Duration::from_millis(5));
        }
        let mut text = String::new();
        std::io::Read::read_to_string(child.stderr.as_mut().unwrap(), &mut text).unwrap();
        (child.wait().unwrap().code(), text)
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        for child in &mut self.processes {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[track_caller]
fn assert_merged(merged: &BTreeMap<usize, Vec<u8>>, without: Option<usize>) {
    for i in (0..UNITS).filter(|i| Some(*i) != without) {
        let digits = i.to_string().into_bytes();
        assert!(merged[&i] == digits.repeat(RESULT / digits.len()), "unit {i}");
    }
    assert_eq!(merged.len(), UNITS - usize::from(without.is_some()));
}

#[test]
fn every_unit_is_computed_once() {
    let mut others = Others::start(&["none", "none"]);
    let (merged, lent) = others.lend();
    lent.unwrap();
    assert_merged(&merged, None);
    assert_eq!(others.begun(), [1; UNITS]);
    assert_eq!([1, 2].map(|rank| others.end(rank).0), [Some(0); 2]);
    assert_eq!(others.told(), "");
}

#[test]
fn a_rank_that_is_killed_costs_its_unit() {
    let mut others = Others::start(&["hangs:any", "none"]);
    let (merged, lent) = thread::scope(|scope| {
        let others = &others;
        scope.spawn(|| others.signal_holders(&[1], libc::SIGKILL));
        others.lend()
    });
    lent.unwrap();
    assert_merged(&merged, None);
    let begun = others.begun();
    assert_eq!(begun.iter().sum::<usize>(), UNITS + 1, "{begun:?}");
    let told = others.told();
    let held = begun.iter().position(|count| *count == 2).unwrap();
    let text = format!(") was lost in unit {held}: its connection closed; its unit goes to another");
    assert!(told.starts_with("rank 1 (here, pid ") && told.ends_with(&text), "{told}");
    assert_eq!(others.end(2).0, Some(0));
}

#[test]
fn a_rank_that_stops_is_lost_and_learns_of_it_when_it_goes_on() {
    let mut others = Others::start(&["hangs:any"]);
    let (merged, lent) = thread::scope(|scope| {
        let others = &others;
        scope.spawn(|| others.signal_holders(&[1], libc::SIGSTOP));
        others.lend()
    });
    lent.unwrap();
    assert_merged(&merged, None);
    assert!(others.told().contains("nothing was heard of it for 1 s"), "{}", others.told());
    others.signal(1, libc::SIGCONT);
    let (code, text) = others.end(1);
    assert!(code == Some(6) && text.contains("nothing was heard of it for 1 s"), "{code:?} {text}");
}

#[test]
fn a_unit_with_which_two_ranks_are_lost_is_given_up() {
    let others = Others::start(&["hangs:1", "hangs:1"]);
    let (merged, lent) = thread::scope(|scope| {
        let others = &others;
        scope.spawn(|| others.signal_holders(&[1, 2], libc::SIGKILL));
        others.lend()
    });
    let error = lent.unwrap_err();
    assert_eq!(error.kind().exit_code(), 7);
    assert!(error.to_string().contains("unit 1 was lost twice"), "{error}");
    assert_merged(&merged, Some(1));
    let text = "was lost in unit 1: its connection closed; its unit was lost twice and is given up";
    assert!(others.told().contains(text), "{}", others.told());
    assert_eq!(others.begun().iter().sum::<usize>(), UNITS + 1, "rank 0 leaves it alone");
}

#[test]
fn a_rank_that_somebody_stops_gives_its_unit_back() {
    let mut others = Others::start(&["leaves:1", "leaves:1", "none"]);
    let (merged, lent) = others.lend();
    lent.unwrap();
    assert_merged(&merged, None);
    let codes = [1, 2, 3].map(|rank| others.end(rank).0);
    assert!(
        codes[0] == Some(75) && [Some(75), Some(0)].contains(&codes[1]) && codes[2] == Some(0),
        "{codes:?}"
    );
    assert!(others.told().contains("stopped by SIGTERM; its unit goes to another"), "{}", others.told());
}

#[test]
fn what_a_rank_cannot_do_ends_all() {
    let mut others = Others::start(&["fails:any", "none"]);
    let (_, lent) = others.lend();
    let error = lent.unwrap_err().to_string();
    assert!(
        error.contains("rank 1 (here, pid ") && error.contains("ended with exit code 5: out of memory"),
        "{error}"
    );
    assert_eq!([1, 2].map(|rank| others.end(rank).0), [Some(5), Some(6)]);
}

#[test]
fn ranks_that_differ_end_before_anything_is_computed() {
    let mut others = Others::start(&["none", "differs"]);
    let (merged, lent) = others.lend();
    let error = lent.unwrap_err();
    let text = "the ranks differ in weights: ab on rank 0 (here, pid ";
    assert!(error.kind() == ErrorKind::Usage && error.to_string().contains(text), "{error}");
    assert!(merged.is_empty() && others.begun() == [0; UNITS]);
    for rank in [1, 2] {
        let (code, said) = others.end(rank);
        assert!(code == Some(2) && said.contains(text), "{code:?} {said}");
    }
}

#[test]
fn without_rank_0_all_end() {
    let mut others = Others::start(&["none", "none"]);
    let crew = join(0, 3, others.dir.path(), &others.told).unwrap();
    crew.leave(&Error::data("the suite is damaged"));
    for rank in [1, 2] {
        let (code, said) = others.end(rank);
        assert!(
            code == Some(6) && said.contains("ended with exit code 3: the suite is damaged"),
            "{code:?} {said}"
        );
    }
}

/// An evaluation of two units: rank 1 is lost with the second, and so is rank 2, which had nothing to do.
#[test]
fn an_evaluation_keeps_all_but_what_was_given_up() {
    let tiny = Tiny::new("llama");
    let guard = DeepGuard::load(Cpu::new(), tiny.model()).unwrap();
    let suite = Suite::open(&places::root().join("data/eval"), &["python/cwe-089".to_owned()]).unwrap();
    let into = |folder: &str, crew: &Crew, facts: Facts, resume: bool| {
        let options = SampleOptions {
            method: "base".to_owned(),
            preset: &PRESETS[0],
            adapter: None,
            expert_adapter: None,
            generate: GenerateOptions::default().with(|o| {
                (o.max_new_tokens, o.num_samples) = (4, 16);
                o.sampling.temperature = 1.0;
            }),
            open_indent: false,
            limit: Some(4),
            resume,
        };
        let (folder, sharing) = (tiny.path(folder), Sharing { crew, facts });
        sample(&guard, &suite, &options, &folder, sharing, &|| false, &mut |_| ())
    };
    let samples = |folder: &str| std::fs::read_to_string(tiny.path(folder).join("samples.jsonl")).unwrap();
    into("whole", &Crew::alone(), Facts::new(), false).unwrap();
    let whole = samples("whole");

    let others = Others::start(&["hangs:any", "hangs:any"]);
    let lost = thread::scope(|scope| {
        let others = &others;
        scope.spawn(|| others.signal_holders(&[1, 2], libc::SIGKILL));
        let crew = join(0, 3, others.dir.path(), &others.told).unwrap();
        let lost = into("kept", &crew, facts(""), false).unwrap_err();
        crew.finish().unwrap();
        lost
    });
    assert_eq!(lost.kind().exit_code(), 7);
    let named = [&*suite.scenarios[2].meta.id, "was lost twice", "--resume goes on with what is missing"];
    assert!(named.iter().all(|part| lost.to_string().contains(part)), "{lost}");
    let kept = samples("kept");
    assert!(kept.lines().count() == 32 && whole.starts_with(&kept));
    into("kept", &Crew::alone(), Facts::new(), true).unwrap();
    assert!(samples("kept") == whole);
}
