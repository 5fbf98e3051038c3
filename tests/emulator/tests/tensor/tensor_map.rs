//! Encoding of tensor maps: what the driver accepts, and what a device may change.

use cuda_emulator::tensor::swizzle::Swizzle;
use cuda_emulator::tensor::tensor_map::{DataType, Field, Fill, MAP_BYTES, TensorMap, Tiled, replace};

/// A map of rank 3 that is accepted: bf16, 100 by 70 by 3, box 64 by 16 by 2.
const ACCEPTED: Tiled<'static> = Tiled {
    data_type: 9,
    rank: 3,
    global_address: 0x7f00_0000_0010,
    dims: &[100, 70, 3],
    strides: &[208, 208 * 70],
    box_dim: &[64, 16, 2],
    element_strides: &[1, 1, 2],
    interleave: 0,
    swizzle: 3,
    l2_promotion: 2,
    oob_fill: 1,
};

#[test]
fn decoding_inverts_encoding() {
    let map = TensorMap::decode(&TensorMap::encode_tiled(&ACCEPTED).unwrap()).unwrap();
    let expected = TensorMap {
        data_type: DataType::Bf16,
        rank: 3,
        global_address: 0x7f00_0000_0010,
        dims: [100, 70, 3, 1, 1],
        strides: [208, 14560, 0, 0],
        box_dim: [64, 16, 2, 1, 1],
        element_strides: [1, 1, 2, 1, 1],
        swizzle: Swizzle::B128,
        fill: Fill::Nan,
    };
    assert_eq!(map, expected);
}

#[test]
fn extremes_survive_encoding() {
    let arguments = Tiled {
        data_type: 0,
        rank: 5,
        dims: &[1 << 32, 1, 2, 3, 1 << 32],
        strides: &[16, (1 << 40) - 16, 32, 0],
        box_dim: &[256, 256, 1, 1, 256],
        element_strides: &[8, 1, 2, 3, 8],
        swizzle: 0,
        oob_fill: 0,
        ..ACCEPTED
    };
    let map = TensorMap::decode(&TensorMap::encode_tiled(&arguments).unwrap()).unwrap();
    assert_eq!(map.dims, [1 << 32, 1, 2, 3, 1 << 32]);
    assert_eq!(map.strides, [16, (1 << 40) - 16, 32, 0]);
    assert_eq!(map.box_dim, [256, 256, 1, 1, 256]);
    assert_eq!(map.element_strides, [8, 1, 2, 3, 8]);
}

#[test]
fn every_supported_data_type_has_its_numbers() {
    let types = [
        (0, 0, DataType::U8, 1),
        (1, 1, DataType::U16, 2),
        (2, 2, DataType::U32, 4),
        (3, 3, DataType::S32, 4),
        (4, 4, DataType::U64, 8),
        (5, 5, DataType::S64, 8),
        (6, 6, DataType::F16, 2),
        (7, 7, DataType::F32, 4),
        (8, 9, DataType::F64, 8),
        (9, 10, DataType::Bf16, 2),
    ];
    for (driver, ptx, data_type, bytes) in types {
        let arguments = Tiled { data_type: driver, box_dim: &[16, 1, 1], oob_fill: 0, ..ACCEPTED };
        let mut encoded = TensorMap::encode_tiled(&arguments).unwrap();
        assert_eq!(TensorMap::decode(&encoded).unwrap().data_type, data_type);
        assert_eq!(data_type.bytes(), bytes);
        replace(&mut encoded, Field::ElementType, 0, 0).unwrap();
        assert_eq!(TensorMap::decode(&encoded).unwrap().data_type, DataType::U8);
        replace(&mut encoded, Field::ElementType, 0, ptx).unwrap();
        assert_eq!(TensorMap::decode(&encoded).unwrap().data_type, data_type);
    }
}

#[test]
fn every_argument_is_checked() {
    let wide = Tiled { box_dim: &[128, 16, 2], swizzle: 0, ..ACCEPTED };
    assert!(TensorMap::encode_tiled(&wide).is_ok());
    let wrong = [
        ("rank", Tiled { rank: 0, dims: &[], strides: &[], box_dim: &[], element_strides: &[], ..ACCEPTED }),
        ("rank", Tiled { rank: 6, ..ACCEPTED }),
        ("dimensions", Tiled { dims: &[100, 70], ..ACCEPTED }),
        ("strides", Tiled { strides: &[208, 208, 208], ..ACCEPTED }),
        ("data type 11", Tiled { data_type: 11, ..ACCEPTED }),
        ("data type 13", Tiled { data_type: 13, ..ACCEPTED }),
        ("data type 16 does not exist", Tiled { data_type: 16, ..ACCEPTED }),
        ("null", Tiled { global_address: 0, ..ACCEPTED }),
        ("address", Tiled { global_address: 0x7f00_0000_0008, ..ACCEPTED }),
        ("dimension", Tiled { dims: &[100, 0, 3], ..ACCEPTED }),
        ("dimension", Tiled { dims: &[100, (1 << 32) + 1, 3], ..ACCEPTED }),
        ("stride", Tiled { strides: &[200, 14560], ..ACCEPTED }),
        ("stride", Tiled { strides: &[208, 1 << 40], ..ACCEPTED }),
        ("box dimension", Tiled { box_dim: &[64, 257, 2], ..ACCEPTED }),
        ("box dimension", Tiled { box_dim: &[64, 0, 2], ..ACCEPTED }),
        ("16 bytes wide", Tiled { box_dim: &[60, 16, 2], ..ACCEPTED }),
        ("span of 128", Tiled { box_dim: &[128, 16, 2], ..ACCEPTED }),
        ("span of 64", Tiled { swizzle: 2, ..ACCEPTED }),
        ("span of 32", Tiled { swizzle: 1, ..ACCEPTED }),
        ("element stride", Tiled { element_strides: &[1, 0, 1], ..ACCEPTED }),
        ("element stride", Tiled { element_strides: &[1, 9, 1], ..ACCEPTED }),
        ("interleave layout 1", Tiled { interleave: 1, ..ACCEPTED }),
        ("interleave layout 3", Tiled { interleave: 3, ..ACCEPTED }),
        ("swizzle mode 4", Tiled { swizzle: 4, ..ACCEPTED }),
        ("L2 promotion", Tiled { l2_promotion: 4, ..ACCEPTED }),
        ("fill mode 2", Tiled { oob_fill: 2, ..ACCEPTED }),
        ("NaN", Tiled { data_type: 1, ..ACCEPTED }),
    ];
    for (message, arguments) in wrong {
        let error = TensorMap::encode_tiled(&arguments).unwrap_err();
        assert!(error.contains(message), "{message}: {error}");
    }
}

#[test]
fn a_device_builds_a_map_from_zeros() {
    let mut bytes = [0; MAP_BYTES];
    // What was never set has its default; only the box is too narrow.
    assert!(TensorMap::decode(&bytes).unwrap_err().contains("16 bytes wide"));
    let steps = [
        ("global_address", 0, 0x7f00_0000_0010),
        ("rank", 0, 2),
        ("box_dim", 0, 64),
        ("box_dim", 1, 16),
        ("box_dim", 2, 2),
        ("global_dim", 0, 100),
        ("global_dim", 1, 70),
        ("global_dim", 2, 3),
        ("global_stride", 0, 208),
        ("global_stride", 1, 14560),
        ("element_stride", 2, 2),
        ("elemtype", 0, 10),
        ("interleave_layout", 0, 0),
        ("swizzle_mode", 0, 3),
        ("swizzle_atomicity", 0, 0),
        ("fill_mode", 0, 1),
    ];
    for (name, ordinal, value) in steps {
        replace(&mut bytes, Field::parse(name).unwrap(), ordinal, value).unwrap();
    }
    assert_eq!(bytes, TensorMap::encode_tiled(&ACCEPTED).unwrap());
    assert_eq!(Field::parse("bounding_box"), None);
    assert!(Field::BoxDim.has_ordinal() && !Field::ElementType.has_ordinal());
}

#[test]
fn wrong_replacements_are_refused() {
    let accepted = TensorMap::encode_tiled(&ACCEPTED).unwrap();
    let wrong = [
        (Field::Rank, 0, 5),
        (Field::Rank, 1, 1),
        (Field::BoxDim, 0, 0),
        (Field::BoxDim, 0, 257),
        (Field::BoxDim, 5, 1),
        (Field::GlobalDim, 0, 0),
        (Field::GlobalDim, 5, 1),
        (Field::GlobalStride, 4, 16),
        (Field::ElementStride, 0, 9),
        (Field::ElementType, 0, 8),
        (Field::ElementType, 0, 13),
        (Field::ElementType, 0, 16),
        (Field::InterleaveLayout, 0, 1),
        (Field::SwizzleMode, 0, 4),
        (Field::SwizzleAtomicity, 0, 1),
        (Field::FillMode, 0, 2),
    ];
    for (field, ordinal, value) in wrong {
        let mut bytes = accepted;
        assert!(replace(&mut bytes, field, ordinal, value).is_err(), "{field:?} {ordinal} {value}");
        assert_eq!(bytes, accepted);
    }
    // These depend on other fields, and are found when the map is used.
    for (field, value) in [(Field::GlobalAddress, 8), (Field::SwizzleMode, 2), (Field::ElementType, 0)] {
        let mut bytes = accepted;
        replace(&mut bytes, field, 0, value).unwrap();
        assert!(TensorMap::decode(&bytes).is_err(), "{field:?}");
    }
}

#[test]
fn other_bytes_are_no_map() {
    for at in [74, 79, 80, MAP_BYTES - 1] {
        let mut bytes = TensorMap::encode_tiled(&ACCEPTED).unwrap();
        bytes[at] = 1;
        assert!(TensorMap::decode(&bytes).unwrap_err().contains("reserved"), "{at}");
    }
    assert!(TensorMap::decode(&[0xff; MAP_BYTES]).is_err());
}

#[test]
fn fills_by_type() {
    let map = |data_type, oob_fill| {
        let arguments = Tiled { data_type, box_dim: &[16, 1, 1], oob_fill, ..ACCEPTED };
        TensorMap::decode(&TensorMap::encode_tiled(&arguments).unwrap()).unwrap()
    };
    let filled = |map: TensorMap| {
        let mut bytes = [0xaa; 8];
        map.fill(&mut bytes);
        bytes
    };
    assert_eq!(filled(map(9, 0)), [0; 8]);
    assert_eq!(filled(map(9, 1)), [0xff, 0x7f, 0xff, 0x7f, 0xff, 0x7f, 0xff, 0x7f]);
    assert!(f32::from_le_bytes(filled(map(7, 1))[..4].try_into().unwrap()).is_nan());
    assert!(f64::from_le_bytes(filled(map(8, 1))).is_nan());
}
