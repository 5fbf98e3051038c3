//! What a launch may ask for.

use cudarc::driver::{result, sys};
use sys::CUfunction_attribute::*;

use crate::modules::{function, load};
use crate::support::{Code, code, context};

/// Kernels that do nothing, each with a limit of its own.
const PTX: &str = "
.version 8.0
.target sm_90a
.address_size 64
.visible .entry plain()
{
    ret;
}
.visible .entry shared()
{
    .shared .align 4 .b8 room[16384];
    ret;
}
.visible .entry bounded() .maxntid 128, 1, 1
{
    ret;
}
.visible .entry registers() .maxnreg 168
{
    setmaxnreg.dec.sync.aligned.u32 40;
    ret;
}
.visible .entry exact() .reqntid 64, 1, 1
{
    ret;
}
.visible .entry clustered() .explicitcluster .reqnctapercluster 2, 1, 1
{
    ret;
}
";

struct Limits {
    module: sys::CUmodule,
}

impl Limits {
    fn load() -> Limits {
        Limits { module: load(PTX).expect("a module") }
    }

    fn function(&self, name: &str) -> sys::CUfunction {
        function(self.module, name).expect("a function")
    }

    fn launch(&self, name: &str, grid: (u32, u32, u32), block: (u32, u32, u32), shared: u32) -> Code {
        let (function, stream) = (self.function(name), std::ptr::null_mut());
        // SAFETY: the kernels take no arguments.
        code(unsafe { result::launch_kernel(function, grid, block, shared, stream, &mut []) })
    }

    fn launch_ex(&self, name: &str, blocks: u32, attributes: &mut [sys::CUlaunchAttribute]) -> Code {
        let config = sys::CUlaunchConfig {
            gridDimX: blocks,
            gridDimY: 1,
            gridDimZ: 1,
            blockDimX: 32,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: 0,
            hStream: std::ptr::null_mut(),
            attrs: attributes.as_mut_ptr(),
            numAttrs: attributes.len() as u32,
        };
        let (arguments, extra) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: the kernels take no arguments.
        unsafe { sys::cuLaunchKernelEx(&config, self.function(name), arguments, extra) }
    }
}

fn cluster(blocks: u32) -> sys::CUlaunchAttribute {
    // SAFETY: zero is valid for attributes.
    let mut attribute: sys::CUlaunchAttribute = unsafe { std::mem::zeroed() };
    attribute.id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    attribute.value.clusterDim.x = blocks;
    attribute.value.clusterDim.y = 1;
    attribute.value.clusterDim.z = 1;
    attribute
}

#[test]
fn grids_and_blocks_have_limits() {
    let _context = context();
    let limits = Limits::load();
    let (fine, wrong) = (Code::CUDA_SUCCESS, Code::CUDA_ERROR_INVALID_VALUE);
    let one = (1, 1, 1);
    assert_eq!(limits.launch("plain", one, (1024, 1, 1), 0), fine);
    assert_eq!(limits.launch("plain", one, (1025, 1, 1), 0), wrong);
    assert_eq!(limits.launch("plain", one, (32, 33, 1), 0), wrong);
    assert_eq!(limits.launch("plain", one, (1, 1, 65), 0), wrong);
    assert_eq!(limits.launch("plain", one, (0, 1, 1), 0), wrong);
    assert_eq!(limits.launch("plain", (1, 65536, 1), one, 0), wrong);
    assert_eq!(limits.launch("plain", (0, 1, 1), one, 0), wrong);
    assert_eq!(limits.launch("bounded", one, (128, 1, 1), 0), fine);
    assert_eq!(limits.launch("bounded", one, (160, 1, 1), 0), Code::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
    assert_eq!(limits.launch("exact", one, (64, 1, 1), 0), fine);
    assert_eq!(limits.launch("exact", one, (32, 1, 1), 0), wrong);
    result::ctx::synchronize().expect("done");
}

#[test]
fn more_shared_memory_must_be_asked_for() {
    let _context = context();
    let limits = Limits::load();
    let (fine, wrong) = (Code::CUDA_SUCCESS, Code::CUDA_ERROR_INVALID_VALUE);
    let one = (1, 1, 1);
    assert_eq!(limits.launch("plain", one, one, 49152), fine);
    assert_eq!(limits.launch("plain", one, one, 49153), wrong);
    assert_eq!(limits.launch("shared", one, one, 49152 - 16384), fine);
    assert_eq!(limits.launch("shared", one, one, 49152 - 16384 + 1), wrong);
    let attribute = CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    let function = limits.function("shared");
    // SAFETY: the handle is valid.
    unsafe {
        let most = 232_448 - 16384;
        let beyond = result::function::set_function_attribute(function, attribute, most + 1);
        assert_eq!(code(beyond), wrong);
        result::function::set_function_attribute(function, attribute, most).expect("set");
        let get = result::function::get_function_attribute(function, attribute);
        assert_eq!(get.expect("a value"), most);
        let own = result::function::get_function_attribute(function, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES);
        assert_eq!(own.expect("a value"), 16384);
        assert_eq!(limits.launch("shared", one, one, most as u32), fine);
    }
    result::ctx::synchronize().expect("done");
}

#[test]
fn clusters_divide_the_grid_and_are_small() {
    let _context = context();
    let limits = Limits::load();
    let (fine, wrong) = (Code::CUDA_SUCCESS, Code::CUDA_ERROR_INVALID_CLUSTER_SIZE);
    assert_eq!(limits.launch_ex("plain", 8, &mut [cluster(4)]), fine);
    assert_eq!(limits.launch_ex("plain", 6, &mut [cluster(4)]), wrong);
    assert_eq!(limits.launch_ex("plain", 16, &mut [cluster(16)]), wrong);
    let (function, attribute) =
        (limits.function("plain"), CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED);
    // SAFETY: the handle is valid.
    unsafe { result::function::set_function_attribute(function, attribute, 1) }.expect("set");
    assert_eq!(limits.launch_ex("plain", 16, &mut [cluster(16)]), fine);
    assert_eq!(limits.launch_ex("clustered", 4, &mut []), fine);
    assert_eq!(limits.launch_ex("clustered", 3, &mut []), wrong);
    assert_eq!(limits.launch_ex("clustered", 4, &mut [cluster(4)]), wrong);
    result::ctx::synchronize().expect("done");
}

#[test]
fn launch_attributes_that_do_more_than_hint_are_refused() {
    let _context = context();
    let limits = Limits::load();
    // SAFETY: zero is valid for attributes.
    let mut attribute: sys::CUlaunchAttribute = unsafe { std::mem::zeroed() };
    attribute.id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT;
    let refused = limits.launch_ex("plain", 1, &mut [attribute]);
    assert_eq!(refused, Code::CUDA_ERROR_NOT_SUPPORTED);
}

#[test]
fn all_blocks_of_a_cooperative_launch_must_fit() {
    let _context = context();
    let limits = Limits::load();
    let function = limits.function("plain");
    let launch = |blocks| {
        let (one, stream) = ((1024, 1, 1), std::ptr::null_mut());
        // SAFETY: the kernel takes no arguments.
        code(unsafe { result::launch_cooperative_kernel(function, (blocks, 1, 1), one, 0, stream, &mut []) })
    };
    assert_eq!(launch(2 * 132), Code::CUDA_SUCCESS);
    assert_eq!(launch(2 * 132 + 1), Code::CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
    result::ctx::synchronize().expect("done");
}

#[test]
fn occupancy_follows_threads_and_shared_memory() {
    let _context = context();
    let limits = Limits::load();
    let blocks = |name: &str, threads, dynamic| {
        let function = limits.function(name);
        // SAFETY: the handle is valid.
        unsafe { result::occupancy::max_active_block_per_multiprocessor(function, threads, dynamic) }
            .expect("a number")
    };
    assert_eq!(blocks("plain", 256, 0), 8);
    assert_eq!(blocks("plain", 32, 0), 32);
    // 228 KiB hold two blocks of 100 KiB and the one that each takes besides.
    assert_eq!(blocks("plain", 32, 100 << 10), 2);
    assert_eq!(blocks("shared", 1024, 0), 2);
    assert_eq!(blocks("bounded", 256, 0), 0);
    let function = limits.function("plain");
    // SAFETY: the handle is valid.
    let potential =
        unsafe { result::occupancy::max_potential_block_size(function, None, 0, 0) }.expect("two numbers");
    assert_eq!(potential, (2 * 132, 1024));
}

/// 168 registers for each of 384 threads are 63 of 64 K.
#[test]
fn a_kernel_that_moves_registers_needs_them() {
    let _context = context();
    let limits = Limits::load();
    let function = limits.function("registers");
    // SAFETY: the function exists.
    let number = unsafe { result::function::get_function_attribute(function, CU_FUNC_ATTRIBUTE_NUM_REGS) };
    assert_eq!(number.expect("a number"), 168);
    let blocks = |threads| {
        // SAFETY: the function exists.
        unsafe { result::occupancy::max_active_block_per_multiprocessor(function, threads, 0) }
    };
    let found = [128, 256, 384, 512].map(|threads| blocks(threads).expect("a number"));
    assert_eq!(found, [3, 1, 1, 0]);
    let launch = |threads| limits.launch("registers", (1, 1, 1), (threads, 1, 1), 0);
    assert_eq!(launch(384), Code::CUDA_SUCCESS);
    assert_eq!(launch(512), Code::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
    assert_eq!(code(result::ctx::synchronize()), Code::CUDA_SUCCESS);
}
