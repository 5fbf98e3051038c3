//! The k-quants of GGUF, bit for bit what ggml's reference functions compute.
//!
//! A block has 256 values. With Q4_K and Q5_K it has eight groups of 32, each with a scale and a minimum of 6 bits, and f16
//! factors for both; with Q6_K sixteen groups of 16 with a scale of 8 bits, and one f16 factor:
//! ```text
//! Q4_K   d:f16, dmin:f16, scales:[u8; 12], nibbles:[u8; 128]                x[i] = d·scale · q[i] − dmin·min
//! Q5_K   d:f16, dmin:f16, scales:[u8; 12], high:[u8; 32], nibbles:[u8; 128] the same with q of 5 bits
//! Q6_K   low:[u8; 128], high:[u8; 64], scales:[i8; 16], d:f16               x[i] = d·scale · (q[i] − 32)
//! ```
//! Nibbles: the low ones of 32 bytes are a group, the high ones the next. Products are rounded before a difference.

use half::f16;

/// Values of a block.
pub(super) const BLOCK: usize = 256;
/// Bytes of a block of each type.
pub(super) const Q4_K_BYTES: usize = 4 + 12 + 128;
pub(super) const Q5_K_BYTES: usize = Q4_K_BYTES + 32;
pub(super) const Q6_K_BYTES: usize = 128 + 64 + 16 + 2;

/// Values of a group with its own scale and minimum.
const GROUP: usize = 32;

fn f16_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// Scale and minimum of a group, 6 bits each. Those of the first four groups are whole; the others have their low four bits
/// in bytes of their own, and their high two in what the first ones leave free.
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
        // Half a block has 128 values in four quarters of 32: they share 64 bytes of nibbles and 32 of high bits.
        let (half, quarter, at) = (i / 128, i % 128 / 32, i % 32);
        let nibble = low[half * 64 + quarter % 2 * 32 + at] >> (4 * (quarter / 2)) & 15;
        let bits = high[half * 32 + at] >> (2 * quarter) & 3;
        let quant = i32::from(nibble | bits << 4) - 32;
        *out = d * f32::from(scales[i / 16] as i8) * quant as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

    fn decoded(decode: impl Fn(&[u8], &mut [f32]), block: &[u8]) -> Vec<f32> {
        let mut out = vec![f32::NAN; BLOCK];
        decode(block, &mut out);
        out
    }

    /// Hashes of what the `gguf` Python package (0.19) makes of the same blocks.
    #[test]
    fn values_are_those_of_the_reference() {
        let hash = |values: Vec<f32>| blake3::hash(bytemuck::cast_slice(&values)).to_hex()[..16].to_owned();
        assert_eq!(hash(decoded(decode_q4_k, &block(Q4_K_BYTES, &[0, 2]))), "0afc5a73635a8ffd");
        assert_eq!(hash(decoded(decode_q5_k, &block(Q5_K_BYTES, &[0, 2]))), "2a2e5bcc40ab6334");
        assert_eq!(hash(decoded(decode_q6_k, &block(Q6_K_BYTES, &[208]))), "8446306640ca7a82");
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
