//! Results of ptxas: registers, spills, occupancy, and the instructions that kernels are written for.
//!
//! Kernels run as PTX in the tests, which says nothing about this; machine code is what a GPU runs.

use std::collections::BTreeMap;
use std::process::Command;

use deepguard::cuda::images::{Code, IMAGES, Image, KERNELS, lowered};
use rayon::prelude::*;

#[path = "common/disassembly.rs"]
mod disassembly;

use disassembly::{listing, mnemonic, tool};

#[allow(dead_code)] // what launches need to know
#[path = "../benches/cuda/ptx.rs"]
mod bench_ptx;

/// Registers of a multiprocessor; the same on all architectures from sm_80 on.
const REGISTER_FILE: usize = 65536;

/// Threads of a block and blocks that have to fit on a multiprocessor, by kernel.
const OCCUPANCY: [(&str, usize, usize); 77] = [
    ("rms_norm", 256, 2),
    ("rms_norm_backward", 256, 1),
    ("layer_norm_relu", 256, 1),
    ("layer_norm_relu_backward", 512, 1),
    ("score_backward", 512, 2),
    ("cross_entropy_kl", 1024, 1),
    ("cross_entropy_kl_group", 1024, 1),
    ("cross_entropy_kl_cluster", 1024, 1),
    ("sample", 512, 1),
    ("verify", 512, 2),
    ("guide", 128, 8),
    ("adjust", 128, 8),
    ("cast", 256, 6),
    ("gather", 256, 6),
    ("embed", 256, 6),
    ("sort_rows", 1024, 1),
    ("scatter_add", 128, 8),
    ("rope", 128, 4),
    ("rope_into_cache", 128, 4),
    ("tap_mean", 256, 2),
    ("aggregate", 256, 2),
    ("aggregate_backward", 256, 2),
    ("tap_gradient", 256, 2),
    ("adamw", 256, 5),
    ("sum_of_squares", 256, 6),
    ("exact_add", 256, 6),
    ("exact_take", 256, 6),
    ("gemm_nt_large", 256, 2),
    ("gemm_nn_large", 256, 2),
    ("gemm_tn_large", 256, 2),
    ("gemm_nt_small", 128, 4),
    ("gemm_nn_small", 128, 4),
    ("gemm_tn_small", 128, 4),
    ("gemm_nt_any", 128, 4),
    ("gemm_nn_any", 128, 4),
    ("gemm_tn_any", 128, 4),
    ("gemm_nt_gated_large", 256, 2),
    ("gemm_nt_gated_small", 128, 4),
    ("gemm_nt_sm90", 384, 1),
    ("gemm_nn_sm90", 384, 1),
    ("gemm_nt_gated_sm90", 384, 1),
    ("gemm_nn_gated_sm90", 384, 1),
    ("gemm_grouped", 128, 4),
    ("gemm_grouped_any", 128, 4),
    ("lora_inputs", 128, 4),
    ("lora_inputs_any", 128, 4),
    ("column_sums", 256, 5),
    ("linear_skinny_1", 256, 4),
    ("linear_skinny_2", 256, 4),
    ("linear_skinny_4", 256, 2),
    ("gated_skinny_1", 256, 4),
    ("gated_skinny_2", 256, 4),
    ("gated_skinny_4", 256, 2),
    ("lora_down_2", 256, 2),
    ("lora_down_4", 256, 2),
    ("attention_16", 128, 2),
    ("attention_64", 128, 2),
    ("attention_80", 128, 2),
    ("attention_96", 128, 2),
    ("attention_128", 128, 2),
    ("attention_64_sm90", 384, 1),
    ("attention_128_sm90", 384, 1),
    ("attention_backward_q_16", 128, 2),
    ("attention_backward_q_64", 128, 2),
    ("attention_backward_q_80", 128, 2),
    ("attention_backward_q_96", 128, 2),
    ("attention_backward_q_128", 128, 2),
    ("attention_backward_kv_16", 128, 2),
    ("attention_backward_kv_64", 128, 2),
    ("attention_backward_kv_80", 128, 2),
    ("attention_backward_kv_96", 128, 2),
    ("attention_backward_kv_128", 128, 2),
    ("attention_decode_16", 128, 2),
    ("attention_decode_64", 128, 2),
    ("attention_decode_80", 128, 2),
    ("attention_decode_96", 128, 2),
    ("attention_decode_128", 128, 2),
];
/// The same for kernels that are not listed.
const USUAL_OCCUPANCY: (usize, usize) = (256, 4);

#[test]
fn kernels_keep_everything_in_registers() {
    assert!(!KERNELS.is_empty(), "no kernels were compiled: make toolkit, then build again");
    for kernel in KERNELS {
        let what = format!("{} for sm_{}", kernel.name, kernel.arch);
        assert_eq!((kernel.stack, kernel.spills), (0, 0), "{what} has a stack or spills");
        let listed = OCCUPANCY.iter().find(|(name, ..)| *name == kernel.name);
        let (threads, blocks) = listed.map_or(USUAL_OCCUPANCY, |&(_, threads, blocks)| (threads, blocks));
        // Registers are handed out to warps in units of 256, that is 8 for each thread.
        let used = kernel.registers.next_multiple_of(8) * threads.next_multiple_of(32) * blocks;
        assert!(
            used <= REGISTER_FILE,
            "{what}: {} registers are too many for {blocks} blocks",
            kernel.registers
        );
    }
    for (name, ..) in OCCUPANCY {
        assert!(KERNELS.iter().any(|kernel| kernel.name == name), "{name} was not compiled");
    }
}

/// PTX for drivers that are older than the compiler: every file assembles, whatever it is for.
#[test]
fn ptx_of_an_older_version_assembles() {
    let ptxas = tool("ptxas");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut assembled = 0;
    for image in IMAGES {
        let Code::Ptx(text) = image.code else { continue };
        let older = lowered(text);
        assert!(older.contains("\n.version 8.3\n") && older.len() == text.len(), "{}", image.file);
        let from = folder.path().join("older.ptx");
        std::fs::write(&from, older).expect("a file");
        let target = format!("-arch=sm_{}", image.arch);
        // Without optimisation: it is about the version alone.
        let output = Command::new(&ptxas).args(["-O0", &target, "-o", "/dev/null"]).arg(&from).output();
        let output = output.expect("ptxas runs: make toolkit");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{} for sm_{}: {said}", image.file, image.arch);
        assembled += 1;
    }
    assert!(assembled > 0, "there is no PTX");
}

/// Kernels of the bench, which drivers compile on the machine that is measured.
#[test]
fn ptx_of_the_bench_assembles() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (from, to) = (folder.path().join("bench.ptx"), folder.path().join("bench.cubin"));
    for (what, text, target) in [
        ("anywhere", bench_ptx::anywhere(), "-arch=sm_80"),
        ("fill", bench_ptx::fill(), "-arch=sm_90a"),
        ("products of 128", bench_ptx::products(128), "-arch=sm_90a"),
        ("products of 256", bench_ptx::products(256), "-arch=sm_90a"),
    ] {
        std::fs::write(&from, text).expect("a file");
        let mut ptxas = Command::new(tool("ptxas"));
        let output =
            ptxas.arg(target).arg(&from).arg("-o").arg(&to).output().expect("ptxas runs: make toolkit");
        // It warns where it has to wait for each product.
        assert!(output.status.success() && output.stderr.is_empty(), "{what}: {output:?}");
    }
}

/// How often each instruction occurs in a file's machine code, by its name up to the first dot.
fn instructions(image: &Image) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for name in listing(image).lines().filter_map(mnemonic) {
        *counts.entry(name.to_owned()).or_default() += 1;
    }
    assert!(counts.contains_key("EXIT"), "no instructions were recognised in {}", image.file);
    counts
}

/// Machine code of a file for the architectures that it was compiled for.
fn cubins(file: &str) -> impl Iterator<Item = &'static Image> {
    let file = file.to_owned();
    IMAGES.iter().filter(move |image| image.file == file && matches!(image.code, Code::Cubin(_)))
}

/// Counts of instructions for each architecture that a file was compiled for; local memory is never among
/// them.
fn compiled(file: &str) -> Vec<(&'static str, BTreeMap<String, usize>)> {
    let all: Vec<_> = cubins(file).map(|image| (image.arch, instructions(image))).collect();
    assert!(!all.is_empty(), "no machine code of {file}: make toolkit, and leave DG_CUDA_ARCHS alone");
    for (arch, counts) in &all {
        for memory in ["LDL", "STL"] {
            assert!(!counts.contains_key(memory), "{file} for sm_{arch} uses local memory");
        }
    }
    all
}

fn count(counts: &BTreeMap<String, usize>, name: &str) -> usize {
    counts.get(name).copied().unwrap_or(0)
}

#[test]
fn gemm_is_made_of_tensor_cores_and_asynchronous_copies() {
    // One turn of the loop, not unrolled: two steps along k, each of 4 by 4 products from 4 + 2 loads of
    // matrices (half as many rows in those with small tiles), and four copies. Besides, NT copies LoRA in all
    // but one of its kernels with two instructions and has only those in that one; TN copies weights; the
    // third of the others has two loops of copies.
    for (file, large, small, copies) in
        [("gemm_nt", 2, 3, 4 * 6 + 4), ("gemm_nn", 1, 2, 4 + 4 + 2), ("gemm_tn", 1, 2, 5 + 5 + 3)]
    {
        for (arch, counts) in compiled(file) {
            let (products, loads) = (large * 32 + small * 16, large * 12 + small * 8);
            for (name, expected) in [("HMMA", products), ("LDSM", loads), ("LDGSTS", copies)] {
                assert_eq!(count(&counts, name), expected, "{name} of {file} for sm_{arch}: {counts:?}");
            }
        }
    }
}

#[test]
fn skinny_gemm_uses_tensor_cores() {
    for (arch, counts) in compiled("linear").into_iter().chain(compiled("linear_lora")) {
        assert!(count(&counts, "HMMA") > 0, "no tensor cores for sm_{arch}: {counts:?}");
    }
}

#[test]
fn gemm_sm90_is_made_of_warpgroup_products_and_bulk_copies() {
    for (arch, counts) in compiled("gemm_sm90") {
        // In each of four kernels four steps along k, which nothing but a fence and two waits holds up. Roles
        // give and take registers. Four boxes of y, six of gate, up and h, or eight of gradients of the first
        // two. Two barriers of a cluster
        // wait for all of the device's memory, and nothing else does: not those who give stages back.
        for (name, expected) in [
            ("HGMMA", 4 * 4),
            ("WARPGROUP", 4 * 3),
            ("USETMAXREG", 4 * 2),
            ("UTMASTG", 4 + 4 + 6 + 8),
            ("CGAERRBAR", 4 * 2),
            ("HMMA", 0),
        ] {
            assert_eq!(count(&counts, name), expected, "{name} for sm_{arch}: {counts:?}");
        }
    }
}

/// Little stands between products: descriptors of operands, which the compiler keeps in uniform registers,
/// but for the gated product, where it moves them there.
#[test]
fn products_of_warpgroups_follow_each_other() {
    for image in cubins("gemm_sm90") {
        let listing = listing(image);
        for kernel in listing.split("\n.text.").skip(1) {
            let lines: Vec<&str> = kernel.lines().filter(|line| mnemonic(line).is_some()).collect();
            let is = |line: &str, name| mnemonic(line) == Some(name);
            let first = lines.iter().position(|line| is(line, "HGMMA")).expect("a product");
            let last = lines.iter().rposition(|line| is(line, "HGMMA")).expect("a product");
            let between = &lines[first..last];
            let moves = between.iter().filter(|line| is(line, "R2UR")).count();
            let allowed = if kernel.starts_with("gemm_nt_gated") { 6 } else { 0 };
            assert!(moves <= allowed, "{}", between.join("\n"));
            let others = between.len() - 3;
            assert!(others <= 27, "{others} instructions between four products:\n{}", between.join("\n"));
            assert!(lines.iter().any(|line| line.contains("UTMALDG.2D.MULTICAST")), "no multicast");
        }
    }
}

#[test]
fn no_kernel_uses_local_memory() {
    let mut files: Vec<&str> = IMAGES.iter().map(|image| image.file).collect();
    files.dedup();
    // Disassembling takes a second for each file and architecture.
    files.into_par_iter().for_each(|file| drop(compiled(file)));
}

#[test]
fn attention_is_made_of_tensor_cores_and_asynchronous_copies() {
    for file in ["attention", "attention_backward", "attention_decode"] {
        for (arch, counts) in compiled(file) {
            for name in ["HMMA", "LDSM", "LDGSTS"] {
                assert!(count(&counts, name) > 0, "no {name} in {file} for sm_{arch}: {counts:?}");
            }
        }
    }
}

#[test]
fn attention_sm90_is_made_of_warpgroup_products_and_bulk_copies() {
    for (arch, counts) in compiled("attention_sm90") {
        // In each of two kernels the scores of the first tile of keys, those of the next beside the values of
        // the last, and the last values: four steps along keys, as many along heads of 64, twice as many
        // along those of 128. Each begins with a fence and is waited for. Queries are loaded once a tile, and
        // keys and values of prefixes and sequences, by panels of 64 columns.
        for (name, expected) in [
            ("HGMMA", 2 * (4 + 4) + 2 * (8 + 4)),
            ("WARPGROUP", 2 * (4 + 4)),
            ("LDSM", 4 + 8),
            ("UTMALDG", 5 + 10),
            ("USETMAXREG", 2 * 2),
            ("HMMA", 0),
            ("LDGSTS", 0),
        ] {
            assert_eq!(count(&counts, name), expected, "{name} for sm_{arch}: {counts:?}");
        }
    }
}
