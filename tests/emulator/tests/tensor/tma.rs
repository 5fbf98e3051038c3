//! Copies of boxes against a loop over elements.

use crate::common::Random;
use cuda_emulator::tensor::tensor_map::{TensorMap, Tiled};
use std::collections::HashMap;

/// Global address of the tensor.
const GLOBAL: u64 = 0x4000_0000;

/// Number of the driver, and bytes, of one type of each width.
const TYPES: [(u32, u64); 4] = [(0, 1), (9, 2), (7, 4), (8, 8)];

struct Case {
    data_type: u32,
    size: u64,
    dims: Vec<u64>,
    strides: Vec<u64>,
    box_dim: Vec<u32>,
    element_strides: Vec<u32>,
    swizzle: u32,
    coordinates: Vec<i32>,
    shared: u32,
}

impl Case {
    fn random(random: &mut Random) -> Case {
        let (data_type, size) = TYPES[random.below(4)];
        let rank = 1 + random.below(5);
        let swizzle = random.below(4) as u32;
        let chunks = [8, 2, 4, 8][swizzle as usize];
        let inner = 16 * (1 + random.below(chunks)) as u64 / size;
        let dims: Vec<u64> = (0..rank).map(|_| 1 + random.below(40) as u64).collect();
        let mut strides = vec![(dims[0] * size).next_multiple_of(16) + 16 * random.below(3) as u64];
        for d in 1..rank {
            strides.push(strides[d - 1] * dims[d] + 16 * random.below(3) as u64);
        }
        strides.truncate(rank - 1);
        let mut box_dim: Vec<u32> = (0..rank).map(|_| 1 + random.below(5) as u32).collect();
        box_dim[0] = inner as u32;
        let element_strides = (0..rank).map(|_| 1 + random.below(3) as u32).collect();
        let coordinates = (0..rank).map(|d| random.below(dims[d] as usize + 12) as i32 - 8).collect();
        let shared = 128 * random.below(16) as u32;
        Case { data_type, size, dims, strides, box_dim, element_strides, swizzle, coordinates, shared }
    }

    fn map(&self) -> TensorMap {
        let arguments = Tiled {
            data_type: self.data_type,
            rank: self.dims.len() as u32,
            global_address: GLOBAL,
            dims: &self.dims,
            strides: &self.strides,
            box_dim: &self.box_dim,
            element_strides: &self.element_strides,
            interleave: 0,
            swizzle: self.swizzle,
            l2_promotion: 0,
            oob_fill: 0,
        };
        TensorMap::decode(&TensorMap::encode_tiled(&arguments).unwrap()).unwrap()
    }

    /// Shared address of each byte of the box, and the global address it goes with: element after element.
    fn bytes(&self) -> HashMap<u32, Option<u64>> {
        let mut bytes = HashMap::new();
        let mut index = vec![0u32; self.dims.len()];
        let mut linear = 0;
        loop {
            let global = self.element(&index);
            for byte in 0..self.size {
                let at = self.shared + linear;
                bytes.insert(swizzled(at, self.swizzle), global.map(|address| address + byte));
                linear += 1;
            }
            if !self.advance(&mut index) {
                return bytes;
            }
        }
    }

    /// Global address of an element of the box, counted in elements of the tensor from the box's corner.
    fn element(&self, index: &[u32]) -> Option<u64> {
        let mut address = GLOBAL;
        for (d, &i) in index.iter().enumerate() {
            let coordinate = i64::from(self.coordinates[d]) + i64::from(i);
            if coordinate < 0 || coordinate >= self.dims[d] as i64 {
                return None;
            }
            address += coordinate as u64 * if d == 0 { self.size } else { self.strides[d - 1] };
        }
        Some(address)
    }

    /// The next element that is copied, innermost dimension first; its traversal stride does not count.
    fn advance(&self, index: &mut [u32]) -> bool {
        for (d, i) in index.iter_mut().enumerate() {
            *i += if d == 0 { 1 } else { self.element_strides[d] };
            if *i < self.box_dim[d] {
                return true;
            }
            *i = 0;
        }
        false
    }
}

/// The bits of an address, some xored with others.
fn swizzled(address: u32, mode: u32) -> u32 {
    let bit = |i: u32| address >> i & 1;
    let moved = [(4, 7, 1), (5, 8, 2), (6, 9, 3)];
    moved.iter().filter(|(.., least)| mode >= *least).fold(address, |a, (low, high, _)| a ^ bit(*high) << low)
}

#[test]
fn boxes_cover_each_byte_once() {
    let mut random = Random::new(1);
    let (mut inside, mut outside, mut split) = (0, 0, 0);
    for _ in 0..2000 {
        let case = Case::random(&mut random);
        let expected = case.bytes();
        let map = case.map();
        let mut got = HashMap::new();
        for piece in map.pieces(&case.coordinates, case.shared).unwrap() {
            assert!(piece.bytes > 0 && u64::from(piece.bytes) % case.size == 0);
            for i in 0..piece.bytes {
                let global = piece.global.map(|address| address + u64::from(i));
                assert_eq!(got.insert(piece.shared + i, global), None, "a byte twice");
            }
            match piece.global {
                Some(_) => inside += 1,
                None => outside += 1,
            }
            split += usize::from(piece.bytes % 16 != 0);
        }
        assert!(got == expected, "{:?} box {:?} at {:?}", case.dims, case.box_dim, case.coordinates);
        assert_eq!(map.box_bytes() as usize, expected.len());
    }
    assert!(inside > 1000 && outside > 1000 && split > 1000, "{inside} {outside} {split}");
}

#[test]
fn rows_without_swizzling_are_one_piece() {
    let case = Case {
        data_type: 9,
        size: 2,
        dims: vec![256, 8],
        strides: vec![512],
        box_dim: vec![64, 4],
        element_strides: vec![1, 1],
        swizzle: 0,
        coordinates: vec![64, 2],
        shared: 256,
    };
    let pieces: Vec<_> = case.map().pieces(&case.coordinates, case.shared).unwrap().collect();
    let places: Vec<_> = pieces.iter().map(|p| (p.shared, p.global.unwrap(), p.bytes)).collect();
    let row = |i: u32| (256 + 128 * i, GLOBAL + 512 * u64::from(2 + i) + 128, 128);
    assert_eq!(places, (0..4).map(row).collect::<Vec<_>>());
}

#[test]
fn copies_are_checked() {
    let mut case = Case::random(&mut Random::new(2));
    case.coordinates.push(0);
    assert!(case.map().pieces(&case.coordinates, case.shared).err().unwrap().contains("coordinates"));
    case.coordinates.pop();
    assert!(case.map().pieces(&case.coordinates, 64).err().unwrap().contains("128"));
    // Far outside, in every direction, nothing overflows.
    for far in [i32::MIN, i32::MAX] {
        let coordinates = vec![far; case.dims.len()];
        assert!(case.map().pieces(&coordinates, 0).unwrap().all(|piece| piece.global.is_none()));
    }
}
