//! Allocations, pools, and what is freed when.

use cudarc::driver::{result, sys};

use crate::support::{Bytes, Code, code, context, outcomes, stream};

#[test]
fn only_starts_of_live_allocations_can_be_freed() {
    let _context = context();
    // SAFETY: wrong addresses are refused.
    unsafe {
        let address = result::malloc_sync(64).expect("memory");
        assert_eq!(code(result::free_sync(address + 4)), Code::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(code(result::free_sync(address)), Code::CUDA_SUCCESS);
        assert_eq!(code(result::free_sync(address)), Code::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(code(result::malloc_sync(0)), Code::CUDA_ERROR_INVALID_VALUE);
    }
}

#[test]
fn freeing_in_stream_order_happens_once() {
    let context = context();
    let stream = stream(&context);
    // SAFETY: wrong addresses are refused.
    unsafe {
        let address = result::malloc_async(stream.cu_stream(), 64).expect("memory");
        assert_eq!(code(result::free_async(address + 4, stream.cu_stream())), Code::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(code(result::free_async(address, stream.cu_stream())), Code::CUDA_SUCCESS);
        assert_eq!(code(result::free_async(address, stream.cu_stream())), Code::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(code(result::free_sync(address)), Code::CUDA_ERROR_INVALID_VALUE);
    }
    stream.synchronize().expect("done");
}

#[test]
fn memory_freed_in_stream_order_is_good_until_then() {
    let context = context();
    let stream = stream(&context);
    let kept = Bytes::new(4);
    // SAFETY: the stream orders the uses before the free.
    unsafe {
        let address = result::malloc_async(stream.cu_stream(), 4).expect("memory");
        result::memset_d8_async(address, 5, 4, stream.cu_stream()).expect("a fill");
        result::memcpy_dtod_async(kept.address, address, 4, stream.cu_stream()).expect("a copy");
        result::free_async(address, stream.cu_stream()).expect("freed");
        stream.synchronize().expect("done");
        let late = result::memset_d8_async(address, 5, 4, stream.cu_stream());
        assert_eq!(code(late), Code::CUDA_ERROR_INVALID_VALUE);
    }
    assert_eq!(kept.read(), [5; 4]);
}

#[test]
fn a_use_that_races_with_a_free_is_found() {
    let codes: Vec<Code> = (0..crate::support::SEEDS)
        .map(|seed| {
            let context = context();
            crate::support::seed(seed);
            let (a, b) = (stream(&context), stream(&context));
            // SAFETY: the race is the mistake to be found; the addresses are checked.
            unsafe {
                let address = result::malloc_async(a.cu_stream(), 4).expect("memory");
                a.synchronize().expect("done");
                result::memset_d8_async(address, 1, 4, b.cu_stream()).expect("a fill");
                result::free_async(address, a.cu_stream()).expect("freed");
            }
            code(context.synchronize())
        })
        .collect();
    assert!(codes.contains(&Code::CUDA_SUCCESS), "{codes:?}");
    assert!(codes.contains(&Code::CUDA_ERROR_ILLEGAL_ADDRESS), "{codes:?}");
    assert!(codes.iter().all(|c| matches!(c, Code::CUDA_SUCCESS | Code::CUDA_ERROR_ILLEGAL_ADDRESS)));
}

#[test]
fn a_fault_sticks_to_its_context_only() {
    let sound = context();
    let broken = context();
    let (a, b) = (stream(&broken), stream(&broken));
    for seed in 0.. {
        crate::support::seed(seed);
        // SAFETY: the race is the mistake to be found; the addresses are checked.
        unsafe {
            let address = result::malloc_async(a.cu_stream(), 4).expect("memory");
            result::memset_d8_async(address, 1, 4, b.cu_stream()).expect("a fill");
            result::free_async(address, a.cu_stream()).expect("freed");
        }
        if broken.synchronize().is_err() {
            break;
        }
        assert!(seed < 1000, "no seed shows the race");
    }
    let illegal = Code::CUDA_ERROR_ILLEGAL_ADDRESS;
    // SAFETY: the calls are refused.
    unsafe {
        assert_eq!(code(result::malloc_sync(16)), illegal);
        assert_eq!(code(result::ctx::synchronize()), illegal);
        assert_eq!(code(result::stream::synchronize(a.cu_stream())), illegal);
        assert_eq!(code(result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT)), illegal);
    }
    let _ = broken.check_err();
    sound.bind_to_thread().expect("a sound context");
    let bytes = Bytes::new(4);
    bytes.fill(3, std::ptr::null_mut());
    assert_eq!(bytes.first(), 3);
}

#[test]
fn pools_keep_accounts() {
    let context = context();
    let stream = stream(&context);
    // SAFETY: zero is valid for properties.
    let mut props: sys::CUmemPoolProps = unsafe { std::mem::zeroed() };
    props.allocType = sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
    props.location.type_ = sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE;
    // SAFETY: the pointers are valid.
    unsafe {
        let pool = result::mem_pool::create(&props).expect("a pool");
        let get = |attribute| {
            let mut value = 0u64;
            result::mem_pool::get_attribute(pool, attribute, (&raw mut value).cast()).expect("a value");
            value
        };
        use sys::CUmemPool_attribute as Attribute;
        let mut threshold = u64::MAX;
        let release = Attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        result::mem_pool::set_attribute(pool, release, (&raw mut threshold).cast()).expect("set");
        assert_eq!(get(release), u64::MAX);
        let address = result::mem_pool::alloc_async(pool, 1000, stream.cu_stream()).expect("memory");
        assert_eq!(get(Attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT), 1000);
        result::free_async(address, stream.cu_stream()).expect("freed");
        // The memory is in use until the stream gets there.
        assert_eq!(get(Attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT), 1000);
        stream.synchronize().expect("done");
        assert_eq!(get(Attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT), 0);
        assert!(get(Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT) >= 1000);
        result::mem_pool::trim_to(pool, 0).expect("trimmed");
        assert_eq!(get(Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT), 0);
        assert_eq!(get(Attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH), 1000);
        result::mem_pool::destroy(pool).expect("destroyed");
        assert_eq!(code(result::mem_pool::trim_to(pool, 0)), Code::CUDA_ERROR_INVALID_VALUE);
    }
}

#[test]
fn pinned_memory_has_one_address() {
    let _context = context();
    // SAFETY: freed below.
    unsafe {
        let pinned = result::malloc_host(100, 0).expect("memory");
        let mut device = 0;
        sys::cuMemHostGetDevicePointer_v2(&mut device, pinned, 0).result().expect("an address");
        assert_eq!(device, pinned as u64);
        let (mut base, mut len) = (0, 0);
        sys::cuMemGetAddressRange_v2(&mut base, &mut len, device + 50).result().expect("a range");
        assert_eq!((base, len), (device, 100));
        let host = [0u8; 4];
        let pageable = sys::cuMemHostGetDevicePointer_v2(&mut device, host.as_ptr().cast_mut().cast(), 0);
        assert_eq!(pageable, Code::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(code(result::free_sync(pinned as u64)), Code::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(code(result::free_host(pinned)), Code::CUDA_SUCCESS);
        assert_eq!(code(result::free_host(pinned)), Code::CUDA_ERROR_INVALID_VALUE);
    }
}

#[test]
fn managed_memory_is_used_from_both_sides() {
    let context = context();
    let stream = stream(&context);
    // SAFETY: the host only looks when the device is done.
    unsafe {
        let flags = sys::CUmemAttach_flags::CU_MEM_ATTACH_GLOBAL;
        let address = result::malloc_managed(8, flags).expect("memory");
        result::memset_d8_async(address, 6, 8, stream.cu_stream()).expect("a fill");
        stream.synchronize().expect("done");
        assert_eq!(std::slice::from_raw_parts(address as *const u8, 8), [6; 8]);
        result::memory_free(address).expect("freed");
    }
}

#[test]
fn freeing_waits_for_all_streams() {
    let context = context();
    let stream = stream(&context);
    let kept = Bytes::new(4);
    let values = outcomes(|| {
        let bytes = Bytes::new(4);
        bytes.fill(9, stream.cu_stream());
        kept.copy(&bytes, stream.cu_stream());
        drop(bytes);
        kept.first()
    });
    assert!(values.iter().all(|value| *value == 9), "{values:?}");
}
