//! Operands to test with.

use crate::exact::Format;

/// Random numbers, the same in every run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    pub fn coin(&mut self) -> bool {
        self.next() & 1 == 0
    }
}

/// Random operands per test.
pub const COUNT: usize = 100_000;

/// Values at which something changes.
pub fn edges(format: Format) -> Vec<u64> {
    let (infinity, sign, one) = (format.infinity(), format.sign(), format.one());
    let smallest_normal = 1 << (format.precision - 1);
    let magnitudes = [
        0,
        1,
        2,
        3,
        smallest_normal / 2,
        smallest_normal - 1,
        smallest_normal,
        smallest_normal + 1,
        2 * smallest_normal,
        one / 2,
        one - smallest_normal,
        one - 1,
        one,
        one + 1,
        one + smallest_normal / 2,
        one + smallest_normal,
        one + smallest_normal * u64::from(format.precision),
        one + smallest_normal * u64::from(format.precision - 1) + 1,
        infinity - smallest_normal,
        infinity - 1,
        infinity,
        infinity + 1,
        infinity + smallest_normal / 2,
        infinity + smallest_normal / 2 + 1,
        sign - 1,
    ];
    magnitudes.iter().flat_map(|&m| [m, m | sign]).collect()
}

/// `arity` operands of one format: all combinations of edges (a part of them for three operands), and random
/// ones, half of these with exponents close to each other.
pub fn floats(format: Format, arity: usize, seed: u64) -> Vec<Vec<u64>> {
    let edges = edges(format);
    let mut random = Random::new(seed);
    let mut columns = vec![Vec::new(); arity];
    for i in 0..edges.len().pow(arity as u32) {
        let mut rest = i;
        for column in &mut columns {
            column.push(edges[rest % edges.len()]);
            rest /= edges.len();
        }
    }
    for i in 0..COUNT {
        let exponent = random.next() % format.infinity();
        for column in &mut columns {
            column.push(if i % 2 == 0 {
                random.next() & format.mask()
            } else {
                near(format, exponent, &mut random)
            });
        }
    }
    columns
}

/// A value with an exponent close to that of `center`, and often a fraction of few digits.
fn near(format: Format, center: u64, random: &mut Random) -> u64 {
    let unit = 1u64 << (format.precision - 1);
    let field = center / unit + random.next() % 5;
    let sparse = if random.coin() { u64::MAX } else { !0 << (random.next() % 64) };
    let fraction = random.next() & sparse & (unit - 1);
    let sign = if random.coin() { format.sign() } else { 0 };
    (field * unit + fraction).min(format.infinity() - 1) | sign
}

/// Integers: edges and random ones, in all combinations of the former.
pub fn integers(widths: &[u32], seed: u64) -> Vec<Vec<u64>> {
    let edges = |bits: u32| {
        let mask = u64::MAX >> (64 - bits);
        let top = 1u64 << (bits - 1);
        [
            0,
            1,
            2,
            3,
            7,
            8,
            15,
            16,
            31,
            32,
            33,
            63,
            64,
            65,
            255,
            256,
            top - 1,
            top,
            top + 1,
            mask - 1,
            mask,
            mask / 3,
        ]
        .map(|x| x & mask)
    };
    let mut random = Random::new(seed);
    let mut columns = vec![Vec::new(); widths.len()];
    let sets: Vec<_> = widths.iter().map(|&bits| edges(bits)).collect();
    let combinations = sets.iter().map(|set| set.len()).product::<usize>();
    for i in 0..combinations {
        let mut rest = i;
        for (column, set) in columns.iter_mut().zip(&sets) {
            column.push(set[rest % set.len()]);
            rest /= set.len();
        }
    }
    for _ in 0..COUNT {
        for (column, &bits) in columns.iter_mut().zip(widths) {
            let small = random.coin() && random.coin();
            let value = random.next() & u64::MAX >> (64 - bits);
            column.push(if small { value & 0x7f } else { value });
        }
    }
    columns
}

/// The columns as slices.
pub fn slices(columns: &[Vec<u64>]) -> Vec<&[u64]> {
    columns.iter().map(Vec::as_slice).collect()
}
