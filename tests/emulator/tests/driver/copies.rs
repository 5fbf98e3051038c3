//! Copies and fills: where the bytes are taken from, and when.

use cudarc::driver::{result, sys};

use crate::support::{Blocking, Bytes, Code, code, context, stream};

#[test]
fn vectors_go_to_the_device_and_back() {
    let context = context();
    let stream = stream(&context);
    let data: Vec<f32> = (0..1000).map(|i| i as f32 / 7.0).collect();
    let mut there = stream.clone_htod(&data).expect("a copy");
    let twice = stream.clone_dtod(&there).expect("a copy");
    stream.memset_zeros(&mut there).expect("a fill");
    assert_eq!(stream.clone_dtoh(&there).expect("a copy"), vec![0.0; 1000]);
    assert_eq!(stream.clone_dtoh(&twice).expect("a copy"), data);
}

#[test]
fn pageable_memory_is_read_when_the_copy_is_queued() {
    let context = context();
    let stream = stream(&context);
    let there = Bytes::new(4);
    let mut host = vec![1u8; 4];
    // SAFETY: the ranges are valid.
    unsafe { result::memcpy_htod_async(there.address, &host, stream.cu_stream()) }.expect("a copy");
    host.fill(2);
    assert_eq!(there.read(), [1; 4]);
}

#[test]
fn pinned_memory_is_read_when_the_copy_is_done() {
    let context = context();
    let stream = stream(&context);
    let there = Bytes::new(4);
    // SAFETY: freed below; only written while the copy waits, which is the mistake to be shown.
    unsafe {
        let pinned = result::malloc_host(4, 0).expect("memory").cast::<u8>();
        pinned.write_bytes(1, 4);
        let slice = std::slice::from_raw_parts(pinned, 4);
        result::memcpy_htod_async(there.address, slice, stream.cu_stream()).expect("a copy");
        pinned.write_bytes(2, 4);
        assert_eq!(there.read(), [2; 4]);
        result::free_host(pinned.cast()).expect("freed");
    }
}

#[test]
fn registered_memory_is_pinned_until_it_is_not() {
    let context = context();
    let stream = stream(&context);
    let there = Bytes::new(8);
    let mut host = vec![1u8; 8];
    let pointer: *mut std::ffi::c_void = host.as_mut_ptr().cast();
    // SAFETY: the vector lives until the end.
    unsafe {
        sys::cuMemHostRegister_v2(pointer, 8, 0).result().expect("registered");
        let again = sys::cuMemHostRegister_v2(pointer.byte_add(4), 8, 0);
        assert_eq!(again, Code::CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
        sys::cuMemcpyHtoDAsync_v2(there.address, pointer, 8, stream.cu_stream()).result().expect("a copy");
        pointer.cast::<u8>().write_bytes(2, 8);
        // Waits for the copy.
        sys::cuMemHostUnregister(pointer).result().expect("unregistered");
        assert_eq!(sys::cuMemHostUnregister(pointer), Code::CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
    }
    assert_eq!(there.read(), [2; 8]);
    drop(host);
}

#[test]
fn copies_to_pinned_memory_arrive_late() {
    let context = context();
    let stream = stream(&context);
    let there = Bytes::new(4);
    there.fill(7, stream.cu_stream());
    // SAFETY: freed below; read as the machine has it while the copy may write.
    unsafe {
        let pinned = result::malloc_host(4, 0).expect("memory").cast::<[u8; 4]>();
        pinned.write([0; 4]);
        sys::cuMemcpyDtoHAsync_v2(pinned.cast(), there.address, 4, stream.cu_stream())
            .result()
            .expect("a copy");
        assert_eq!(pinned.read_volatile(), [0; 4]);
        stream.synchronize().expect("done");
        assert_eq!(pinned.read_volatile(), [7; 4]);
        result::free_host(pinned.cast()).expect("freed");
    }
}

#[test]
fn copies_to_pageable_memory_are_waited_for() {
    let context = context();
    let stream = stream(&context);
    let there = Bytes::new(4);
    there.fill(7, stream.cu_stream());
    let mut host = [0u8; 4];
    // SAFETY: the ranges are valid.
    unsafe { result::memcpy_dtoh_async(&mut host, there.address, stream.cu_stream()) }.expect("a copy");
    assert_eq!(host, [7; 4]);
}

#[test]
fn a_synchronous_copy_waits_for_blocking_streams_only() {
    let context = context();
    let there = Bytes::new(4);
    there.fill(1, std::ptr::null_mut());
    let blocking = Blocking::new();
    there.fill(2, blocking.0);
    let mut host = [0u8; 4];
    // SAFETY: the ranges are valid.
    unsafe { result::memcpy_dtoh_sync(&mut host, there.address) }.expect("a copy");
    assert_eq!(host, [2; 4]);
    let apart = stream(&context);
    let seen = crate::support::outcomes(|| {
        there.fill(3, std::ptr::null_mut());
        context.synchronize().expect("done");
        there.fill(4, apart.cu_stream());
        // SAFETY: the ranges are valid.
        unsafe { result::memcpy_dtoh_sync(&mut host, there.address) }.expect("a copy");
        host[0]
    });
    assert!(seen.contains(&3) && seen.contains(&4), "{seen:?}");
}

#[test]
fn fills_write_their_pattern() {
    let _context = context();
    let there = Bytes::new(16);
    there.fill(0, std::ptr::null_mut());
    // SAFETY: the ranges are ours.
    unsafe {
        sys::cuMemsetD32_v2(there.address, 0x0403_0201, 2).result().expect("a fill");
        sys::cuMemsetD16_v2(there.address + 10, 0x0605, 2).result().expect("a fill");
        sys::cuMemsetD8_v2(there.address + 15, 9, 1).result().expect("a fill");
    }
    assert_eq!(there.read(), [1, 2, 3, 4, 1, 2, 3, 4, 0, 0, 5, 6, 5, 6, 0, 9]);
}

#[test]
fn copies_in_two_dimensions_skip_what_lies_between() {
    let _context = context();
    let there = Bytes::new(32);
    there.fill(0, std::ptr::null_mut());
    let host: Vec<u8> = (0..12).collect();
    let parameters = sys::CUDA_MEMCPY2D {
        srcXInBytes: 1,
        srcY: 1,
        srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_HOST,
        srcHost: host.as_ptr().cast(),
        srcDevice: 0,
        srcArray: std::ptr::null_mut(),
        srcPitch: 4,
        dstXInBytes: 0,
        dstY: 1,
        dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
        dstHost: std::ptr::null_mut(),
        dstDevice: there.address,
        dstArray: std::ptr::null_mut(),
        dstPitch: 8,
        WidthInBytes: 3,
        Height: 2,
    };
    // SAFETY: the ranges are valid.
    unsafe { sys::cuMemcpy2D_v2(&parameters) }.result().expect("a copy");
    let read = there.read();
    assert_eq!(read[8..11], [5, 6, 7]);
    assert_eq!(read[16..19], [9, 10, 11]);
    assert_eq!(read.iter().filter(|byte| **byte != 0).count(), 6);
    let beyond = sys::CUDA_MEMCPY2D { Height: 4, ..parameters };
    // SAFETY: the call is refused.
    assert_eq!(unsafe { sys::cuMemcpy2D_v2(&beyond) }, Code::CUDA_ERROR_INVALID_VALUE);
}

#[test]
fn wrong_ranges_are_refused_when_the_call_is_made() {
    let context = context();
    let stream = stream(&context);
    let there = Bytes::new(16);
    let mut host = [0u8; 32];
    let queue = stream.cu_stream();
    // SAFETY: the calls are refused.
    unsafe {
        let long = result::memcpy_htod_async(there.address, &host, queue);
        assert_eq!(code(long), Code::CUDA_ERROR_INVALID_VALUE);
        let long = result::memcpy_dtoh_async(&mut host, there.address, queue);
        assert_eq!(code(long), Code::CUDA_ERROR_INVALID_VALUE);
        let before = result::memset_d8_async(there.address - 1, 0, 4, queue);
        assert_eq!(code(before), Code::CUDA_ERROR_INVALID_VALUE);
        let nowhere = result::memcpy_dtod_async(there.address, 0x1000, 16, queue);
        assert_eq!(code(nowhere), Code::CUDA_ERROR_INVALID_VALUE);
        let null = sys::cuMemcpyHtoD_v2(there.address, std::ptr::null(), 16);
        assert_eq!(null, Code::CUDA_ERROR_INVALID_VALUE);
        let crooked = sys::cuMemsetD32Async(there.address + 2, 0, 1, queue);
        assert_eq!(crooked, Code::CUDA_ERROR_INVALID_VALUE);
        let nothing = result::memset_d8_async(there.address, 0, 0, queue);
        assert_eq!(code(nothing), Code::CUDA_SUCCESS);
    }
}
