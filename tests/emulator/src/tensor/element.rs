//! Elements of the matrices A and B: how they lie in register words, and the numbers they are multiplied as.

use cuda_emulator_alu::row::Row;

/// One lane's share of a fragment register.
pub(super) trait Word: Copy {
    /// The word of `lane` in fragment register `register`.
    fn read(rows: &[Row], register: usize, lane: usize) -> Self;
}

impl Word for u32 {
    #[inline(always)]
    fn read(rows: &[Row], register: usize, lane: usize) -> u32 {
        rows[register].0[lane]
    }
}

impl Word for u64 {
    #[inline(always)]
    fn read(rows: &[Row], register: usize, lane: usize) -> u64 {
        let pair = &rows[2 * register + lane / 16].0;
        u64::from(pair[2 * (lane % 16)]) | u64::from(pair[2 * (lane % 16) + 1]) << 32
    }
}

/// A number that matrices are multiplied in.
pub(super) trait Number: Copy + Default {
    /// `self * b + c`, rounded once.
    fn multiply_add(self, b: Self, c: Self) -> Self;

    /// With the opposite sign.
    fn negated(self) -> Self;
}

impl Number for f32 {
    #[inline(always)]
    fn multiply_add(self, b: f32, c: f32) -> f32 {
        self.mul_add(b, c)
    }

    #[inline(always)]
    fn negated(self) -> f32 {
        -self
    }
}

impl Number for f64 {
    #[inline(always)]
    fn multiply_add(self, b: f64, c: f64) -> f64 {
        self.mul_add(b, c)
    }

    #[inline(always)]
    fn negated(self) -> f64 {
        -self
    }
}

/// An element type of A or B.
pub(super) trait Element: 'static {
    /// One lane's share of a register.
    type Word: Word;
    /// The number it is multiplied as; the conversion is exact, and so is the product of two of them.
    type Number: Number;
    /// Elements in a word.
    const PER_WORD: usize;

    /// Element `i` of a word, counted from the low bits.
    fn get(word: Self::Word, i: usize) -> Self::Number;
}

macro_rules! element {
    ($(#[$doc:meta])* $name:ident: $word:ty => $number:ty, $per_word:literal, |$w:ident, $i:ident| $get:expr) => {
        $(#[$doc])*
        pub(super) struct $name;

        impl Element for $name {
            type Word = $word;
            type Number = $number;
            const PER_WORD: usize = $per_word;

            #[inline(always)]
            fn get($w: $word, $i: usize) -> $number {
                $get
            }
        }
    };
}

element!(/// `bf16`.
    Bf16: u32 => f32, 2, |word, i| f32::from_bits(word << (16 * (1 - i)) & 0xffff_0000));
element!(/// `f16`.
    F16: u32 => f32, 2, |word, i| f16_to_f32(word >> (16 * i) & 0xffff));
element!(/// `tf32`: of the 32 bits that a register holds, the low 13 are ignored.
    Tf32: u32 => f32, 1, |word, _i| f32::from_bits(word & 0xffff_e000));
element!(/// `e4m3`: no infinities, one NaN of each sign.
    E4m3: u32 => f32, 4, |word, i| e4m3_to_f32(word >> (8 * i) & 0xff));
element!(/// `e5m2`: the upper half of an `f16`.
    E5m2: u32 => f32, 4, |word, i| f16_to_f32((word >> (8 * i) & 0xff) << 8));
element!(/// `s8`.
    S8: u32 => f32, 4, |word, i| f32::from((word >> (8 * i)) as i8));
element!(/// `u8`.
    U8: u32 => f32, 4, |word, i| f32::from((word >> (8 * i)) as u8));
element!(/// `f64`.
    F64: u64 => f64, 1, |word, _i| f64::from_bits(word));

/// Widens an `f16`. Exponent and mantissa move into place and a multiplication corrects the exponent bias,
/// which also normalises subnormals; only infinities and NaN need their exponent set.
#[inline(always)]
pub(super) fn f16_to_f32(bits: u32) -> f32 {
    let magnitude = (bits & 0x7fff) << 13;
    let scaled = (f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23)).to_bits();
    let special = if magnitude >= 0x7c00 << 13 { magnitude | 0x7f80_0000 } else { scaled };
    f32::from_bits(special | (bits & 0x8000) << 16)
}

/// Widens an `e4m3` in the same way; only the code with all bits set is special.
#[inline(always)]
fn e4m3_to_f32(bits: u32) -> f32 {
    let magnitude = bits & 0x7f;
    let scaled = (f32::from_bits(magnitude << 20) * f32::from_bits((127 + 120) << 23)).to_bits();
    let special = if magnitude == 0x7f { 0x7fff_ffff } else { scaled };
    f32::from_bits(special | (bits & 0x80) << 24)
}

/// Narrows to `f16`, to the nearest, ties to even. NaN becomes the canonical `0x7fff`.
#[inline(always)]
pub(super) fn f32_to_f16(value: f32) -> u32 {
    let bits = value.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    // Adding half a unit of the narrow mantissa (less one bit, plus its lowest bit) rounds ties to even.
    let rounded = magnitude.wrapping_add(0xfff + (magnitude >> 13 & 1)).wrapping_sub(112 << 23) >> 13;
    // Below the normal numbers, the addition of 0.5 aligns the mantissa so that the hardware rounds at 2^-24.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0x3f00_0000);
    let narrow = match magnitude {
        0x7f80_0001.. => return 0x7fff,
        0x477f_f000.. => 0x7c00,
        0x3880_0000.. => rounded,
        _ => subnormal,
    };
    narrow | bits >> 16 & 0x8000
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;

    #[test]
    fn every_f16_widens_exactly() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (f16_to_f32(u32::from(bits)), f16::from_bits(bits).to_f32_const());
            assert!(ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(), "{bits:#x}");
        }
    }

    #[test]
    fn narrowing_to_f16_rounds_to_even() {
        for upper in 0..=u16::MAX {
            for lower in
                [0, 1, 0xfff, 0x1000, 0x1001, 0x1fff, 0x2000, 0x3000, 0x5000, 0x7fff, 0x8000, 0xf000, 0xffff]
            {
                let value = f32::from_bits(u32::from(upper) << 16 | lower);
                let theirs = if value.is_nan() { 0x7fff } else { f16::from_f32_const(value).to_bits() };
                assert_eq!(f32_to_f16(value), u32::from(theirs), "{value:e}");
            }
        }
    }

    /// The value of an eight-bit float from its definition, infinities and NaN apart.
    fn minifloat(bits: u32, mantissa_bits: i32, bias: i32) -> f32 {
        let exponent = (bits & 0x7f) >> mantissa_bits;
        let mantissa = (bits & ((1 << mantissa_bits) - 1)) as f32 / (1 << mantissa_bits) as f32;
        let magnitude = match exponent {
            0 => mantissa * 2f32.powi(1 - bias),
            e => (1.0 + mantissa) * 2f32.powi(e as i32 - bias),
        };
        if bits & 0x80 != 0 { -magnitude } else { magnitude }
    }

    #[test]
    fn every_eight_bit_float_widens_exactly() {
        for bits in 0..=0xffu32 {
            let (e4m3, e5m2) = (E4m3::get(bits << 8, 1), E5m2::get(bits << 24, 3));
            match bits & 0x7f {
                0x7f => assert!(e4m3.is_nan()),
                _ => assert_eq!(e4m3.to_bits(), minifloat(bits, 3, 7).to_bits()),
            }
            match bits & 0x7f {
                0x7d.. => assert!(e5m2.is_nan()),
                0x7c => assert!(e5m2.is_infinite() && e5m2.is_sign_negative() == (bits & 0x80 != 0)),
                _ => assert_eq!(e5m2.to_bits(), minifloat(bits, 2, 15).to_bits()),
            }
        }
    }
}
