//! Kernels that start before the one before them has ended (programmatic dependent launch).

use std::ffi::c_void;

use cudarc::driver::{CudaContext, result, sys};

use crate::modules::{function, load};
use crate::support::{Bytes, Code, code, context, outcomes, seed, stream};

/// Kernels of three buffers a, b and c. `put`: block n writes n + 1 into word n of b. `take`: word n of c is
/// twice word n of b; in `told`, thread 0 waits for all. `signal`: every thread adds one to word 0 of a, once
/// its block has let dependents start. `seen`: word n of b is what block n read there before it waited.
/// `pass` lets dependents start and waits for nothing, `behind` waits first.
const PTX: &str = "
.version 8.0
.target sm_90
.address_size 64
.visible .entry put(.param .u64 a, .param .u64 b, .param .u64 c)
{
    .reg .b32 %r<5>;
    .reg .b64 %rd<5>;
    ld.param.u64 %rd2, [b];
    mov.u32 %r1, %ctaid.x;
    mul.wide.u32 %rd3, %r1, 4;
    add.u64 %rd2, %rd2, %rd3;
    add.u32 %r2, %r1, 1;
    griddepcontrol.wait;
    griddepcontrol.launch_dependents;
    st.global.u32 [%rd2], %r2;
    ret;
}
.visible .entry take(.param .u64 a, .param .u64 b, .param .u64 c)
{
    .reg .b32 %r<5>;
    .reg .b64 %rd<5>;
    ld.param.u64 %rd2, [b];
    ld.param.u64 %rd4, [c];
    mov.u32 %r1, %ctaid.x;
    mul.wide.u32 %rd3, %r1, 4;
    add.u64 %rd2, %rd2, %rd3;
    add.u64 %rd4, %rd4, %rd3;
    griddepcontrol.wait;
    ld.global.u32 %r2, [%rd2];
    add.u32 %r2, %r2, %r2;
    st.global.u32 [%rd4], %r2;
    ret;
}
.visible .entry told(.param .u64 a, .param .u64 b, .param .u64 c)
{
    .reg .b32 %r<5>;
    .reg .b64 %rd<5>;
    .reg .pred %p;
    ld.param.u64 %rd2, [b];
    ld.param.u64 %rd4, [c];
    mov.u32 %r1, %ctaid.x;
    mul.wide.u32 %rd3, %r1, 4;
    add.u64 %rd2, %rd2, %rd3;
    add.u64 %rd4, %rd4, %rd3;
    mov.u32 %r3, %tid.x;
    setp.eq.u32 %p, %r3, 0;
    @%p griddepcontrol.wait;
    bar.sync 0;
    ld.global.u32 %r2, [%rd2];
    add.u32 %r2, %r2, %r2;
    st.global.u32 [%rd4], %r2;
    ret;
}
.visible .entry seen(.param .u64 a, .param .u64 b, .param .u64 c)
{
    .reg .b32 %r<5>;
    .reg .b64 %rd<5>;
    ld.param.u64 %rd1, [a];
    ld.param.u64 %rd2, [b];
    mov.u32 %r1, %ctaid.x;
    mul.wide.u32 %rd3, %r1, 4;
    add.u64 %rd2, %rd2, %rd3;
    ld.relaxed.gpu.global.u32 %r2, [%rd1];
    griddepcontrol.wait;
    st.global.u32 [%rd2], %r2;
    ret;
}
.visible .entry signal(.param .u64 a, .param .u64 b, .param .u64 c)
{
    .reg .b64 %rd<5>;
    ld.param.u64 %rd1, [a];
    griddepcontrol.launch_dependents;
    red.relaxed.gpu.global.add.u32 [%rd1], 1;
    ret;
}
.visible .entry pass(.param .u64 a, .param .u64 b, .param .u64 c)
{
    griddepcontrol.launch_dependents;
    ret;
}
.visible .entry behind(.param .u64 a, .param .u64 b, .param .u64 c)
{
    griddepcontrol.wait;
    griddepcontrol.launch_dependents;
    ret;
}
";

/// Blocks of every kernel.
const BLOCKS: u32 = 4;

/// A module in which some statements of kernels are others.
fn module(from: &str, to: &str) -> sys::CUmodule {
    assert!(PTX.contains(from), "{from}");
    load(&PTX.replace(from, to)).expect("a module")
}

fn own() -> sys::CUmodule {
    module("", "")
}

struct Buffers([Bytes; 3]);

impl Buffers {
    fn new() -> Buffers {
        let buffers = [(); 3].map(|()| Bytes::new(4 * BLOCKS as usize));
        buffers.iter().for_each(|bytes| bytes.fill(0, std::ptr::null_mut()));
        result::ctx::synchronize().expect("filled");
        Buffers(buffers)
    }

    /// Launches a kernel, which need not wait for the end of the one before if it is `programmatic`.
    fn launch(&self, module: sys::CUmodule, name: &str, stream: sys::CUstream, programmatic: bool) -> Code {
        let mut addresses = self.0.each_ref().map(|bytes| bytes.address);
        let mut arguments = addresses.each_mut().map(|address| (&raw mut *address).cast::<c_void>());
        let mut attribute = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: Default::default(),
            value: sys::CUlaunchAttributeValue {
                programmaticStreamSerializationAllowed: i32::from(programmatic),
            },
        };
        let config = sys::CUlaunchConfig {
            gridDimX: BLOCKS,
            gridDimY: 1,
            gridDimZ: 1,
            blockDimX: 64,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: 0,
            hStream: stream,
            attrs: &raw mut attribute,
            numAttrs: 1,
        };
        let function = function(module, name).expect("a function");
        // SAFETY: the arguments are those of the kernels.
        unsafe { sys::cuLaunchKernelEx(&config, function, arguments.as_mut_ptr(), std::ptr::null_mut()) }
    }

    fn words(&self, buffer: usize) -> Vec<u32> {
        let bytes = self.0[buffer].read();
        bytes.chunks_exact(4).map(|c| u32::from_le_bytes(c.try_into().expect("four bytes"))).collect()
    }
}

/// Launches kernels in a stream, all but the first programmatically, with every seed.
fn launched(module: impl Fn() -> sys::CUmodule, names: &[&str]) -> Vec<Result<Vec<u32>, Code>> {
    (0..12)
        .map(|number| {
            let context = context();
            seed(number);
            let (stream, buffers, module) = (stream(&context), Buffers::new(), module());
            for (n, name) in names.iter().enumerate() {
                let code = buffers.launch(module, name, stream.cu_stream(), n > 0);
                assert_eq!(code, Code::CUDA_SUCCESS);
            }
            match code(result::ctx::synchronize()) {
                Code::CUDA_SUCCESS => Ok(buffers.words(2)),
                error => Err(error),
            }
        })
        .collect()
}

fn assert_right(found: &[Result<Vec<u32>, Code>]) {
    let right: Vec<u32> = (0..BLOCKS).map(|n| 2 * (n + 1)).collect();
    assert!(found.iter().all(|found| found.as_ref() == Ok(&right)), "{found:?}");
}

/// The error of a race.
fn assert_races(found: &[Result<Vec<u32>, Code>]) {
    assert!(found.iter().all(|found| *found == Err(Code::CUDA_ERROR_LAUNCH_FAILED)), "{found:?}");
}

#[test]
fn a_kernel_that_waits_sees_what_the_one_before_wrote() {
    assert_right(&launched(own, &["put", "take"]));
    assert_right(&launched(own, &["put", "told"]));
    // The second need not have ended when the third starts, but the third waits for it.
    assert_right(&launched(own, &["put", "put", "take", "take"]));
}

const WAIT_AND_READ: &str = "griddepcontrol.wait;\n    ld.global.u32 %r2, [%rd2];";
const READ_AND_WAIT: &str = "ld.global.u32 %r2, [%rd2];\n    griddepcontrol.wait;";

/// Whether or not the two have run at the same time.
#[test]
fn a_read_before_the_wait_is_a_race() {
    let early = || module(WAIT_AND_READ, READ_AND_WAIT);
    assert_races(&launched(early, &["put", "take"]));
    let never = || module(WAIT_AND_READ, "ld.global.u32 %r2, [%rd2];");
    assert_races(&launched(never, &["put", "take"]));
    // It is none for a kernel that writes elsewhere, and none without the attribute.
    let others = launched(early, &["seen"]);
    assert!(others.iter().all(Result::is_ok), "{others:?}");
    let context = context();
    let (stream, buffers, module) = (stream(&context), Buffers::new(), early());
    for name in ["put", "take"] {
        assert_eq!(buffers.launch(module, name, stream.cu_stream(), false), Code::CUDA_SUCCESS);
    }
    assert_eq!(buffers.words(2), [2, 4, 6, 8]);
}

/// One of every kind of access to the buffer that `put` writes, before the wait and after it.
#[test]
fn every_kind_of_access_is_looked_at() {
    const BULK: &str = ".shared .align 16 .b8 sm[16]; .shared .align 8 .b64 bar; .reg .pred %q; ld.param.u64 %rd1, [b];\n\
        mov.u32 %r3, %tid.x; setp.eq.u32 %q, %r3, 0; @%q mbarrier.init.shared.b64 [bar], 1; @%q st.shared.v4.u32 [sm], {1, 2, 3, 4}; @%q fence.proxy.async;";
    let shared = |copy: &str| format!("{BULK}\n{copy}");
    let accesses = [
        "st.global.u32 [%rd2], 0;".to_owned(),
        "atom.global.add.u32 %r3, [%rd2], 0;".to_owned(),
        "red.global.add.u32 [%rd2], 0;".to_owned(),
        "ld.relaxed.gpu.global.u32 %r3, [%rd2];".to_owned(),
        shared("@%q cp.async.ca.shared.global [sm], [%rd2], 4; cp.async.wait_all;"),
        shared(
            "@%q mbarrier.arrive.expect_tx.shared.b64 _, [bar], 16;\n\
             @%q cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [sm], [%rd1], 16, [bar];",
        ),
        shared(
            "@%q cp.async.bulk.global.shared::cta.bulk_group [%rd1], [sm], 16;\n\
             @%q cp.async.bulk.commit_group; @%q cp.async.bulk.wait_group 0;",
        ),
    ];
    for access in accesses {
        let before = format!("{access}\ngriddepcontrol.wait;");
        assert_races(&launched(|| module(WAIT_AND_READ, &before), &["put", "take"]));
        let after = format!("griddepcontrol.wait;\n{access}");
        let found = launched(|| module(WAIT_AND_READ, &after), &["put", "take"]);
        assert!(found.iter().all(Result::is_ok), "{access}: {found:?}");
    }
}

/// A thread that a barrier does not order behind the one that waited.
#[test]
fn a_wait_of_another_thread_needs_a_barrier() {
    let without = || module("bar.sync 0;", "");
    assert_races(&launched(without, &["put", "told"]));
}

/// What the first kernel wrote is not there when the third starts, if the second waits for nothing and lets
/// it start; that the third waits for the second is enough, but a read before is a race with the first.
#[test]
fn a_kernel_may_overtake_several() {
    assert_right(&launched(own, &["put", "pass", "take"]));
    let early = || module(WAIT_AND_READ, READ_AND_WAIT);
    assert_races(&launched(early, &["put", "pass", "take"]));
    // If the second lets it start behind its wait, the first has ended.
    assert_right(&launched(early, &["put", "behind", "take"]));
}

/// Reads of a word that the kernel before adds to, atomically, with four blocks of 64 threads, once it has
/// let dependents start.
#[test]
fn a_dependent_really_starts_before_the_end() {
    let context = context();
    let (stream, module) = (stream(&context), own());
    let read = outcomes(|| {
        let buffers = Buffers::new();
        assert_eq!(buffers.launch(module, "signal", stream.cu_stream(), false), Code::CUDA_SUCCESS);
        assert_eq!(buffers.launch(module, "seen", stream.cu_stream(), true), Code::CUDA_SUCCESS);
        buffers.words(1)
    });
    let of_all: Vec<u32> = read.into_iter().flatten().collect();
    let all = BLOCKS * 64;
    assert!(of_all.contains(&all), "never after the end");
    assert!(of_all.contains(&0), "never before any: {of_all:?}");
    assert!(of_all.iter().any(|&n| n > 0 && n < all), "never in the middle: {of_all:?}");
}

/// Without `launch_dependents`, it starts when all blocks have ended.
#[test]
fn blocks_that_say_nothing_let_dependents_start_at_their_end() {
    let context = context();
    let stream = stream(&context);
    let silent = module("griddepcontrol.launch_dependents;", "");
    let read = outcomes(|| {
        let buffers = Buffers::new();
        assert_eq!(buffers.launch(silent, "signal", stream.cu_stream(), false), Code::CUDA_SUCCESS);
        assert_eq!(buffers.launch(silent, "seen", stream.cu_stream(), true), Code::CUDA_SUCCESS);
        buffers.words(1)
    });
    assert!(read.iter().flatten().all(|&n| n == BLOCKS * 64), "{read:?}");
}

/// Captures the two kernels; the edge between them is programmatic.
fn captured(
    context: &std::sync::Arc<CudaContext>,
    module: sys::CUmodule,
    buffers: &Buffers,
    names: [&str; 2],
) -> sys::CUgraph {
    let stream = stream(context);
    stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).expect("begun");
    for (name, programmatic) in names.into_iter().zip([false, true]) {
        assert_eq!(buffers.launch(module, name, stream.cu_stream(), programmatic), Code::CUDA_SUCCESS);
    }
    // SAFETY: the stream exists.
    unsafe { result::stream::end_capture(stream.cu_stream()) }.expect("a graph")
}

fn run(graph: sys::CUgraph) -> Code {
    let flags = sys::CUgraphInstantiate_flags(0);
    // SAFETY: the graph exists.
    let exec = unsafe { result::graph::instantiate(graph, flags) }.expect("an executable graph");
    // SAFETY: it exists.
    unsafe { result::graph::launch(exec, std::ptr::null_mut()) }.expect("launched");
    code(result::ctx::synchronize())
}

#[test]
fn captured_kernels_overlap_too() {
    for number in 0..12 {
        let context = context();
        seed(number);
        let buffers = Buffers::new();
        assert_eq!(run(captured(&context, own(), &buffers, ["put", "take"])), Code::CUDA_SUCCESS);
        assert_eq!(buffers.words(2), [2, 4, 6, 8]);
        let early = module(WAIT_AND_READ, READ_AND_WAIT);
        let raced = run(captured(&context, early, &buffers, ["put", "take"]));
        assert_eq!(raced, Code::CUDA_ERROR_LAUNCH_FAILED);
    }
}

/// `CUgraphEdgeData` of a graph's edges, or what kept them from being told.
fn edges(graph: sys::CUgraph, with_data: bool) -> Result<Vec<[u8; 8]>, Code> {
    let (mut from, mut to, mut count) = ([std::ptr::null_mut(); 4], [std::ptr::null_mut(); 4], 4);
    let mut data = [[0u8; 8]; 4];
    let place = if with_data { data.as_mut_ptr().cast() } else { std::ptr::null_mut() };
    // SAFETY: the arrays have room for four.
    let code =
        unsafe { sys::cuGraphGetEdges_v2(graph, from.as_mut_ptr(), to.as_mut_ptr(), place, &mut count) };
    if code == Code::CUDA_SUCCESS { Ok(data[..count].to_vec()) } else { Err(code) }
}

#[test]
fn programmatic_edges_of_a_graph() {
    let context = context();
    let buffers = Buffers::new();
    let graph = captured(&context, own(), &buffers, ["put", "take"]);
    assert_eq!(edges(graph, true), Ok(vec![[1, 0, 1, 0, 0, 0, 0, 0]]));
    assert_eq!(edges(graph, false), Err(Code::CUDA_ERROR_LOSSY_QUERY));
    let mut clone = std::ptr::null_mut();
    // SAFETY: the graph exists.
    unsafe { sys::cuGraphClone(&mut clone, graph) }.result().expect("a clone");
    assert_eq!(edges(clone, true), edges(graph, true));

    // The same nodes with another edge are another topology.
    let flags = sys::CUgraphInstantiate_flags(0);
    // SAFETY: the graph exists.
    let exec = unsafe { result::graph::instantiate(graph, flags) }.expect("an executable graph");
    let (mut nodes, mut count) = ([std::ptr::null_mut(); 2], 2);
    // SAFETY: there is room for two nodes.
    unsafe { sys::cuGraphGetNodes(clone, nodes.as_mut_ptr(), &mut count) }.result().expect("two nodes");
    let [from, to] = nodes;
    let programmatic = [1u8, 0, 1, 0, 0, 0, 0, 0];
    let edge = |data: *const [u8; 8], add: bool| {
        // SAFETY: one edge, whose data is null or eight bytes.
        unsafe {
            let data = data.cast();
            match add {
                true => sys::cuGraphAddDependencies_v2(clone, &from, &to, data, 1),
                false => sys::cuGraphRemoveDependencies_v2(clone, &from, &to, data, 1),
            }
        }
    };
    // An edge is removed as what it is.
    assert_eq!(edge(std::ptr::null(), false), Code::CUDA_ERROR_INVALID_VALUE);
    assert_eq!(edge(&programmatic, false), Code::CUDA_SUCCESS);
    assert_eq!(edge(std::ptr::null(), true), Code::CUDA_SUCCESS);
    assert_eq!(edges(clone, false), Ok(vec![[0; 8]]));
    let mut info = std::mem::MaybeUninit::zeroed();
    // SAFETY: both exist, and the result is plain data.
    let updated = unsafe { sys::cuGraphExecUpdate_v2(exec, clone, info.as_mut_ptr()) };
    assert_eq!(updated, Code::CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
    assert_eq!(edge(std::ptr::null(), false), Code::CUDA_SUCCESS);
    assert_eq!(edge(&programmatic, true), Code::CUDA_SUCCESS);
    // SAFETY: as above.
    let updated = unsafe { sys::cuGraphExecUpdate_v2(exec, clone, info.as_mut_ptr()) };
    assert_eq!(updated, Code::CUDA_SUCCESS);
}
