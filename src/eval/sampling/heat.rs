//! What a guard makes of completions, for the page's heat map.

use std::collections::BTreeMap;

use crate::deepguard::{DeepGuard, TextScores};
use crate::error::Result;
use crate::eval::samples::{SampleLine, ScoredPiece};
use crate::ops::Backend;

/// Different completions of a prompt that are scored. On a CPU, to read one takes about as long as it took to
/// sample it.
const MOST_SCORED: usize = 4;

/// Scores the first few different samples of a prompt, and those that are the same; does nothing without a
/// guard. A sample that the tokenizer cannot read back has no scores.
pub(super) fn add_scores<B: Backend>(
    guard: &DeepGuard<B>,
    prompt: &str,
    lines: &mut [SampleLine],
) -> Result<()> {
    if guard.attached.as_ref().is_none_or(|attached| attached.guard.is_none()) {
        return Ok(());
    }
    let mut scored: BTreeMap<String, Option<Vec<ScoredPiece>>> = BTreeMap::new();
    for line in lines.iter().filter(|line| !line.completion.is_empty()) {
        let program = format!("{prompt}{}", line.completion);
        if scored.len() < MOST_SCORED && guard.tokenizer.encode(&program).is_ok() {
            scored.insert(program, None);
        }
    }
    let programs: Vec<&String> = scored.keys().collect();
    let scores = guard.score_batch(&programs)?;
    for (pieces, scores) in scored.values_mut().zip(&scores) {
        *pieces = pieces_of(scores, prompt.len());
    }
    for line in lines {
        line.scores = scored.get(&format!("{prompt}{}", line.completion)).cloned().flatten();
    }
    Ok(())
}

/// The tokens behind the first `start` bytes. Those that share a character make one piece, with their mean;
/// bytes that belong to no token are part of the next piece. Nothing where a score is not a number.
fn pieces_of(scores: &TextScores, start: usize) -> Option<Vec<ScoredPiece>> {
    let mut pieces: Vec<ScoredPiece> = Vec::new();
    let (mut at, mut shared) = (start, 0);
    for token in &scores.tokens {
        let score = token.score;
        if !score.is_finite() {
            return None;
        }
        match pieces.last_mut() {
            _ if token.range.end > at => {
                pieces.push(ScoredPiece { bytes: (token.range.end - at) as u32, score });
                (at, shared) = (token.range.end, 1);
            }
            Some(piece) if !token.range.is_empty() => {
                shared += 1;
                piece.score += (score - piece.score) / shared as f32;
            }
            _ => {}
        }
    }
    pieces.iter_mut().for_each(|piece| piece.score = rounded(piece.score));
    Some(pieces)
}

/// With as many digits as pages show.
fn rounded(score: f32) -> f32 {
    ((f64::from(score) * 1e4).round() / 1e4) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deepguard::TokenScore;

    #[test]
    fn pieces_cover_the_completion() {
        let token = |range, score| TokenScore { token: 1, range, score, attention: Vec::new() };
        let of = |tokens| pieces_of(&TextScores { tokens, mean: 0.0, layers: Vec::new() }, 4);
        // A start token, one of the prompt, one that reaches into the completion, two of one character, a gap
        // before the last, and an end token.
        let tokens = vec![
            token(0..0, 0.9),
            token(0..3, 0.8),
            token(3..6, 0.123_456),
            token(6..9, 0.5),
            token(6..9, 0.25),
            token(10..12, 0.75),
            token(12..12, 0.1),
        ];
        let piece = |bytes, score| ScoredPiece { bytes, score };
        let expected = [piece(2, 0.1235), piece(3, 0.375), piece(3, 0.75)];
        assert_eq!(of(tokens.clone()).unwrap(), expected);
        assert_eq!(of(Vec::new()), Some(Vec::new()));
        assert_eq!(of([tokens, vec![token(12..13, f32::NAN)]].concat()), None);
    }
}
