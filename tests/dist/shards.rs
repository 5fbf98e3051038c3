//! Base models that the emulated GPUs of a machine share, between processes.

use std::time::Duration;

use deepguard::adapter::FINAL_ADAPTER;

use super::check::{SOON, assert_ends};
use super::mpi::finished;
use super::nccl::{dg_run, metrics, said, two};
use super::train::{TRAIN, alone, assert_same_folders, tiny_with_pairs};

#[test]
fn ranks_that_share_the_base_model_train_what_one_trains_alone() {
    let tiny = tiny_with_pairs();
    let more = "--device cuda --max-steps 1 --data many/train";
    alone(&tiny, "alone", more);
    for ranks in [2, 3] {
        let run = format!("shared-{ranks}");
        let shares = format!("--nproc {ranks} --shard-base {ranks}");
        let mut command = dg_run(&format!("train {shares} {TRAIN} --output-dir {run} {more}"));
        command.current_dir(tiny.path(""));
        let output = finished(command, Duration::from_secs(120));
        assert_ends(&output, 0, &[&format!("{ranks} ranks share the base model, whose blocks take ")]);
        let [one, other] = ["alone", &run].map(|run| tiny.path(run));
        assert_same_folders(&one, &other, &[FINAL_ADAPTER, "checkpoint-1"]);
        assert_eq!(metrics(&one), metrics(&other), "{run}");
    }
}

/// Whatever ranks cannot share is told before anything is loaded.
#[test]
fn what_cannot_be_shared_is_told() {
    let tiny = tiny_with_pairs();
    let folder = tiny.path("");
    let train = format!(
        "train --model {0}/model --data {0}/many/train --output-dir {0}/run --max-steps 1 --max-seq-len 160",
        folder.display()
    );
    for rank in two(&format!("{train} --shard-base 3 --device cuda"), &[]) {
        let part = "--shard-base 3: expected a multiple of 3 ranks on each machine, found 2 on ";
        assert_ends(&rank, 2, &[part]);
    }
    for (options, part) in [
        ("--shard-base 2 --device cuda", "expected a multiple of 2 ranks on each machine, found 1 on "),
        ("--shard-base 2 --device cpu", "expected ranks that compute on GPUs, found rank 0 on a processor"),
        ("--shard-base 0", "expected auto, off, or a number of ranks"),
        ("--shard-base some", "expected auto, off, or a number of ranks"),
    ] {
        let output = finished(dg_run(&format!("{train} {options}")), SOON);
        assert_ends(&output, 2, &["--shard-base", part]);
    }
}

/// A model that one GPU has no room for is shared by all unless they are told not to. (What is trained with
/// such a small model is larger than the model, so that both end, for different reasons.)
#[test]
fn models_without_room_are_shared() {
    let tiny = tiny_with_pairs();
    let folder = tiny.path("");
    let train = format!(
        "train --model {0}/model --data {0}/many/train --output-dir {0}/run --max-steps 1 --max-seq-len 160 \
         --device cuda",
        folder.display()
    );
    let little = [("DG_EMULATOR_MEMORY", LITTLE)];
    let shared = two(&train, &little).map(|rank| said(&rank));
    let lacking = "adapter and guard: NVIDIA H100";
    assert!(shared[0].contains("2 ranks share the base model") && shared[0].contains(lacking), "{shared:?}");
    let whole = two(&format!("{train} --shard-base off"), &little).map(|rank| said(&rank));
    assert!(whole[0].contains("the model's weights need "), "{whole:?}");
}

/// Room for what kernels need (32 MiB and 16 KiB), for sums on their way (32 MiB), and for half of a model of
/// five blocks with two whole ones, but not for all five.
const LITTLE: &str = "66100K";
