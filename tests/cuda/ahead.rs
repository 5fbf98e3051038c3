//! Steps that are recorded while the device is at the one before.

use deepguard::cuda::Cuda;
use deepguard::dist::World;
use deepguard::model::Transformer;
use deepguard::ops::norm::Norm;
use deepguard::ops::{Arena, Buffer, Device, Element};
use deepguard::train::base_cache::BaseCache;
use deepguard::train::batch::TokenPair;
use deepguard::train::step::{Objective, StepReport, Update};
use serde_json::json;

use crate::alone;
use crate::emulator::{checked, own_cuda};
use crate::support::{Setting, attached, pairs, stepper_with};
use crate::tiny::{Tiny, edit_tensors, is_before};

pub const STEPS: usize = 5;
/// Bytes for more base states than there are.
pub const ROOM: usize = 1 << 20;

fn buffer<T: Element>(cuda: &Cuda, len: usize) -> Buffer<Cuda, T> {
    checked(Arena::build(cuda, |arena| arena.buffer("test", &[len]))).0
}

/// A micro-batch of half of the pairs: of the second half from step 3 on, and of the first one again at the
/// end.
fn step_of(pairs: &[TokenPair], step: usize) -> Vec<Vec<&TokenPair>> {
    let half = pairs.len() / 2;
    let first = if (3..STEPS).contains(&step) { half } else { 0 };
    vec![pairs.iter().skip(first).take(half).collect()]
}

/// A model of so many layers, in a folder.
pub fn tiny(layers: usize) -> Tiny {
    let tiny = Tiny::new("qwen2");
    tiny.edit_config(|config| config["num_hidden_layers"] = json!(layers));
    edit_tensors(&tiny.model().join("model.safetensors"), |tensors| {
        tensors.retain(|(name, ..)| is_before(name, layers));
    });
    tiny
}

/// A model of two layers.
fn model() -> Transformer<Cuda> {
    checked(Transformer::load(own_cuda(), &tiny(2).model()))
}

/// How often the driver was called to record, and to start a graph; nothing on a GPU.
fn calls() -> Option<[u64; 2]> {
    let emulator = cuda_emulator::load().ok()?;
    Some(["cuStreamBeginCapture_v2", "cuGraphLaunch"].map(|name| checked(emulator.calls(name))))
}

/// What steps come to.
#[derive(PartialEq)]
pub struct Trained {
    reports: Vec<StepReport>,
    /// Parameters and moments.
    values: [Vec<f32>; 3],
}

/// Steps of a model.
pub struct Steps<'a> {
    pub model: &'a Transformer<Cuda>,
    pub objective: Objective,
    pub lr: f64,
}

impl Steps<'_> {
    /// Trains, and is told with each step which one comes `next`. Returns the calls, too.
    pub fn train(
        &self,
        cache: BaseCache<Cuda>,
        next: impl Fn(usize) -> Option<usize>,
    ) -> (Trained, Option<[u64; 2]>) {
        let (setting, pairs) =
            (Setting { objective: self.objective, taps: 2, ..Setting::default() }, pairs());
        let (attached, backend) = (attached(self.model, setting), &self.model.backend);
        let mut stepper = stepper_with(self.model, attached, &pairs, setting, Some(cache));
        let update = Update { lr: self.lr, weight_decay: 0.01, max_grad_norm: 1.0 };
        // Nothing is allocated in the middle of a step after this.
        checked(stepper.step(&step_of(&pairs, 0), 0, update));
        let before = calls();
        let reports = (1..=STEPS).map(|step| {
            let (now, ahead) = (step_of(&pairs, step), next(step).map(|next| step_of(&pairs, next)));
            let (world, stop) = (&mut World::alone(), &mut || false);
            checked(stepper.step_unless(&now, ahead.as_deref(), step as u32, update, world, stop))
        });
        let reports = reports.collect();
        let since = before.zip(calls()).map(|(before, after)| [0, 1].map(|i| after[i] - before[i]));
        let moments = &stepper.moments;
        let values = [stepper.attached.params.master(), moments.m.view(), moments.v.view()]
            .map(|x| backend.to_host(x));
        (Trained { reports, values }, since)
    }
}

/// Whatever was announced, the result has the same bits; and what came was recorded once.
#[test]
fn cuda_steps_recorded_ahead_are_those_recorded_in_time() {
    let _alone = alone();
    let model = model();
    let rows = pairs().iter().map(|pair| pair.secure.len()).sum();
    let steps = Steps { model: &model, objective: Setting::default().objective, lr: 1e-4 };
    let once = [STEPS as u64; 2];
    let (expected, in_time) = steps.train(BaseCache::new(ROOM), |_| None);
    assert!(in_time.is_none_or(|calls| calls == once), "{in_time:?}");
    let (found, ahead) = steps.train(BaseCache::new(ROOM), |step| (step < STEPS).then_some(step + 1));
    assert!(found == expected, "recorded ahead");
    assert!(ahead.is_none_or(|calls| calls == once), "{ahead:?}");
    // Not always what was announced, whose base states are not known at first.
    let on_device = BaseCache::new(0).on_device([rows, model.config.hidden_size]);
    let (found, ahead) = steps.train(on_device, |_| Some(3));
    assert!(found == expected, "something else than was recorded ahead");
    let some_for_nothing = |[recorded, started]: [u64; 2]| recorded > started && started == once[1];
    assert!(ahead.is_none_or(some_for_nothing), "{ahead:?}");
    // States that are waited for are in no recording.
    let (found, _) = steps.train(BaseCache::new(0), |step| Some(step + 1));
    assert!(found == expected, "with states on disk");
}

/// Base states that a recording would have kept are not taken for known by an evaluation that comes instead.
#[test]
fn cuda_evaluations_do_not_trust_what_was_recorded_ahead() {
    let _alone = alone();
    let model = model();
    let (setting, pairs) = (Setting { taps: 2, ..Setting::default() }, pairs());
    let evaluated = |next: Option<usize>| {
        let cache = Some(BaseCache::new(ROOM));
        let mut stepper = stepper_with(&model, attached(&model, setting), &pairs, setting, cache);
        let update = Update { lr: 1e-2, weight_decay: 0.01, max_grad_norm: 1.0 };
        checked(stepper.step(&step_of(&pairs, 0), 0, update));
        let (now, ahead) = (step_of(&pairs, 1), next.map(|next| step_of(&pairs, next)));
        let (world, stop) = (&mut World::alone(), &mut || false);
        checked(stepper.step_unless(&now, ahead.as_deref(), 1, update, world, stop));
        let (_, rows) = checked(stepper.evaluate(&step_of(&pairs, 3)[0]));
        (rows.nll, rows.kl)
    };
    let expected = evaluated(None);
    assert!(expected.1.iter().any(|kl| *kl > 0.0));
    assert!(evaluated(Some(3)) == expected);
}

/// A step whose regime is not that of the one before is done again, and so is the recording after it.
#[test]
fn cuda_steps_recorded_ahead_in_another_regime() {
    let _alone = alone();
    let model = model();
    let free = Steps { model: &model, objective: Setting::default().objective, lr: 1e-2 };
    let (without_limit, _) = free.train(BaseCache::new(ROOM), |_| None);
    let kl: Vec<f64> = without_limit.reports.iter().map(|report| report.losses.kl_before_clamp).collect();
    let limit = (kl[0] + kl[STEPS - 1]) / 2.0;
    assert!(kl[0] < limit && limit < kl[STEPS - 1], "{kl:?}");
    let limited = Steps { objective: free.objective.with(|o| o.kl_max = limit), ..free };
    let (expected, _) = limited.train(BaseCache::new(ROOM), |_| None);
    let (found, calls) = limited.train(BaseCache::new(ROOM), |step| Some(step + 1));
    assert!(found == expected && expected != without_limit);
    assert!(calls.is_none_or(|[_, started]| started > STEPS as u64), "{calls:?}: no step was done again");
}

/// What is recorded ahead keeps its inputs, whatever is copied and waited for meanwhile, and runs once.
#[test]
fn cuda_prepared_work_runs_when_it_is_started() {
    let _alone = alone();
    let cuda = own_cuda();
    let (mut x, mut seen) = (buffer::<f32>(&cuda, 4), buffer::<f32>(&cuda, 4));
    let mut pass = |number: f32| {
        cuda.upload(x.view_mut(), &[number; 4]);
        cuda.copy(seen.view_mut(), x.view());
    };
    cuda.graph("running", || pass(1.0));
    let prepared = cuda.prepare("prepared", 64, || pass(2.0));
    let Some(((), recording)) = prepared else { panic!("it can be recorded") };
    (3..9).for_each(|number| cuda.graph("beside", || pass(number as f32)));
    checked(cuda.finish());
    (10..19).for_each(|number| pass(number as f32));
    checked(cuda.finish());
    assert!(cuda.start(recording));
    assert!(!cuda.start(recording), "it was started before");
    assert_eq!(cuda.to_host(seen.view()), [2.0; 4]);
    let Some(((), first)) = cuda.prepare("prepared", 64, || cuda.upload(x.view_mut(), &[4.0; 4])) else {
        panic!("it can be recorded")
    };
    assert!(cuda.prepare("prepared", 64, || cuda.upload(x.view_mut(), &[5.0; 4])).is_some());
    assert!(!cuda.start(first), "another one was recorded since");
    assert_eq!(cuda.to_host(x.view()), [2.0; 4]);
}

/// Nothing is done of work that cannot be recorded ahead, nothing of it is told, and the device goes on.
#[test]
fn cuda_work_that_cannot_be_recorded_is_not_prepared() {
    let _alone = alone();
    let cuda = own_cuda();
    let (mut x, mut short) = (buffer::<f32>(&cuda, 4), buffer(&cuda, 31));
    let (mut rstd, weight, act) = (buffer(&cuda, 2), buffer(&cuda, 16), buffer(&cuda, 32));
    cuda.graph("running", || cuda.upload(x.view_mut(), &[1.0; 4]));
    let wrong: [&mut dyn FnMut(); 5] = [
        &mut || drop(cuda.allocate(4)),
        &mut || drop(cuda.finish()),
        &mut || drop(cuda.to_host(weight.view())),
        &mut || cuda.reserve_inputs(1 << 30),
        &mut || cuda.rms_norm(short.view_mut(), rstd.view_mut(), act.view(), weight.view(), 1e-5),
    ];
    let mut first = buffer::<f32>(&cuda, 4);
    for (i, operation) in wrong.into_iter().enumerate() {
        let prepared = cuda.prepare("wrong", 64, || {
            cuda.upload(x.view_mut(), &[2.0; 4]);
            operation();
            cuda.upload(x.view_mut(), &[3.0; 4]);
        });
        assert!(prepared.is_none(), "operation {i}");
        cuda.copy(first.view_mut(), x.view());
        checked(cuda.finish());
        assert_eq!(cuda.to_host(first.view()), [1.0; 4], "operation {i}");
    }
    let Some(((), recording)) = cuda.prepare("freed", 64, || cuda.upload(x.view_mut(), &[2.0; 4])) else {
        panic!("it can be recorded")
    };
    drop(first);
    assert!(!cuda.start(recording), "its arguments may have been freed");
    assert_eq!(cuda.to_host(x.view()), [1.0; 4]);
}
