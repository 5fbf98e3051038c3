//! Handles of what is gone or never was.

use cudarc::driver::{result, sys};

use crate::support::{Blocking, Code, code, context};

#[test]
fn streams_and_events_are_known_by_their_handles() {
    let _context = context();
    let stream = Blocking::new();
    let gone = Blocking::new().0;
    let flags = sys::CUevent_flags::CU_EVENT_DEFAULT;
    let event = result::event::create(flags).expect("an event");
    let wrong = Code::CUDA_ERROR_INVALID_HANDLE;
    // SAFETY: wrong handles are refused.
    unsafe {
        assert_eq!(code(result::stream::synchronize(gone)), wrong);
        assert_eq!(code(result::stream::destroy(gone)), wrong);
        assert_eq!(code(result::event::record(event, gone)), wrong);
        assert_eq!(code(result::event::record(stream.0.cast(), stream.0)), wrong);
        assert_eq!(code(result::stream::synchronize(event.cast())), wrong);
        assert_eq!(code(result::stream::synchronize(0x7777_7770 as sys::CUstream)), wrong);
        result::event::destroy(event).expect("destroyed");
        assert_eq!(code(result::event::query(event)), wrong);
        assert_eq!(code(result::event::destroy(event)), wrong);
    }
}

#[test]
fn null_results_are_refused() {
    let _context = context();
    let wrong = Code::CUDA_ERROR_INVALID_VALUE;
    // SAFETY: null is refused.
    unsafe {
        assert_eq!(sys::cuMemAlloc_v2(std::ptr::null_mut(), 16), wrong);
        assert_eq!(sys::cuStreamCreate(std::ptr::null_mut(), 0), wrong);
        assert_eq!(sys::cuEventCreate(std::ptr::null_mut(), 0), wrong);
        assert_eq!(sys::cuModuleLoadData(std::ptr::null_mut(), c"".as_ptr().cast()), wrong);
    }
}

#[test]
fn flags_that_are_not_known_are_refused() {
    let _context = context();
    let wrong = Code::CUDA_ERROR_INVALID_VALUE;
    let (mut stream, mut event) = (std::ptr::null_mut(), std::ptr::null_mut());
    let mut pinned = std::ptr::null_mut();
    // SAFETY: the calls are refused.
    unsafe {
        assert_eq!(sys::cuStreamCreate(&mut stream, 2), wrong);
        assert_eq!(sys::cuEventCreate(&mut event, 64), wrong);
        assert_eq!(sys::cuMemHostAlloc(&mut pinned, 16, 64), wrong);
        assert_eq!(sys::cuInit(1), wrong);
    }
}

#[test]
fn priorities_are_kept_within_their_range() {
    let _context = context();
    let (mut least, mut greatest) = (0, 0);
    // SAFETY: the pointers are valid.
    unsafe {
        sys::cuCtxGetStreamPriorityRange(&mut least, &mut greatest).result().expect("a range");
        assert_eq!((least, greatest), (0, -5));
        let kind = result::stream::StreamKind::NonBlocking;
        let stream = result::stream::create_with_priority(kind, -99).expect("a stream");
        let mut priority = 0;
        sys::cuStreamGetPriority(stream, &mut priority).result().expect("a priority");
        assert_eq!(priority, -5);
        let mut flags = 0;
        sys::cuStreamGetFlags(stream, &mut flags).result().expect("flags");
        assert_eq!(flags, 1);
        result::stream::destroy(stream).expect("destroyed");
    }
}
