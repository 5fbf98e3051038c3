//! What operations refuse, so that none leaves its arguments whatever it is given.
//!
//! What the host can see is checked before anything starts; what only the device can (ids) is checked there.
//! Either way nothing is read or written out of bounds, and [`finish`](super::Device::finish) tells.

use crate::error::{Error, Result};

/// An argument of an operation that is not what its contract asks for.
pub(crate) fn refused(op: &str, problem: String) -> Error {
    Error::internal(format!("{op}: {problem}"))
}

/// A number of filled rows, read on the device, that a sample of a cache cannot have.
pub(crate) fn refused_filled(op: &str, capacity: u32, found: u32) -> Error {
    refused(op, format!("filled: expected 1 to {capacity}, the rows of a sample, found {found}"))
}

/// Refuses a buffer of fewer than `expected` elements.
pub(crate) fn expect_len(op: &str, name: &str, found: usize, expected: usize) -> Result<()> {
    match found < expected {
        true => Err(refused(op, format!("{name}: expected {expected} elements, found {found}"))),
        false => Ok(()),
    }
}

/// Refuses a buffer of other than `expected` elements, or of more than any memory holds (`None`).
pub(crate) fn expect_exactly(op: &str, name: &str, found: usize, expected: Option<usize>) -> Result<()> {
    match expected {
        Some(expected) if found == expected => Ok(()),
        Some(expected) => Err(refused(op, format!("{name}: expected {expected} elements, found {found}"))),
        None => Err(refused(op, format!("{name}: no memory holds as many elements as expected"))),
    }
}
