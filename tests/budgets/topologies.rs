//! Graphs of training steps of real lengths: each topology is instantiated once.

use std::collections::HashSet;

use deepguard::model::{LoraConfig, Transformer};
use deepguard::train::base_cache::BaseCache;
use deepguard::train::batch::TokenPair;
use deepguard::train::step::{Stepper, Update};
use serde_json::json;

use super::counting::{alone, uncounted, unexecuted};
use super::sven_lengths::SVEN_LENGTHS;
use crate::emulator::{checked, own_cuda};
use crate::support::{Setting, attached_as};
use crate::tiny::{Tiny, edit_tensors, is_before};

const UPDATE: Update = Update { lr: 1e-5, weight_decay: 0.01, max_grad_norm: 1.0 };
const STEPS: usize = 50;
/// Pairs of a micro-batch, of which a step has two, as published.
const PAIRS: usize = 8;
/// Rows of a chunk of logits, of a vocabulary of a few hundred.
const CHUNK: usize = 1024;

/// A pair of such lengths: of the secure function, of the vulnerable one, and of what both begin with.
pub fn pair(id: usize, (secure, vulnerable, shared): (usize, usize, usize)) -> TokenPair {
    let common = (0..shared).map(|i| (i * 7 + id) as u32 % 200);
    let rest = |first: u32, len: usize| (shared..len).map(move |i| first + (i * 5 + id) as u32 % 100);
    TokenPair::new(
        id,
        common.clone().chain(rest(200, secure)).collect(),
        common.chain(rest(300, vulnerable)).collect(),
    )
}

/// The pairs of each step's micro-batches, in another order every epoch.
fn steps(pairs: &[TokenPair]) -> Vec<Vec<Vec<&TokenPair>>> {
    let in_epoch = pairs.len() / (2 * PAIRS);
    let step = |step: usize| {
        let (epoch, first) = (step / in_epoch, step % in_epoch * 2 * PAIRS);
        // 7, 49, … have no factor in common with 160.
        let place = |i: usize| (first + i) * 7usize.pow(epoch as u32) % pairs.len();
        (0..2).map(|half| (0..PAIRS).map(|i| &pairs[place(half * PAIRS + i)]).collect()).collect()
    };
    (0..STEPS).map(step).collect()
}

/// What the nodes of a step depend on: chunks of logits of each micro-batch.
fn topology(step: &[Vec<&TokenPair>]) -> Vec<usize> {
    let rows = |pairs: &Vec<&TokenPair>| pairs.iter().map(|pair| pair.secure.len()).sum::<usize>();
    step.iter().map(|pairs| rows(pairs).div_ceil(CHUNK)).collect()
}

/// Nothing is executed: a step of an emulated GPU would take minutes.
#[test]
fn graphs_are_made_once_for_each_topology() {
    if uncounted() {
        return;
    }
    let _alone = alone();
    let emulator = checked(cuda_emulator::load());
    let tiny = Tiny::new("qwen2");
    tiny.edit_config(|config| {
        config["num_hidden_layers"] = json!(2);
        config["max_position_embeddings"] = json!(1024);
    });
    edit_tensors(&tiny.model().join("model.safetensors"), |tensors| {
        tensors.retain(|(name, ..)| is_before(name, 2));
    });
    let model = checked(Transformer::load(own_cuda(), &tiny.model()));
    let objective = Setting::default().objective.with(|o| o.max_seq_len = 1024);
    let setting = Setting { taps: 2, base_cache: true, objective, ..Setting::default() };
    let pairs: Vec<TokenPair> = SVEN_LENGTHS.into_iter().enumerate().map(|(id, of)| pair(id, of)).collect();
    let attached = attached_as(&model, setting, LoraConfig::default_for(&model.config));
    let (capacity, cache) = (objective.capacity(pairs.iter(), PAIRS), Some(BaseCache::new(usize::MAX)));
    let stepper = Stepper::new(&model, attached, objective, cache, capacity, &[setting.recompute]);
    let mut stepper = checked(stepper);
    let _unexecuted = unexecuted();
    let steps = steps(&pairs);
    let mut made = |of: &[Vec<Vec<&TokenPair>>], first: usize| {
        let calls = || checked(emulator.calls("cuGraphInstantiateWithFlags"));
        let before = calls();
        for (i, step) in of.iter().enumerate() {
            checked(stepper.step(step, (first + i) as u32, UPDATE));
        }
        calls() - before
    };
    // In the first epoch base states are kept, and memory for them is allocated in the middle of a step.
    let (first, later) = steps.split_at(pairs.len() / (2 * PAIRS));
    let in_first = made(first, 0);
    let in_later = made(later, first.len());
    let again = made(later, STEPS);
    let topologies: HashSet<Vec<usize>> = later.iter().map(|step| topology(step)).collect();
    println!(
        "{in_first} in the first epoch, {in_later} in {} steps of {} topologies",
        later.len(),
        topologies.len()
    );
    assert!(topologies.len() > 5, "lengths differ");
    assert!(in_later as usize <= topologies.len(), "{in_later} graphs, {} topologies", topologies.len());
    assert_eq!(again, 0, "graphs made for topologies that were there before");
}
