//! Arithmetic of single values, as the PTX ISA defines it.
//!
//! Every function is pure and takes the modifiers of its instruction as type or constant parameters, so that
//! the executors of [`crate`] compile to one loop without branches per instruction.
//!
//! * [`round`] and [`soft`] are the general case: any operation in any format with any rounding, slow and
//!   exact.
//! * [`single`], [`double`] and [`half`] are the arithmetic of the formats that PTX computes in; they use the
//!   hardware for round-to-nearest and [`soft`] for the rest.
//! * [`special`] are the approximations, [`convert`] and [`narrow`] the conversions, [`compare`] the
//!   comparisons.
//! * [`integer`] and [`bits`] are what their names say.

pub mod bits;
pub mod compare;
pub mod convert;
pub mod double;
pub mod half;
pub mod integer;
pub mod narrow;
pub mod round;
pub mod single;
pub mod soft;
pub mod special;
