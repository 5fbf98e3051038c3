//! Time that the program takes between the end of a step on the device and the start of the next.

use std::ops::ControlFlow;
use std::time::Duration;

use deepguard::cuda::Cuda;
use deepguard::model::Transformer;
use deepguard::train::{Observer, RunData, RunFolder, StepLog, TrainConfig, train_on};
use serde_json::json;

use super::counting::{alone, uncounted, unexecuted};
use super::sven_lengths::SVEN_LENGTHS;
use super::topologies::pair;
use crate::emulator::{checked, own_cuda};
use crate::tiny::{Tensor, Tiny, edit_tensors};

/// Layers of a model of 7B.
const LAYERS: usize = 28;
const MOST: Duration = Duration::from_millis(2);

/// When the host read the last step's losses, and how long after that it had started the step after.
#[derive(Default)]
struct Between {
    read: Duration,
    all: Vec<Duration>,
}

impl Observer for Between {
    fn on_step(&mut self, _log: &StepLog) -> ControlFlow<()> {
        let emulator = checked(cuda_emulator::load());
        let at = |name| checked(emulator.time_outside(name));
        let started = at("cuGraphLaunch");
        self.all.push(started.saturating_sub(self.read));
        self.read = at("cuStreamSynchronize");
        ControlFlow::Continue(())
    }
}

/// The model of the test.
fn model(tiny: &Tiny) -> Transformer<Cuda> {
    tiny.edit_config(|config| {
        config["num_hidden_layers"] = json!(LAYERS);
        config["max_position_embeddings"] = json!(1024);
    });
    edit_tensors(&tiny.model().join("model.safetensors"), |tensors| {
        let first: Vec<Tensor> =
            tensors.iter().filter(|(name, ..)| name.starts_with("model.layers.0.")).cloned().collect();
        tensors.retain(|(name, ..)| !name.starts_with("model.layers."));
        for layer in 0..LAYERS {
            let of_layer = format!("model.layers.{layer}.");
            let renamed =
                |(name, shape, values): Tensor| (name.replace("model.layers.0.", &of_layer), shape, values);
            tensors.extend(first.iter().cloned().map(renamed));
        }
    });
    checked(Transformer::load(own_cuda(), &tiny.model()))
}

/// The times between the steps of an epoch that is not the first, in order. A validation, though of no
/// pairs, comes after every `eval_steps`, and nothing is recorded across one.
fn between_steps(
    tiny: &Tiny,
    model: &Transformer<Cuda>,
    run: &str,
    eval_steps: Option<usize>,
) -> Vec<Duration> {
    let config = TrainConfig::default().with(|o| {
        o.output_dir = tiny.path(run);
        o.num_epochs = 2;
        o.batch_size = 8;
        o.gradient_accumulation_steps = 2;
        o.eval_steps = eval_steps;
    });
    let pairs = SVEN_LENGTHS.into_iter().enumerate().map(|(id, of)| pair(id, of)).collect();
    let data = checked(RunData::from_tokens(pairs, Vec::new(), 1024));
    let folder = checked(RunFolder::open(&config.output_dir));
    let mut between = Between::default();
    checked(train_on(&folder, model, data, &config, &mut between));
    // Checkpoints come between epochs; in the first, memory for base states is allocated.
    let in_epoch = between.all.len() / 2;
    let mut second = between.all.split_off(in_epoch + 1);
    second.sort_unstable();
    second
}

/// Nothing is executed, so that what is measured is the program's own time, the driver's left out.
#[test]
fn between_two_steps() {
    if uncounted() {
        return;
    }
    let _alone = alone();
    let tiny = Tiny::new("qwen2");
    let model = model(&tiny);
    let _unexecuted = unexecuted();
    let [in_time, ahead] = [("in-time", Some(1)), ("ahead", None)]
        .map(|(run, eval_steps)| between_steps(&tiny, &model, run, eval_steps));
    let median = |times: &[Duration]| times[times.len() / 2];
    println!(
        "{LAYERS} layers, {} steps: {:?} in the median, {:?} at most; {:?} if recorded in time",
        ahead.len(),
        median(&ahead),
        ahead.last(),
        median(&in_time)
    );
    assert!(median(&ahead) <= MOST, "between steps: {ahead:?}");
    assert!(median(&ahead) < median(&in_time), "recorded ahead {ahead:?}, in time {in_time:?}");
}
