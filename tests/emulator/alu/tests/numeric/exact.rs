//! Exact binary fractions, and what it means that a floating-point number is one of them rounded.

use std::cmp::Ordering;

/// A binary floating-point format as the tests see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    pub bits: u32,
    pub precision: u32,
}

pub const F64: Format = Format { bits: 64, precision: 53 };
pub const F32: Format = Format { bits: 32, precision: 24 };
/// `.tf32` without the 13 unused bits.
pub const TF32: Format = Format { bits: 19, precision: 11 };
pub const F16: Format = Format { bits: 16, precision: 11 };
pub const BF16: Format = Format { bits: 16, precision: 8 };
pub const E5M2: Format = Format { bits: 8, precision: 3 };

impl Format {
    pub fn sign(self) -> u64 {
        1 << (self.bits - 1)
    }

    /// All bits of an encoding.
    pub fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits)
    }

    pub fn infinity(self) -> u64 {
        self.sign() - (1 << (self.precision - 1))
    }

    pub fn one(self) -> u64 {
        self.bias() << (self.precision - 1)
    }

    fn bias(self) -> u64 {
        (1 << (self.bits - self.precision - 1)) - 1
    }

    pub fn is_nan(self, x: u64) -> bool {
        self.magnitude(x) > self.infinity()
    }

    pub fn is_infinite(self, x: u64) -> bool {
        self.magnitude(x) == self.infinity()
    }

    pub fn is_finite(self, x: u64) -> bool {
        self.magnitude(x) < self.infinity()
    }

    pub fn is_negative(self, x: u64) -> bool {
        x & self.sign() != 0
    }

    pub fn magnitude(self, x: u64) -> u64 {
        x & (self.sign() - 1)
    }

    /// A subnormal value replaced by zero.
    pub fn flush(self, x: u64) -> u64 {
        if self.magnitude(x) < 1 << (self.precision - 1) { x & self.sign() } else { x }
    }

    /// The value of an encoding, where that of infinity is what would follow the largest finite value.
    pub fn value(self, x: u64) -> Signed {
        let unit = 1u64 << (self.precision - 1);
        let magnitude = self.magnitude(x);
        let field = magnitude / unit;
        let digits = if field == 0 { magnitude } else { unit + magnitude % unit };
        let exponent = field.max(1) as i32 - self.bias() as i32 - (self.precision as i32 - 1);
        Signed { negative: self.is_negative(x), magnitude: Dyadic::new(digits.into(), exponent) }
    }

    /// Fails unless `result` is `±exact` rounded in the given direction. `compare` compares the exact
    /// magnitude, which is not zero, with another.
    pub fn is_rounded(
        self,
        result: u64,
        negative: bool,
        mode: Mode,
        compare: impl Fn(&Dyadic) -> Ordering,
    ) -> bool {
        if self.is_nan(result) || self.is_negative(result) != negative {
            return false;
        }
        let m = self.magnitude(result);
        let value = |m: u64| self.value(m).magnitude;
        let middle = |m: u64| value(m).add(&value(m + 1)).half();
        let outward = match mode {
            Mode::Rn | Mode::Rna => {
                let tie_here = |lower: bool| if mode == Mode::Rna { lower } else { m & 1 == 0 };
                let above = m == 0 || holds(compare(&middle(m - 1)), Ordering::Greater, tie_here(true));
                let below =
                    m == self.infinity() || holds(compare(&middle(m)), Ordering::Less, tie_here(false));
                return above && below;
            }
            Mode::Rz => false,
            Mode::Rm => negative,
            Mode::Rp => !negative,
        };
        if outward {
            let above = m > 0 && compare(&value(m - 1)) == Ordering::Greater;
            above && (m == self.infinity() || compare(&value(m)) != Ordering::Greater)
        } else {
            let below = m == self.infinity() - 1 || compare(&value(m + 1)) == Ordering::Less;
            m < self.infinity() && below && compare(&value(m)) != Ordering::Less
        }
    }
}

fn holds(ordering: Ordering, wanted: Ordering, or_equal: bool) -> bool {
    ordering == wanted || or_equal && ordering == Ordering::Equal
}

/// Directions of rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Rn,
    Rna,
    Rz,
    Rm,
    Rp,
}

/// The ones that most instructions have, with their modifiers.
pub const MODES: [(&str, Mode); 4] = [("rn", Mode::Rn), ("rz", Mode::Rz), ("rm", Mode::Rm), ("rp", Mode::Rp)];

/// A number with a sign.
#[derive(Clone, Debug)]
pub struct Signed {
    pub negative: bool,
    pub magnitude: Dyadic,
}

impl Signed {
    pub fn mul(&self, other: &Signed) -> Signed {
        Signed { negative: self.negative != other.negative, magnitude: self.magnitude.mul(&other.magnitude) }
    }

    /// The sum; the sign of a zero sum is that of `self`.
    pub fn add(&self, other: &Signed) -> Signed {
        if self.negative == other.negative {
            return Signed { negative: self.negative, magnitude: self.magnitude.add(&other.magnitude) };
        }
        match self.magnitude.compare(&other.magnitude) {
            Ordering::Less => {
                Signed { negative: other.negative, magnitude: other.magnitude.sub(&self.magnitude) }
            }
            _ => Signed { negative: self.negative, magnitude: self.magnitude.sub(&other.magnitude) },
        }
    }
}

/// A natural number (in digits of 32 bits, lowest first) times a power of two.
#[derive(Clone, Debug)]
pub struct Dyadic {
    digits: Vec<u32>,
    exponent: i32,
}

impl Dyadic {
    pub fn new(digits: u128, exponent: i32) -> Dyadic {
        let digits = (0..4).map(|i| (digits >> (32 * i)) as u32).collect();
        Dyadic { digits, exponent }.trimmed()
    }

    fn trimmed(mut self) -> Dyadic {
        while self.digits.last() == Some(&0) {
            self.digits.pop();
        }
        self
    }

    pub fn is_zero(&self) -> bool {
        self.digits.is_empty()
    }

    /// One more than the position of the highest bit.
    fn top(&self) -> i32 {
        match self.digits.last() {
            Some(high) => self.exponent + 32 * self.digits.len() as i32 - high.leading_zeros() as i32,
            None => i32::MIN,
        }
    }

    pub fn half(&self) -> Dyadic {
        Dyadic { digits: self.digits.clone(), exponent: self.exponent - 1 }
    }

    /// The digits with a smaller exponent.
    fn aligned(&self, exponent: i32) -> Vec<u32> {
        let shift = (self.exponent - exponent) as usize;
        let mut digits = vec![0; shift / 32];
        let mut carry = 0;
        for &digit in &self.digits {
            let wide = u64::from(digit) << (shift % 32);
            digits.push(wide as u32 | carry);
            carry = (wide >> 32) as u32;
        }
        digits.push(carry);
        digits
    }

    pub fn add(&self, other: &Dyadic) -> Dyadic {
        let exponent = self.exponent.min(other.exponent);
        let (a, b) = (self.aligned(exponent), other.aligned(exponent));
        let mut carry = 0u64;
        let mut digits = Vec::new();
        for i in 0..a.len().max(b.len()) + 1 {
            let digit = |x: &[u32]| u64::from(x.get(i).copied().unwrap_or(0));
            carry += digit(&a) + digit(&b);
            digits.push(carry as u32);
            carry >>= 32;
        }
        Dyadic { digits, exponent }.trimmed()
    }

    /// The difference, where `other` is not larger.
    pub fn sub(&self, other: &Dyadic) -> Dyadic {
        let exponent = self.exponent.min(other.exponent);
        let (a, b) = (self.aligned(exponent), other.aligned(exponent));
        let mut borrow = 0i64;
        let mut digits = Vec::new();
        for i in 0..a.len().max(b.len()) {
            let digit = |x: &[u32]| i64::from(x.get(i).copied().unwrap_or(0));
            let difference = digit(&a) - digit(&b) + borrow;
            digits.push(difference as u32);
            borrow = difference >> 32;
        }
        assert_eq!(borrow, 0, "a difference of magnitudes is negative");
        Dyadic { digits, exponent }.trimmed()
    }

    pub fn mul(&self, other: &Dyadic) -> Dyadic {
        let mut digits = vec![0u32; self.digits.len() + other.digits.len()];
        for (i, &a) in self.digits.iter().enumerate() {
            let mut carry = 0u64;
            for (j, &b) in other.digits.iter().enumerate() {
                carry += u64::from(a) * u64::from(b) + u64::from(digits[i + j]);
                digits[i + j] = carry as u32;
                carry >>= 32;
            }
            digits[i + other.digits.len()] = carry as u32;
        }
        Dyadic { digits, exponent: self.exponent + other.exponent }.trimmed()
    }

    pub fn compare(&self, other: &Dyadic) -> Ordering {
        if self.top() != other.top() || self.is_zero() {
            return self.top().cmp(&other.top());
        }
        let exponent = self.exponent.min(other.exponent);
        let trimmed = |x: &Dyadic| Dyadic { digits: x.aligned(exponent), exponent }.trimmed().digits;
        let (a, b) = (trimmed(self), trimmed(other));
        a.iter().rev().cmp(b.iter().rev())
    }
}
