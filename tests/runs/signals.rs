//! SIGINT and SIGTERM in every phase.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::process::{Running, random};
use super::tiny::{self, Tiny, read_json};
use super::{TRAIN, assert_same_folders, is_temporary, names, newest_step, wait_for_a_save};

const SIGNALS: [(Signal, i32); 2] = [(Signal::INT, 130), (Signal::TERM, 143)];

/// Loading, reading and tokenising: there is nothing to save.
#[test]
fn before_training_one_ends_the_program() {
    let tiny = Tiny::new("llama");
    tiny::write_pairs(&tiny.path("many/pairs.jsonl"), 0..100_000);
    let arguments = format!("{TRAIN} --quiet --data many --output-dir run");
    for (i, delay) in [0, 20, 50, 100, 200, 400].into_iter().enumerate() {
        let (signal, code) = SIGNALS[i % 2];
        let mut running = Running::start(&tiny, &arguments);
        std::thread::sleep(Duration::from_millis(delay));
        let signalled = Instant::now();
        running.signal(signal);
        assert_eq!(running.exit_code(), code, "after {delay} ms: {}", running.stderr());
        assert!(signalled.elapsed() < Duration::from_secs(2));
        assert_eq!(running.stderr(), "", "after {delay} ms");
        assert!(names(&tiny.path("run")).iter().all(|name| name == "run.lock"));
    }
}

/// There is nothing new to save, and the run can go on: whoever starts preempted runs again has to know.
#[test]
fn before_a_run_goes_on_one_says_that_it_can() {
    let tiny = Tiny::new("llama");
    let short = format!("{TRAIN} --data data --output-dir run --max-steps 1");
    Running::start(&tiny, &short).succeeds();
    tiny::write_pairs(&tiny.path("many/pairs.jsonl"), 0..100_000);
    let before = tiny::folder(&tiny.path("run/checkpoint-1"));
    for (delay, (signal, _)) in [100, 300].into_iter().zip(SIGNALS) {
        let arguments = format!("{TRAIN} --data many --output-dir run --resume-from-checkpoint");
        let mut running = Running::start(&tiny, &arguments);
        std::thread::sleep(Duration::from_millis(delay));
        running.signal(signal);
        assert_eq!(running.exit_code(), 75, "after {delay} ms: {}", running.stderr());
        assert!(tiny::folder(&tiny.path("run/checkpoint-1")) == before);
    }
}

/// A merged model has gigabytes.
#[test]
fn while_exporting_one_leaves_nothing_behind() {
    let tiny = Tiny::new("llama");
    let short = format!("{TRAIN} --data data --output-dir run --max-steps 1");
    Running::start(&tiny, &short).succeeds();
    let export = "export --model model --adapter run --merge --out exported/merged";
    std::fs::create_dir(tiny.path("exported")).unwrap();
    let (mut stopped, mut i) = (0, 0);
    while stopped < 6 {
        let (signal, code) = SIGNALS[i % 2];
        let mut exporting = Running::start(&tiny, export);
        wait_for_a_save(&mut exporting, &tiny.path("exported"));
        exporting.signal(signal);
        let found = exporting.exit_code();
        let left = names(&tiny.path("exported"));
        match found {
            0 => assert_eq!(left, ["merged"]),
            found => assert_eq!((found, left.len()), (code, 0), "{left:?}, {}", exporting.stderr()),
        }
        let _ = std::fs::remove_dir_all(tiny.path("exported/merged"));
        (stopped, i) = (stopped + usize::from(found != 0), i + 1);
        assert!(i < 100, "stopped only {stopped} of {i} exports");
    }
}

#[test]
fn while_generating_or_scoring_one_ends_the_program() {
    let tiny = Tiny::new("llama");
    tiny.edit_config(|config| config["max_position_embeddings"] = json!(1 << 20));
    let short = format!("{TRAIN} --data data --output-dir run --max-steps 1");
    Running::start(&tiny, &short).succeeds();
    for (signal, code) in SIGNALS {
        let generate =
            "generate --device cpu --model model --adapter run --ignore-eos --max-new-tokens 1000000 abc";
        let mut generating = Running::start(&tiny, generate);
        generating.wait_for_output();
        generating.signal(signal);
        assert_eq!(generating.exit_code(), code, "{}", generating.stderr());
        // Standard input stays open, and nothing comes.
        let mut scoring = Running::start(&tiny, "score --device cpu --model model --adapter run -");
        std::thread::sleep(Duration::from_millis(100));
        scoring.signal(signal);
        assert_eq!(scoring.exit_code(), code, "{}", scoring.stderr());
    }
}

/// When a signal is sent.
#[derive(Clone, Copy, PartialEq)]
enum Moment {
    /// Some time after a step.
    Any,
    /// As soon as something is being written.
    Save,
}

/// Goes on with a run, sends a signal, and returns the exit code.
fn go_on_and_signal(tiny: &Tiny, arguments: &str, moment: Moment, signal: Signal) -> Running {
    let mut running = Running::start(tiny, arguments);
    running.wait_for("trainable values");
    match moment {
        Moment::Any => {
            running.wait_for("step ");
            std::thread::sleep(Duration::from_secs_f64(0.1 * random()));
        }
        Moment::Save => wait_for_a_save(&mut running, &tiny.path("run")),
    }
    running.signal(signal);
    running
}

fn validation_pending(run: &Path) -> bool {
    let state = run.join(format!("checkpoint-{}/trainer_state.json", newest_step(run)));
    state.exists() && read_json(&state)["validation_pending"] == true
}

/// While steps accumulate gradients, are validated and saved: the run stops within a micro-batch or a save,
/// and goes on to the end of a run that nobody disturbed.
#[test]
fn a_run_that_is_stopped_again_and_again_ends_as_if_it_had_not_been() {
    let tiny = Tiny::new("llama");
    tiny::write_pairs(&tiny.path("data/val/pairs.jsonl"), 8..60);
    let arguments = format!(
        "{TRAIN} --data data --num-epochs 12 --gradient-accumulation-steps 4 --eval-steps 1 --save-steps 1 \
         --early-stop-patience 0"
    );
    Running::start(&tiny, &format!("{arguments} --output-dir whole")).succeeds();
    let resumed = format!("{arguments} --output-dir run --resume-from-checkpoint");
    let run = tiny.path("run");
    let (mut stopped, mut validating) = (0, 0);
    for i in 0..500 {
        let (signal, code) = SIGNALS[i % 2];
        let moment = if i % 3 == 2 { Moment::Save } else { Moment::Any };
        let mut running = go_on_and_signal(&tiny, &resumed, moment, signal);
        match running.exit_code() {
            0 => break,
            75 => stopped += 1,
            other => assert_eq!((other, newest_step(&run)), (code, 0), "{}", running.stderr()),
        }
        validating += usize::from(validation_pending(&run));
        assert!(!names(&run).iter().any(|name| is_temporary(name) || name == "run.lock"));
    }
    assert!(stopped >= 5 && validating >= 1, "{stopped} stops, {validating} while validating");
    for dir in ["adapter", "checkpoint-24"] {
        assert_same_folders(&run.join(dir), &tiny.path("whole").join(dir));
    }
}

/// How long it took a run to end after a second signal, if it was still there after the first.
fn second_signal(tiny: &Tiny, arguments: &str, signal: Signal, code: i32) -> Option<Duration> {
    let mut running = Running::start(tiny, arguments);
    running.wait_for("trainable values").unwrap();
    // The run must be past its last check before the micro-batch.
    std::thread::sleep(Duration::from_millis(200));
    running.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(50));
    if !running.is_running() {
        return None;
    }
    let signalled = Instant::now();
    running.signal(signal);
    assert!([code, 143].contains(&running.exit_code()));
    let at_once = !running.stderr().contains("stopped by");
    at_once.then(|| signalled.elapsed())
}

/// A micro-batch that takes seconds: without validation, it is what the run begins with.
#[test]
fn a_second_one_ends_the_program_at_once() {
    let tiny = Tiny::new("llama");
    let function =
        |i: usize, end: &str| format!("def f{i}(x):\n{}    return {end}\n", "    x += 1\n".repeat(180));
    let pair = |i| json!({"func_src_before": function(i, "x"), "func_src_after": function(i + 50, "0")});
    // Two micro-batches to a step.
    let lines: String = (0..16).map(|i| format!("{}\n", pair(i))).collect();
    std::fs::create_dir(tiny.path("long")).unwrap();
    std::fs::write(tiny.path("long/pairs.jsonl"), lines).unwrap();
    let arguments =
        format!("{TRAIN} --data long --output-dir run").replace("--batch-size 1", "--batch-size 8");
    let arguments = arguments.replace("--max-seq-len 160", "--max-seq-len 2000");
    for (signal, code) in SIGNALS {
        // On a busy machine one may take longer, or come before the micro-batch has begun, and end the run in
        // order.
        let fastest = (0..10)
            .filter_map(|_| second_signal(&tiny, &arguments, signal, code))
            .find(|taken| *taken < Duration::from_millis(500));
        assert!(fastest.is_some(), "no second {signal:?} ended the program at once");
    }
    // Alone, the first one ends the run in an orderly way.
    let mut running = Running::start(&tiny, &arguments);
    running.wait_for("trainable values").unwrap();
    running.signal(Signal::TERM);
    assert_eq!(running.exit_code(), 143);
    assert!(running.stderr().contains("stopped by SIGTERM before the first step"), "{}", running.stderr());
}
