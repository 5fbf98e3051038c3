//! The control plane between threads of this process: joining, refusals, failures.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use deepguard::dist::control::{Control, Member, Timing};
use deepguard::dist::frame::{Side, greet};
use deepguard::dist::launch::{Launch, Launcher, Rendezvous};
use deepguard::{Error, ErrorKind, Result};

/// Signs of life every 100 ms, silence after a second.
const QUICK: Timing = Timing { start: Duration::from_secs(20), stall: Duration::from_secs(3) };

fn launch(rank: usize, world: usize, rendezvous: Rendezvous) -> Launch {
    Launch { launcher: Launcher::Flags, rank, world, rendezvous: Some(rendezvous), ..Launch::single() }
}

fn in_folder(dir: &Path) -> Rendezvous {
    Rendezvous::File(dir.to_owned())
}

/// A port that is free now.
fn at_port() -> Rendezvous {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    Rendezvous::Tcp { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() }
}

fn member(rank: usize) -> Member {
    let host = format!("gpu-{rank:02}");
    let facts = vec![("weights".to_owned(), "abc".to_owned())];
    Member {
        rank,
        host,
        pid: 4000 + rank as u32,
        device: format!("GPU {rank}"),
        sole: None,
        invitation: None,
        facts,
    }
}

/// A rank that has joined, and what it hears of failures.
struct Joined {
    control: Control,
    failures: Receiver<Error>,
}

impl Joined {
    /// The failure that has to come within a few seconds: first to whom it is told, then to whoever asks.
    fn failure(&self) -> Error {
        let until = Instant::now() + Duration::from_secs(10);
        let told = self.failures.recv_timeout(Duration::from_secs(10)).expect("a failure");
        while self.control.failure().is_none() {
            assert!(Instant::now() < until, "who asks never hears of {told}");
            thread::sleep(Duration::from_millis(1));
        }
        told
    }
}

fn join(launch: &Launch, member: Member, timing: Timing) -> Result<Joined> {
    join_telling(launch, member, timing, &|_| ())
}

fn join_telling(launch: &Launch, member: Member, timing: Timing, tell: &dyn Fn(&str)) -> Result<Joined> {
    let (sender, failures) = channel();
    let on_failure = Box::new(move |error| sender.send(error).unwrap_or(()));
    let control = Control::join(launch, member, timing, tell, &mut |_| unreachable!("no MPI"), on_failure)?;
    Ok(Joined { control, failures })
}

/// All ranks of a world, each as `change` leaves it.
fn join_all(
    world: usize,
    rendezvous: &Rendezvous,
    change: impl Fn(&mut Launch, &mut Member) + Sync,
) -> Vec<Result<Joined>> {
    thread::scope(|scope| {
        let one = |rank| {
            let (mut launch, mut member) = (launch(rank, world, rendezvous.clone()), member(rank));
            change(&mut launch, &mut member);
            scope.spawn(move || join(&launch, member, QUICK))
        };
        let threads: Vec<_> = (0..world).map(one).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn world_of(world: usize) -> Vec<Joined> {
    let dir = tempfile::tempdir().unwrap();
    join_all(world, &in_folder(dir.path()), |_, _| ()).into_iter().map(|joined| joined.unwrap()).collect()
}

fn finish_all(joined: Vec<Joined>) -> Vec<Result<()>> {
    let threads: Vec<_> = joined.into_iter().map(|j| thread::spawn(move || j.control.finish())).collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

#[track_caller]
fn assert_error<T>(result: Result<T>, kind: ErrorKind, parts: &[&str]) {
    let error = result.err().expect("an error");
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    parts.iter().for_each(|part| assert!(text.contains(part), "no {part:?} in {text:?}"));
}

#[test]
fn ranks_meet_and_part_by_file_and_by_port() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("new/folder");
    for rendezvous in [in_folder(&folder), at_port()] {
        let joined: Vec<_> = join_all(5, &rendezvous, |_, _| ()).into_iter().map(|j| j.unwrap()).collect();
        let all: Vec<Member> = (0..5).map(member).collect();
        assert_eq!(joined[0].control.members().cloned().collect::<Vec<_>>(), all);
        assert_eq!(joined[3].control.members().cloned().collect::<Vec<_>>(), [member(0), member(3)]);
        // Longer than silence may last.
        thread::sleep(2 * QUICK.silence());
        assert!(joined.iter().all(|j| j.control.failure().is_none()));
        finish_all(joined).into_iter().for_each(|finished| finished.unwrap());
    }
    let left: Vec<_> = std::fs::read_dir(&folder).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn one_rank_meets_nobody() {
    let joined = join(&Launch::single(), member(0), QUICK).unwrap();
    assert_eq!(joined.control.members().count(), 1);
    joined.control.finish().unwrap();
}

#[test]
fn ipv6_is_as_good() {
    if TcpListener::bind(("::1", 0)).is_err() {
        return eprintln!("there is no IPv6 here");
    }
    let port = TcpListener::bind(("::1", 0)).unwrap().local_addr().unwrap().port();
    let rendezvous = Rendezvous::Tcp { host: "::1".into(), port };
    join_all(2, &rendezvous, |_, _| ()).into_iter().for_each(|joined| drop(joined.unwrap()));
}

#[test]
fn who_is_gone_is_named_to_all_others() {
    let mut joined = world_of(4);
    joined[0].control.advise("checkpoint-50 is intact; start all ranks again");
    joined[2].control.enter(57, "backward");
    thread::sleep(2 * QUICK.beat());
    let gone = joined.remove(2);
    gone.control.leave(&Error::device("out of memory"));
    // It ends by its own error, not by what rank 0 makes of that.
    let told = gone.failures.recv_timeout(QUICK.beat() * 3);
    assert!(told.is_err(), "{told:?}");
    for other in &joined {
        let error = other.failure();
        let expected = "rank 2 (gpu-02, pid 4002, GPU 2) ended with exit code 5: out of memory; checkpoint-50 is intact; \
                        start all ranks again";
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Cluster, expected));
        assert_eq!(other.control.failure().unwrap().to_string(), expected);
    }
    // A failure is told once, and whoever still wants to finish hears of it.
    for finished in finish_all(joined) {
        assert_error(finished, ErrorKind::Cluster, &["rank 2"]);
    }
}

#[test]
fn rank_0_tells_why_it_goes() {
    let mut joined = world_of(3);
    joined.remove(0).control.leave(&Error::data("no pairs"));
    for other in &joined {
        let expected =
            "rank 0 (gpu-00, pid 4000, GPU 0) ended with exit code 3: no pairs; start all ranks again";
        assert_eq!(other.failure().to_string(), expected);
    }
}

#[test]
fn a_panic_is_told() {
    let mut joined = world_of(3);
    let gone = joined.pop().unwrap();
    let panicked = thread::spawn(move || {
        let _control = gone.control;
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    for other in &joined {
        assert!(
            other
                .failure()
                .to_string()
                .contains("rank 2 (gpu-02, pid 4002, GPU 2) ended with exit code 101: a panic")
        );
    }
}

#[test]
fn the_rank_that_the_others_wait_for_is_named() {
    let joined = world_of(3);
    let rank = |rank: usize| &joined[rank].control;
    rank(1).enter(7, "backward");
    thread::scope(|scope| {
        for n in [0, 2] {
            let control = rank(n);
            scope.spawn(move || {
                control.enter(7, "backward");
                control.collective("all-reduce", || {
                    while control.failure().is_none() {
                        thread::sleep(Duration::from_millis(5));
                    }
                });
            });
        }
    });
    for other in &joined {
        let text = other.failure().to_string();
        let expected = "rank 1 (gpu-01, pid 4001, GPU 1) stalled at step 7 in backward: the others have waited at step 7 \
                        in all-reduce for";
        assert!(text.starts_with(expected), "{text}");
    }
}

#[test]
fn what_has_to_be_the_same_is_compared() {
    let dir = tempfile::tempdir().unwrap();
    let differ = |launch: &mut Launch, member: &mut Member| {
        if launch.rank == 2 {
            member.facts[0].1 = "def".into();
        }
    };
    for joined in join_all(4, &in_folder(dir.path()), differ) {
        let parts = ["differ in weights", "abc on rank 0 (gpu-00", "def on rank 2 (gpu-02"];
        assert_error(joined, ErrorKind::Usage, &parts);
    }
    let lacks = |launch: &mut Launch, member: &mut Member| {
        if launch.rank == 1 {
            member.facts.clear();
        }
    };
    for joined in join_all(2, &in_folder(dir.path()), lacks) {
        assert_error(joined, ErrorKind::Usage, &["differ in weights", "nothing on rank 1"]);
    }
    let same_gpu =
        |launch: &mut Launch, member: &mut Member| member.sole = Some(format!("GPU-{}", launch.rank % 2));
    for joined in join_all(3, &in_folder(dir.path()), same_gpu) {
        let parts = ["rank 0 (gpu-00", "rank 2 (gpu-02", "the same device, GPU-0", "CUDA_VISIBLE_DEVICES"];
        assert_error(joined, ErrorKind::Device, &parts);
    }
}

#[test]
fn ranks_are_there_once_and_of_one_world() {
    let dir = tempfile::tempdir().unwrap();
    // Ranks 0, 1 and 1 of 3.
    let twice = |launch: &mut Launch, member: &mut Member| {
        launch.rank = launch.rank.min(1);
        member.rank = launch.rank;
    };
    for joined in join_all(3, &in_folder(dir.path()), twice) {
        assert_error(joined, ErrorKind::Usage, &["joins as the same rank as", "a rank of its own"]);
    }
    let beyond = |_: &mut Launch, member: &mut Member| member.rank *= 2;
    for joined in join_all(2, &in_folder(dir.path()), beyond) {
        assert_error(joined, ErrorKind::Usage, &["rank 2 (", "is beyond the 2 ranks there are"]);
    }
    let other_world = |launch: &mut Launch, _: &mut Member| launch.world += launch.rank;
    for joined in join_all(2, &in_folder(dir.path()), other_world) {
        assert_error(joined, ErrorKind::Usage, &["as one of 3 ranks", "rank 0 as one of 2"]);
    }
}

#[test]
fn who_does_not_come_is_named_and_whoever_waits_ends() {
    let timing = Timing { start: Duration::from_millis(700), ..QUICK };
    let (began, rendezvous) = (Instant::now(), at_port());
    let results = thread::scope(|scope| {
        let one = |rank: usize| {
            let launch = launch(rank, 4, rendezvous.clone());
            scope.spawn(move || join(&launch, member(rank), timing).map(drop))
        };
        [one(0), one(2)].map(|thread| thread.join().unwrap())
    });
    for result in results {
        let parts = ["waiting for ranks 1, 3 of 4 for 0 s (rank 0 listens at 127.0.0.1:", "--dist-timeout"];
        assert_error(result, ErrorKind::Cluster, &parts);
    }
    // Without rank 0, by address and by file.
    let alone = join(&launch(1, 2, rendezvous), member(1), timing);
    assert_error(alone, ErrorKind::Cluster, &["rank 0 cannot be reached at 127.0.0.1:", "--dist-timeout"]);
    let dir = tempfile::tempdir().unwrap();
    let alone = join(&launch(1, 2, in_folder(dir.path())), member(1), timing);
    assert_error(alone, ErrorKind::Cluster, &["dg-run.rendezvous: ", "which rank 0 writes"]);
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_rank_that_goes_while_others_join_ends_them() {
    let began = Instant::now();
    // Two of three: they wait for the third, until one of them goes.
    let rendezvous = at_port();
    let Rendezvous::Tcp { port, .. } = rendezvous else { unreachable!() };
    let root = launch(0, 3, rendezvous);
    let waiting = thread::spawn(move || join(&root, member(0), QUICK).map(drop));
    let mut stream = loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => break stream,
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    };
    let (mut sealer, _) = greet(&mut stream, Side::Caller, b"").unwrap();
    let join = "{\"Join\":{\"world\":3,\"member\":{\"rank\":1,\"host\":\"gpu-01\",\"pid\":7,\"device\":\"GPU 1\",\
                \"sole\":null,\"facts\":[]}}}";
    stream.write_all(&sealer.seal(join.as_bytes()).unwrap()).unwrap();
    thread::sleep(Duration::from_millis(50));
    drop(stream);
    let parts = ["rank 1 (gpu-01, pid 7, GPU 1) was lost in join", "start all ranks again"];
    assert_error(waiting.join().unwrap(), ErrorKind::Cluster, &parts);
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn strangers_are_refused_and_do_no_harm() {
    let told = Mutex::new(Vec::new());
    let rendezvous = at_port();
    let Rendezvous::Tcp { port, .. } = rendezvous else { unreachable!() };
    let with_token = |rank, token: &str| Launch {
        token: Some(token.to_owned()),
        ..launch(rank, 2, Rendezvous::Tcp { host: "127.0.0.1".into(), port })
    };
    thread::scope(|scope| {
        let root = with_token(0, "right");
        let told = &told;
        let root = scope.spawn(move || {
            join_telling(&root, member(0), QUICK, &|text| told.lock().unwrap().push(text.to_owned()))
        });
        // A rank of another job ends at once: it does not try until the deadline of 20 s.
        let began = Instant::now();
        let wrong = join(&with_token(1, "wrong"), member(1), QUICK).map(drop);
        assert_error(wrong, ErrorKind::Cluster, &["another token", "DG_DIST_TOKEN"]);
        assert!(began.elapsed() < Duration::from_secs(5));
        // So does whoever speaks something else.
        let mut browser = TcpStream::connect(("127.0.0.1", port)).unwrap();
        browser.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        // Closed behind the greeting, maybe with an error, as not all was read.
        let _ = browser.read_to_end(&mut Vec::new());
        // Rank 0 looks at nobody else once all have joined.
        let until = Instant::now() + QUICK.start / 2;
        while told.lock().unwrap().len() < 2 && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
        let right = join(&with_token(1, "right"), member(1), QUICK);
        let all = vec![root.join().unwrap().unwrap(), right.unwrap()];
        finish_all(all).into_iter().for_each(|finished| finished.unwrap());
    });
    let mut told = told.into_inner().unwrap();
    told.sort();
    let expected = ["it is another program, or another version of dg-run", "its token is another"];
    assert_eq!(told, expected.map(|why| format!("refused a connection from 127.0.0.1: {why}")));
}

#[test]
fn another_program_at_the_port_is_told() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let rendezvous = Rendezvous::Tcp { host: "127.0.0.1".into(), port };
    // Rank 0 cannot have the port.
    let taken = join(&launch(0, 2, rendezvous.clone()), member(0), QUICK).map(drop);
    assert_error(
        taken,
        ErrorKind::Cluster,
        &["the port is taken", "--rendezvous HOST:PORT", &port.to_string()],
    );
    let serve = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"220 mail.example.org ESMTP, more than eight bytes\r\n").unwrap();
        thread::sleep(Duration::from_millis(200));
    });
    let other = join(&launch(1, 2, rendezvous), member(1), QUICK).map(drop);
    assert_error(other, ErrorKind::Cluster, &["another program", "--rendezvous HOST:PORT"]);
    serve.join().unwrap();
}

#[test]
fn names_have_to_lead_somewhere() {
    let timing = Timing { start: Duration::from_millis(300), ..QUICK };
    for rank in [0, 1] {
        let rendezvous = Rendezvous::Tcp { host: "no-such-host.invalid".into(), port: 29500 };
        let lost = join(&launch(rank, 2, rendezvous), member(rank), timing).map(drop);
        assert_error(
            lost,
            ErrorKind::Cluster,
            &["no-such-host.invalid", "leads to no address", "--dist-timeout"],
        );
    }
    // An address of documents, which no machine has.
    let elsewhere = Rendezvous::Tcp { host: "192.0.2.1".into(), port: 29500 };
    let elsewhere = join(&launch(0, 2, elsewhere), member(0), QUICK).map(drop);
    assert_error(
        elsewhere,
        ErrorKind::Cluster,
        &["192.0.2.1 is not one of this machine", "start rank 0 there"],
    );
}

#[test]
fn what_an_earlier_job_has_left_leads_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    // Somebody else listens there by now, or nobody, or it is no rendezvous at all.
    let other = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let at = other.local_addr().unwrap();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    for text in
        [format!("{{\"address\":\"{at}\",\"host\":{:?},\"token\":\"x\"}}", host.trim()), "{".to_owned()]
    {
        std::fs::write(dir.path().join("dg-run.rendezvous"), text).unwrap();
        let joined = thread::scope(|scope| {
            let rank = |rank| {
                let launch = launch(rank, 2, in_folder(dir.path()));
                scope.spawn(move || join(&launch, member(rank), QUICK))
            };
            let first = rank(1);
            thread::sleep(Duration::from_millis(100));
            // What listens there answers nothing, and closes.
            other.set_nonblocking(true).unwrap();
            drop(other.accept());
            [rank(0), first].map(|thread| thread.join().unwrap().unwrap())
        });
        finish_all(joined.into()).into_iter().for_each(|finished| finished.unwrap());
    }
}

/// Times of the control plane with `world` ranks: until all have joined, until all others have ended after
/// one is gone; and the share of a core that all of them take meanwhile, rank 0 and the others together.
fn simulate(world: usize, timing: Timing) -> (Duration, Duration, f64) {
    let rendezvous = at_port();
    let began = Instant::now();
    let one = |rank: usize| {
        let launch = launch(rank, world, rendezvous.clone());
        let join = move || join(&launch, member(rank), timing).map_err(|error| error.to_string());
        thread::Builder::new().stack_size(256 << 10).spawn(join).unwrap()
    };
    let threads: Vec<_> = (0..world).map(one).collect();
    let mut joined: Vec<Joined> = threads.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect();
    let all_joined = began.elapsed();
    let (began, cpu) = (Instant::now(), cpu_seconds());
    thread::sleep(timing.beat() + Duration::from_millis(100));
    let share = (cpu_seconds() - cpu) / began.elapsed().as_secs_f64();
    assert!(joined.iter().all(|j| j.control.failure().is_none()));
    let began = Instant::now();
    joined.pop().unwrap().control.leave(&Error::device("out of memory"));
    for other in &joined {
        assert!(other.failure().to_string().contains("ended with exit code 5"));
    }
    (all_joined, began.elapsed(), share)
}

/// What the processors have spent on this process.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

#[test]
fn a_hundred_ranks_meet_and_end_at_once() {
    let (joined, ended, _) = simulate(128, Timing::default());
    assert!(joined < Duration::from_secs(5) && ended < Duration::from_secs(1), "{joined:?}, {ended:?}");
}

/// A part of `make test-long`.
#[test]
#[ignore = "thousands of threads"]
fn a_thousand_ranks_meet_and_end_at_once() {
    let (joined, ended, share) = simulate(1024, Timing::default());
    println!("1,024 ranks: joined after {joined:?}, ended after {ended:?}, {:.1} % of a core", 100.0 * share);
    assert!(joined < Duration::from_secs(5) && ended < Duration::from_secs(1), "{joined:?}, {ended:?}");
}
