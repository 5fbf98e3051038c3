//! Arithmetic instructions: from opcode to the function that executes it for a warp.
//!
//! [`lookup`] finds the instruction, [`execute`] makes it of a function of one lane, [`numeric`] has those,
//! [`row`] what they compute with. This is a crate of its own because it is half of what there is to compile
//! of the emulator, and changes least.
//!
//! Conventions for whoever decodes operands:
//!
//! * The carry flag is a predicate. `add.cc`, `sub.cc`, `mad.cc` and the `.cc` forms of `addc`, `subc` and
//!   `madc` write it as their second destination; `addc`, `subc` and `madc` read it as their last source. One
//!   hidden predicate per kernel serves all of them. After a subtraction it is the borrow.
//! * `setp` always writes two predicates, the second being the complement of the comparison (combined with
//!   the source predicate where there is one), or the upper element's comparison for packed types. An
//!   instruction that names only one needs a predicate to spare.
//! * The number of sources in the text must be the number of kinds that are not [`Kind::None`]: forms with
//!   other counts, like `min` of three values, are different instructions, which this table does not have.
//! * The table of `lop3` is a source like any other.
//! * Sources are cut to the width of the instruction's type, whatever the register holds above. Results
//!   narrower than a register are extended by zeros, but `cvt` to `.s8` extends by the sign up to 16 bits.
//!   Where `cvt` to a signed type names a register wider than that, the value must still be extended, which
//!   is another `cvt`.
//! * `mov` between a vector and a register is not arithmetic.
//!
//! [`Kind::None`]: crate::row::Kind::None

mod class;
mod compare;
mod convert;
pub mod execute;
mod float;
mod half;
mod integer;
pub mod lane;
mod logic;
mod modifiers;
pub mod numeric;
pub mod row;

pub use class::{CLASSES, Class};

use modifiers::Modifiers;
use row::AluOp;

/// The instruction whose opcode starts with `base` and goes on with `modifiers`, in the order of the text.
/// `None` if there is no such instruction, or none that the emulator knows; no modifier is ever ignored.
pub fn lookup(base: &str, modifiers: &[&str]) -> Option<AluOp> {
    let m = Modifiers::new(modifiers);
    match base {
        "add" | "sub" | "mul" | "mad" | "fma" | "div" | "rem" | "min" | "max" | "abs" | "neg" => {
            typed(base, modifiers.last()?, m)
        }
        "addc" | "subc" => integer::carry(base, m),
        "madc" => integer::madc(m),
        "mul24" | "mad24" => integer::product24(base == "mad24", m),
        "sad" => integer::sad(m),
        "dp4a" | "dp2a" => integer::dot(base, m),
        "and" | "or" | "xor" | "not" | "cnot" => logic::logic(base, m),
        "shl" | "shr" => logic::shift(base, m),
        "shf" => logic::funnel(modifiers),
        "popc" | "clz" | "brev" => logic::count(base, modifiers),
        "bfind" => logic::find(modifiers),
        "bfe" | "bfi" | "bmsk" | "szext" | "fns" | "lop3" => logic::field(base, modifiers),
        "prmt" => logic::permute(modifiers),
        "mov" => logic::mov(modifiers),
        "selp" => logic::select(modifiers),
        "slct" => logic::select_sign(m),
        "rcp" | "sqrt" => float::root(base, m),
        "rsqrt" | "lg2" | "sin" | "cos" => float::approximation(base, m),
        "ex2" | "tanh" => half::exponential(base, m),
        "copysign" => float::copysign(m),
        "testp" => compare::test(modifiers),
        "setp" => compare::setp(m),
        "set" => compare::set(m),
        "cvt" => convert::cvt(m),
        _ => None,
    }
}

/// Instructions that exist for several families of types.
fn typed(base: &str, kind: &str, mut m: Modifiers) -> Option<AluOp> {
    m.last()?;
    if logic::is_integer(kind) {
        return match base {
            "mul" | "mad" => integer::product(base == "mad", kind, m),
            "fma" => None,
            _ => integer::arithmetic(base, kind, m),
        };
    }
    let halves = half::is_half(kind);
    match base {
        "min" | "max" if halves => half::extremum(base == "max", kind, m),
        "min" | "max" => float::extremum(base == "max", kind, m),
        "abs" | "neg" if halves => half::sign(base, kind, m),
        "abs" | "neg" => float::sign(base, kind, m),
        "add" | "sub" | "mul" | "fma" if halves => half::arithmetic(base, kind, m),
        "add" | "sub" | "mul" | "fma" | "mad" => float::arithmetic(base, kind, m),
        "div" => float::div(kind, m),
        _ => None,
    }
}

/// The class that a profiler counts such an instruction in.
pub fn class(base: &str, modifiers: &[&str]) -> Class {
    let float = modifiers.last().is_some_and(|kind| kind.starts_with('f') || kind.starts_with("bf"));
    match base {
        "rcp" | "sqrt" | "rsqrt" | "lg2" | "ex2" | "sin" | "cos" | "tanh" => Class::Special,
        // Division is a reciprocal and a few multiplications.
        "div" if float => Class::Special,
        "add" | "sub" | "mul" | "mad" | "fma" | "min" | "max" | "abs" | "neg" if float => Class::Float,
        _ => Class::Integer,
    }
}
