//! The other device that can be emulated.

use std::ffi::CString;
use std::sync::Arc;

use cudarc::driver::sys::{CUdevice_attribute_enum as Attribute, CUfunction_attribute::*, CUresult as Code};
use cudarc::driver::{CudaContext, DriverError, LaunchConfig, result, sys};
use cudarc::nvrtc::Ptx;

const PTX: &str =
    ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry nothing()\n{\n    ret;\n}\n";

/// The emulator as an A100.
fn context() -> Arc<CudaContext> {
    static ONCE: std::sync::Once = std::sync::Once::new();
    // SAFETY: nothing else in this process reads or writes the environment, for all tests begin here.
    ONCE.call_once(|| unsafe { std::env::set_var("DG_EMULATOR_DEVICE", "a100") });
    cuda_emulator::load().expect("the emulator");
    CudaContext::new(0).expect("a context")
}

fn code<T>(result: Result<T, DriverError>) -> Code {
    result.err().map_or(Code::CUDA_SUCCESS, |error| error.0)
}

#[test]
fn the_device_is_an_a100() {
    let context = context();
    assert!(context.name().expect("a name").contains("A100"));
    assert_eq!(context.compute_capability().expect("two numbers"), (8, 0));
    let multiprocessors = context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
    assert_eq!(multiprocessors.expect("a value"), 108);
}

#[test]
fn it_has_less_shared_memory_and_no_clusters() {
    let context = context();
    let module = context.load_module(Ptx::from_src(PTX)).expect("a module");
    let nothing = module.load_function("nothing").expect("a function");
    let attribute = CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    assert_eq!(code(nothing.set_attribute(attribute, 166_913)), Code::CUDA_ERROR_INVALID_VALUE);
    nothing.set_attribute(attribute, 166_912).expect("set");
    let stream = context.default_stream();
    let config = LaunchConfig { grid_dim: (2, 1, 1), block_dim: (32, 1, 1), shared_mem_bytes: 166_912 };
    // SAFETY: the kernel takes no arguments.
    unsafe { stream.launch_builder(&nothing).launch(config) }.expect("launched");
    stream.synchronize().expect("done");

    let module = CString::new(PTX).expect("no zero inside");
    // SAFETY: a C string.
    let function = unsafe {
        let module = result::module::load_data(module.as_ptr().cast()).expect("a module");
        result::module::get_function(module, c"nothing".to_owned()).expect("a function")
    };
    let attributes = {
        // SAFETY: zero is valid for an attribute.
        let [mut cluster, mut programmatic]: [sys::CUlaunchAttribute; 2] = unsafe { std::mem::zeroed() };
        cluster.id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
        (cluster.value.clusterDim.x, cluster.value.clusterDim.y, cluster.value.clusterDim.z) = (2, 1, 1);
        programmatic.id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
        programmatic.value.programmaticStreamSerializationAllowed = 1;
        [cluster, programmatic]
    };
    for mut attribute in attributes {
        let config = sys::CUlaunchConfig {
            gridDimX: 2,
            gridDimY: 1,
            gridDimZ: 1,
            blockDimX: 32,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: 0,
            hStream: std::ptr::null_mut(),
            attrs: &mut attribute,
            numAttrs: 1,
        };
        // SAFETY: the kernel takes no arguments.
        let launch =
            unsafe { sys::cuLaunchKernelEx(&config, function, std::ptr::null_mut(), std::ptr::null_mut()) };
        assert_eq!(launch, Code::CUDA_ERROR_NOT_SUPPORTED, "{:?}", attribute.id);
    }
}

#[test]
fn ptx_for_hopper_does_not_run() {
    let context = context();
    for target in ["sm_90", "sm_90a"] {
        let ptx = Ptx::from_src(PTX.replace("sm_80", target));
        assert_eq!(code(context.load_module(ptx)), Code::CUDA_ERROR_NO_BINARY_FOR_GPU, "{target}");
    }
}
