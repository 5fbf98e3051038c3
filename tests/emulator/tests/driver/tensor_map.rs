//! Tensor maps.

use cuda_emulator::tensor::swizzle::Swizzle as Spans;
use cuda_emulator::tensor::tensor_map::{DataType, TensorMap};
use cudarc::driver::{result, sys};
use sys::{CUtensorMapDataType as Element, CUtensorMapSwizzle as Swizzle};

use crate::support::{Code, client, context};

/// What a map is made of; the tests change one thing at a time.
#[derive(Clone)]
struct Request {
    element: Element,
    address: u64,
    sizes: Vec<u64>,
    strides: Vec<u64>,
    boxes: Vec<u32>,
    steps: Vec<u32>,
    swizzle: Swizzle,
}

/// Makes a request wrong.
type Change = fn(&mut Request);

fn request() -> Request {
    Request {
        element: Element::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        address: 0x7_0000_0100,
        sizes: vec![4096, 100],
        strides: vec![8192],
        boxes: vec![64, 128],
        steps: vec![1, 1],
        swizzle: Swizzle::CU_TENSOR_MAP_SWIZZLE_128B,
    }
}

fn encode(request: &Request) -> Result<TensorMap, Code> {
    client();
    let mut map = sys::CUtensorMap { opaque: [0; 16] };
    // SAFETY: the pointers are valid for the rank.
    let code = unsafe {
        sys::cuTensorMapEncodeTiled(
            &mut map,
            request.element,
            request.sizes.len() as u32,
            request.address as *mut _,
            request.sizes.as_ptr(),
            request.strides.as_ptr(),
            request.boxes.as_ptr(),
            request.steps.as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            request.swizzle,
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    if code != Code::CUDA_SUCCESS {
        return Err(code);
    }
    let mut bytes = [0; 128];
    for (bytes, word) in bytes.chunks_exact_mut(8).zip(map.opaque) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    Ok(TensorMap::decode(&bytes).expect("a map"))
}

/// The driver may ask for a context, whatever it does with it.
#[test]
fn a_map_needs_a_context() {
    client();
    result::init().expect("a driver");
    assert_eq!(encode(&request()).map(|_| ()), Err(Code::CUDA_ERROR_INVALID_CONTEXT));
    let _context = context();
    assert!(encode(&request()).is_ok());
}

#[test]
fn a_map_holds_what_it_was_made_of() {
    let _context = context();
    let map = encode(&request()).expect("a map");
    assert_eq!((map.global_address, map.rank), (0x7_0000_0100, 2));
    assert_eq!((map.data_type, map.swizzle), (DataType::Bf16, Spans::B128));
    assert_eq!((map.dims, map.strides), ([4096, 100, 1, 1, 1], [8192, 0, 0, 0]));
    assert_eq!((map.box_dim, map.element_strides), ([64, 128, 1, 1, 1], [1; 5]));
}

#[test]
fn what_the_hardware_cannot_do_is_refused() {
    let _context = context();
    let wrong: [(&str, Change); 8] = [
        ("address", |r| r.address += 8),
        ("stride", |r| r.strides[0] = 8200),
        ("empty dimension", |r| r.sizes[1] = 0),
        ("box", |r| r.boxes[1] = 257),
        ("row of a box longer than its span", |r| r.boxes[0] = 128),
        ("row of a box of 12 bytes", |r| r.boxes[0] = 6),
        ("element stride", |r| r.steps[0] = 9),
        ("six dimensions", |r| r.sizes = vec![1; 6]),
    ];
    for (what, change) in wrong {
        let mut changed = request();
        change(&mut changed);
        assert_eq!(encode(&changed).map(|_| ()), Err(Code::CUDA_ERROR_INVALID_VALUE), "{what}");
    }
}
