//! Runs that end when the validation does not get better.

use deepguard::train::TrainConfig;
use deepguard::train::checkpoint::TrainerState;

use super::tiny::Tiny;
use super::{StopAfter, checkpoint_names, config, train, train_with};

/// With a learning rate of 0 no epoch is better than the first.
pub fn constant(tiny: &Tiny, run: &str) -> TrainConfig {
    config(tiny, run).with(|o| {
        o.learning_rate = 0.0;
        o.num_epochs = 5;
        o.early_stop_patience = 2;
        o.batch_size = 4;
    })
}

#[test]
fn early_stop_state_survives_a_resume() {
    let tiny = Tiny::new("qwen2");
    let constant = |run: &str| constant(&tiny, run);
    let whole = constant("whole");
    let state = train(&whole).unwrap().state;
    assert!(state.stopped_early);
    assert_eq!((state.global_step, state.best_step, state.epochs_without_improvement), (3, 1, 2));
    let mut resumed = constant("parts");
    train_with(&resumed, &mut StopAfter(2)).unwrap();
    resumed.resume_from_checkpoint = Some("auto".into());
    assert_eq!(train(&resumed).unwrap().state, state);
    // A run that has stopped stays so.
    assert_eq!(train(&resumed).unwrap().state, state);
    let patient = constant("patient").with(|o| o.early_stop_patience = 0);
    assert_eq!(train(&patient).unwrap().state.global_step, 5);
}

#[test]
fn a_run_that_ends_early_ends_with_a_checkpoint() {
    let tiny = Tiny::new("qwen2");
    let summary = train(&constant(&tiny, "run").with(|o| o.save_steps = Some(100))).unwrap();
    assert!(summary.state.stopped_early);
    assert_eq!(summary.checkpoint, Some(tiny.path("run/checkpoint-3")));
    assert_eq!(checkpoint_names(&tiny.path("run")), ["checkpoint-3"]);
}

/// Four steps an epoch. After step 1, with a learning rate of 0, nothing is better.
fn stopped_at(eval_steps: usize, patience: usize) -> TrainerState {
    let tiny = Tiny::new("qwen2");
    let config = constant(&tiny, "run").with(|o| {
        o.batch_size = 1;
        o.eval_steps = Some(eval_steps);
        o.early_stop_patience = patience;
    });
    train(&config).unwrap().state
}

#[test]
fn epochs_count_wherever_in_them_the_validations_are() {
    // Best at step 3; epochs end at 4, 8, 12, none of which but 12 is a multiple of 3.
    let state = stopped_at(3, 2);
    assert_eq!((state.best_step, state.global_step, state.stopped_early), (3, 12, true));
    // At step 5, in the second epoch. The first, without a validation, is not one without a better loss.
    let state = stopped_at(5, 1);
    assert_eq!((state.best_step, state.global_step, state.stopped_early), (5, 12, true));
    // No epoch after that of step 16 has a validation.
    let state = stopped_at(16, 1);
    assert_eq!((state.best_step, state.global_step, state.stopped_early), (16, 20, true));
}
