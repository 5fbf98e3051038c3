use std::sync::{Mutex, MutexGuard, PoisonError};

use super::*;

fn sandbox() -> Option<Sandbox> {
    match Sandbox::bubblewrap() {
        Ok(sandbox) => Some(sandbox),
        Err(error) if std::env::var_os("DG_REQUIRE_ALL").is_none() => {
            eprintln!("NOT RUN: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Every test has the users of the same slots, so they wait for each other.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(script: &str, limits: Limits) -> Option<Outcome> {
    let _alone = alone();
    let job = Job { command: words(["/bin/sh", "-c", script]), limits, ..Job::default() };
    Some(sandbox()?.run(1, &job).unwrap())
}

fn text(outcome: &Outcome) -> String {
    String::from_utf8_lossy(&outcome.stdout).into_owned()
}

#[test]
fn the_host_is_out_of_reach() {
    let root = tempfile::tempdir().unwrap();
    let secret = root.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    let script = format!(
        "cat {0} /etc/passwd /root/.profile; echo > {0}; echo x > /usr/x; echo x > /x; ls /proc | grep -c '^[0-9]'; \
         ls /sys/class/net; id -u",
        secret.display()
    );
    let Some(outcome) = run(&script, Limits::default()) else { return };
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
    let lines = text(&outcome);
    let lines: Vec<&str> = lines.lines().collect();
    assert!(lines.len() == 2 && lines[0].parse::<u32>().unwrap() < 8 && lines[1] != "0", "{outcome:?}");
    assert!(!Path::new("/usr/x").exists() && !Path::new("/x").exists());
}

#[test]
fn time_ends_the_program_and_what_it_left_behind() {
    let mark = format!("{}.25", 7_000 + std::process::id() % 1000);
    let script = format!("setsid sleep {mark} & trap '' TERM; while :; do :; done");
    let started = Instant::now();
    let Some(outcome) = run(&script, Limits { wall: Duration::from_secs(1), ..Limits::default() }) else {
        return;
    };
    assert_eq!(outcome.ending, Ending::TimedOut);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    let sleeps = || {
        let found = Command::new("pgrep").args(["-f", &format!("sleep {mark}")]).output().unwrap();
        !found.stdout.is_empty()
    };
    // The kernel may still be taking it away.
    while sleeps() {
        assert!(started.elapsed() < Duration::from_secs(20), "the sleeper outlived its sandbox");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn every_resource_has_its_limit() {
    let limits = Limits { file: 1 << 20, scratch: 4 << 20, processes: 24, ..Limits::default() };
    let forks = run("i=0; while [ $i -lt 100 ]; do sleep 5 & i=$((i+1)); done; echo all", limits);
    let Some(forks) = forks else { return };
    assert!(!text(&forks).contains("all"), "{forks:?}");
    let file = run("head -c 9000000 /dev/zero > /w/x; stat -c %s /w/x", limits).unwrap();
    assert_eq!(text(&file), "1048576\n", "{file:?}");
    let disk = run(
        "for i in 1 2 3 4 5 6 7 8; do head -c 1000000 /dev/zero > /w/$i; done; du -sm /w | cut -f1",
        limits,
    );
    assert!(text(&disk.unwrap()).trim().parse::<u32>().unwrap() <= 5);
    let hoard = "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done";
    let hoard = run(hoard, Limits { memory: 64 << 20, ..limits }).unwrap();
    assert_eq!(hoard.ending, Ending::TooMuchMemory);
    let flood = run("yes", Limits { output: 10_000, ..limits }).unwrap();
    assert_eq!((flood.ending, flood.stdout.len()), (Ending::TooMuchOutput, 10_000));
}

#[test]
#[cfg(target_os = "linux")]
fn landlock_closes_files_network_and_what_is_left_behind() {
    let _alone = alone();
    let sandbox = match Sandbox::landlock() {
        Ok(sandbox) => sandbox,
        Err(error) if std::env::var_os("DG_REQUIRE_ALL").is_none() => {
            return eprintln!("NOT RUN: {error}");
        }
        Err(error) => panic!("{error}"),
    };
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    let root = tempfile::Builder::new().permissions(open).tempdir().unwrap();
    let secret = root.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    let work = root.path().join("work");
    std::fs::create_dir(&work).unwrap();
    sandbox.give(3, &work).unwrap();
    let mark = format!("{}.75", 8_000 + std::process::id() % 1000);
    let script = format!(
        "cat {0}; echo > {0}; cat /etc/passwd; echo x > /tmp/landlock-{mark}; echo kept > here; cat here; \
         setsid sleep {mark} & python3 -c 'import socket; socket.socket(socket.AF_INET)' || echo no socket",
        secret.display()
    );
    let command = words(["/bin/sh", "-c", &script]);
    let outcome = sandbox.run(3, &Job { command, work, ..Job::default() }).unwrap();
    assert_eq!(text(&outcome), "kept\nno socket\n", "{outcome:?}");
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
    assert!(!Path::new(&format!("/tmp/landlock-{mark}")).exists());
    if sandbox.users.is_some() {
        let alive = Command::new("pgrep").args(["-f", &format!("sleep {mark}")]).output().unwrap();
        assert!(alive.stdout.is_empty(), "the sleeper outlived its sandbox");
    }
}

#[test]
fn a_program_that_ends_is_told_apart() {
    let Some(exit) = run("exit 3", Limits::default()) else { return };
    assert_eq!(exit.ending, Ending::Exited(3));
    let job = Job { command: words(["/no/such"]), ..Job::default() };
    let _alone = alone();
    let missing = sandbox().unwrap().run(2, &job).unwrap();
    assert_ne!(missing.ending, Ending::Exited(0));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/no/such"), "{missing:?}");
}
