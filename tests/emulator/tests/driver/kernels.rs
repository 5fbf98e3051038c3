//! Kernels that run.

use std::ffi::c_void;

use cudarc::driver::{LaunchConfig, PushKernelArg, result, sys};
use cudarc::nvrtc::Ptx;

use crate::modules::{PTX, function, load};
use crate::support::{Bytes, Code, client, code, context, outcomes, stream};

/// Adds one to each element of a vector; reads beyond it where the grid is too large.
pub const INCREMENT: &str = "
.version 8.0
.target sm_80
.address_size 64
.visible .entry increment(.param .u64 numbers)
{
    .reg .b32 %r<5>;
    .reg .b64 %rd<5>;
    ld.param.u64 %rd1, [numbers];
    cvta.to.global.u64 %rd2, %rd1;
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %ntid.x;
    mov.u32 %r3, %tid.x;
    mad.lo.s32 %r4, %r1, %r2, %r3;
    mul.wide.u32 %rd3, %r4, 4;
    add.s64 %rd4, %rd2, %rd3;
    ld.global.u32 %r1, [%rd4];
    add.s32 %r1, %r1, 1;
    st.global.u32 [%rd4], %r1;
    ret;
}
.visible .entry stop()
{
    trap;
}
";

fn launch(
    function: sys::CUfunction,
    blocks: u32,
    threads: u32,
    stream: sys::CUstream,
    arguments: &mut [*mut c_void],
) -> Code {
    // SAFETY: the arguments are those of the kernel.
    let launch =
        unsafe { result::launch_kernel(function, (blocks, 1, 1), (threads, 1, 1), 0, stream, arguments) };
    code(launch)
}

fn argument<T>(value: &mut T) -> *mut c_void {
    (&raw mut *value).cast()
}

#[test]
fn a_kernel_runs_through_cudarc() {
    let context = context();
    let stream = stream(&context);
    let module = context.load_module(Ptx::from_src(INCREMENT)).expect("a module");
    let increment = module.load_function("increment").expect("a function");
    let mut numbers = stream.clone_htod(&[1u32; 100]).expect("a copy");
    let config = LaunchConfig { grid_dim: (4, 1, 1), block_dim: (25, 1, 1), shared_mem_bytes: 0 };
    for _ in 0..3 {
        let mut builder = stream.launch_builder(&increment);
        builder.arg(&mut numbers);
        // SAFETY: grid and block match the vector.
        unsafe { builder.launch(config) }.expect("launched");
    }
    assert_eq!(stream.clone_dtoh(&numbers).expect("a copy"), [4; 100]);
}

#[test]
fn arguments_are_copied_when_the_kernel_is_launched() {
    let context = context();
    let stream = stream(&context);
    let store = function(load(PTX).expect("a module"), "store").expect("a function");
    let bytes = Bytes::new(4);
    let (mut address, mut value) = (bytes.address, 5u32);
    let mut arguments = [argument(&mut address), argument(&mut value)];
    assert_eq!(launch(store, 1, 1, stream.cu_stream(), &mut arguments), Code::CUDA_SUCCESS);
    value = 6;
    assert_eq!((bytes.first(), value), (5, 6));
}

#[test]
fn arguments_may_come_in_a_buffer() {
    let _context = context();
    let store = function(load(PTX).expect("a module"), "store").expect("a function");
    let bytes = Bytes::new(4);
    let mut buffer = [0u8; 16];
    buffer[..8].copy_from_slice(&bytes.address.to_le_bytes());
    buffer[8] = 9;
    let launch = |mut size: usize| {
        let mut extra: [*mut c_void; 5] = [
            std::ptr::without_provenance_mut(1),
            buffer.as_ptr().cast_mut().cast(),
            std::ptr::without_provenance_mut(2),
            argument(&mut size),
            std::ptr::null_mut(),
        ];
        let (stream, parameters) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: the buffer holds the parameters.
        unsafe { sys::cuLaunchKernel(store, 1, 1, 1, 1, 1, 1, 0, stream, parameters, extra.as_mut_ptr()) }
    };
    assert_eq!(launch(11), Code::CUDA_ERROR_INVALID_VALUE);
    assert_eq!(launch(12), Code::CUDA_SUCCESS);
    assert_eq!(bytes.first(), 9);
}

#[test]
fn a_fault_in_a_kernel_sticks_and_is_explained() {
    // The words are those of the last fault of the process, which may be another test's.
    let mut faults = (0..100).map(|_| last_fault_after_one());
    assert!(faults.any(|fault| fault.contains("increment_beyond")));
}

/// Runs a kernel that fails, and returns what was said last.
fn last_fault_after_one() -> String {
    let context = context();
    let stream = stream(&context);
    let module = load(&INCREMENT.replace("increment", "increment_beyond")).expect("a module");
    let increment = function(module, "increment_beyond").expect("a function");
    let bytes = Bytes::new(64);
    bytes.fill(0, stream.cu_stream());
    let mut address = bytes.address;
    // The launch itself is fine; whoever waits hears of the fault, and so does everyone after that.
    let launched = launch(increment, 1, 17, stream.cu_stream(), &mut [argument(&mut address)]);
    assert_eq!(launched, Code::CUDA_SUCCESS);
    assert_eq!(code(stream.synchronize()), Code::CUDA_ERROR_ILLEGAL_ADDRESS);
    // SAFETY: the call is refused.
    assert_eq!(code(unsafe { result::malloc_sync(4) }), Code::CUDA_ERROR_ILLEGAL_ADDRESS);
    client().last_fault().expect("words")
}

#[test]
fn a_trap_fails_the_launch() {
    let context = context();
    let stream = stream(&context);
    let stop = function(load(INCREMENT).expect("a module"), "stop").expect("a function");
    assert_eq!(launch(stop, 1, 1, stream.cu_stream(), &mut []), Code::CUDA_SUCCESS);
    assert_eq!(code(stream.synchronize()), Code::CUDA_ERROR_LAUNCH_FAILED);
}

#[test]
fn kernels_of_two_streams_run_in_either_order() {
    let context = context();
    let (a, b) = (stream(&context), stream(&context));
    let store = function(load(PTX).expect("a module"), "store").expect("a function");
    let bytes = Bytes::new(4);
    let values = outcomes(|| {
        for (stream, mut value) in [(&a, 1u32), (&b, 2)] {
            let mut address = bytes.address;
            let mut arguments = [argument(&mut address), argument(&mut value)];
            assert_eq!(launch(store, 1, 1, stream.cu_stream(), &mut arguments), Code::CUDA_SUCCESS);
        }
        bytes.first()
    });
    assert!(values.contains(&1) && values.contains(&2), "{values:?}");
}

#[test]
fn kernels_are_captured_with_their_arguments_and_get_new_ones() {
    let context = context();
    let stream = stream(&context);
    let store = function(load(PTX).expect("a module"), "store").expect("a function");
    let bytes = Bytes::new(4);
    let (mut address, mut value) = (bytes.address, 5u32);
    stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).expect("begun");
    let mut arguments = [argument(&mut address), argument(&mut value)];
    assert_eq!(launch(store, 1, 1, stream.cu_stream(), &mut arguments), Code::CUDA_SUCCESS);
    value = 6;
    let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0)).expect("a graph").expect("a graph");
    graph.launch().expect("launched");
    assert_eq!((bytes.first(), value), (5, 6));
    let mut node = std::ptr::null_mut();
    let mut count = 1;
    // SAFETY: zero is valid for parameters, and the pointers are valid.
    unsafe {
        sys::cuGraphGetNodes(graph.cu_graph(), &mut node, &mut count).result().expect("a node");
        let mut parameters: sys::CUDA_KERNEL_NODE_PARAMS = std::mem::zeroed();
        sys::cuGraphKernelNodeGetParams_v2(node, &mut parameters).result().expect("parameters");
        assert_eq!((parameters.func, parameters.blockDimX), (store, 1));
        assert_eq!(*(*parameters.kernelParams.add(1)).cast::<u32>(), 5);
        parameters.kernelParams = arguments.as_mut_ptr();
        sys::cuGraphExecKernelNodeSetParams_v2(graph.cu_graph_exec(), node, &parameters)
            .result()
            .expect("set");
    }
    graph.launch().expect("launched");
    assert_eq!(bytes.first(), 6);
}

#[test]
fn kernels_are_counted() {
    let context = context();
    let stream = stream(&context);
    // A name of its own, for other tests launch kernels too.
    let ptx = INCREMENT.replace("increment", "counted_increment");
    let increment = function(load(&ptx).expect("a module"), "counted_increment").expect("a function");
    let bytes = Bytes::new(256);
    bytes.fill(0, stream.cu_stream());
    let mut address = bytes.address;
    for _ in 0..2 {
        let launched = launch(increment, 2, 32, stream.cu_stream(), &mut [argument(&mut address)]);
        assert_eq!(launched, Code::CUDA_SUCCESS);
    }
    stream.synchronize().expect("done");
    let counters = client().kernel_counters("counted_increment").expect("counters");
    assert_eq!((counters.launches, counters.blocks), (2, 4));
    assert_eq!((counters.global_load_requests, counters.global_load_sectors), (4, 16));
    assert_eq!(counters.global_store_bytes, 512);
    assert!(client().counters().expect("counters").launches >= 2);
    assert!(client().kernel_counters("never_launched").is_err());
}

#[test]
fn a_table_of_the_counters_is_printed_if_asked_for() {
    let print = |value: &str| {
        let program = std::env::current_exe().expect("this program");
        let mut child = std::process::Command::new(program);
        child.args(["--exact", "kernels::a_kernel_runs_through_cudarc"]).env("DG_EMULATOR_COUNTERS", value);
        let output = child.output().expect("a run");
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let text = print("1");
    let row = text.lines().find(|line| line.starts_with("increment")).expect("a row for the kernel");
    let cells: Vec<&str> = row.split_whitespace().take(3).collect();
    assert_eq!(cells, ["increment", "3", "12"], "{text}");
    assert!(!print("0").contains("increment"));
}
