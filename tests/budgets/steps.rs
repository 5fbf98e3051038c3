//! What a training step asks of the driver: kernels and copies, waits, memory.

use deepguard::model::{LoraConfig, Transformer};
use deepguard::ops::Device;
use deepguard::train::base_cache::BaseCache;
use deepguard::train::step::Update;
use serde_json::json;

use super::counting::{alone, uncounted};
use crate::emulator::{checked, own_cuda};
use crate::support::{Setting, attached_as, pairs, stepper_of, together};
use crate::tiny::{Tiny, edit_tensors};

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

/// Whether a tensor belongs to one of the first layers, or to none.
fn is_before(name: &str, layers: usize) -> bool {
    let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next());
    layer.is_none_or(|layer| layer.parse::<usize>().expect("a layer's number") < layers)
}

/// Steps of a golden model that ends after `layers`, each of which is tapped, with the published adapters and dropout:
/// one of a micro-batch whose base states are known, and one of two micro-batches whose base states are not.
fn steps(architecture: &str, layers: usize) -> [Calls; 2] {
    let tiny = Tiny::new(architecture);
    tiny.edit_config(|config| config["num_hidden_layers"] = json!(layers));
    edit_tensors(&tiny.model().join("model.safetensors"), |tensors| {
        tensors.retain(|(name, ..)| is_before(name, layers));
    });
    let cuda = own_cuda();
    // Nothing of a step fits what is there for inputs from the start, as with models of real size.
    cuda.reserve_inputs(16);
    let model = checked(Transformer::load(cuda, &tiny.model()));

    let setting = Setting { taps: layers, base_cache: true, ..Setting::default() };
    let pairs = pairs();
    let attached = attached_as(&model, setting, LoraConfig::default_for(&model.config));
    let mut stepper = stepper_of(&model, attached, &pairs, setting);
    for step in 0..EARLIER {
        checked(stepper.step(&together(&pairs), step, UPDATE));
    }
    let before = Calls::so_far();
    checked(stepper.step(&together(&pairs), EARLIER, UPDATE));
    let known = Calls::so_far();
    stepper.base_cache = Some(BaseCache::new(usize::MAX));
    let halves: Vec<Vec<_>> = pairs.chunks(2).map(|half| half.iter().collect()).collect();
    checked(stepper.step(&halves, EARLIER + 1, UPDATE));
    [known.since(before), Calls::so_far().since(known)]
}

#[test]
fn of_training() {
    if uncounted() {
        return;
    }
    let _alone = alone();
    for name in ["llama", "qwen2"] {
        let ([few, _], [many, unknown]) = (steps(name, 2), steps(name, 5));
        let of_layer = (many.nodes - few.nodes).div_ceil(3);
        let beside = few.nodes - 2 * of_layer;
        println!("{name}: {of_layer} launches, copies and fills for each layer, {beside} beside");
        assert!(of_layer <= OF_LAYER, "{name}: {of_layer} for each layer");
        assert!(beside <= BESIDE, "{name}: {beside} beside the layers");
        assert_eq!((many.waits, many.allocations), (1, 0), "{name}: waits, allocations");
        assert_eq!(many.graphs, [0, 1], "{name}: graphs made, graphs started");
        assert_eq!(unknown.waits, 1 + 2, "{name}: waits while two micro-batches' base states are gathered");
    }
}
