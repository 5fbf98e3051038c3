//! Which tokens of a pair a fix changed: where the losses of SafeCoder and SVEN look.

use similar::{Algorithm, DiffTag, capture_diff_slices};

/// For every token of a function, whether the fix changed it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Of the secure function: what the fix brought.
    pub secure: Vec<bool>,
    /// Of the vulnerable function: what the fix took away.
    pub vulnerable: Vec<bool>,
}

impl Changes {
    /// As SafeCoder has them: tokens that a diff of the tokens does not keep, and single ones between two of
    /// them.
    pub fn of_tokens(secure: &[u32], vulnerable: &[u32]) -> Self {
        let mut changes =
            Changes { secure: vec![false; secure.len()], vulnerable: vec![false; vulnerable.len()] };
        for (before, after) in hunks(vulnerable, secure) {
            changes.vulnerable[before].fill(true);
            changes.secure[after].fill(true);
        }
        fill_gaps(&mut changes.secure);
        fill_gaps(&mut changes.vulnerable);
        changes
    }

    /// Cut to so many tokens of each function.
    pub(super) fn truncate(&mut self, len: usize) {
        self.secure.truncate(len);
        self.vulnerable.truncate(len);
    }
}

/// Ranges of `before` and of `after` that are not the same, in their order.
fn hunks<T: std::hash::Hash + Eq + Ord>(
    before: &[T],
    after: &[T],
) -> Vec<(std::ops::Range<usize>, std::ops::Range<usize>)> {
    let changed = capture_diff_slices(Algorithm::Myers, before, after).into_iter();
    let changed = changed.map(|op| op.as_tag_tuple()).filter(|(tag, ..)| *tag != DiffTag::Equal);
    changed.map(|(_, before, after)| (before, after)).collect()
}

/// A single unchanged token between two changed ones counts as changed.
fn fill_gaps(changed: &mut [bool]) {
    let gaps: Vec<usize> =
        changed.windows(3).enumerate().filter(|(_, w)| w[0] && w[2]).map(|(i, _)| i + 1).collect();
    gaps.into_iter().for_each(|i| changed[i] = true);
}

/// Targets of a function, the tokens after its first, of one kind.
pub(super) fn targets(changed: &[bool], kind: bool) -> impl Iterator<Item = usize> {
    changed.iter().enumerate().skip(1).filter(move |(_, changed)| **changed == kind).map(|(token, _)| token)
}

/// Whether a function has targets of both kinds; one without is left out, as in the published code.
pub(super) fn is_usable(changed: &[bool]) -> bool {
    [true, false].into_iter().all(|kind| targets(changed, kind).next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(changed: &[bool]) -> String {
        changed.iter().map(|changed| if *changed { '1' } else { '0' }).collect()
    }

    #[test]
    fn tokens_that_a_diff_does_not_keep() {
        let changes = Changes::of_tokens(&[1, 2, 9, 8, 3, 7, 4, 5], &[1, 2, 3, 4, 6, 5]);
        assert_eq!(
            (marks(&changes.secure), marks(&changes.vulnerable)),
            ("00111100".into(), "000010".into())
        );
        let same = Changes::of_tokens(&[1, 2], &[1, 2]);
        assert_eq!(marks(&same.secure), "00");
    }

    #[test]
    fn a_function_needs_targets_that_changed_and_others() {
        assert!(is_usable(&[false, true, false]));
        assert!(!is_usable(&[true, false, false]), "the first token is no target");
        assert!(!is_usable(&[false, true, true]) && !is_usable(&[]));
    }
}
