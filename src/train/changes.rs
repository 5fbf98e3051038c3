//! Which tokens of a pair a fix changed: where the losses of SafeCoder and SVEN look.

use std::ops::Range;

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

    /// As SVEN has them: tokens of the secure function with an added character, and tokens of the vulnerable
    /// one on a line that was deleted. `secure` and `vulnerable` are texts with the bytes of their tokens.
    pub fn of_texts(secure: (&str, &[Range<usize>]), vulnerable: (&str, &[Range<usize>])) -> Self {
        let (added, deleted) = text_changes(vulnerable.0, secure.0);
        let touches = |spans: &[Range<usize>], token: &Range<usize>| {
            spans.iter().any(|span| span.start < token.end && token.start < span.end)
        };
        Changes {
            secure: secure.1.iter().map(|token| touches(&added, token)).collect(),
            vulnerable: vulnerable.1.iter().map(|token| touches(&deleted, token)).collect(),
        }
    }

    /// Cut to so many tokens of each function.
    pub(super) fn truncate(&mut self, len: usize) {
        self.secure.truncate(len);
        self.vulnerable.truncate(len);
    }
}

/// Bytes of `after` that were added, word by word, and bytes of the lines of `before` that are not kept.
fn text_changes(before: &str, after: &str) -> (Vec<Range<usize>>, Vec<Range<usize>>) {
    let (old, new) = (lines(before), lines(after));
    let (mut added, mut deleted) = (Vec::new(), Vec::new());
    for (from, to) in hunks(&texts(before, &old), &texts(after, &new)) {
        deleted.extend(old[from.clone()].iter().cloned());
        let words = |text: &str, lines: &[Range<usize>]| -> Vec<Range<usize>> {
            lines.iter().flat_map(|line| words(text, line.clone())).collect()
        };
        let (old, new) = (words(before, &old[from]), words(after, &new[to]));
        for (_, to) in hunks(&texts(before, &old), &texts(after, &new)) {
            added.extend(new[to].iter().cloned());
        }
    }
    (added, deleted)
}

fn texts<'a>(text: &'a str, ranges: &[Range<usize>]) -> Vec<&'a str> {
    ranges.iter().map(|range| &text[range.clone()]).collect()
}

/// Lines with their ends.
fn lines(text: &str) -> Vec<Range<usize>> {
    let mut start = 0;
    let line = |line: &str| {
        start += line.len();
        start - line.len()..start
    };
    text.split_inclusive('\n').map(line).collect()
}

/// Runs of letters, digits and underscores, and every other character by itself.
fn words(text: &str, line: Range<usize>) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut in_word = false;
    for (at, c) in text[line.clone()].char_indices() {
        let (start, of_word) = (line.start + at, c.is_alphanumeric() || c == '_');
        match found.last_mut().filter(|_| in_word && of_word) {
            Some(word) => word.end = start + c.len_utf8(),
            None => found.push(start..start + c.len_utf8()),
        }
        in_word = of_word;
    }
    found
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

    #[test]
    fn added_characters_and_deleted_lines() {
        let (before, after) = ("a = 1\nrun(x + y)\nend\n", "a = 1\nrun(x, z)\nend\n");
        let of = |text: &str| (0..text.len()).map(|i| i..i + 1).collect::<Vec<_>>();
        let changes = Changes::of_texts((after, &of(after)), (before, &of(before)));
        assert_eq!(marks(&changes.secure), "00000000000101000000");
        assert_eq!(marks(&changes.vulnerable), "000000111111111110000");
    }

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
