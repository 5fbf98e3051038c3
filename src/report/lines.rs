//! A scored text line by line.

use std::ops::Range;

use crate::deepguard::TextScores;
use crate::model::tokenizer::BYTE_ORDER_MARK;

/// A line of a text.
#[derive(Debug, PartialEq)]
pub struct ScoredLine {
    /// Counted from 1.
    pub number: usize,
    /// Bytes of the text, without the line feed, a carriage return before it, and a byte order mark.
    pub range: Range<usize>,
    /// Mean score of the tokens that begin on the line, the line feed included.
    pub score: Option<f32>,
    /// The line cut where tokens begin and end.
    pub pieces: Vec<Piece>,
}

/// A part of a line.
#[derive(Debug, PartialEq)]
pub struct Piece {
    /// Bytes of the text; no line feed is among them.
    pub range: Range<usize>,
    /// Whose it is: one token's, that of several that share a character, or nobody's.
    pub tokens: Option<Range<usize>>,
    /// Whether a line feed follows that belongs to the same tokens.
    pub ends_line: bool,
}

/// The lines of a text.
pub fn lines(text: &str, scores: &TextScores) -> Vec<ScoredLine> {
    let groups = groups(text.len(), scores);
    let mut next = 0;
    let mut start = 0;
    let mut lines = Vec::new();
    for line in text.split_inclusive('\n') {
        let (whole, body) = (start..start + line.len(), line.strip_suffix('\n').unwrap_or(line));
        let score = mean_score(scores, &whole);
        while groups.get(next).is_some_and(|group| group.bytes.end <= whole.start) {
            next += 1;
        }
        let end = whole.start + body.strip_suffix('\r').unwrap_or(body).len();
        let mark =
            if start == 0 && body.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len_utf8() } else { 0 };
        let shown = whole.start + mark..end.max(mark);
        let pieces = pieces(&groups[next.min(groups.len())..], &whole, &shown, whole.start + body.len());
        lines.push(ScoredLine { number: lines.len() + 1, range: shown, score, pieces });
        start = whole.end;
    }
    lines
}

/// Tokens that cannot be told apart in the text, and their bytes.
struct Group {
    bytes: Range<usize>,
    tokens: Option<Range<usize>>,
}

/// The whole text in groups: also what belongs to no token.
fn groups(len: usize, scores: &TextScores) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut at = 0;
    for (i, token) in scores.tokens.iter().enumerate() {
        let (start, end) = (token.range.start.min(len), token.range.end.min(len));
        if start > at {
            groups.push(Group { bytes: at..start, tokens: None });
        }
        match groups.last_mut() {
            // The token begins inside the last group: both have a part of the same character, or the token
            // has no bytes.
            Some(Group { bytes, tokens: Some(tokens) }) if start < at || end <= at => {
                tokens.end = i + 1;
                bytes.end = bytes.end.max(end);
            }
            _ if end > at => groups.push(Group { bytes: at.max(start)..end, tokens: Some(i..i + 1) }),
            _ => {}
        }
        at = at.max(end);
    }
    if at < len {
        groups.push(Group { bytes: at..len, tokens: None });
    }
    groups
}

/// The parts of the line `whole` within `shown`. Its line feed, if any, is at `feed`.
fn pieces(groups: &[Group], whole: &Range<usize>, shown: &Range<usize>, feed: usize) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for group in groups.iter().take_while(|group| group.bytes.start < whole.end) {
        let range = group.bytes.start.max(shown.start)..group.bytes.end.min(shown.end);
        let range = range.start.min(range.end)..range.end;
        let ends_line = feed < whole.end && group.bytes.end > feed && group.tokens.is_some();
        if !range.is_empty() || ends_line {
            pieces.push(Piece { range, tokens: group.tokens.clone(), ends_line });
        }
    }
    pieces
}

fn mean_score(scores: &TextScores, bytes: &Range<usize>) -> Option<f32> {
    // Tokens stand in the order of their beginnings.
    let first = scores.tokens.partition_point(|token| token.range.start < bytes.start);
    let of_line = scores.tokens[first..].iter().take_while(|token| token.range.start < bytes.end);
    // What the tokenizer puts around a text is on no line.
    let of_line = of_line.filter(|token| !token.range.is_empty());
    let (sum, n) = of_line.fold((0.0, 0), |(sum, n), token| (sum + token.score, n + 1));
    (n > 0).then(|| sum / n as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deepguard::TokenScore;

    fn scores(tokens: &[(usize, usize, f32)]) -> TextScores {
        let token =
            |&(start, end, score)| TokenScore { token: 1, range: start..end, score, attention: vec![] };
        TextScores { tokens: tokens.iter().map(token).collect(), mean: 0.5, layers: vec![1] }
    }

    fn piece(range: Range<usize>, tokens: Option<Range<usize>>, ends_line: bool) -> Piece {
        Piece { range, tokens, ends_line }
    }

    #[test]
    fn lines_have_their_tokens() {
        // A token over two lines, white space of nobody, a carriage return.
        let lines = lines("ab\n  c \r\nd", &scores(&[(0, 2, 0.2), (2, 6, 0.8), (8, 9, 0.4), (9, 10, 0.6)]));
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0].pieces, [piece(0..2, Some(0..1), false), piece(2..2, Some(1..2), true)]);
        assert_eq!(lines[0].score, Some(0.5));
        assert_eq!(lines[1].range, 3..7);
        assert_eq!(
            lines[1].pieces,
            [piece(3..6, Some(1..2), false), piece(6..7, None, false), piece(7..7, Some(2..3), true)]
        );
        assert_eq!(lines[1].score, Some(0.4));
        assert_eq!(lines[2].pieces, [piece(9..10, Some(3..4), false)]);
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_text() {
        let marked = lines("\u{feff}ab\nc", &scores(&[(3, 5, 0.2), (5, 7, 0.4)]));
        assert_eq!((&marked[0].range, marked[0].score), (&(3..5), Some(0.3)));
        assert_eq!(marked[0].pieces, [piece(3..5, Some(0..1), false), piece(5..5, Some(1..2), true)]);
        // Whoever scores it all the same has a token that covers it.
        let scored = lines("\u{feff}ab", &scores(&[(0, 4, 0.2), (4, 5, 0.4)]));
        assert_eq!(scored[0].pieces, [piece(3..4, Some(0..1), false), piece(4..5, Some(1..2), false)]);
        assert_eq!(lines("\u{feff}\r\n", &scores(&[]))[0].range, 3..3);
    }

    #[test]
    fn tokens_that_share_a_character_are_one_piece() {
        let lines =
            lines("a漢b", &scores(&[(0, 1, 0.1), (1, 4, 0.2), (1, 4, 0.3), (1, 4, 0.4), (4, 5, 0.5)]));
        assert_eq!(
            lines[0].pieces,
            [piece(0..1, Some(0..1), false), piece(1..4, Some(1..4), false), piece(4..5, Some(4..5), false)]
        );
    }

    #[test]
    fn pieces_are_the_text() {
        let text = "x\n\n\ty\r\n漢字\nz";
        let tokens = [(0, 3, 0.1), (4, 5, 0.2), (7, 10, 0.3), (7, 10, 0.3), (10, 13, 0.4)];
        let mut shown = String::new();
        for line in lines(text, &scores(&tokens)) {
            line.pieces.iter().for_each(|piece| shown.push_str(&text[piece.range.clone()]));
            shown.push('\n');
        }
        assert_eq!(shown, "x\n\n\ty\n漢字\nz\n"); // but for the carriage return
        assert!(lines("", &scores(&[])).is_empty());
    }
}
