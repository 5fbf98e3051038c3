use std::process::Command;

use deepguard::ErrorKind;
use deepguard::cuda::Cuda;
use deepguard::ops::attention::{Attention, Heads, Qkv};
use deepguard::ops::embedding::Embedding;
use deepguard::ops::norm::Norm;
use deepguard::ops::{Arena, Buffer, Device, Element, Ref};

use crate::emulator::{self, checked, own_cuda};

fn buffer<T: Element>(cuda: &Cuda, len: usize) -> Buffer<Cuda, T> {
    checked(Arena::build(cuda, |arena| arena.buffer("test", &[len]))).0
}

#[test]
fn cuda_buffers_that_do_not_fit_are_refused_and_nothing_runs_after() {
    let cuda = own_cuda();
    let (x, weight) = (buffer(&cuda, 32), buffer(&cuda, 16));
    let (mut short, mut y, mut rstd) = (buffer(&cuda, 31), buffer(&cuda, 32), buffer(&cuda, 2));
    cuda.rms_norm(short.view_mut(), rstd.view_mut(), x.view(), weight.view(), 1e-5);
    cuda.rms_norm(y.view_mut(), rstd.view_mut(), x.view(), weight.view(), 1e-5);
    let error = cuda.finish().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert_eq!(error.to_string(), "kernel rms_norm: y: expected 32 elements, found 31");
    checked(cuda.finish());
    assert_eq!(cuda.to_host(rstd.view()), [0.0, 0.0], "a launch after the error ran");

    let unaligned = x.slice(1..17);
    cuda.rms_norm(y.first_mut(16), rstd.first_mut(1), unaligned, weight.view(), 1e-5);
    let error = cuda.finish().unwrap_err().to_string();
    assert!(error.contains("kernel rms_norm: x: expected a start at a multiple of 16 bytes"), "{error}");
}

/// Set in a process of its own: after a fault, a context is of no more use, and it is that of all tests here.
const CHILD: &str = "DG_TEST_CHILD";
const BLOCKING: &str = "CUDA_LAUNCH_BLOCKING";

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Runs one of these tests in a process of its own.
fn again(test: &str, variables: &[(&str, &str)]) {
    let program = std::env::current_exe().expect("a running program");
    let mut command = Command::new(program);
    command.args([&format!("kernels::errors::{test}"), "--exact"]).env_remove(BLOCKING).env(CHILD, "1");
    let output = command.envs(variables.iter().copied()).output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{variables:?}: {text}");
}

#[test]
fn faults_of_kernels_are_told_with_their_names() {
    if is_child() {
        return fault();
    }
    if emulator::on_a_gpu() {
        return emulator::skipped("a GPU need not notice an access out of bounds");
    }
    again("faults_of_kernels_are_told_with_their_names", &[]);
}

/// Kernels of a recording fail together: unless each is waited for, the error has to name them all.
#[test]
fn faults_in_recordings_are_those_of_one_kernel_if_each_is_waited_for() {
    if is_child() {
        return fault_in_recording();
    }
    if emulator::on_a_gpu() {
        return emulator::skipped("a GPU need not notice an access out of bounds");
    }
    for blocking in ["", "0", "1"] {
        let name = "faults_in_recordings_are_those_of_one_kernel_if_each_is_waited_for";
        again(name, &[(BLOCKING, blocking)]);
    }
}

/// A view as long as `table`, of memory that is not there.
fn nowhere(table: &Buffer<Cuda, f32>) -> Ref<'_, Cuda, f32> {
    // SAFETY: not at all, which is what the test is about: operations themselves do not leave their arguments.
    unsafe { Ref::from_raw(table.view().address() + (1 << 32), table.len()) }
}

fn fault_in_recording() {
    let cuda = own_cuda();
    let (x, weight, table) = (buffer(&cuda, 32), buffer(&cuda, 16), buffer::<f32>(&cuda, 640));
    let (mut y, mut rstd, mut out) = (buffer(&cuda, 32), buffer(&cuda, 2), buffer(&cuda, 64));
    let ids = buffer::<u32>(&cuda, 1);
    cuda.graph("test", || {
        cuda.rms_norm(y.view_mut(), rstd.view_mut(), x.view(), weight.view(), 1e-5);
        cuda.gather(out.view_mut(), nowhere(&table), ids.view(), 64);
        cuda.rms_norm(y.view_mut(), rstd.view_mut(), x.view(), weight.view(), 1e-5);
    });
    let error = cuda.finish().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Device);
    let expected = match std::env::var(BLOCKING).as_deref() {
        Ok("1") => "kernel gather failed: ",
        _ => "one of the kernels rms_norm, gather failed; CUDA_LAUNCH_BLOCKING=1 tells which: ",
    };
    assert!(error.to_string().starts_with(expected), "{error}");
}

fn fault() {
    let cuda = own_cuda();
    let (width, vocab) = (64, 10);
    let (table, mut out) = (buffer::<f32>(&cuda, vocab * width), buffer(&cuda, width));
    let ids = buffer::<u32>(&cuda, 1);
    cuda.gather(out.view_mut(), nowhere(&table), ids.view(), width);
    let error = cuda.finish().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Device);
    assert!(error.to_string().starts_with("kernel gather failed"), "{error}");
    // The error stays: the program has to end, and says why.
    cuda.zero(out.view_mut());
    assert_eq!(cuda.finish().unwrap_err().kind(), ErrorKind::Device);
}

#[test]
fn cuda_memory_that_is_not_there_is_refused() {
    let cuda = own_cuda();
    let error = cuda.allocate(1 << 50).err().expect("an error");
    assert_eq!(error.kind(), ErrorKind::Device);
    let text = error.to_string();
    for part in ["1073741824 MiB of device memory are needed", "MiB are free"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let advised = error.memory_advice("buy more").memory_advice("or less").to_string();
    assert_eq!(advised, format!("{text}; buy more"));
}

/// The driver hands out 256 bytes at a time, so the last byte of this device cannot be had, though it is
/// free.
#[test]
fn cuda_memory_that_is_free_and_refused_is_told_with_numbers() {
    // Scratch memory and counters, from the start.
    const OWN: usize = (32 << 20) + 4 * 4096;
    const FREE: usize = (6 << 20) + 1;
    if is_child() {
        let cuda = own_cuda();
        let error = cuda.allocate(FREE).err().expect("an error");
        assert_eq!(error.kind(), ErrorKind::Device);
        let text = error.memory_advice("shut down").to_string();
        let numbers = "7 MiB of device memory are needed, 6 MiB are free, and the driver refuses: ";
        assert!(text.contains(numbers) && text.contains("OUT_OF_MEMORY"), "{text}");
        return assert!(text.ends_with("; shut down"), "{text}");
    }
    if emulator::on_a_gpu() {
        return emulator::skipped("it has more memory");
    }
    let memory = (OWN + FREE).to_string();
    let name = "cuda_memory_that_is_free_and_refused_is_told_with_numbers";
    again(name, &[("DG_EMULATOR_MEMORY", &memory)]);
}

#[test]
fn cuda_without_rows_launches_nothing() {
    let cuda = own_cuda();
    let (x, weight) = (buffer(&cuda, 8), buffer(&cuda, 8));
    let (mut y, mut rstd) = (buffer(&cuda, 8), buffer(&cuda, 1));
    cuda.rms_norm(y.first_mut(0), rstd.first_mut(0), x.first(0), weight.view(), 1e-5);
    checked(cuda.finish());
}

#[test]
fn cuda_heads_that_attention_has_no_kernel_for_are_refused() {
    let cuda = own_cuda();
    for dim in [12, 136] {
        let heads = Heads { query: 1, key_value: 1, dim };
        let (mut o, mut lse, qkv) = (buffer(&cuda, dim), buffer(&cuda, 1), buffer(&cuda, 3 * dim));
        cuda.attention(o.view_mut(), lse.view_mut(), Qkv::packed(qkv.view(), heads), &[], heads);
        let error = cuda.finish().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Model);
        let expected = format!("heads of {dim} elements: expected a multiple of 8 up to 128 on CUDA");
        assert!(error.to_string().contains(&expected), "{error}");
    }
}
