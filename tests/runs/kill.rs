//! SIGKILL at random moments of a save.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::process::{Running, random};
use super::tiny::Tiny;
use super::{TRAIN, is_saving, newest_step, wait_for_a_save};

/// How often, unless `DG_KILLS` says otherwise.
const KILLS: usize = 50;

/// Seconds that a checkpoint takes, the longest of a few.
fn save_seconds(tiny: &Tiny) -> f64 {
    let arguments = format!("{TRAIN} --data data/train --output-dir timed --save-steps 1");
    let mut running = Running::start(tiny, &arguments);
    let times = (1..=4).map(|step| {
        running.wait_for(&format!("step {step}/")).unwrap();
        let started = Instant::now();
        running.wait_for("checkpoint: ").unwrap();
        started.elapsed().as_secs_f64()
    });
    times.fold(0.0, f64::max)
}

/// The last step that a run said was done; 0 for none.
fn last_step(stderr: &str) -> usize {
    let step = |line: &str| line.strip_prefix("step ")?.split_once('/')?.0.parse().ok();
    stderr.lines().filter_map(step).next_back().unwrap_or(0)
}

#[test]
fn the_newest_checkpoint_of_a_run_killed_while_saving_always_loads() {
    let kills = std::env::var("DG_KILLS").map_or(KILLS, |kills| kills.parse().expect("DG_KILLS: a number"));
    let tiny = Tiny::new("llama");
    let run = tiny.path("run");
    let arguments = format!(
        "{TRAIN} --data data/train --output-dir run --num-epochs 1000000 --save-steps 1 --resume-from-checkpoint"
    );
    let save_seconds = save_seconds(&tiny);
    let (mut while_saving, mut committed) = (0, 0);
    for kill in 0..=kills {
        let newest = newest_step(&run);
        let mut running = Running::start(&tiny, &arguments);
        let started = running.wait_for("trainable values");
        let resumed =
            newest == 0 || started.is_some_and(|line| line.ends_with(&format!("after step {newest}")));
        assert!(resumed, "kill {kill}, step {newest}: {}", running.stderr());
        if kill == kills {
            break;
        }
        wait_for_a_save(&mut running, &run);
        std::thread::sleep(Duration::from_secs_f64(1.3 * save_seconds * random()));
        running.signal(Signal::KILL);
        assert_eq!(running.exit_code(), 137, "{}", running.stderr());
        while_saving += usize::from(is_saving(&run));
        let (now, done) = (newest_step(&run), last_step(running.stderr()));
        assert!(now >= newest && now + 1 >= done, "kill {kill}: step {newest}, then {done}, now {now}");
        committed += usize::from(now > newest);
    }
    println!(
        "{kills} kills within {save_seconds:.3} s: {while_saving} while files were being written, {committed} after a \
         commit; step {}",
        newest_step(&run)
    );
    assert!(4 * while_saving >= kills, "only {while_saving} of {kills} kills were during a save");
    assert!(10 * committed >= kills, "only {committed} of {kills} kills were after a commit");
}
