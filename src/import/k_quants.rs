//! The k-quants of GGUF and IQ4_XS, bit for bit what ggml's reference functions compute.
//!
//! A block has 256 values. With Q4_K and Q5_K it has eight groups of 32, each with a scale and a minimum of 6
//! bits, and f16 factors for both; with Q2_K, Q3_K and Q6_K sixteen groups of 16 with a scale of 4, 6 or 8
//! bits; with IQ4_XS eight groups of 32 with a scale of 6 bits, whose values are levels of a table:
//! ```text
//! Q2_K   scales:[u8; 16], quants:[u8; 64], d:f16, dmin:f16                  x = d·scale · q − dmin·min
//! Q3_K   high:[u8; 32], quants:[u8; 64], scales:[u8; 12], d:f16             x = d·(scale − 32) · (q − 4)
//! IQ4_XS d:f16, high:u16, low:[u8; 4], nibbles:[u8; 128]                    x = d·(scale − 32) · LEVELS[q]
//! Q4_K   d:f16, dmin:f16, scales:[u8; 12], nibbles:[u8; 128]                x = d·scale · q − dmin·min
//! Q5_K   d:f16, dmin:f16, scales:[u8; 12], high:[u8; 32], nibbles:[u8; 128] the same with q of 5 bits
//! Q6_K   low:[u8; 128], high:[u8; 64], scales:[i8; 16], d:f16               x = d·scale · (q − 32)
//! ```
//! Nibbles: the low ones of 32 bytes are a group, the high ones the next. Products are rounded before a
//! difference.

use half::f16;

/// Values of a block.
pub(super) const BLOCK: usize = 256;
/// Bytes of a block of each type.
pub(super) const Q4_K_BYTES: usize = 4 + 12 + 128;
pub(super) const Q5_K_BYTES: usize = Q4_K_BYTES + 32;
pub(super) const Q6_K_BYTES: usize = 128 + 64 + 16 + 2;
pub(super) const Q2_K_BYTES: usize = 16 + 64 + 4;
pub(super) const Q3_K_BYTES: usize = 32 + 64 + 12 + 2;
pub(super) const IQ4_XS_BYTES: usize = 2 + 2 + 4 + 128;

/// What the nibbles of IQ4_NL and IQ4_XS stand for.
pub(super) const LEVELS: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Values of a group with its own scale and minimum.
const GROUP: usize = 32;

fn f16_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// Scale and minimum of a group, 6 bits each. Those of the first four groups are whole; the others have their
/// low four bits in bytes of their own, and their high two in what the first ones leave free.
fn scale_and_minimum(scales: &[u8], group: usize) -> (f32, f32) {
    let (scale, minimum) = match group.checked_sub(4) {
        None => (scales[group] & 63, scales[group + 4] & 63),
        Some(late) => (
            (scales[group + 4] & 15) | (scales[late] >> 6) << 4,
            (scales[group + 4] >> 4) | (scales[group] >> 6) << 4,
        ),
    };
    (f32::from(scale), f32::from(minimum))
}

pub(super) fn decode_q4_k(block: &[u8], out: &mut [f32]) {
    let (scales, nibbles) = (&block[4..16], &block[16..]);
    decode_groups(block, scales, out, |group, i| nibble(nibbles, group, i));
}

pub(super) fn decode_q5_k(block: &[u8], out: &mut [f32]) {
    let (scales, high, nibbles) = (&block[4..16], &block[16..48], &block[48..]);
    decode_groups(block, scales, out, |group, i| nibble(nibbles, group, i) | (high[i] >> group & 1) << 4);
}

/// Value `i` of a group: two groups share 32 bytes.
fn nibble(nibbles: &[u8], group: usize, i: usize) -> u8 {
    nibbles[group / 2 * GROUP + i] >> (4 * (group % 2)) & 15
}

fn decode_groups(block: &[u8], scales: &[u8], out: &mut [f32], quant: impl Fn(usize, usize) -> u8) {
    let (d, d_minimum) = (f16_at(block, 0), f16_at(block, 2));
    for (group, out) in out.chunks_exact_mut(GROUP).enumerate() {
        let (scale, minimum) = scale_and_minimum(scales, group);
        let (scale, minimum) = (d * scale, d_minimum * minimum);
        for (i, out) in out.iter_mut().enumerate() {
            *out = scale * f32::from(quant(group, i)) - minimum;
        }
    }
}

pub(super) fn decode_q6_k(block: &[u8], out: &mut [f32]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = f16_at(block, 208);
    for (i, out) in out.iter_mut().enumerate() {
        // Half a block has 128 values in four quarters of 32: they share 64 bytes of nibbles and 32 of high
        // bits.
        let (half, quarter, at) = (i / 128, i % 128 / 32, i % 32);
        let nibble = low[half * 64 + quarter % 2 * 32 + at] >> (4 * (quarter / 2)) & 15;
        let bits = high[half * 32 + at] >> (2 * quarter) & 3;
        let quant = i32::from(nibble | bits << 4) - 32;
        *out = d * f32::from(scales[i / 16] as i8) * quant as f32;
    }
}

/// Two bits of value `i`: half a block has 128 values in four quarters of 32, which share 32 bytes.
fn two_bits(quants: &[u8], i: usize) -> u8 {
    quants[i / 128 * 32 + i % 32] >> (2 * (i % 128 / 32)) & 3
}

pub(super) fn decode_q2_k(block: &[u8], out: &mut [f32]) {
    let (scales, quants) = (&block[..16], &block[16..80]);
    let (d, d_minimum) = (f16_at(block, 80), f16_at(block, 82));
    for (i, out) in out.iter_mut().enumerate() {
        let scale = scales[i / 16];
        let (scale, minimum) = (d * f32::from(scale & 15), d_minimum * f32::from(scale >> 4));
        *out = scale * f32::from(two_bits(quants, i)) - minimum;
    }
}

/// Scale of a group of Q3_K: four bits in a nibble, two in the last four bytes.
fn scale_of_six_bits(scales: &[u8], group: usize) -> i8 {
    let low = scales[group % 8] >> (4 * (group / 8)) & 15;
    let high = scales[8 + group % 4] >> (2 * (group / 4)) & 3;
    (low | high << 4) as i8 - 32
}

pub(super) fn decode_q3_k(block: &[u8], out: &mut [f32]) {
    let (high, quants, scales) = (&block[..32], &block[32..96], &block[96..108]);
    let d = f16_at(block, 108);
    for (i, out) in out.iter_mut().enumerate() {
        let bit = high[i % 32] >> (i / 32) & 1;
        let quant = two_bits(quants, i) as i8 - if bit == 1 { 0 } else { 4 };
        *out = d * f32::from(scale_of_six_bits(scales, i / 16)) * f32::from(quant);
    }
}

pub(super) fn decode_iq4_xs(block: &[u8], out: &mut [f32]) {
    let (high, low, nibbles) = (u16::from_le_bytes([block[2], block[3]]), &block[4..8], &block[8..]);
    let d = f16_at(block, 0);
    for (group, out) in out.chunks_exact_mut(GROUP).enumerate() {
        let scale = low[group / 2] >> (4 * (group % 2)) & 15 | ((high >> (2 * group) & 3) as u8) << 4;
        let scale = d * f32::from(scale as i8 - 32);
        for (i, out) in out.iter_mut().enumerate() {
            let nibble = nibbles[group * 16 + i % 16] >> (4 * (i / 16)) & 15;
            *out = scale * f32::from(LEVELS[usize::from(nibble)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::dequant::TensorType;
    use crate::ops::philox::philox;

    /// Random bytes whose f16 factors, at these places, are numbers of usual size.
    fn block(bytes: usize, factors: &[usize]) -> Vec<u8> {
        let word = |i: usize| philox(9, [i as u32, 0, 0, 0])[0] as u8;
        let mut block: Vec<u8> = (0..bytes).map(word).collect();
        for (n, &at) in factors.iter().enumerate() {
            block[at..at + 2].copy_from_slice(&f16::from_f32(0.01 * (n + 1) as f32).to_le_bytes());
        }
        block
    }

    /// Hashes of what the `gguf` Python package (0.19) makes of the same blocks.
    #[test]
    fn values_are_those_of_the_reference() {
        // Type, values and bytes of a block, places of the factors.
        let cases: [(TensorType, usize, usize, &[usize], &str); 9] = [
            (TensorType::Q5_0, 32, 22, &[0], "9c49e980b860eb11"),
            (TensorType::Q5_1, 32, 24, &[0, 2], "94e439f3dd608ae3"),
            (TensorType::Iq4Nl, 32, 18, &[0], "a9d5f6217cb4e066"),
            (TensorType::Iq4Xs, BLOCK, IQ4_XS_BYTES, &[0], "d28232aa03e018a2"),
            (TensorType::Q2K, BLOCK, Q2_K_BYTES, &[80, 82], "8c33f45561d11582"),
            (TensorType::Q3K, BLOCK, Q3_K_BYTES, &[108], "f11ed62649a435b3"),
            (TensorType::Q4K, BLOCK, Q4_K_BYTES, &[0, 2], "0afc5a73635a8ffd"),
            (TensorType::Q5K, BLOCK, Q5_K_BYTES, &[0, 2], "2a2e5bcc40ab6334"),
            (TensorType::Q6K, BLOCK, Q6_K_BYTES, &[208], "8446306640ca7a82"),
        ];
        for (kind, values, bytes, factors, expected) in cases {
            assert_eq!(kind.size_of(&[values]).unwrap(), bytes, "{kind:?}");
            let mut out = vec![f32::NAN; values];
            kind.decode(&block(bytes, factors), &mut out);
            let hash = blake3::hash(bytemuck::cast_slice(&out)).to_hex();
            assert_eq!(&hash[..16], expected, "{kind:?}");
        }
    }

    #[test]
    fn scales_have_six_bits() {
        // Group 0: scale 1, minimum 2. Group 4: scale 16·1 + 3, minimum 16·2 + 5.
        let mut scales = [0u8; 12];
        (scales[0], scales[4]) = (1 | 1 << 6, 2 | 2 << 6);
        scales[8] = 3 | 5 << 4;
        assert_eq!(scale_and_minimum(&scales, 0), (1.0, 2.0));
        assert_eq!(scale_and_minimum(&scales, 4), (19.0, 37.0));
    }
}
