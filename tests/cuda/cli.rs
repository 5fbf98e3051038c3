use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::emulator::{cuda, on_a_gpu};
use crate::places;
use crate::tiny::Tiny;

fn emulator() -> PathBuf {
    let program = std::env::current_exe().expect("a running program");
    program.parent().unwrap_or(Path::new("")).join("libcuda_emulator.so")
}

fn dg_run(tiny: &Tiny, arguments: &str, emulator: Option<&Path>) -> Output {
    dg_run_with(tiny, arguments, emulator, &[])
}

fn dg_run_with(tiny: &Tiny, arguments: &str, emulator: Option<&Path>, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(places::dg_run());
    command.args(arguments.split_whitespace()).current_dir(tiny.path("")).env_remove("DG_EMULATOR");
    if let Some(emulator) = emulator {
        command.env("DG_EMULATOR", emulator);
    }
    command.envs(variables.iter().copied());
    command.output().expect("dg-run starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn train_score_and_generate_with_device_cuda() {
    cuda();
    let tiny = Tiny::new("qwen2");
    std::fs::write(tiny.path("source.py"), "def f(db):\n    return db\n").expect("a file");
    let emulator = emulator();
    for arguments in [
        "train --device cuda --model model --data data --output-dir run --max-steps 2 --batch-size 2 \
         --max-seq-len 160 --gradient-accumulation-steps 1 --lora-r 4",
        "score --device cuda:0 --dtype bf16 --model model --adapter run source.py --json",
        "generate --device cuda --model model --adapter run --max-new-tokens 4 def",
        "train --method sven --device cuda --model model --data data --output-dir sven --max-steps 2 \
         --batch-size 1 --max-seq-len 128 --gradient-accumulation-steps 1",
        "generate --device cuda --model model --adapter sven --max-new-tokens 4 def",
    ] {
        let output = dg_run(&tiny, arguments, (!on_a_gpu()).then_some(&*emulator));
        let said = text(&output.stderr);
        assert!(output.status.success(), "{arguments}: {said}");
        assert!(said.contains("device: NVIDIA"), "{arguments}: {said}");
        match arguments.starts_with("train") {
            true => assert!(said.contains(" MiB on the device; 2 steps"), "{said}"),
            false => assert!(!output.stdout.is_empty(), "{arguments} prints nothing"),
        }
    }
}

/// They are a tensor of the plan; without a KL divergence there are none, and no base model's logits and
/// hidden states either.
#[test]
fn base_states_are_planned_on_the_device_where_they_fit() {
    cuda();
    let tiny = Tiny::new("qwen2");
    let emulator = emulator();
    let tensors = |option: &str| -> usize {
        let arguments = format!(
            "train --dry-run --verbose --device cuda --model model --data data --output-dir run \
             --max-seq-len 160 {option}"
        );
        let output = dg_run(&tiny, &arguments, (!on_a_gpu()).then_some(&*emulator));
        let said = text(&output.stderr) + &text(&output.stdout);
        let (before, _) = said.split_once(" tensors").unwrap_or_else(|| panic!("{said}"));
        before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{said}"))
    };
    let on_host = tensors("--base-cache-device-mib 0");
    assert_eq!(tensors(""), on_host + 1);
    assert_eq!(tensors("--kl-weight 0"), on_host - 2);
}

#[test]
fn what_cuda_cannot_do_ends_with_5_or_2() {
    let tiny = Tiny::new("llama");
    let emulator = emulator();
    for (arguments, emulator, code, named) in [
        ("generate --model model --device cuda ab", None, 5, &["no CUDA driver", "CPU"][..]),
        ("generate --model model --device cuda:7 ab", Some(&*emulator), 5, &["CUDA device 7"]),
        ("generate --model model --device cuda --dtype f32 ab", Some(&*emulator), 2, &["--dtype", "bf16"]),
        ("generate --model model --device gpu ab", None, 2, &["auto, cpu, cuda or cuda:N"]),
    ] {
        if emulator.is_none() && code == 5 && on_a_gpu() {
            continue; // there is a driver
        }
        let output = dg_run(&tiny, arguments, emulator);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments}: {said}");
        named.iter().for_each(|name| assert!(said.contains(name), "{arguments}: {name} is not in {said}"));
    }
}

/// What is chosen by itself is not worth an error, but a word.
#[test]
fn devices_that_cannot_be_used_are_passed_over_by_auto() {
    let tiny = Tiny::new("llama");
    let old = [("DG_EMULATOR_VERSION", "12.2")];
    let output = dg_run_with(&tiny, "generate --model model --max-new-tokens 2 ab", Some(&emulator()), &old);
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("device: the processor, as the CUDA driver is too old"), "{said}");
}

/// It reads neither the machine code nor the PTX of the compiler's version; it gets PTX of an older one.
#[test]
fn a_driver_that_is_older_than_the_compiler_trains_and_generates() {
    let tiny = Tiny::new("llama");
    let emulator = emulator();
    let outputs = ["12.3", "13.0"].map(|version| {
        let run = |arguments: &str| {
            let version = [("DG_EMULATOR_VERSION", version)];
            let output = dg_run_with(&tiny, arguments, Some(&emulator), &version);
            assert!(output.status.success(), "{version:?}: {}", text(&output.stderr));
            text(&output.stdout)
        };
        let folder = format!("run-{version}");
        let train = TRAIN.replace("--batch-size 8", "--batch-size 1");
        run(&train.replace("--output-dir run", &format!("--output-dir {folder}")));
        run(&format!("generate --device cuda --model model --adapter {folder} --max-new-tokens 4 ab"))
    });
    assert_eq!(outputs[0], outputs[1]);
}

const TRAIN: &str = "train --device cuda --model model --data data --output-dir run --max-steps 1 --batch-size 8 \
                     --max-seq-len 160 --gradient-accumulation-steps 1 --lora-r 4";
const GENERATE: &str =
    "generate --device cuda --model model --num-samples 256 --temperature 0.8 --max-new-tokens 400 ab";

/// What is found and what is needed is said, and what helps; what does not help is not.
#[test]
fn devices_that_cannot_be_used_end_with_5() {
    let tiny = Tiny::new("llama");
    let emulator = emulator();
    for (variable, value, arguments, named) in [
        ("DG_EMULATOR_DEVICE", "none", GENERATE, &["no CUDA device", "nvidia-smi", "--device cpu"][..]),
        (
            "DG_EMULATOR_VERSION",
            "12.2",
            GENERATE,
            &["driver is too old", "expected one for CUDA 12.3", "found one for CUDA 12.2", "--device cpu"],
        ),
        ("DG_EMULATOR_CAPABILITY", "7.5", GENERATE, &["expected compute capability 8.0 or later, found 7.5"]),
    ] {
        let output = dg_run_with(&tiny, arguments, Some(&emulator), &[(variable, value)]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(5), "{variable}={value}: {said}");
        named
            .iter()
            .for_each(|name| assert!(said.contains(name), "{variable}={value}: {name} is not in {said}"));
    }
}

/// What lowers the need for working memory: of no help where the device's own memory, or the model, does not
/// fit.
const FLAGS: [&str; 4] = ["--batch-size", "--max-seq-len", "--num-samples", "--max-new-tokens"];

/// Exit code 5, what does not fit, how much is needed and free, and what helps with it.
#[test]
fn memory_that_is_not_there_is_told_with_what_helps() {
    let tiny = Tiny::new("llama");
    let emulator = emulator();
    // The kernels' scratch memory is 32 MiB. The weights take 0.54 MiB in bf16, twice as much in their f32
    // file.
    for (memory, arguments, said, helps) in [
        (
            "6M",
            GENERATE,
            "32 MiB of device memory are needed, 6 MiB are free",
            &["scratch memory of the kernels: ", "--device cuda:N", "--device cpu"][..],
        ),
        (
            "33024K",
            TRAIN,
            "the model's weights need 1 MiB of device memory, 0 MiB are free",
            &["a smaller model"],
        ),
        (
            "33024K",
            GENERATE,
            "the model's weights need 1 MiB of device memory, 0 MiB are free",
            &["--device cpu"],
        ),
        (
            "33M",
            GENERATE,
            "working memory of generation: ",
            &["--num-samples", "--max-new-tokens", "--device"],
        ),
        ("280M", TRAIN, "MiB of memory, 0 MiB are free", &["--batch-size", "--max-seq-len", "--device"]),
    ] {
        let output = dg_run_with(&tiny, arguments, Some(&emulator), &[("DG_EMULATOR_MEMORY", memory)]);
        let text = text(&output.stderr);
        assert_eq!(output.status.code(), Some(5), "{memory}: {text}");
        assert!(text.contains(said), "{memory}: {said} is not in {text}");
        helps.iter().for_each(|flag| assert!(text.contains(flag), "{memory}: {flag} is not in {text}"));
        let useless = FLAGS.iter().filter(|flag| !helps.contains(flag));
        useless.for_each(|flag| assert!(!text.contains(flag), "{memory}: {flag} does not help: {text}"));
    }
}
