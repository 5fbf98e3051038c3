use crate::alone;
use crate::emulator::{DEVICE_VARIABLE, own_cuda};
use crate::golden_cases::Precision;
use crate::golden_cases::files::{run_all, run_sven};

/// Both architectures, every aggregation, with and without padding, with and without recorded steps.
const CASES: [&str; 4] =
    ["llama_attention_unpadded", "llama_average_padded", "llama_lastlayer_padded", "qwen2_attention_padded"];

#[test]
fn cuda_computes_what_the_published_code_does() {
    let _alone = alone();
    // The second time, the other half is enough.
    let again = std::env::var_os(DEVICE_VARIABLE).is_some();
    let cases = if again { &CASES[2..] } else { &CASES[..] };
    run_all(own_cuda, Precision::Bf16, |case| cases.contains(&case));
}

#[test]
fn cuda_computes_what_the_published_sven_does() {
    let _alone = alone();
    let again = std::env::var_os(DEVICE_VARIABLE).is_some();
    let wanted = if again { "llama_dropout" } else { "qwen2" };
    run_sven(own_cuda, Precision::Bf16, |case| case == wanted);
}
