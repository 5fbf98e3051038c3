//! Rounding of exact values to binary floating-point formats.

/// Direction of rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// To nearest, ties to even (`.rn`, `.rni`).
    Nearest,
    /// To nearest, ties away from zero (`.rna`).
    Away,
    /// Towards zero (`.rz`, `.rzi`).
    Zero,
    /// Towards minus infinity (`.rm`, `.rmi`).
    Down,
    /// Towards plus infinity (`.rp`, `.rpi`).
    Up,
}

/// A rounding direction known at compile time.
pub trait Round {
    /// The direction.
    const MODE: Mode;
}

macro_rules! directions {
    ($($name:ident $mode:ident,)*) => {
        $(
            #[doc = concat!("[`Mode::", stringify!($mode), "`] as a type.")]
            #[derive(Clone, Copy, Debug)]
            pub struct $name;

            impl Round for $name {
                const MODE: Mode = Mode::$mode;
            }
        )*
    };
}

directions! {
    Rn Nearest,
    Rna Away,
    Rz Zero,
    Rm Down,
    Rp Up,
}

/// A binary floating-point format with subnormals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Bits of the significand, the hidden one included.
    pub precision: u32,
    /// Exponent of the smallest normal value.
    pub min_exponent: i32,
    /// Exponent of the largest finite value.
    pub max_exponent: i32,
}

impl Format {
    /// IEEE binary64.
    pub const F64: Format = Format { precision: 53, min_exponent: -1022, max_exponent: 1023 };
    /// IEEE binary32.
    pub const F32: Format = Format { precision: 24, min_exponent: -126, max_exponent: 127 };
    /// The format of tensor cores: the range of binary32 with the precision of binary16.
    pub const TF32: Format = Format { precision: 11, min_exponent: -126, max_exponent: 127 };
    /// The upper half of binary32.
    pub const BF16: Format = Format { precision: 8, min_exponent: -126, max_exponent: 127 };
    /// IEEE binary16.
    pub const F16: Format = Format { precision: 11, min_exponent: -14, max_exponent: 15 };
    /// Eight bits in the manner of IEEE, two of them fraction.
    pub const E5M2: Format = Format { precision: 3, min_exponent: -14, max_exponent: 15 };

    /// Encoding of infinity, without sign.
    pub const fn infinity(self) -> u64 {
        ((self.max_exponent - self.min_exponent + 2) as u64) << (self.precision - 1)
    }

    /// Encoding of the largest finite value, without sign.
    pub const fn max_finite(self) -> u64 {
        self.infinity() - 1
    }

    /// The sign bit.
    pub const fn sign(self) -> u64 {
        self.infinity() + (1 << (self.precision - 1))
    }

    /// The NaN that PTX calls canonical: all bits set but the sign.
    pub const fn nan(self) -> u64 {
        self.sign() - 1
    }

    /// Infinity or the largest finite value: what a value beyond all finite ones rounds to.
    fn overflow(self, negative: bool, mode: Mode) -> u64 {
        let outward = match mode {
            Mode::Nearest | Mode::Away => true,
            Mode::Zero => false,
            Mode::Down => negative,
            Mode::Up => !negative,
        };
        if outward { self.infinity() } else { self.max_finite() }
    }

    /// Encoding of `±significand · 2^exponent`, rounded. An inexact value is passed with its lowest bit set
    /// and at least two bits more than the format has.
    pub fn round(self, negative: bool, significand: u128, exponent: i32, mode: Mode) -> u64 {
        let sign = if negative { self.sign() } else { 0 };
        if significand == 0 {
            return sign;
        }
        let top = exponent + 127 - significand.leading_zeros() as i32;
        let scale = top.max(self.min_exponent);
        let shift = scale - (self.precision as i32 - 1) - exponent;
        let kept = shift_rounded(significand, shift, negative, mode) as u64;
        let magnitude = (((scale - self.min_exponent) as u64) << (self.precision - 1)) + kept;
        if scale > self.max_exponent || magnitude >= self.infinity() {
            return sign | self.overflow(negative, mode);
        }
        sign | magnitude
    }
}

/// `significand / 2^shift` rounded to an integer.
fn shift_rounded(significand: u128, shift: i32, negative: bool, mode: Mode) -> u128 {
    if shift <= 0 {
        return significand << -shift;
    }
    // Beyond 127 bits only "not zero and below one half" is left of the value.
    let (kept, rest, half) = match shift {
        1..=127 => (significand >> shift, significand & ((1 << shift) - 1), 1 << (shift - 1)),
        _ => (0, 1, 2),
    };
    let up = match mode {
        Mode::Nearest => rest > half || (rest == half && kept & 1 == 1),
        Mode::Away => rest >= half,
        Mode::Zero => false,
        Mode::Down => negative && rest != 0,
        Mode::Up => !negative && rest != 0,
    };
    kept + up as u128
}
