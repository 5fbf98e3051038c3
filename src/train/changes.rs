//! Which tokens of a pair a fix changed: where the losses of SafeCoder, SVEN and CoSec look.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use similar::{Algorithm, DiffTag, capture_diff_slices};

/// Most lines, words or tokens between the common ends of two functions that are looked at one by one:
/// finding the smallest difference of two sequences takes time that grows with the square of their length.
const MOST_COMPARED: usize = 1 << 14;

/// For every token of a function, whether the fix changed it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Of the secure function: what the fix brought.
    pub secure: Vec<bool>,
    /// Of the vulnerable function: what the fix took away.
    pub vulnerable: Vec<bool>,
}

impl Changes {
    /// As SafeCoder has them: tokens that a diff of the tokens does not keep, and single ones between two of
    /// them. Where more than 16384 tokens lie between the functions' common ends, all of those are changed.
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
    /// Where more than 16384 lines or words lie between common ends, all of those are changed.
    pub fn of_texts(secure: (&str, &[Range<usize>]), vulnerable: (&str, &[Range<usize>])) -> Self {
        let (added, deleted) = text_changes(vulnerable.0, secure.0);
        Changes {
            secure: secure.1.iter().map(|token| touches(&added, token)).collect(),
            vulnerable: vulnerable.1.iter().map(|token| touches(&deleted, token)).collect(),
        }
    }

    /// Whether these are of functions of so many tokens.
    pub(super) fn fit(&self, secure: usize, vulnerable: usize) -> bool {
        (self.secure.len(), self.vulnerable.len()) == (secure, vulnerable)
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

/// Whether one of `spans`, which are in their order and apart, shares a byte with a token.
fn touches(spans: &[Range<usize>], token: &Range<usize>) -> bool {
    let first_behind = spans.partition_point(|span| span.end <= token.start);
    spans.get(first_behind).is_some_and(|span| span.start < token.end)
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
fn hunks<T: std::hash::Hash + Eq + Ord>(before: &[T], after: &[T]) -> Vec<(Range<usize>, Range<usize>)> {
    let (old, new) = between_common_ends(before, after);
    if old.len() + new.len() > MOST_COMPARED {
        return vec![(old, new)];
    }
    let changed = capture_diff_slices(Algorithm::Myers, before, after).into_iter();
    let changed = changed.map(|op| op.as_tag_tuple()).filter(|(tag, ..)| *tag != DiffTag::Equal);
    changed.map(|(_, before, after)| (before, after)).collect()
}

/// What both have between what they begin and end with alike.
fn between_common_ends<T: Eq>(before: &[T], after: &[T]) -> (Range<usize>, Range<usize>) {
    let start = before.iter().zip(after).take_while(|(old, new)| old == new).count();
    let rest = before[start..].iter().rev().zip(after[start..].iter().rev());
    let end = rest.take_while(|(old, new)| old == new).count();
    (start..before.len() - end, start..after.len() - end)
}

/// A single unchanged token between two changed ones counts as changed.
fn fill_gaps(changed: &mut [bool]) {
    let gaps: Vec<usize> =
        changed.windows(3).enumerate().filter(|(_, w)| w[0] && w[2]).map(|(i, _)| i + 1).collect();
    gaps.into_iter().for_each(|i| changed[i] = true);
}

/// A function with what the fix changed of it. Tokens `ignored` are no targets.
#[derive(Clone, Copy)]
pub(super) struct Marked<'a> {
    pub(super) tokens: &'a [u32],
    /// One for every token; none of a function of which it is not known.
    pub(super) changed: &'a [bool],
    pub(super) ignored: Option<u32>,
}

impl<'a> Marked<'a> {
    /// Targets, the tokens after the first, that were `changed` or were not.
    fn targets(self, changed: bool) -> impl Iterator<Item = usize> + use<'a> {
        let tokens = self.tokens.iter().zip(self.changed).enumerate().skip(1);
        let chosen =
            tokens.filter(move |(_, (token, mark))| **mark == changed && Some(**token) != self.ignored);
        chosen.map(|(token, _)| token)
    }

    /// Whether there are targets of both kinds; a function without is left out, as in the published code.
    pub(super) fn is_usable(self) -> bool {
        [true, false].into_iter().all(|kind| self.targets(kind).next().is_some())
    }

    /// Targets of one kind, each with 1 / their number; none of a function that is left out.
    pub(super) fn weights(self, changed: bool) -> impl Iterator<Item = (usize, f32)> + use<'a> {
        let n = if self.is_usable() { self.targets(changed).count() } else { 0 };
        let weight = 1.0 / n.max(1) as f32;
        self.targets(changed).take(n).map(move |token| (token, weight))
    }
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
        let is_usable = |changed: &[bool]| Marked { tokens: &[7, 8, 9], changed, ignored: None }.is_usable();
        assert!(is_usable(&[false, true, false]));
        assert!(!is_usable(&[true, false, false]), "the first token is no target");
        assert!(!is_usable(&[false, true, true]) && !is_usable(&[]));
    }

    #[test]
    fn an_ignored_token_has_no_weight_and_is_not_counted() {
        let (tokens, changed) = ([1, 0, 2, 3, 0, 4], [false, true, true, true, false, false]);
        let weights = |ignored| {
            let function = Marked { tokens: &tokens, changed: &changed, ignored };
            [true, false].map(|kind| function.weights(kind).collect::<Vec<_>>())
        };
        let third = 1.0 / 3.0;
        assert_eq!(weights(None), [vec![(1, third), (2, third), (3, third)], vec![(4, 0.5), (5, 0.5)]]);
        assert_eq!(weights(Some(0)), [vec![(2, 0.5), (3, 0.5)], vec![(5, 1.0)]]);
        // Without the last token of a kind the function is left out.
        assert_eq!(weights(Some(4)).map(|of_kind| of_kind.len()), [3, 1]);
        let only = Marked { tokens: &[1, 0, 2], changed: &[false, true, false], ignored: Some(0) };
        assert!(!only.is_usable() && only.weights(false).next().is_none());
    }

    #[test]
    fn functions_of_many_words_are_compared_at_their_ends_only() {
        // In a diff of every token, the middle would be kept.
        let many = |first: u32| first..first + MOST_COMPARED as u32 / 4 + 1;
        let [secure, vulnerable]: [Vec<u32>; 2] = [many(1 << 20), many(1 << 21)]
            .map(|own| [0, 1].into_iter().chain(own.clone()).chain([2, 4]).chain(own).chain([3]).collect());
        let changes = Changes::of_tokens(&secure, &vulnerable);
        for marks in [&changes.secure, &changes.vulnerable] {
            let middle = &marks[2..marks.len() - 1];
            assert!(middle.iter().all(|changed| *changed));
            assert_eq!((marks[0], marks[1], marks[marks.len() - 1]), (false, false, false));
        }
        let text = |tokens: &[u32]| tokens.iter().map(|token| format!("{token} ")).collect::<String>();
        let (secure, vulnerable) = (text(&secure), text(&vulnerable));
        let bytes = |text: &str| words(text, 0..text.len());
        let changes = Changes::of_texts((&secure, &bytes(&secure)), (&vulnerable, &bytes(&vulnerable)));
        assert!(changes.secure[4..changes.secure.len() - 4].iter().all(|added| *added));
        assert!(changes.vulnerable.iter().all(|deleted| *deleted), "it is one line");
    }

    #[test]
    fn a_token_touches_a_span_whose_byte_it_shares() {
        let spans = [2..4, 6..7, 9..12];
        for (start, end) in (0..14).flat_map(|start| (start..14).map(move |end| (start, end))) {
            let any = spans.iter().any(|span| span.start < end && start < span.end);
            assert_eq!(touches(&spans, &(start..end)), any, "{start}..{end}");
        }
    }
}
