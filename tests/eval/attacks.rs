//! Completions that try to deceive the judge.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{LOANS, SUITE, can_judge, dg_run, lines, run, survivors, write_samples};

#[test]
fn attacks_come_to_nothing() {
    if !can_judge() {
        return;
    }
    let mut attacks = Vec::new();
    for (language, target) in [("python", LOANS), ("c", "c/cwe-787/copy-label")] {
        let mut files: Vec<_> =
            std::fs::read_dir(Path::new(SUITE).join("attacks").join(language)).unwrap().flatten().collect();
        files.sort_by_key(std::fs::DirEntry::path);
        for file in files {
            let text = format!("\n{}", std::fs::read_to_string(file.path()).unwrap());
            attacks.push((file.file_name().into_string().unwrap(), target, text));
        }
    }
    assert!(attacks.len() >= 40, "{}", attacks.len());
    let dir = tempfile::tempdir().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(scratch.path(), open).unwrap();
    let samples: Vec<(&str, &str)> = attacks.iter().map(|(_, id, text)| (*id, text.as_str())).collect();
    let samples = write_samples(dir.path(), &samples);
    let started = Instant::now();
    let mut command =
        dg_run(&["judge", samples.to_str().unwrap(), "--suite", SUITE, "--allow-unknown", "99"]);
    command.env("TMPDIR", scratch.path());
    run(command).ok();
    // Ten seconds a sample would be a judge that waits for attackers.
    assert!(started.elapsed() < Duration::from_secs(10) * attacks.len() as u32);
    let verdicts = lines(&dir.path().join("verdicts.jsonl"));
    assert_eq!(verdicts.len(), attacks.len());
    for ((name, ..), verdict) in attacks.iter().zip(&verdicts) {
        let good = verdict["functional"] == "pass" || verdict["secure"] != "unknown";
        assert!(!good, "{name}: {verdict}");
    }
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "something was left behind");
    assert_eq!(survivors(scratch.path()), Vec::<String>::new());
}
