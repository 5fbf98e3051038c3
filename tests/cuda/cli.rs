use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::emulator::cuda;
use crate::tiny::Tiny;

fn emulator() -> PathBuf {
    let program = std::env::current_exe().expect("a running program");
    program.parent().unwrap_or(Path::new("")).join("libcuda_emulator.so")
}

fn dg_run(tiny: &Tiny, arguments: &str, emulator: Option<&Path>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dg-run"));
    command.args(arguments.split_whitespace()).current_dir(tiny.path("")).env_remove("DG_EMULATOR");
    if let Some(emulator) = emulator {
        command.env("DG_EMULATOR", emulator);
    }
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
    ] {
        let output = dg_run(&tiny, arguments, Some(&emulator));
        let said = text(&output.stderr);
        assert!(output.status.success(), "{arguments}: {said}");
        assert!(said.contains("device: NVIDIA"), "{arguments}: {said}");
        assert!(arguments.starts_with("train") || !output.stdout.is_empty(), "{arguments} prints nothing");
    }
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
        let output = dg_run(&tiny, arguments, emulator);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments}: {said}");
        named.iter().for_each(|name| assert!(said.contains(name), "{arguments}: {name} is not in {said}"));
    }
}
