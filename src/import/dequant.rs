//! GGUF tensor types and their values as f32, bit for bit what ggml's reference functions compute.
//!
//! A quantised row is a run of blocks; the k-quants are in [`super::k_quants`]. The others have 32 values,
//! and each block carries its own f16 scale:
//! ```text
//! Q8_0   d:f16, q:[i8; 32]              x[i] = d * q[i]
//! Q4_0   d:f16, nibbles:[u8; 16]        x[i] = d * (q[i] - 8)
//! Q4_1   d:f16, m:f16, nibbles:[u8; 16] x[i] = d * q[i] + m
//! Q5_0   d:f16, high:u32, nibbles:[u8; 16]        x[i] = d * (q[i] - 16)
//! Q5_1   d:f16, m:f16, high:u32, nibbles:[u8; 16] x[i] = d * q[i] + m
//! IQ4_NL d:f16, nibbles:[u8; 16]        x[i] = d * LEVELS[q[i]]
//! ```
//! The low nibble of byte `j` is value `j`, the high nibble value `j + 16`; bit `i` of `high` is the fifth of
//! value `i`.

use super::k_quants::{self, LEVELS};
use super::reader::DAMAGED;
use crate::error::{Error, Result};
use half::{bf16, f16};

/// Values per block of a quantised type.
const BLOCK: usize = 32;

/// The tensor types that can be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TensorType {
    F32,
    F16,
    Bf16,
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Iq4Nl,
    Iq4Xs,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

impl TensorType {
    /// The type with this code in the file; others are refused by their name.
    pub(super) fn from_code(code: u32) -> Result<Self> {
        Ok(match code {
            0 => TensorType::F32,
            1 => TensorType::F16,
            2 => TensorType::Q4_0,
            3 => TensorType::Q4_1,
            6 => TensorType::Q5_0,
            7 => TensorType::Q5_1,
            8 => TensorType::Q8_0,
            10 => TensorType::Q2K,
            11 => TensorType::Q3K,
            12 => TensorType::Q4K,
            13 => TensorType::Q5K,
            14 => TensorType::Q6K,
            20 => TensorType::Iq4Nl,
            23 => TensorType::Iq4Xs,
            30 => TensorType::Bf16,
            _ => {
                return Err(Error::model(format!(
                    "expected tensor type F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K, IQ4_NL or IQ4_XS, \
                     found {}; use a file of one of these types of the same model",
                    unsupported_name(code)
                )));
            }
        })
    }

    /// Values per block and bytes per block.
    fn block(self) -> (usize, usize) {
        match self {
            TensorType::F32 => (1, 4),
            TensorType::F16 | TensorType::Bf16 => (1, 2),
            TensorType::Q8_0 => (BLOCK, 2 + BLOCK),
            TensorType::Q4_0 => (BLOCK, 2 + BLOCK / 2),
            TensorType::Q4_1 => (BLOCK, 4 + BLOCK / 2),
            TensorType::Q5_0 => (BLOCK, 2 + 4 + BLOCK / 2),
            TensorType::Q5_1 => (BLOCK, 4 + 4 + BLOCK / 2),
            TensorType::Iq4Nl => (BLOCK, 2 + BLOCK / 2),
            TensorType::Iq4Xs => (k_quants::BLOCK, k_quants::IQ4_XS_BYTES),
            TensorType::Q2K => (k_quants::BLOCK, k_quants::Q2_K_BYTES),
            TensorType::Q3K => (k_quants::BLOCK, k_quants::Q3_K_BYTES),
            TensorType::Q4K => (k_quants::BLOCK, k_quants::Q4_K_BYTES),
            TensorType::Q5K => (k_quants::BLOCK, k_quants::Q5_K_BYTES),
            TensorType::Q6K => (k_quants::BLOCK, k_quants::Q6_K_BYTES),
        }
    }

    /// Bytes of a tensor of `shape` (slowest axis first); rows must be whole blocks.
    pub(super) fn size_of(self, shape: &[usize]) -> Result<usize> {
        let (values, bytes) = self.block();
        let row = shape.last().copied().unwrap_or(1);
        if !row.is_multiple_of(values) {
            return Err(Error::model(format!(
                "expected rows of a multiple of {values} values for type {self:?}, found {row}; {DAMAGED}"
            )));
        }
        let size = shape.iter().try_fold(1, |n: usize, axis| n.checked_mul(*axis));
        size.and_then(|values_total| (values_total / values).checked_mul(bytes)).ok_or_else(|| {
            Error::model(format!("expected a shape that fits in memory, found {shape:?}; {DAMAGED}"))
        })
    }

    /// Decodes whole blocks into `out`, `[columns]`; `bytes` holds exactly `out.len()` values.
    pub(super) fn decode(self, bytes: &[u8], out: &mut [f32]) {
        let (values, width) = self.block();
        for (block, out) in bytes.chunks_exact(width).zip(out.chunks_exact_mut(values)) {
            match self {
                TensorType::F32 => out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
                TensorType::F16 => out[0] = f16_at(block, 0),
                TensorType::Bf16 => out[0] = bf16::from_le_bytes([block[0], block[1]]).to_f32(),
                TensorType::Q8_0 => decode_q8_0(block, out),
                TensorType::Q4_0 => decode_q4_0(block, out),
                TensorType::Q4_1 => decode_q4_1(block, out),
                TensorType::Q5_0 => decode_q5_0(block, out),
                TensorType::Q5_1 => decode_q5_1(block, out),
                TensorType::Iq4Nl => decode_iq4_nl(block, out),
                TensorType::Iq4Xs => k_quants::decode_iq4_xs(block, out),
                TensorType::Q2K => k_quants::decode_q2_k(block, out),
                TensorType::Q3K => k_quants::decode_q3_k(block, out),
                TensorType::Q4K => k_quants::decode_q4_k(block, out),
                TensorType::Q5K => k_quants::decode_q5_k(block, out),
                TensorType::Q6K => k_quants::decode_q6_k(block, out),
            }
        }
    }
}

fn f16_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

fn decode_q8_0(block: &[u8], out: &mut [f32]) {
    let scale = f16_at(block, 0);
    for (out, quant) in out.iter_mut().zip(&block[2..]) {
        *out = scale * f32::from(*quant as i8);
    }
}

fn decode_q4_0(block: &[u8], out: &mut [f32]) {
    let scale = f16_at(block, 0);
    decode_nibbles(&block[2..], out, |nibble| scale * f32::from(nibble as i8 - 8));
}

/// The product is rounded before the sum, as ggml does; a fused multiply-add would differ in the last bit.
fn decode_q4_1(block: &[u8], out: &mut [f32]) {
    let (scale, minimum) = (f16_at(block, 0), f16_at(block, 2));
    decode_nibbles(&block[4..], out, |nibble| scale * f32::from(nibble) + minimum);
}

fn decode_q5_0(block: &[u8], out: &mut [f32]) {
    let scale = f16_at(block, 0);
    decode_five_bits(&block[2..], out, |quant| scale * f32::from(quant as i8 - 16));
}

/// The product is rounded before the sum, as with Q4_1.
fn decode_q5_1(block: &[u8], out: &mut [f32]) {
    let (scale, minimum) = (f16_at(block, 0), f16_at(block, 2));
    decode_five_bits(&block[4..], out, |quant| scale * f32::from(quant) + minimum);
}

fn decode_iq4_nl(block: &[u8], out: &mut [f32]) {
    let scale = f16_at(block, 0);
    decode_nibbles(&block[2..], out, |nibble| scale * f32::from(LEVELS[usize::from(nibble)]));
}

/// Values of five bits: the highest ones of all come first, then the nibbles.
fn decode_five_bits(bytes: &[u8], out: &mut [f32], value: impl Fn(u8) -> f32) {
    let (high, nibbles) = bytes.split_at(4);
    for (i, out) in out.iter_mut().enumerate() {
        let nibble = nibbles[i % 16] >> (4 * (i / 16)) & 15;
        *out = value(nibble | (high[i / 8] >> (i % 8) & 1) << 4);
    }
}

fn decode_nibbles(nibbles: &[u8], out: &mut [f32], value: impl Fn(u8) -> f32) {
    let (low, high) = out.split_at_mut(BLOCK / 2);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(nibbles) {
        *low = value(byte & 0x0F);
        *high = value(byte >> 4);
    }
}

/// The name of a type code that is not imported, where ggml defines one.
fn unsupported_name(code: u32) -> String {
    let name = match code {
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        21 => "IQ3_S",
        22 => "IQ2_S",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => return format!("the unknown type code {code}"),
    };
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1.5, 0.25 and -2 as f16.
    const SCALE: [u8; 2] = [0x00, 0x3E];
    const QUARTER: [u8; 2] = [0x00, 0x34];
    const MINUS_TWO: [u8; 2] = [0x00, 0xC0];

    fn decoded(kind: TensorType, bytes: &[u8], count: usize) -> Vec<f32> {
        assert_eq!(kind.size_of(&[count]).unwrap(), bytes.len());
        let mut out = vec![f32::NAN; count];
        kind.decode(bytes, &mut out);
        out
    }

    /// Byte `j` holds `j` in its low and `15 - j` in its high nibble.
    fn nibbles() -> impl Iterator<Item = u8> {
        (0..16).map(|j| j | (15 - j) << 4)
    }

    #[test]
    fn floats_keep_their_values() {
        assert_eq!(decoded(TensorType::F32, &[0, 0, 0xC0, 0x3F, 0, 0, 0, 0x80], 2), [1.5, -0.0]);
        assert_eq!(decoded(TensorType::F16, &[SCALE, MINUS_TWO].concat(), 2), [1.5, -2.0]);
        assert_eq!(decoded(TensorType::F16, &[0x01, 0x00], 1), [2f32.powi(-24)]);
        assert_eq!(decoded(TensorType::Bf16, &[0xC0, 0x3F, 0x00, 0xC0], 2), [1.5, -2.0]);
    }

    #[test]
    fn q8_0_scales_signed_bytes() {
        let quants = (0..32).map(|i: i32| (i * 8 - 128) as u8);
        let block: Vec<u8> = SCALE.into_iter().chain(quants).collect();
        let expected: Vec<f32> = (0..32).map(|i| 1.5 * (i * 8 - 128) as f32).collect();
        assert_eq!(decoded(TensorType::Q8_0, &block, 32), expected);
    }

    #[test]
    fn q4_0_shifts_nibbles_by_eight() {
        let block: Vec<u8> = SCALE.into_iter().chain(nibbles()).collect();
        let low = (0..16).map(|j| 1.5 * (j - 8) as f32);
        let high = (0..16).map(|j| 1.5 * (7 - j) as f32);
        assert_eq!(decoded(TensorType::Q4_0, &block, 32), low.chain(high).collect::<Vec<_>>());
        let zero = [&MINUS_TWO[..], &[0x88; 16]].concat();
        assert!(decoded(TensorType::Q4_0, &zero, 32).iter().all(|v| v.to_bits() == (-0.0f32).to_bits()));
    }

    #[test]
    fn q4_1_adds_the_minimum() {
        let block: Vec<u8> = QUARTER.into_iter().chain(MINUS_TWO).chain(nibbles()).collect();
        let low = (0..16).map(|j| 0.25 * j as f32 - 2.0);
        let high = (0..16).map(|j| 0.25 * (15 - j) as f32 - 2.0);
        assert_eq!(decoded(TensorType::Q4_1, &block, 32), low.chain(high).collect::<Vec<_>>());
    }

    #[test]
    fn q5_takes_the_fifth_bit_from_a_word() {
        // Fifth bits of values 0, 9 and 31.
        let high = (1u32 | 1 << 9 | 1 << 31).to_le_bytes();
        let quant = |i: usize| {
            let nibble = if i < 16 { i } else { 31 - i };
            (nibble + if [0, 9, 31].contains(&i) { 16 } else { 0 }) as f32
        };
        let block: Vec<u8> = SCALE.into_iter().chain(high).chain(nibbles()).collect();
        let expected: Vec<f32> = (0..32).map(|i| 1.5 * (quant(i) - 16.0)).collect();
        assert_eq!(decoded(TensorType::Q5_0, &block, 32), expected);
        let block: Vec<u8> = QUARTER.into_iter().chain(MINUS_TWO).chain(high).chain(nibbles()).collect();
        let expected: Vec<f32> = (0..32).map(|i| 0.25 * quant(i) - 2.0).collect();
        assert_eq!(decoded(TensorType::Q5_1, &block, 32), expected);
    }

    #[test]
    fn blocks_follow_each_other() {
        let first = [&SCALE[..], &[1; 32]].concat();
        let second = [&QUARTER[..], &[4; 32]].concat();
        let values = decoded(TensorType::Q8_0, &[first, second].concat(), 64);
        assert_eq!((values[0], values[31], values[32], values[63]), (1.5, 1.5, 1.0, 1.0));
    }

    #[test]
    fn sizes_count_whole_blocks_of_rows() {
        assert_eq!(TensorType::Q4_1.size_of(&[3, 64]).unwrap(), 3 * 2 * 20);
        assert!(TensorType::Q4_0.size_of(&[64, 16]).is_err());
        assert!(TensorType::F32.size_of(&[usize::MAX, 2]).is_err());
    }
}
