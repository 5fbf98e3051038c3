use crate::alone;
use crate::emulator::{DEVICE_VARIABLE, on_a_gpu, own_cuda};
use crate::golden_cases::Precision;
use crate::golden_cases::files::{run_all, run_sven};

/// Both architectures, every aggregation, with and without padding, with and without recorded steps: half of
/// them on either emulated device, as one takes up to two minutes, and all on a GPU.
const CASES: [&[&str]; 2] = [
    &["llama_average_padded", "qwen2_attention_padded"],
    &["llama_attention_unpadded", "llama_lastlayer_padded"],
];

fn is_again() -> bool {
    std::env::var_os(DEVICE_VARIABLE).is_some()
}

#[test]
fn cuda_computes_what_the_published_code_does() {
    let _alone = alone();
    let half = CASES[usize::from(is_again())];
    run_all(own_cuda, Precision::Bf16, |case| on_a_gpu() && is_one(case) || half.contains(&case));
}

#[test]
#[ignore = "minutes: make test-long"]
fn cuda_computes_all_that_the_published_code_does() {
    let _alone = alone();
    run_all(own_cuda, Precision::Bf16, is_one);
}

fn is_one(case: &str) -> bool {
    CASES.iter().any(|cases| cases.contains(&case))
}

#[test]
fn cuda_computes_what_the_published_sven_does() {
    let _alone = alone();
    let wanted = if is_again() { "llama_dropout" } else { "qwen2" };
    run_sven(own_cuda, Precision::Bf16, |case| case == wanted);
}
