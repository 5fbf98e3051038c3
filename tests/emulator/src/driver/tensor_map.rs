//! Tensor maps: descriptors of tensors in global memory, for copies by the tensor memory accelerator.

use std::ffi::c_void;

use super::abi::{In, Out};
use super::status::{Result, Status};
use super::{api, complain, unsupported, with_context};
use crate::tensor::tensor_map::{Field, MAP_BYTES, MAX_RANK, TensorMap, Tiled, replace};

/// Maps are aligned to as many bytes.
const ALIGNMENT: usize = 64;

/// Says why a map is refused, which the code does not.
fn refuse(message: String) -> Status {
    complain(&message);
    Status::INVALID_VALUE
}

fn check_alignment(map: Out<[u8; MAP_BYTES]>) -> Result {
    map.check()?;
    if (map.pointer() as usize).is_multiple_of(ALIGNMENT) {
        return Ok(());
    }
    Err(refuse(format!("a tensor map must be aligned to {ALIGNMENT} bytes")))
}

/// The values of each dimension; none where the rank makes no sense, which is refused later.
fn dimensions<T: Copy>(values: In<T>, count: u32) -> Result<Vec<T>> {
    if count as usize > MAX_RANK { Ok(Vec::new()) } else { values.all(count as usize) }
}

api! {
    fn cuTensorMapEncodeTiled(
        out: Out<[u8; MAP_BYTES]>, data_type: u32, rank: u32, address: *mut c_void, dims: In<u64>,
        strides: In<u64>, box_dim: In<u32>, element_strides: In<u32>, interleave: u32, swizzle: u32,
        l2_promotion: u32, oob_fill: u32,
    ) {
        // The address is only noted, but the documentation lists an invalid context among the errors.
        with_context(|_, _| Ok(()))?;
        check_alignment(out)?;
        let tiled = Tiled {
            data_type,
            rank,
            global_address: address as u64,
            dims: &dimensions(dims, rank)?,
            strides: &dimensions(strides, rank.saturating_sub(1))?,
            box_dim: &dimensions(box_dim, rank)?,
            element_strides: &dimensions(element_strides, rank)?,
            interleave,
            swizzle,
            l2_promotion,
            oob_fill,
        };
        out.set(TensorMap::encode_tiled(&tiled).map_err(refuse)?)
    }

    fn cuTensorMapReplaceAddress(map: Out<[u8; MAP_BYTES]>, address: *mut c_void) {
        check_alignment(map)?;
        let mut bytes = map.get()?;
        replace(&mut bytes, Field::GlobalAddress, 0, address as u64).map_err(refuse)?;
        TensorMap::decode(&bytes).map_err(refuse)?;
        map.set(bytes)
    }

    fn cuTensorMapEncodeIm2col() {
        unsupported("cuTensorMapEncodeIm2col")
    }
}
