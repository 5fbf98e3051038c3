//! What operations on learned keys and values, those of prefix tuning, refuse.

use super::contract::refused;
use crate::error::Result;

/// Refuses matrices of different shapes, and fewer row keys than rows.
pub(crate) fn check(
    op: &str,
    to: (std::result::Result<(), String>, [usize; 2]),
    from: (std::result::Result<(), String>, [usize; 2]),
    row_keys: Option<usize>,
) -> Result<()> {
    to.0.and(from.0).map_err(|problem| refused(op, problem))?;
    if to.1 != from.1 {
        return Err(refused(
            op,
            format!("expected two matrices of one shape, found {:?} and {:?}", to.1, from.1),
        ));
    }
    match row_keys.filter(|keys| *keys < to.1[0]) {
        Some(keys) => Err(refused(op, format!("row_keys: expected {} of them, found {keys}", to.1[0]))),
        None => Ok(()),
    }
}
