//! What is kept when the judge is killed, when the disk is full, when tools are missing.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::{LOANS, SUITE, can_judge, completion, dg_run, eval, judge, lines, run, survivors, write_samples};

/// Samples of which each takes about a second.
fn samples(dir: &Path) -> PathBuf {
    let texts: Vec<String> = [
        "secure.py",
        "insecure.py",
        "alternatives/secure-named.py",
        "alternatives/insecure-doubled-wrongly.py",
    ]
    .iter()
    .map(|name| completion(&format!("{LOANS}/{name}")))
    .collect();
    let samples: Vec<(&str, &str)> = texts.iter().chain(&texts).map(|text| (LOANS, text.as_str())).collect();
    write_samples(dir, &samples)
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(120), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn scratch() -> tempfile::TempDir {
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    tempfile::Builder::new().permissions(open).tempdir().unwrap()
}

#[test]
fn a_judge_that_is_killed_goes_on_where_it_was() {
    if !can_judge() {
        return;
    }
    let (whole, killed, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), scratch());
    judge(&samples(whole.path()), &["--threads", "1"]).ok();
    let path = samples(killed.path());
    let verdicts = killed.path().join("verdicts.jsonl");
    let mut command = dg_run(&["judge", path.to_str().unwrap(), "--suite", SUITE, "--threads", "1"]);
    command.env("TMPDIR", scratch.path()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    wait_until("a verdict", || std::fs::read(&verdicts).is_ok_and(|text| text.contains(&b'\n')));
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("the end of the sandbox", || survivors(scratch.path()).is_empty());
    let kept = std::fs::read(&verdicts).unwrap();
    // As if it had been killed in the middle of a line.
    std::fs::write(&verdicts, [kept.as_slice(), b"{\"id\": \"python/cw"].concat()).unwrap();
    judge(&path, &[]).ok();
    for name in ["verdicts.jsonl", "references.jsonl"] {
        let read = |dir: &Path| std::fs::read_to_string(dir.join(name)).unwrap();
        assert_eq!(read(killed.path()), read(whole.path()), "{name}");
    }
}

#[test]
fn a_signal_ends_the_judge_after_the_program_at_hand() {
    if !can_judge() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = samples(dir.path());
    let mut command = dg_run(&["judge", path.to_str().unwrap(), "--suite", SUITE, "--threads", "1"]);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    wait_until("references", || dir.path().join("references.jsonl").exists());
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(75), "{said}");
    assert!(said.contains("goes on from there"), "{said}");
    judge(&path, &[]).ok();
}

#[test]
fn a_full_disk_keeps_the_lines_before() {
    if !can_judge() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let text = completion(&format!("{LOANS}/secure.py"));
    let path = write_samples(dir.path(), &vec![(LOANS, text.as_str()); 400]);
    // Files of 40 KiB at most, which is enough for everything but the verdicts.
    let script = "ulimit -S -f 80; exec \"$@\"";
    let mut command = std::process::Command::new("sh");
    let arguments = ["eval", "judge", path.to_str().unwrap(), "--suite", SUITE];
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_dg-run")]).args(arguments);
    run(command).fails(7, &["verdicts.jsonl", "the lines before are kept"]);
    let kept = dir.path().join("verdicts.jsonl");
    let text = std::fs::read_to_string(&kept).unwrap();
    assert!(text.lines().count() > 20 && text.lines().count() < 400, "{}", text.lines().count());
    judge(&path, &[]).ok();
    assert_eq!(lines(&kept).len(), 400);
}

#[test]
fn missing_tools_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = samples(dir.path());
    let mut command = dg_run(&["judge", path.to_str().unwrap(), "--suite", SUITE]);
    command.env("PATH", "/nonexistent");
    run(command).fails(5, &["bwrap", "install the package bubblewrap", "util-linux"]);
    assert!(!dir.path().join("verdicts.jsonl").exists());
    if can_judge() {
        let python = eval(&["check", "--suite", SUITE, "--only", LOANS, "--python", "/no/python"]);
        python.fails(5, &["/no/python"]);
    }
}

/// A folder of PATH without bubblewrap.
fn without_bubblewrap() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for tool in ["setpriv", "prlimit"] {
        std::os::unix::fs::symlink(Path::new("/usr/bin").join(tool), folder.path().join(tool)).unwrap();
    }
    folder
}

#[test]
fn landlock_and_nothing_are_the_other_choices() {
    if !can_judge() {
        return;
    }
    let tools = without_bubblewrap();
    for (more, name) in [(&[][..], "Landlock"), (&["--unsafe-no-sandbox"], "none")] {
        for only in [LOANS, "c/cwe-787/copy-label"] {
            let mut command =
                dg_run(&[&["check", "--suite", SUITE, "--only", only, "--json"], more].concat());
            command.env("PATH", tools.path());
            let done = run(command).ok();
            assert!(done.stderr.contains("without namespaces"), "{}", done.stderr);
            let found = done.json();
            assert!(found["environment"]["sandbox"].as_str().unwrap().starts_with(name), "{found}");
            assert_eq!(found["right"], found["references"], "{found}");
        }
    }
    // What the walls around the candidate are for.
    let dir = tempfile::tempdir().unwrap();
    let attacks =
        ["walled-reads-the-checks", "walled-replaces-the-worker", "walled-kills-all", "leaves-a-child"];
    let attacks = attacks.map(|name| completion(&format!("attacks/python/{name}.py")));
    let path = write_samples(dir.path(), &attacks.each_ref().map(|text| (LOANS, text.as_str())));
    let mut command = dg_run(&["judge", path.to_str().unwrap(), "--suite", SUITE, "--allow-unknown", "9"]);
    command.env("PATH", tools.path());
    run(command).ok();
    for line in lines(&dir.path().join("verdicts.jsonl")) {
        assert!(line["functional"] != "pass" && line["secure"] == "unknown", "{line}");
    }
}
