//! Trains for at most a given number of minutes, with an observer that prints each step and ends the run in
//! time. The checkpoint it leaves is where the next call goes on.
//!
//! ```sh
//! cargo run --release --example train -- models/smollm2-135m data runs/timed 2
//! ```

use std::error::Error;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use deepguard::DeepGuard;
use deepguard::cpu::Cpu;
use deepguard::train::evaluation::Evaluation;
use deepguard::train::{Observer, StepLog, TrainConfig};

/// Ends a run when the time is over.
struct Deadline(Instant);

impl Observer for Deadline {
    fn on_step(&mut self, log: &StepLog) -> ControlFlow<()> {
        println!("step {}/{}: loss {:.4}, {:.1} s", log.step, log.total_steps, log.total, log.seconds);
        if Instant::now() < self.0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    fn on_evaluation(&mut self, step: usize, evaluation: &Evaluation) {
        let share = 100.0 * evaluation.preference_accuracy;
        println!("after step {step}: secure function likelier in {share:.0} % of {} pairs", evaluation.pairs);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, data, run, minutes] = args.as_slice() else {
        return Err("usage: train MODEL DATA RUN MINUTES".into());
    };
    let time = Duration::try_from_secs_f64(60.0 * minutes.parse::<f64>()?)?;
    let config = TrainConfig::default().with(|o| {
        o.model = model.clone();
        o.data = data.into();
        o.output_dir = run.into();
        o.batch_size = 4;
        o.max_seq_len = Some(512);
        o.resume_from_checkpoint = Some("auto".to_owned());
    });

    let mut guard = DeepGuard::load(Cpu::new(), model)?;
    let summary = guard.train(&config, &mut Deadline(Instant::now() + time))?;
    match summary.interrupted {
        true => println!("stopped after step {}; run again to go on", summary.state.global_step),
        false => println!("done: {run}"),
    }
    Ok(())
}
