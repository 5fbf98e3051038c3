//! Capture of streams.

use std::sync::Arc;

use cudarc::driver::{CudaGraph, CudaStream, result, sys};
use sys::CUstreamCaptureMode::{self as Mode, *};

use crate::support::{Blocking, Bytes, Code, code, context, outcomes, stream};

const LOCAL: Mode = CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;

fn end(stream: &Arc<CudaStream>) -> Option<CudaGraph> {
    stream.end_capture(sys::CUgraphInstantiate_flags(0)).expect("a graph")
}

/// Ends a capture that something went wrong with.
fn broken_end(stream: sys::CUstream) -> Code {
    // SAFETY: the stream exists.
    code(unsafe { result::stream::end_capture(stream) })
}

#[test]
fn what_is_captured_runs_when_it_is_launched() {
    let context = context();
    let stream = stream(&context);
    let (a, b) = (Bytes::new(4), Bytes::new(4));
    a.fill(0, stream.cu_stream());
    b.fill(0, stream.cu_stream());
    stream.begin_capture(LOCAL).expect("begun");
    let active = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE;
    assert_eq!(stream.capture_status().expect("a status"), active);
    a.fill(5, stream.cu_stream());
    b.copy(&a, stream.cu_stream());
    let graph = end(&stream).expect("a graph");
    assert_eq!(b.read(), [0; 4]);
    for value in [1, 2] {
        a.fill(value, stream.cu_stream());
        b.fill(value, stream.cu_stream());
        graph.launch().expect("launched");
        assert_eq!(b.read(), [5; 4]);
    }
}

#[test]
fn pageable_memory_is_read_when_the_graph_runs() {
    let context = context();
    let stream = stream(&context);
    let there = Bytes::new(4);
    let mut host = vec![1u8; 4];
    stream.begin_capture(LOCAL).expect("begun");
    // SAFETY: the vector outlives the graph's launches.
    unsafe { result::memcpy_htod_async(there.address, &host, stream.cu_stream()) }.expect("a copy");
    let graph = end(&stream).expect("a graph");
    for value in [3, 4] {
        host.fill(value);
        graph.launch().expect("launched");
        assert_eq!(there.read(), [value; 4]);
    }
}

#[test]
fn streams_fork_and_join_by_events() {
    let context = context();
    let (a, b) = (stream(&context), stream(&context));
    let (x, y) = (Bytes::new(1), Bytes::new(1));
    a.begin_capture(LOCAL).expect("begun");
    x.fill(1, a.cu_stream());
    b.join(&a).expect("forked");
    y.copy(&x, b.cu_stream());
    a.join(&b).expect("joined");
    x.fill(2, a.cu_stream());
    let graph = end(&a).expect("a graph");
    let values = outcomes(|| {
        graph.launch().expect("launched");
        (x.first(), y.first())
    });
    assert!(values.iter().all(|values| *values == (2, 1)), "{values:?}");
}

#[test]
fn branches_of_a_graph_run_in_either_order() {
    let context = context();
    let (a, b) = (stream(&context), stream(&context));
    let (x, y) = (Bytes::new(1), Bytes::new(1));
    a.begin_capture(LOCAL).expect("begun");
    x.fill(1, a.cu_stream());
    b.join(&a).expect("forked");
    y.copy(&x, b.cu_stream());
    // The join comes too late to order these two.
    x.fill(2, a.cu_stream());
    a.join(&b).expect("joined");
    let graph = end(&a).expect("a graph");
    let values = outcomes(|| {
        graph.launch().expect("launched");
        y.first()
    });
    assert!(values.contains(&1) && values.contains(&2), "{values:?}");
}

#[test]
fn work_that_was_not_joined_spoils_the_graph() {
    let context = context();
    let (a, b) = (stream(&context), stream(&context));
    let bytes = Bytes::new(1);
    a.begin_capture(LOCAL).expect("begun");
    b.join(&a).expect("forked");
    bytes.fill(1, b.cu_stream());
    assert_eq!(broken_end(a.cu_stream()), Code::CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
    // Both streams are free again.
    bytes.fill(2, b.cu_stream());
    assert_eq!(bytes.first(), 2);
}

#[test]
fn waiting_for_a_captured_stream_spoils_the_capture() {
    let context = context();
    let stream = stream(&context);
    let bytes = Bytes::new(1);
    stream.begin_capture(LOCAL).expect("begun");
    assert_eq!(code(stream.synchronize()), Code::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    let invalidated = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_INVALIDATED;
    assert_eq!(stream.capture_status().expect("a status"), invalidated);
    // SAFETY: the call is refused.
    let late = unsafe { result::memset_d8_async(bytes.address, 1, 1, stream.cu_stream()) };
    assert_eq!(code(late), Code::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    assert_eq!(broken_end(stream.cu_stream()), Code::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    stream.synchronize().expect("free again");
}

#[test]
fn calls_that_could_wait_spoil_the_thread_s_own_capture() {
    let context = context();
    let stream = stream(&context);
    let bytes = Bytes::new(1);
    let calls: [(&str, &dyn Fn() -> Code); 5] = [
        // SAFETY: the calls are refused.
        ("cuMemAlloc", &|| code(unsafe { result::malloc_sync(16) })),
        ("cuCtxSynchronize", &|| code(result::ctx::synchronize())),
        // SAFETY: the calls are refused.
        ("cuMemHostAlloc", &|| code(unsafe { result::malloc_host(16, 0) })),
        // SAFETY: the calls are refused.
        ("cuMemFree", &|| code(unsafe { result::free_sync(bytes.address) })),
        // SAFETY: the calls are refused.
        ("cuMemcpyDtoH", &|| code(unsafe { result::memcpy_dtoh_sync(&mut [0u8], bytes.address) })),
    ];
    for (name, call) in calls {
        stream.begin_capture(LOCAL).expect("begun");
        assert_eq!(call(), Code::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "{name}");
        let end = broken_end(stream.cu_stream());
        assert_eq!(end, Code::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "{name}");
    }
    bytes.fill(1, stream.cu_stream());
    assert_eq!(bytes.first(), 1);
}

#[test]
fn a_relaxed_capture_lets_them_pass() {
    let context = context();
    let stream = stream(&context);
    stream.begin_capture(CU_STREAM_CAPTURE_MODE_RELAXED).expect("begun");
    let bytes = Bytes::new(1);
    bytes.fill(1, stream.cu_stream());
    let graph = end(&stream).expect("a graph");
    graph.launch().expect("launched");
    assert_eq!(bytes.first(), 1);
}

#[test]
fn other_threads_may_wait_during_a_thread_local_capture() {
    let context = context();
    let stream = stream(&context);
    stream.begin_capture(LOCAL).expect("begun");
    let handle = context.cu_ctx() as usize;
    let other = std::thread::spawn(move || {
        // SAFETY: the context exists until the thread is joined.
        unsafe {
            result::ctx::set_current(handle as sys::CUcontext).expect("bound");
            let address = result::malloc_sync(16).expect("memory");
            result::free_sync(address).expect("freed");
        }
    });
    other.join().expect("no panic");
    assert!(end(&stream).is_some());
}

#[test]
fn only_the_thread_that_began_may_end() {
    let context = context();
    let stream = stream(&context);
    stream.begin_capture(LOCAL).expect("begun");
    let (handle, captured) = (context.cu_ctx() as usize, stream.cu_stream() as usize);
    let other = std::thread::spawn(move || {
        // SAFETY: the context exists until the thread is joined.
        unsafe { result::ctx::set_current(handle as sys::CUcontext) }.expect("bound");
        broken_end(captured as sys::CUstream)
    });
    assert_eq!(other.join().expect("no panic"), Code::CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
    assert!(end(&stream).is_some());
}

#[test]
fn captures_begin_and_end_in_the_same_stream() {
    let context = context();
    let (a, b) = (stream(&context), stream(&context));
    assert_eq!(broken_end(a.cu_stream()), Code::CUDA_ERROR_ILLEGAL_STATE);
    a.begin_capture(LOCAL).expect("begun");
    assert_eq!(code(a.begin_capture(LOCAL)), Code::CUDA_ERROR_ILLEGAL_STATE);
    b.join(&a).expect("forked");
    assert_eq!(broken_end(b.cu_stream()), Code::CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
    assert_eq!(broken_end(a.cu_stream()), Code::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    let default = context.default_stream();
    assert_eq!(code(default.begin_capture(LOCAL)), Code::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
}

#[test]
fn captures_do_not_depend_on_what_is_outside() {
    let context = context();
    let (a, b) = (stream(&context), stream(&context));
    let outside = b.record_event(None).expect("recorded");
    a.begin_capture(LOCAL).expect("begun");
    assert_eq!(code(a.wait(&outside)), Code::CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    assert_eq!(broken_end(a.cu_stream()), Code::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    a.begin_capture(LOCAL).expect("begun");
    b.begin_capture(LOCAL).expect("begun");
    let other = b.record_event(None).expect("recorded");
    assert_eq!(code(a.wait(&other)), Code::CUDA_ERROR_STREAM_CAPTURE_MERGE);
    broken_end(a.cu_stream());
    broken_end(b.cu_stream());
}

#[test]
fn the_default_stream_must_not_wait_for_a_capture() {
    let context = context();
    let blocking = Blocking::new();
    let bytes = Bytes::new(1);
    // SAFETY: the stream exists; the calls are refused.
    unsafe {
        result::stream::begin_capture(blocking.0, LOCAL).expect("begun");
        let default = result::memset_d8_async(bytes.address, 1, 1, std::ptr::null_mut());
        assert_eq!(code(default), Code::CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
        assert_eq!(broken_end(blocking.0), Code::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    }
    // A stream that the default stream does not wait for may be captured meanwhile.
    let apart = stream(&context);
    apart.begin_capture(LOCAL).expect("begun");
    bytes.fill(2, std::ptr::null_mut());
    assert!(end(&apart).is_some());
    assert_eq!(bytes.first(), 2);
}

#[test]
fn an_event_of_a_capture_is_no_event_to_the_host() {
    let context = context();
    let stream = stream(&context);
    stream.begin_capture(LOCAL).expect("begun");
    let event = stream.record_event(None).expect("recorded");
    assert!(end(&stream).is_some());
    assert_eq!(code(event.synchronize()), Code::CUDA_ERROR_CAPTURED_EVENT);
    assert_eq!(code(event.try_is_complete()), Code::CUDA_ERROR_CAPTURED_EVENT);
    event.record(&stream).expect("recorded");
    event.synchronize().expect("an event again");
}

#[test]
fn allocating_in_a_capture_is_refused_by_name() {
    let context = context();
    let stream = stream(&context);
    stream.begin_capture(LOCAL).expect("begun");
    // SAFETY: the call is refused.
    let memory = unsafe { result::malloc_async(stream.cu_stream(), 16) };
    assert_eq!(code(memory), Code::CUDA_ERROR_NOT_SUPPORTED);
    assert_eq!(broken_end(stream.cu_stream()), Code::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
}

#[test]
fn flags_of_instantiation_are_checked() {
    let context = context();
    let stream = stream(&context);
    use sys::CUgraphInstantiate_flags as Flags;
    stream.begin_capture(LOCAL).expect("begun");
    let flags = Flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH
        | Flags::CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH;
    assert_eq!(code(stream.end_capture(flags)), Code::CUDA_ERROR_INVALID_VALUE);
    stream.begin_capture(LOCAL).expect("begun");
    let graph = stream.end_capture(Flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH).expect("a graph");
    graph.expect("a graph").launch().expect("launched");
}
