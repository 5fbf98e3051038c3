//! The modifiers of an opcode, taken one by one until none is left.

use crate::numeric::round::Mode;

/// Modifiers not yet accounted for. Whoever looks up an instruction takes those it knows and ends with
/// [`Modifiers::end`], so that an unknown one is never ignored.
#[derive(Clone, Debug)]
pub(super) struct Modifiers<'a>(Vec<&'a str>);

impl<'a> Modifiers<'a> {
    pub(super) fn new(modifiers: &[&'a str]) -> Self {
        Modifiers(modifiers.to_vec())
    }

    /// Takes the last one, which is the type in most instructions.
    pub(super) fn last(&mut self) -> Option<&'a str> {
        self.0.pop()
    }

    /// Takes the first one.
    pub(super) fn first(&mut self) -> Option<&'a str> {
        if self.0.is_empty() { None } else { Some(self.0.remove(0)) }
    }

    /// Takes `name` wherever it is.
    pub(super) fn flag(&mut self, name: &str) -> bool {
        let position = self.0.iter().position(|&m| m == name);
        if let Some(position) = position {
            self.0.remove(position);
        }
        position.is_some()
    }

    /// Takes the first of `names` that is there.
    pub(super) fn one_of<'n>(&mut self, names: &[&'n str]) -> Option<&'n str> {
        names.iter().copied().find(|name| self.flag(name))
    }

    /// Takes a rounding to floating point.
    pub(super) fn mode(&mut self) -> Option<Mode> {
        Some(match self.one_of(&["rn", "rz", "rm", "rp"])? {
            "rn" => Mode::Nearest,
            "rz" => Mode::Zero,
            "rm" => Mode::Down,
            _ => Mode::Up,
        })
    }

    /// Takes a rounding to an integral value.
    pub(super) fn integral_mode(&mut self) -> Option<Mode> {
        Some(match self.one_of(&["rni", "rzi", "rmi", "rpi"])? {
            "rni" => Mode::Nearest,
            "rzi" => Mode::Zero,
            "rmi" => Mode::Down,
            _ => Mode::Up,
        })
    }

    /// Whether none is left.
    pub(super) fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// Evaluates an expression with a type alias for a rounding direction.
macro_rules! with_mode {
    ($mode:expr, $R:ident => $body:expr) => {{
        use $crate::numeric::round::{Mode, Rm, Rn, Rp, Rz};
        match $mode {
            Mode::Nearest => {
                type $R = Rn;
                $body
            }
            Mode::Zero => {
                type $R = Rz;
                $body
            }
            Mode::Down => {
                type $R = Rm;
                $body
            }
            Mode::Up => {
                type $R = Rp;
                $body
            }
            Mode::Away => None,
        }
    }};
}

/// Evaluates an expression with a constant for a flag.
macro_rules! with_flag {
    ($flag:expr, $F:ident => $body:expr) => {
        if $flag {
            const $F: bool = true;
            $body
        } else {
            const $F: bool = false;
            $body
        }
    };
}

/// Evaluates an expression with a type alias for a 16-bit format, `$name` being `f16…` or `bf16…`.
macro_rules! with_half {
    ($name:expr, $T:ident => $body:expr) => {
        if $name.starts_with('b') {
            type $T = $crate::numeric::half::Bf16;
            $body
        } else {
            type $T = $crate::numeric::half::F16;
            $body
        }
    };
}

pub(super) use {with_flag, with_half, with_mode};
