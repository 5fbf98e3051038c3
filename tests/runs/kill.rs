//! SIGKILL at random moments of a save.

use std::time::Duration;

use rustix::process::Signal;

use super::process::{Running, random};
use super::tiny::Tiny;
use super::{TRAIN, is_temporary, names, newest_step, wait_for_a_save};

/// How often, unless `DG_KILLS` says otherwise.
const KILLS: usize = 50;

/// Longer than a save takes.
const SAVE_SECONDS: f64 = 0.03;

#[test]
fn the_newest_checkpoint_of_a_run_killed_while_saving_always_loads() {
    let kills = std::env::var("DG_KILLS").map_or(KILLS, |kills| kills.parse().expect("DG_KILLS: a number"));
    let tiny = Tiny::new("llama");
    let run = tiny.path("run");
    let arguments = format!(
        "{TRAIN} --data data/train --output-dir run --num-epochs 1000000 --save-steps 1 --resume-from-checkpoint"
    );
    let mut while_saving = 0;
    for kill in 0..kills {
        let newest = newest_step(&run);
        let mut running = Running::start(&tiny, &arguments);
        let started = running.wait_for("trainable values");
        let resumed =
            newest == 0 || started.is_some_and(|line| line.ends_with(&format!("after step {newest}")));
        assert!(resumed, "kill {kill}, step {newest}: {}", running.stderr());
        wait_for_a_save(&mut running, &run);
        std::thread::sleep(Duration::from_secs_f64(SAVE_SECONDS * random()));
        running.signal(Signal::KILL);
        assert_eq!(running.exit_code(), 137, "{}", running.stderr());
        while_saving += usize::from(names(&run).iter().any(|name| is_temporary(name)));
        assert!(newest_step(&run) >= newest, "kill {kill}: step {newest} is lost");
    }
    println!(
        "{kills} kills, {while_saving} of them while files were being written; step {}",
        newest_step(&run)
    );
    assert!(5 * while_saving >= kills, "only {while_saving} of {kills} kills were during a save");
}
