//! Blocks that are gathered before they are computed with; tests/dist/shards.rs has several devices that
//! share them.

use deepguard::cuda::{Cuda, Share};
use deepguard::decode::{GenerateOptions, generate};
use deepguard::model::Transformer;
use deepguard::model::block::matrix_shapes;
use deepguard::model::config::Config;
use deepguard::ops::sample::Sampling;
use deepguard::train::base_cache::BaseCache;
use deepguard::{Error, ErrorKind};

use super::ahead::{ROOM, STEPS, Steps, tiny};
use crate::alone;
use crate::emulator::{checked, own_cuda};
use crate::support::Setting;

const LAYERS: usize = 4;

/// A device that shares a model of this configuration with nobody.
fn sharing(config: &Config) -> Cuda {
    let cuda = own_cuda();
    let share = checked(Share::new(&cuda, &matrix_shapes(config), config.num_hidden_layers, 0, 1));
    checked(share.open(&[[0; 64]]));
    cuda
}

/// Copies on the device so far; nothing on a GPU.
fn copies() -> Option<u64> {
    cuda_emulator::load().ok().map(|emulator| checked(emulator.calls("cuMemcpyDtoDAsync_v2")))
}

#[test]
fn cuda_blocks_that_are_gathered_train_and_generate_the_same_bits() {
    let _alone = alone();
    let tiny = tiny(LAYERS);
    let whole = checked(Transformer::load(own_cuda(), &tiny.model()));
    let device = sharing(&whole.config);
    let shared = checked(Transformer::load(device.clone(), &tiny.model()));
    assert_eq!(shared.device_bytes() - whole.device_bytes(), 2 * whole_block(&device));
    let objective = Setting::default().objective;
    let trained = |model| {
        let steps = Steps { model, objective, lr: 1e-3 };
        let before = copies();
        let (trained, _) = steps.train(BaseCache::new(ROOM), |step| (step < STEPS).then_some(step + 1));
        (trained, before.zip(copies()).map(|(before, after)| after - before))
    };
    let ((expected, usual), (found, with_gathers)) = (trained(&whole), trained(&shared));
    assert!(found == expected);
    // Forward all layers; backward all but the two that the forward has left. The first step allocates behind
    // its forward, which ends the recording, and with it what is known of the slots.
    let gathers = (STEPS + 1) * (2 * LAYERS - 2) + 2;
    assert_eq!(with_gathers.zip(usual).map(|(all, usual)| all - usual), copies().map(|_| gathers as u64));

    let tokens = |model| {
        let options = GenerateOptions::default().with(|o| {
            (o.max_new_tokens, o.num_samples) = (6, 3);
            o.sampling = Sampling::new(1.0, 1.0, 0, 3);
        });
        checked(generate(model, None, &[5, 77, 201, 3], &options, &mut |_, _| true)).samples
    };
    assert!(tokens(&shared) == tokens(&whole));
    // Weights that are closed are told, not read.
    checked(device.close_shares());
    let ended = generate(&shared, None, &[5, 77], &GenerateOptions::default(), &mut |_, _| true);
    assert!(ended.err().unwrap().to_string().contains("which are closed"));
}

/// Ranks that there are not, and parts of others than all ranks, are refused before anything is shared.
#[test]
fn cuda_parts_are_those_of_all_ranks() {
    let _alone = alone();
    let cuda = own_cuda();
    let refused = |result: Result<Share, Error>, part: &str| {
        let error = result.err().unwrap();
        assert!(error.kind() == ErrorKind::Usage && error.to_string().contains(part), "{error}");
    };
    let share = |rank, ranks| Share::new(&cuda, &[[8, 8]], 1, rank, ranks);
    refused(share(0, 0), "rank 0 of 0");
    refused(share(2, 2), "rank 2 of 2");
    for handles in [&[][..], &[[0; 64]; 2]] {
        let opened = checked(share(0, 1)).open(handles);
        refused(opened.and_then(|()| share(0, 1)), "a handle of each of 1 ranks, found");
    }
    assert_eq!(cuda.shared_bytes(), None);
}

/// Bytes of a slot.
fn whole_block(device: &Cuda) -> usize {
    checked(device.shared_bytes().ok_or("a device that shares nothing")) / (LAYERS + 2)
}
