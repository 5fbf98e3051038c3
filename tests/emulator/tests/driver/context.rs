//! Devices, contexts, errors and names.

use std::ffi::{CStr, c_void};

use cudarc::driver::sys::CUdevice_attribute_enum as Attribute;
use cudarc::driver::{CudaContext, result, sys};

use crate::support::{Bytes, Code, client, code, context};

#[test]
fn the_device_is_an_h100() {
    let context = context();
    assert!(context.name().expect("a name").contains("H100"));
    assert_eq!(context.compute_capability().expect("two numbers"), (9, 0));
    let get = |attribute| context.attribute(attribute).expect("a value");
    assert_eq!(get(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT), 132);
    assert_eq!(get(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN), 232_448);
    assert_eq!(get(Attribute::CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH), 1);
    let (free, total) = context.mem_get_info().expect("sizes");
    assert!(free <= total && total == context.total_mem().expect("a size"));
    assert_ne!(context.uuid().expect("an identity").bytes, [0; 16]);
}

#[test]
fn there_is_no_second_device() {
    client();
    assert_eq!(code(CudaContext::new(1)), Code::CUDA_ERROR_INVALID_DEVICE);
    result::init().expect("again");
    assert_eq!(result::device::get_count().expect("a number"), 1);
}

#[test]
fn the_primary_context_is_shared() {
    client();
    let (a, b) = (CudaContext::new(0).expect("a context"), CudaContext::new(0).expect("a context"));
    assert_eq!(a.cu_ctx(), b.cu_ctx());
    drop(a);
    let stream = b.default_stream();
    let data = stream.clone_htod(&[1u32, 2, 3]).expect("a copy");
    assert_eq!(stream.clone_dtoh(&data).expect("a copy"), [1, 2, 3]);
}

#[test]
fn contexts_are_told_apart_when_they_are_gone() {
    let context = context();
    let handle = context.cu_ctx();
    drop(context);
    // SAFETY: any handle may be passed.
    unsafe {
        assert_eq!(sys::cuCtxSetCurrent(handle), Code::CUDA_ERROR_CONTEXT_IS_DESTROYED);
        assert_eq!(sys::cuCtxDestroy_v2(handle), Code::CUDA_ERROR_CONTEXT_IS_DESTROYED);
        let junk = 0x1234_5670 as sys::CUcontext;
        assert_eq!(sys::cuCtxSetCurrent(junk), Code::CUDA_ERROR_INVALID_CONTEXT);
    }
}

#[test]
fn calls_without_a_context_are_refused() {
    client();
    result::init().expect("a driver");
    let unbound = std::thread::spawn(|| {
        // SAFETY: nothing is allocated.
        (code(unsafe { result::malloc_sync(16) }), code(result::ctx::synchronize()))
    });
    let refused = unbound.join().expect("no panic");
    assert_eq!(refused, (Code::CUDA_ERROR_INVALID_CONTEXT, Code::CUDA_ERROR_INVALID_CONTEXT));
}

#[test]
fn contexts_are_stacked() {
    let (lower, upper) = (context(), context());
    let current = || result::ctx::get_current().expect("a stack").expect("a context");
    lower.bind_to_thread().expect("bound");
    // SAFETY: the contexts exist.
    unsafe {
        sys::cuCtxPushCurrent_v2(upper.cu_ctx()).result().expect("pushed");
        assert_eq!(current(), upper.cu_ctx());
        let mut popped = std::ptr::null_mut();
        sys::cuCtxPopCurrent_v2(&mut popped).result().expect("popped");
        assert_eq!(popped, upper.cu_ctx());
    }
    assert_eq!(current(), lower.cu_ctx());
}

/// Contexts of a process are on the same device.
#[test]
fn contexts_of_a_device_are_no_peers() {
    let (peer, own) = (context(), context());
    own.bind_to_thread().expect("bound");
    let junk = 0x1234_5670 as sys::CUcontext;
    // SAFETY: any handle may be passed.
    let enable = |context, flags| unsafe { sys::cuCtxEnablePeerAccess(context, flags) };
    assert_eq!(enable(peer.cu_ctx(), 1), Code::CUDA_ERROR_INVALID_VALUE);
    assert_eq!(enable(own.cu_ctx(), 0), Code::CUDA_ERROR_INVALID_CONTEXT);
    assert_eq!(enable(junk, 0), Code::CUDA_ERROR_INVALID_CONTEXT);
    assert_eq!(enable(peer.cu_ctx(), 0), Code::CUDA_ERROR_PEER_ACCESS_UNSUPPORTED);
    // SAFETY: as above.
    let disable = |context| unsafe { sys::cuCtxDisablePeerAccess(context) };
    assert_eq!(disable(junk), Code::CUDA_ERROR_INVALID_CONTEXT);
    assert_eq!(disable(peer.cu_ctx()), Code::CUDA_ERROR_PEER_ACCESS_NOT_ENABLED);
    let name = result::DriverError(Code::CUDA_ERROR_PEER_ACCESS_UNSUPPORTED).error_name();
    assert_eq!(name.expect("a name").to_bytes(), b"CUDA_ERROR_PEER_ACCESS_UNSUPPORTED");
}

#[test]
fn memory_of_a_context_goes_with_it() {
    // A size that no other test allocates.
    const LEN: usize = 77_777_777;
    let context = context();
    let bytes = Bytes::new(LEN);
    let address = bytes.address;
    std::mem::forget(bytes);
    drop(context);
    let _other = crate::support::context();
    let mut first = [0u8];
    // SAFETY: the address is checked.
    let read = unsafe { result::memcpy_dtoh_sync(&mut first, address) };
    assert_eq!(code(read), Code::CUDA_ERROR_INVALID_VALUE);
}

#[test]
fn errors_have_names() {
    client();
    let error = result::DriverError(Code::CUDA_ERROR_ILLEGAL_ADDRESS);
    assert_eq!(error.error_name().expect("a name").to_bytes(), b"CUDA_ERROR_ILLEGAL_ADDRESS");
    assert!(error.error_string().expect("words").to_string_lossy().contains("illegal memory access"));
    let success = result::DriverError(Code::CUDA_SUCCESS);
    assert_eq!(success.error_name().expect("a name").to_bytes(), b"CUDA_SUCCESS");
}

#[test]
fn entry_points_are_found_by_name() {
    client();
    let look_up = |name: &CStr| {
        let mut found = sys::CUdriverProcAddressQueryResult::CU_GET_PROC_ADDRESS_SUCCESS;
        let mut pointer: *mut c_void = std::ptr::null_mut();
        // SAFETY: the pointers are valid.
        unsafe { sys::cuGetProcAddress_v2(name.as_ptr(), &mut pointer, 13000, 0, &mut found) }
            .result()
            .expect("an answer");
        (pointer, found)
    };
    let (pointer, _) = look_up(c"cuDriverGetVersion");
    // SAFETY: that is the function's type.
    let get_version: unsafe extern "C" fn(*mut i32) -> Code = unsafe { std::mem::transmute(pointer) };
    let mut version = 0;
    // SAFETY: the pointer is valid.
    assert_eq!(unsafe { get_version(&mut version) }, Code::CUDA_SUCCESS);
    assert_eq!(version, 13000);
    let (pointer, found) = look_up(c"cuNoSuchFunction");
    assert!(pointer.is_null());
    assert_eq!(found, sys::CUdriverProcAddressQueryResult::CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
}

#[test]
fn limits_and_flags_are_kept() {
    let context = context();
    let stack = sys::CUlimit::CU_LIMIT_STACK_SIZE;
    context.set_limit(stack, 4096).expect("set");
    assert_eq!(context.get_limit(stack).expect("a limit"), 4096);
    context.set_blocking_synchronize().expect("set");
    let mut flags = 0;
    // SAFETY: the pointer is valid.
    unsafe { sys::cuCtxGetFlags(&mut flags) }.result().expect("flags");
    assert_eq!(flags, sys::CUctx_flags::CU_CTX_SCHED_BLOCKING_SYNC as u32);
}
