use deepguard::cpu::Cpu;
use deepguard::guard::Aggregation;
use deepguard::model::Transformer;
use deepguard::model::activations::Recompute;
use deepguard::ops::{Backend, Device};
use deepguard::train::base_cache::BaseCache;
use deepguard::train::batch::TokenPair;
use deepguard::train::step::{Losses, Stepper, Update};

use crate::alone;
use crate::distance;
use crate::emulator::{checked, on_a_gpu, own_cuda, set_seed, skipped};
use crate::support::{
    Setting, attached, changed_pairs, model_on, one_micro_batch, pairs, stepper, stepper_of, stepper_with,
    sven_objective, sven_stepper,
};

const STEPS: u32 = 10;
const UPDATE: Update = Update { lr: 1e-3, weight_decay: 0.01, max_grad_norm: 1.0 };

/// Two micro-batches: a tile of a product has room for all rows of these pairs, so that each costs the same.
fn halves(pairs: &[TokenPair]) -> Vec<Vec<&TokenPair>> {
    pairs.chunks(2).map(|pairs| pairs.iter().collect()).collect()
}

/// Parameter values and losses after some steps.
struct Run {
    losses: Vec<Losses>,
    params: Vec<f32>,
}

fn run<B: Backend>(model: &Transformer<B>, setting: Setting, steps: u32) -> Run {
    let pairs = pairs();
    let mut stepper = stepper(model, &pairs, setting);
    let step = |step| checked(stepper.step(&halves(&pairs), step, UPDATE)).losses;
    let losses = (0..steps).map(step).collect();
    let layout = stepper.attached.params.layout().params().to_vec();
    let params = layout.iter().flat_map(|param| checked(stepper.attached.params.download(param))).collect();
    Run { losses, params }
}

fn gradients<B: Backend>(stepper: &mut Stepper<'_, B>) -> Vec<(String, Vec<f32>)> {
    gradients_of(stepper, &pairs())
}

fn gradients_of<B: Backend>(stepper: &mut Stepper<'_, B>, pairs: &[TokenPair]) -> Vec<(String, Vec<f32>)> {
    checked(stepper.gradients(&one_micro_batch(pairs), Some(3)));
    let params = stepper.attached.params.layout().params().to_vec();
    let backend = &stepper.model().backend;
    let gradient = |param| backend.to_host(stepper.grads().get(param));
    params.iter().map(|param| (param.name.clone(), gradient(param))).collect()
}

/// Norm of a tensor.
fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt()
}

#[test]
fn every_gradient_on_cuda_is_that_of_the_cpu() {
    let _alone = alone();
    for model in ["llama-tiny", "qwen2-tiny"] {
        let (on_cpu, on_cuda) = (model_on(Cpu::new(), model), model_on(own_cuda(), model));
        for aggregation in Aggregation::ALL {
            let setting = Setting { model, aggregation, ..Setting::default() };
            let expected = gradients(&mut stepper(&on_cpu, &pairs(), setting));
            let found = gradients(&mut stepper(&on_cuda, &pairs(), setting));
            let largest = expected.iter().map(|(_, g)| norm(g)).fold(0.0, f64::max);
            for ((name, found), (_, expected)) in found.iter().zip(&expected) {
                // What cancels to almost nothing has no more digits than what it is the rest of.
                let off = distance(found, expected) * norm(expected) / norm(expected).max(1e-3 * largest);
                assert!(off < 0.05, "{model}, {aggregation}, {name}: {off}");
            }
        }
    }
}

/// Every loss of every step agrees, and something is learnt.
fn losses_agree(model: &str, found: &[Losses], expected: &[Losses]) {
    assert_eq!(found.len(), expected.len());
    for (step, (found, expected)) in found.iter().zip(expected).enumerate() {
        for (what, found, expected, allowed) in [
            ("loss", found.total, expected.total, 0.01 * expected.total),
            ("cross-entropy", found.generation, expected.generation, 0.01 * expected.generation),
            ("security loss", found.security, expected.security, 0.01),
            ("KL", found.kl, expected.kl, 0.02 * expected.kl + 1e-3),
        ] {
            let off = (found - expected).abs();
            assert!(off <= allowed, "{model}, {what} at step {step}: {found} {expected}");
        }
    }
    let [first, .., last] = expected else { panic!("{model}: one step cannot learn") };
    assert!(last.total < first.total, "{model} learns nothing: {first:?} {last:?}");
}

/// Gradients of SVEN's two prefixes, with dropout, and the losses of some steps after that.
fn sven<B: Backend>(model: &Transformer<B>, steps: u32) -> (Vec<(String, Vec<f32>)>, Vec<Losses>) {
    let pairs = changed_pairs();
    let mut stepper = sven_stepper(model, &pairs, sven_objective(), 0.1);
    let gradients = gradients_of(&mut stepper, &pairs);
    let update = Update { lr: 1e-2, ..UPDATE };
    let step = |step| checked(stepper.step(&one_micro_batch(&pairs), step, update)).losses;
    (gradients, (0..steps).map(step).collect())
}

#[test]
fn sven_on_cuda_is_that_of_the_cpu() {
    const STEPS: u32 = 3;
    let _alone = alone();
    for name in ["llama-tiny", "qwen2-tiny"] {
        let (expected_gradients, expected) = sven(&model_on(Cpu::new(), name), STEPS);
        let (found_gradients, found) = sven(&model_on(own_cuda(), name), STEPS);
        for ((param, found), (_, expected)) in found_gradients.iter().zip(&expected_gradients) {
            let off = distance(found, expected);
            assert!(norm(expected) > 0.0 && off < 0.05, "{name}, {param}: {off}");
        }
        losses_agree(name, &found, &expected);
    }
}

#[test]
fn ten_steps_on_cuda_take_the_losses_of_the_cpu() {
    let _alone = alone();
    for model in ["llama-tiny", "qwen2-tiny"] {
        let setting = Setting { model, base_cache: true, ..Setting::default() };
        let expected = run(&model_on(Cpu::new(), model), setting, STEPS);
        let found = run(&model_on(own_cuda(), model), setting, STEPS);
        losses_agree(model, &found.losses, &expected.losses);
    }
}

/// Blocks and warps run in another order each time.
#[test]
fn cuda_gives_the_same_bits_again() {
    let _alone = alone();
    let model = model_on(own_cuda(), "qwen2-tiny");
    let setting = Setting { model: "qwen2-tiny", ..Setting::default() };
    let [first, second] = [1, 2].map(|seed| {
        set_seed(seed);
        run(&model, setting, 3)
    });
    assert_eq!(first.losses, second.losses);
    assert!(first.params == second.params, "parameters differ");
}

/// What is made again is made for fewer rows, so possibly by another kernel, with another order of its sums.
#[test]
fn what_cuda_makes_again_is_the_same() {
    let _alone = alone();
    let model = model_on(own_cuda(), "llama-tiny");
    let gradients_with = |recompute| {
        let setting = Setting { recompute, ..Setting::default() };
        gradients(&mut stepper(&model, &pairs(), setting))
    };
    let expected = gradients_with(Recompute::Nothing);
    for recompute in [Recompute::GateUp, Recompute::Block] {
        for ((name, found), (_, expected)) in gradients_with(recompute).iter().zip(&expected) {
            let off = distance(found, expected);
            assert!(off < 0.01, "{recompute:?}, {name}: {off}");
        }
    }
}

/// Where the base model's states are kept changes no bit: on the device, in memory of the host, or on disk.
/// Only for the last they are waited for.
#[test]
fn base_states_on_cuda_may_be_anywhere() {
    let _alone = alone();
    let model = model_on(own_cuda(), "qwen2-tiny");
    let pairs = pairs();
    let (rows, setting) = (pairs.iter().map(|pair| pair.secure.len()).sum(), Setting::default());
    let waits = || cuda_emulator::load().and_then(|emulator| emulator.calls("cuStreamSynchronize")).ok();
    let run = |cache: BaseCache<_>| {
        let attached = attached(&model, setting);
        let mut stepper = stepper_with(&model, attached, &pairs, setting, Some(cache));
        let before = waits();
        let step = |step| checked(stepper.step(&halves(&pairs), step, UPDATE)).losses;
        let losses: Vec<Losses> = (0..3).map(step).collect();
        let waited = before.zip(waits()).map(|(before, after)| after - before);
        (losses, gradients(&mut stepper), waited)
    };
    let expected = run(BaseCache::new(0));
    assert!(expected.0.iter().any(|losses| losses.kl > 0.0));
    for (place, cache) in [
        ("host", BaseCache::new(1 << 20)),
        ("device", BaseCache::new(0).on_device([rows, model.config.hidden_size])),
    ] {
        set_seed(7);
        let found = run(cache);
        assert_eq!(found.0, expected.0, "{place}");
        assert!(found.1 == expected.1, "{place}: gradients differ");
        assert!(on_a_gpu() || found.2 == Some(3), "{place}: {:?} waits in three steps", found.2);
    }
}

/// What the device has less of afterwards is what the plan says, and the device is not asked for more while
/// training.
#[test]
fn memory_on_cuda_is_what_was_planned() {
    let _alone = alone();
    let model = model_on(own_cuda(), "qwen2-tiny");
    let pairs = pairs();
    let attached = attached(&model, Setting::default());
    let rows: usize = pairs.iter().map(|pair| pair.secure.len()).sum();
    let free = || model.backend.free_memory();
    let before = free();
    let cache = BaseCache::new(0).on_device([rows, model.config.hidden_size]);
    let mut stepper = stepper_with(&model, attached, &pairs, Setting::default(), Some(cache));
    assert!(stepper.plan().iter().any(|row| row.name == "base states"));
    let planned: usize = stepper.plan().iter().map(|row| row.bytes).sum();
    for step in 0..3 {
        checked(stepper.step(&halves(&pairs), step, UPDATE));
    }
    let used = before - free();
    assert!(used.abs_diff(planned) * 100 <= planned, "{used} bytes are used, {planned} were planned");
}

/// What is said of the device's memory before the first step is within 1 % of what a run takes of it at its
/// peak, the 32 MiB of scratch memory left aside.
#[test]
fn the_peak_on_cuda_is_what_was_said() {
    if on_a_gpu() {
        return skipped("it counts memory in large pages, and more with every kernel that is used first");
    }
    let _alone = alone();
    let other = own_cuda();
    let before = other.free_memory();
    let cuda = own_cuda();
    let opened = before - other.free_memory();
    let model = model_on(cuda, "qwen2-tiny");
    let loaded = before - other.free_memory();
    assert!(loaded.abs_diff(model.device_bytes()) * 100 <= loaded - opened, "{loaded} with the model");
    let attached = attached(&model, Setting::default());
    let pairs = pairs();
    let mut stepper = stepper_of(&model, attached, &pairs, Setting::default());
    let said = stepper.device_bytes().expect("memory of its own");
    let mut peak = 0;
    for step in 0..3 {
        checked(stepper.step(&one_micro_batch(&pairs), step, UPDATE));
        peak = peak.max(before - other.free_memory());
    }
    assert!(peak.abs_diff(said) * 100 <= said - opened, "{peak} bytes at the peak, {said} were said");
}

/// All that the host needs to know of a step comes at its end.
#[test]
fn a_step_on_cuda_is_waited_for_once() {
    if on_a_gpu() {
        return skipped("only the emulator counts waits");
    }
    let _alone = alone();
    let model = model_on(own_cuda(), "qwen2-tiny");
    let pairs = pairs();
    let mut stepper = stepper(&model, &pairs, Setting::default());
    let emulator = checked(cuda_emulator::load());
    let waits = || ["cuStreamSynchronize", "cuCtxSynchronize"].map(|name| checked(emulator.calls(name)));
    for step in 0..3 {
        let before = waits();
        checked(stepper.step(&halves(&pairs), step, UPDATE));
        assert_eq!(waits(), [before[0] + 1, before[1]], "step {step}");
    }
}
