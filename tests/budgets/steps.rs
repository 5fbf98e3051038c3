//! Driver calls of a training step: kernels and copies, waits, memory.

use deepguard::model::{LoraConfig, Transformer};
use deepguard::ops::Device;
use deepguard::train::base_cache::BaseCache;
use deepguard::train::batch::TokenPair;
use deepguard::train::step::Update;
use serde_json::json;

use super::counting::{alone, uncounted, unexecuted};
use crate::emulator::{checked, own_cuda};
use crate::support::{Setting, attached_as, one_micro_batch, pairs, stepper_of};
use crate::tiny::{Tiny, edit_tensors, is_before};

const UPDATE: Update = Update { lr: 1e-5, weight_decay: 0.01, max_grad_norm: 1.0 };
/// Steps before the one that counts: memory is made, base states are cached, and the losses' regime is known.
const EARLIER: u32 = 3;

/// Most kernels, copies and fills on the device: for each layer, and beside them.
const OF_LAYER: u64 = 30;
const BESIDE: u64 = 60;

/// Calls of the driver.
#[derive(Clone, Copy, Debug)]
struct Calls {
    /// Kernels, and copies and fills on the device.
    nodes: u64,
    waits: u64,
    allocations: u64,
    /// Graphs made, and graphs started.
    graphs: [u64; 2],
}

impl Calls {
    fn so_far() -> Self {
        let emulator = checked(cuda_emulator::load());
        let calls = |names: &[&str]| names.iter().map(|name| checked(emulator.calls(name))).sum();
        Calls {
            nodes: calls(&[
                "cuLaunchKernel",
                "cuLaunchCooperativeKernel",
                "cuMemcpyDtoDAsync_v2",
                "cuMemsetD8Async",
            ]),
            waits: calls(&["cuStreamSynchronize", "cuCtxSynchronize", "cuEventSynchronize"]),
            allocations: calls(&["cuMemAlloc_v2", "cuMemAllocAsync", "cuMemAllocHost_v2", "cuMemHostAlloc"]),
            graphs: ["cuGraphInstantiateWithFlags", "cuGraphLaunch"].map(|name| calls(&[name])),
        }
    }

    fn since(self, before: Self) -> Self {
        Calls {
            nodes: self.nodes - before.nodes,
            waits: self.waits - before.waits,
            allocations: self.allocations - before.allocations,
            graphs: [0, 1].map(|i| self.graphs[i] - before.graphs[i]),
        }
    }
}

/// A step of a golden model that ends after `layers`, each of which is tapped, with the published adapters
/// and dropout: of a micro-batch whose base states are known, or of two whose base states are not.
fn step(architecture: &str, layers: usize, pairs: &[TokenPair], known: bool) -> Calls {
    let tiny = Tiny::new(architecture);
    tiny.edit_config(|config| config["num_hidden_layers"] = json!(layers));
    edit_tensors(&tiny.model().join("model.safetensors"), |tensors| {
        tensors.retain(|(name, ..)| is_before(name, layers));
    });
    let cuda = own_cuda();
    // Nothing of a step fits what is there for inputs from the start, as with models of real size.
    cuda.reserve_inputs(16);
    let model = checked(Transformer::load(cuda, &tiny.model()));

    let objective = Setting::default().objective.with(|o| o.max_seq_len = 512);
    let setting = Setting { taps: layers, base_cache: true, objective, ..Setting::default() };
    let attached = attached_as(&model, setting, LoraConfig::default_for(&model.config));
    let mut stepper = stepper_of(&model, attached, pairs, setting);
    for step in 0..EARLIER {
        checked(stepper.step(&one_micro_batch(pairs), step, UPDATE));
    }
    let mut micro_batches = one_micro_batch(pairs);
    if !known {
        stepper.base_cache = Some(BaseCache::new(usize::MAX));
        micro_batches = pairs.chunks(pairs.len().div_ceil(2)).map(|half| half.iter().collect()).collect();
    }
    let before = Calls::so_far();
    checked(stepper.step(&micro_batches, EARLIER, UPDATE));
    Calls::so_far().since(before)
}

#[test]
fn of_training() {
    if uncounted() {
        return;
    }
    let (_alone, _unexecuted) = (alone(), unexecuted());
    for name in ["llama", "qwen2"] {
        let (few, many) = (step(name, 2, &pairs(), true), step(name, 5, &pairs(), true));
        let unknown = step(name, 2, &pairs(), false);
        let of_layer = (many.nodes - few.nodes).div_ceil(3);
        let beside = few.nodes - 2 * of_layer;
        println!("{name}: {of_layer} launches, copies and fills for each layer, {beside} beside");
        assert!(of_layer <= OF_LAYER, "{name}: {of_layer} for each layer");
        assert!(beside <= BESIDE, "{name}: {beside} beside the layers");
        assert_eq!((many.waits, many.allocations), (1, 0), "{name}: waits, allocations");
        assert_eq!(many.graphs, [0, 1], "{name}: graphs made, graphs started");
        assert_eq!(unknown.waits, 1, "{name}: waits while two micro-batches' base states are gathered");
    }
}

/// Pairs of secure functions of `len` tokens, half of which is the vulnerable one's too.
fn long_pairs(len: u32, count: usize) -> Vec<TokenPair> {
    let pair = |id: usize| {
        let token = |i: u32| (7 * i + 31 * id as u32) % 500;
        let secure: Vec<u32> = (0..len).map(token).collect();
        let vulnerable = secure.iter().copied().take(len as usize / 2).chain(std::iter::once(501)).collect();
        TokenPair::new(id, secure, vulnerable)
    };
    (0..count).map(pair).collect()
}

/// With so many rows that gradients of adapters are made in parts. Then with more rows than the 1152 of a
/// chunk of logits: each further one is four launches, two heads, the losses, and the gradient.
#[test]
fn of_training_with_many_rows() {
    if uncounted() {
        return;
    }
    let (_alone, _unexecuted) = (alone(), unexecuted());
    let pairs = long_pairs(256, 2);
    for (name, of_layer) in [("llama", 27), ("qwen2", 24)] {
        let one = step(name, 1, &pairs, true).nodes;
        assert_eq!(
            step(name, 2, &pairs, true).nodes - one,
            of_layer,
            "{name}: for each layer with many rows"
        );
        if name == "qwen2" {
            // Of each as many pairs, and multiples of 8192 elements of a tap.
            let chunks = [384, 512].map(|len| step(name, 1, &long_pairs(len, 3), true).nodes);
            assert_eq!(chunks[1] - chunks[0], 4, "launches for another chunk of logits, after {chunks:?}");
        }
    }
}
