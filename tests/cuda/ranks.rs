//! A rank on a GPU, of several.

use std::sync::{Arc, Mutex};

use deepguard::Result;
use deepguard::dist::World;
use deepguard::dist::fabric::Fabric;
use deepguard::train::step::Update;

use crate::alone;
use crate::emulator::{checked, own_cuda};
use crate::support::{Setting, attached, model_on, pairs, stepper_with};

/// How many values were added up at a time: of a GPU, and of the host.
#[derive(Debug, Default, PartialEq)]
struct Lengths {
    gpu: Vec<usize>,
    host: Vec<usize>,
}

/// The first of two ranks, the other of which has computed nothing.
struct OfTwo(Arc<Mutex<Lengths>>);

impl Fabric for OfTwo {
    fn name(&self) -> String {
        "one of two".to_owned()
    }

    fn rank(&self) -> usize {
        0
    }

    fn world(&self) -> usize {
        2
    }

    fn heed(&mut self, _: Box<dyn Fn() -> bool + Send>) {}

    fn all_reduce(&mut self, values: &mut [i64]) -> Result<()> {
        self.0.lock().unwrap().host.push(values.len());
        Ok(())
    }

    fn reaches_gpus(&self) -> bool {
        true
    }

    unsafe fn all_reduce_on_gpu(&mut self, address: usize, len: usize) -> Result<()> {
        assert_ne!(address, 0);
        self.0.lock().unwrap().gpu.push(len);
        Ok(())
    }

    fn broadcast(&mut self, _: usize, _: &mut Vec<u8>) -> Result<()> {
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// What comes to the host of a step over ranks are its losses, and whether to stop.
#[test]
fn cuda_sums_of_gradients_stay_on_the_gpu() {
    let _alone = alone();
    let (setting, pairs) = (Setting::default(), pairs());
    let model = model_on(own_cuda(), setting.model);
    let attached = attached(&model, setting);
    let parameters = attached.params.layout().len();
    let mut stepper = stepper_with(&model, attached, &pairs, setting, None);
    let lengths = Arc::default();
    let mut world = World::over(Box::new(OfTwo(Arc::clone(&lengths))));
    let micro_batches = [vec![&pairs[0]], vec![&pairs[1]]];
    let update = Update { lr: 1e-4, weight_decay: 0.01, max_grad_norm: 1.0 };
    checked(stepper.step_unless(&micro_batches, None, 0, update, &mut world, &mut || false));
    // One more value counts gradients that are not finite; five figures of each micro-batch.
    let expected = Lengths { gpu: vec![parameters + 1], host: vec![micro_batches.len() * 5 + 1] };
    assert_eq!(*lengths.lock().unwrap(), expected);
}
