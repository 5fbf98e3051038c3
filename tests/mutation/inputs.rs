//! PTX of the kernels under test, and numbers for them.

use std::sync::Arc;

use deepguard::cuda::images::{Code, IMAGES};
use deepguard::ops::philox::philox;
use half::bf16;

/// The PTX that nvcc made of a file of `kernels/`.
pub fn ptx(file: &str, arch: &str) -> Arc<str> {
    let wanted = |image: &&deepguard::cuda::images::Image| image.file == file && image.arch == arch;
    let found = IMAGES.iter().filter(wanted).find_map(|image| match image.code {
        Code::Ptx(text) => Some(text),
        Code::Cubin(_) => None,
    });
    found.unwrap_or_else(|| panic!("no PTX of {file} for sm_{arch}: make toolkit, then build again")).into()
}

/// `HeadShape` of `kernels/attention.h`.
#[derive(Clone, Copy, bytemuck::NoUninit)]
#[repr(C)]
pub struct HeadShape {
    query: i32,
    key_value: i32,
    dim: i32,
    group: i32,
    group_reciprocal: u32,
    scale: f32,
}

impl HeadShape {
    pub fn new(query: usize, key_value: usize, dim: usize, scale: f32) -> Self {
        let group = query / key_value;
        HeadShape {
            query: query as i32,
            key_value: key_value as i32,
            dim: dim as i32,
            group: group as i32,
            group_reciprocal: (1u64 << 32).div_ceil(group as u64) as u32,
            scale,
        }
    }
}

/// Integers from `-largest` to `largest`, none of them zero: nothing hides what it is multiplied with.
pub fn integers(len: usize, seed: u64, largest: i32) -> Vec<i32> {
    let number = |i: usize| {
        let n = 1 + (philox(seed, [i as u32, 0, 0, 0])[0] % (2 * largest as u32)) as i32;
        if n > largest { largest - n } else { n }
    };
    (0..len).map(number).collect()
}

/// Integers as f32.
pub fn f32s(values: &[i32]) -> Vec<f32> {
    values.iter().map(|&v| v as f32).collect()
}

/// Integers as bf16, which has to be exact.
pub fn bf16s(values: &[i32]) -> Vec<bf16> {
    let exact = |v: i32| {
        let narrow = bf16::from_f32(v as f32);
        assert_eq!(narrow.to_f32(), v as f32, "{v} is not exact in bf16");
        narrow
    };
    values.iter().map(|&v| exact(v)).collect()
}

/// Any 32-bit integers.
pub fn wide_integers(len: usize, seed: u64) -> Vec<i32> {
    (0..len).map(|i| philox(seed, [i as u32, 1, 0, 0])[0] as i32).collect()
}
