//! Philox4x32-10, the counter-based random generator behind dropout and sampling (Salmon et al., SC 2011).
//!
//! A random number is a pure function of (seed, counter): the same mask on every backend, nothing stored,
//! nothing to save for an exact resume but the step.

const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Four random 32-bit words for a 64-bit seed and a 128-bit counter.
#[inline(always)]
pub fn philox(seed: u64, counter: [u32; 4]) -> [u32; 4] {
    let mut key = [seed as u32, (seed >> 32) as u32];
    let mut c = counter;
    for _ in 0..10 {
        let p0 = u64::from(MULTIPLIER[0]) * u64::from(c[0]);
        let p1 = u64::from(MULTIPLIER[1]) * u64::from(c[2]);
        c = [(p1 >> 32) as u32 ^ c[1] ^ key[0], p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ key[1], p0 as u32];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    c
}

/// A uniform number in [0, 1) with 24 random bits.
pub fn unit(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / (1 << 24) as f32)
}

/// Decisions that one Philox block covers: each takes 16 of its 128 bits.
pub const DROPOUT_GROUP: usize = 8;

/// A dropout mask: element (row, column) is kept with probability `1 − threshold / 65536`.
///
/// The counter is (row key, column / 8, site, step), so a mask depends on the row's key, not on the row's
/// place in a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DropoutKey {
    /// The run's seed.
    pub seed: u64,
    /// Optimiser step.
    pub step: u32,
    /// Which dropout of the network.
    pub site: u32,
    /// An element is dropped where its 16 random bits are below this.
    pub threshold: u32,
}

impl DropoutKey {
    /// A mask that drops with probability `p` in [0, 1), rounded to 1/65536; `None` when nothing is dropped.
    pub fn new(p: f32, seed: u64, step: u32, site: u32) -> Option<Self> {
        let threshold = (p * 65536.0).round() as u32;
        (threshold > 0).then_some(DropoutKey { seed, step, site, threshold })
    }

    /// Factor of kept elements: 1 / P(kept).
    pub fn scale(self) -> f32 {
        65536.0 / (65536 - self.threshold) as f32
    }

    /// Whether each of the eight columns `8·group ..` of the row with this key is kept.
    #[inline(always)]
    pub fn keep(self, row_key: u32, group: u32) -> [bool; DROPOUT_GROUP] {
        let words = philox(self.seed, [row_key, group, self.site, self.step]);
        std::array::from_fn(|i| ((words[i / 2] >> (16 * (i % 2))) & 0xFFFF) >= self.threshold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers published with the reference implementation (Random123, kat_vectors).
    #[test]
    fn known_answers() {
        assert_eq!(philox(0, [0; 4]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox(u64::MAX, [u32::MAX; 4]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        assert_eq!(philox(0x299f_31d0_a409_3822, pi), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn drops_at_the_asked_rate() {
        let key = DropoutKey::new(0.1, 7, 3, 5).unwrap();
        let dropped = (0..20_000u32).flat_map(|g| key.keep(11, g)).filter(|kept| !kept).count();
        let expected = 160_000.0 * f64::from(key.threshold) / 65536.0;
        assert!((dropped as f64 - expected).abs() < 5.0 * (expected * 0.9).sqrt(), "{dropped} vs {expected}");
    }
}
