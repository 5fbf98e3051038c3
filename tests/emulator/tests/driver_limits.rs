//! Memory that runs short, and captures that all threads must mind. These concern the whole process, so they
//! have one of their own, and its tests take turns.

use std::sync::{Mutex, MutexGuard, PoisonError};

use cudarc::driver::sys::{CUresult as Code, CUstreamCaptureMode::*};
use cudarc::driver::{CudaContext, DriverError, result, sys};

const MEMORY: usize = 64 << 20;

/// Loads the emulator with little memory; one test at a time.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the tests take turns, and nothing else in this process reads or writes the environment
    // meanwhile.
    unsafe {
        std::env::set_var("DG_EMULATOR_MEMORY", "64M");
        std::env::set_var("DG_EMULATOR_DEVICES", "2");
    }
    cuda_emulator::load().expect("the emulator");
    turn
}

fn code<T>(result: Result<T, DriverError>) -> Code {
    result.err().map_or(Code::CUDA_SUCCESS, |error| error.0)
}

#[test]
fn memory_runs_out() {
    let _turn = turn();
    let context = CudaContext::new(0).expect("a context");
    assert_eq!(context.total_mem().expect("a size"), MEMORY);
    // SAFETY: freed below.
    unsafe {
        let most = result::malloc_sync(MEMORY - (1 << 20)).expect("memory");
        assert_eq!(code(result::malloc_sync(2 << 20)), Code::CUDA_ERROR_OUT_OF_MEMORY);
        assert_eq!(result::mem_get_info().expect("sizes").0, 1 << 20);
        // Nothing sticks: there is still room for less.
        let little = result::malloc_sync(1 << 10).expect("memory");
        result::free_sync(little).expect("freed");
        result::free_sync(most).expect("freed");
    }
    assert_eq!(context.mem_get_info().expect("sizes"), (MEMORY, MEMORY));
}

#[test]
fn memory_that_will_be_freed_counts_when_it_runs_short() {
    let _turn = turn();
    let context = CudaContext::new(0).expect("a context");
    let stream = context.new_stream().expect("a stream");
    for _ in 0..4 {
        let most = stream.alloc_zeros::<u8>(MEMORY / 2 + 1).expect("memory");
        drop(most);
    }
    stream.synchronize().expect("done");
    assert_eq!(context.mem_get_info().expect("sizes"), (MEMORY, MEMORY));
}

#[test]
fn exported_memory_is_of_the_device_until_it_is_freed() {
    let _turn = turn();
    let context = CudaContext::new(0).expect("a context");
    // SAFETY: freed below, and the pointer is valid.
    unsafe {
        let address = result::malloc_sync(1 << 20).expect("memory");
        let mut handle = sys::CUipcMemHandle { reserved: [0; 64] };
        sys::cuIpcGetMemHandle(&mut handle, address).result().expect("a handle");
        assert_eq!(context.mem_get_info().expect("sizes"), (MEMORY - (1 << 20), MEMORY));
        result::free_sync(address).expect("freed");
    }
    assert_eq!(context.mem_get_info().expect("sizes"), (MEMORY, MEMORY));
}

#[test]
fn a_process_uses_one_of_several_devices() {
    let _turn = turn();
    let first = CudaContext::new(0).expect("a context");
    assert_eq!(result::device::get_count().expect("a number"), 2);
    let second = result::device::get(1).expect("a device");
    let uuid = result::device::get_uuid(second).expect("an identity");
    assert_ne!(uuid.bytes, first.uuid().expect("an identity").bytes);
    assert_eq!(code(CudaContext::new(1)), Code::CUDA_ERROR_NOT_SUPPORTED);
    assert_eq!(code(result::device::get(2)), Code::CUDA_ERROR_INVALID_DEVICE);
}

#[test]
fn every_device_is_a_peer_of_every_other() {
    let _turn = turn();
    result::init().expect("a driver");
    let peers = |device, peer| {
        let mut can = 7;
        // SAFETY: the pointer is valid.
        unsafe { sys::cuDeviceCanAccessPeer(&mut can, device, peer) }.result().map(|()| can)
    };
    assert_eq!((peers(0, 1), peers(1, 0), peers(1, 1)), (Ok(1), Ok(1), Ok(0)));
    let invalid = Err(DriverError(Code::CUDA_ERROR_INVALID_DEVICE));
    assert_eq!((peers(0, 2), peers(2, 0)), (invalid, invalid));
}

#[test]
fn a_global_capture_minds_other_threads() {
    let _turn = turn();
    let context = CudaContext::new(0).expect("a context");
    let stream = context.new_stream().expect("a stream");
    stream.begin_capture(CU_STREAM_CAPTURE_MODE_GLOBAL).expect("begun");
    let other = std::thread::spawn(|| {
        let _context = CudaContext::new(0).expect("a context");
        // SAFETY: the call is refused.
        code(unsafe { result::malloc_sync(16) })
    });
    assert_eq!(other.join().expect("no panic"), Code::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    // SAFETY: the stream exists.
    let end = unsafe { result::stream::end_capture(stream.cu_stream()) };
    assert_eq!(code(end), Code::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
}
