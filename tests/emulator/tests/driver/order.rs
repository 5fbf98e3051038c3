//! Which work is done before which.

use std::ffi::c_void;

use cudarc::driver::{CudaStream, result, sys};

use crate::support::{Blocking, Bytes, Code, client, code, context, outcomes, stream};

const DEFAULT: sys::CUstream = std::ptr::null_mut();

#[test]
fn streams_without_an_event_run_in_either_order() {
    let context = context();
    let (a, b) = (stream(&context), stream(&context));
    let bytes = Bytes::new(1);
    let last = outcomes(|| {
        bytes.fill(1, a.cu_stream());
        bytes.fill(2, b.cu_stream());
        bytes.first()
    });
    for value in [1, 2] {
        let count = last.iter().filter(|last| **last == value).count();
        assert!(count > last.len() / 8, "{value} came last only {count} times");
    }
}

#[test]
fn an_event_orders_streams() {
    let context = context();
    let (a, b) = (stream(&context), stream(&context));
    let bytes = Bytes::new(1);
    let last = outcomes(|| {
        bytes.fill(1, a.cu_stream());
        b.join(&a).expect("ordered");
        bytes.fill(2, b.cu_stream());
        bytes.first()
    });
    assert!(last.iter().all(|last| *last == 2), "{last:?}");
}

#[test]
fn a_stream_is_never_reordered() {
    let context = context();
    let (a, b) = (stream(&context), stream(&context));
    let (bytes, other) = (Bytes::new(1), Bytes::new(1));
    let last = outcomes(|| {
        for value in 0..20 {
            bytes.fill(value, a.cu_stream());
            other.fill(value, b.cu_stream());
        }
        (bytes.first(), other.first())
    });
    assert!(last.iter().all(|last| *last == (19, 19)), "{last:?}");
}

#[test]
fn one_stream_can_be_far_ahead_of_another() {
    let context = context();
    let (a, b) = (stream(&context), stream(&context));
    let (bytes, seen) = (Bytes::new(1), Bytes::new(1));
    let values = outcomes(|| {
        bytes.fill(0, DEFAULT);
        context.synchronize().expect("done");
        (1..=8).for_each(|value| bytes.fill(value, a.cu_stream()));
        seen.copy(&bytes, b.cu_stream());
        seen.first()
    });
    assert!(values.contains(&0) && values.contains(&8), "{values:?}");
    assert!(values.iter().any(|value| (1..8).contains(value)), "{values:?}");
}

#[test]
fn the_same_seed_gives_the_same_order() {
    let context = context();
    let (a, b) = (stream(&context), stream(&context));
    let bytes = Bytes::new(1);
    let run = || {
        outcomes(|| {
            bytes.fill(1, a.cu_stream());
            bytes.fill(2, b.cu_stream());
            bytes.first()
        })
    };
    assert_eq!(run(), run());
}

#[test]
fn the_default_stream_waits_for_blocking_streams_and_they_for_it() {
    let context = context();
    let bytes = Bytes::new(1);
    let (a, b) = (Blocking::new(), Blocking::new());
    let last = outcomes(|| {
        bytes.fill(1, a.0);
        bytes.fill(2, DEFAULT);
        bytes.fill(3, b.0);
        bytes.first()
    });
    assert!(last.iter().all(|last| *last == 3), "{last:?}");
    let apart = stream(&context);
    let last = outcomes(|| {
        bytes.fill(1, apart.cu_stream());
        bytes.fill(2, DEFAULT);
        bytes.first()
    });
    assert!(last.contains(&1) && last.contains(&2), "{last:?}");
}

#[test]
fn the_default_stream_also_waits_for_a_stream_that_was_destroyed() {
    let _context = context();
    let bytes = Bytes::new(1);
    let last = outcomes(|| {
        let gone = Blocking::new();
        bytes.fill(1, gone.0);
        drop(gone);
        bytes.fill(2, DEFAULT);
        bytes.first()
    });
    assert!(last.iter().all(|last| *last == 2), "{last:?}");
}

#[test]
fn the_stream_of_a_thread_is_a_blocking_one() {
    let context = context();
    let bytes = Bytes::new(1);
    let own = context.per_thread_stream();
    let last = outcomes(|| {
        bytes.fill(1, own.cu_stream());
        bytes.fill(2, DEFAULT);
        bytes.first()
    });
    assert!(last.iter().all(|last| *last == 2), "{last:?}");
}

#[test]
fn a_wait_is_for_what_the_event_stood_for_when_it_was_called() {
    let context = context();
    let (a, b) = (stream(&context), stream(&context));
    let (bytes, seen) = (Bytes::new(1), Bytes::new(1));
    let event = context.new_event(None).expect("an event");
    let values = outcomes(|| {
        bytes.fill(0, DEFAULT);
        context.synchronize().expect("done");
        bytes.fill(1, a.cu_stream());
        event.record(&a).expect("recorded");
        b.wait(&event).expect("ordered");
        bytes.fill(2, a.cu_stream());
        event.record(&a).expect("recorded");
        seen.copy(&bytes, b.cu_stream());
        seen.first()
    });
    assert!(values.contains(&1) && values.contains(&2) && !values.contains(&0), "{values:?}");
}

#[test]
fn a_wait_for_an_event_that_was_never_recorded_is_none() {
    let context = context();
    let stream = stream(&context);
    let event = context.new_event(None).expect("an event");
    stream.wait(&event).expect("nothing to wait for");
    event.synchronize().expect("nothing to wait for");
    assert!(event.is_complete());
}

#[test]
fn waiting_for_an_event_leaves_later_work() {
    let context = context();
    let a = stream(&context);
    let bytes = Bytes::new(1);
    let event = context.new_event(None).expect("an event");
    // SAFETY: the buffer lives until the stream was waited for.
    unsafe {
        let pinned = result::malloc_host(1, 0).expect("memory").cast::<u8>();
        pinned.write(0);
        bytes.fill(1, a.cu_stream());
        event.record(&a).expect("recorded");
        let to = std::slice::from_raw_parts_mut(pinned, 1);
        result::memcpy_dtoh_async(to, bytes.address, a.cu_stream()).expect("a copy");
        event.synchronize().expect("done");
        assert_eq!(pinned.read_volatile(), 0);
        a.synchronize().expect("done");
        assert_eq!(pinned.read_volatile(), 1);
        result::free_host(pinned.cast()).expect("freed");
    }
}

#[test]
fn whoever_keeps_asking_gets_there() {
    let context = context();
    let a = stream(&context);
    let bytes = Bytes::new(1);
    (0..10).for_each(|value| bytes.fill(value, a.cu_stream()));
    let event = a.record_event(None).expect("recorded");
    let not_ready = (0..).take_while(|_| !event.try_is_complete().expect("an answer")).count();
    assert_eq!(not_ready, 10);
    bytes.fill(1, a.cu_stream());
    bytes.fill(2, a.cu_stream());
    // SAFETY: the stream exists.
    let query = || unsafe { sys::cuStreamQuery(a.cu_stream()) };
    assert_eq!([query(), query()], [Code::CUDA_ERROR_NOT_READY, Code::CUDA_SUCCESS]);
}

#[test]
fn times_are_taken_when_events_are_reached() {
    let context = context();
    let a = stream(&context);
    let timed = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
    let (start, end) =
        (context.new_event(timed).expect("an event"), context.new_event(timed).expect("an event"));
    let elapsed = || {
        let mut milliseconds = 0.0;
        // SAFETY: the pointer is valid.
        let code = unsafe { sys::cuEventElapsedTime(&mut milliseconds, start.cu_event(), end.cu_event()) };
        (code, milliseconds)
    };
    assert_eq!(elapsed().0, Code::CUDA_ERROR_INVALID_HANDLE);
    start.record(&a).expect("recorded");
    // SAFETY: the function takes nothing.
    unsafe { result::stream::launch_host_function(a.cu_stream(), nap, std::ptr::null_mut()) }
        .expect("queued");
    end.record(&a).expect("recorded");
    assert_eq!(elapsed().0, Code::CUDA_ERROR_NOT_READY);
    let milliseconds = start.elapsed_ms(&end).expect("a time");
    assert!((20.0..10_000.0).contains(&milliseconds), "{milliseconds}");
    let untimed = a.record_event(None).expect("recorded");
    a.synchronize().expect("done");
    assert_eq!(code(start.elapsed_ms(&untimed)), Code::CUDA_ERROR_INVALID_HANDLE);
}

unsafe extern "C" fn nap(_: *mut c_void) {
    std::thread::sleep(std::time::Duration::from_millis(20));
}

#[test]
fn functions_on_the_host_take_their_turn_and_may_not_call_back() {
    let context = context();
    let a = stream(&context);
    let mut seen = (0u8, Code::CUDA_SUCCESS);
    // SAFETY: the pinned byte and the result outlive the stream's work.
    unsafe {
        let pinned = result::malloc_host(1, 0).expect("memory").cast::<u8>();
        let bytes = Bytes::new(1);
        bytes.fill(4, a.cu_stream());
        let to = std::slice::from_raw_parts_mut(pinned, 1);
        result::memcpy_dtoh_async(to, bytes.address, a.cu_stream()).expect("a copy");
        let mut argument = (pinned, &raw mut seen);
        result::stream::launch_host_function(a.cu_stream(), look, (&raw mut argument).cast())
            .expect("queued");
        a.synchronize().expect("done");
        result::free_host(pinned.cast()).expect("freed");
    }
    assert_eq!(seen, (4, Code::CUDA_ERROR_NOT_PERMITTED));
}

unsafe extern "C" fn look(argument: *mut c_void) {
    // SAFETY: that is what was passed.
    unsafe {
        let (pinned, seen) = *argument.cast::<(*mut u8, *mut (u8, Code))>();
        *seen = (pinned.read(), sys::cuCtxSynchronize());
    }
}

#[test]
fn an_event_of_another_context_is_waited_for() {
    let first = context();
    let a = stream(&first);
    let bytes = Bytes::new(1);
    bytes.fill(1, a.cu_stream());
    let event = a.record_event(None).expect("recorded");
    let second = context();
    let b = stream(&second);
    let seen = Bytes::new(1);
    b.wait(&event).expect("ordered");
    seen.copy(&bytes, b.cu_stream());
    b.synchronize().expect("done");
    assert_eq!(seen.first(), 1);
    assert!(client().last_fault().is_ok());
    first.bind_to_thread().expect("bound");
    drop(bytes);
}

/// A device beside this one, whose work nobody here does.
#[test]
fn a_stream_waits_for_what_is_outside_and_others_go_on() {
    let context = context();
    let (a, b) = (stream(&context), stream(&context));
    let (bytes, other) = (Bytes::new(1), Bytes::new(1));
    bytes.fill(1, a.cu_stream());
    a.synchronize().expect("done");
    // Whether it is done, and how often it was asked.
    let mut outside = [0, 0];
    // SAFETY: it is there until the stream has been waited for, and this thread alone calls the driver.
    unsafe { client().outside(a.cu_stream().cast(), is_done, (&raw mut outside).cast()) }.expect("queued");
    bytes.fill(2, a.cu_stream());
    // SAFETY: the stream exists.
    let asked = |stream: &CudaStream| code(unsafe { sys::cuStreamQuery(stream.cu_stream()) }.result());
    for _ in 0..20 {
        assert_eq!(asked(&a), Code::CUDA_ERROR_NOT_READY);
    }
    other.fill(3, b.cu_stream());
    b.synchronize().expect("done");
    assert_eq!(asked(&b), Code::CUDA_SUCCESS);
    // SAFETY: as above; the driver writes to it while it is called, and not now.
    unsafe { (&raw mut outside).cast::<i32>().write_volatile(1) };
    a.synchronize().expect("done");
    assert_eq!((bytes.first(), other.first()), (2, 3));
    assert!(outside[1] > 1, "it was asked {} times", outside[1]);
}

unsafe extern "C" fn is_done(data: *mut c_void) -> i32 {
    // SAFETY: that is what was passed.
    let [done, asked] = unsafe { &mut *data.cast::<[i32; 2]>() };
    *asked += 1;
    *done
}
