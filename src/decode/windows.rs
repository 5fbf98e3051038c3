//! Scores of texts that are longer than a model's context: in windows that overlap.

use std::ops::Range;

use crate::attached::Attached;
use crate::decode::stage::{GuardScores, score_packed, score_with_attention};
use crate::error::Result;
use crate::model::transformer::Transformer;
use crate::ops::Backend;

/// Tokens that are read in one pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first of them.
    pub start: usize,
    /// Those whose scores are those of this pass; the ones before them are their context. They end the
    /// window.
    pub scored: Range<usize>,
}

/// Windows of at most `most` tokens over `len` tokens. Where two overlap, the scores of the earlier one
/// count, which has read more of what stands before; in every window but the first, each scored token has at
/// least `most / 2` tokens before it.
pub fn windows(len: usize, most: usize) -> Vec<Window> {
    let most = most.max(1);
    let new = most.div_ceil(2);
    let mut windows = vec![Window { start: 0, scored: 0..len.min(most) }];
    let mut done = len.min(most);
    while done < len {
        let end = len.min(done + new);
        windows.push(Window { start: end - most, scored: done..end });
        done = end;
    }
    windows
}

/// As [`score_with_attention`], of a text of any length: one beyond the model's context is read in
/// [`windows`], each of which begins with the first `prefix` tokens, such as a token that marks the beginning
/// of a text.
///
/// # Errors
/// Those of [`score_with_attention`].
pub fn score_in_windows<B: Backend>(
    model: &Transformer<B>,
    attached: &Attached<B>,
    tokens: &[u32],
    prefix: usize,
) -> Result<GuardScores> {
    let (prefix, text) = tokens.split_at(prefix);
    let room = model.config.max_position_embeddings.saturating_sub(prefix.len());
    let mut all = GuardScores::default();
    for Window { start, scored } in windows(text.len(), room) {
        let read = [prefix, &text[start..scored.end]].concat();
        let found = score_with_attention(model, attached, &read)?;
        // The prefix itself is scored in the first window.
        let context = if start == 0 { scored.start } else { prefix.len() + scored.start - start };
        let taps = found.attention.len() / read.len().max(1);
        all.scores.extend(&found.scores[context..]);
        all.attention.extend(&found.attention[context * taps..]);
    }
    Ok(all)
}

/// Most tokens of several texts in one pass: more take memory rather than save time.
const MOST_PACKED: usize = 4096;

/// As [`score_in_windows`], of several texts, none of which is empty and each of which begins with `prefix`
/// tokens that mark a beginning: consecutive short ones are read in one pass.
///
/// # Errors
/// Those of [`score_with_attention`].
pub fn score_batch<B: Backend>(
    model: &Transformer<B>,
    attached: &Attached<B>,
    texts: &[Vec<u32>],
    prefix: usize,
) -> Result<Vec<GuardScores>> {
    let most = model.config.max_position_embeddings.min(MOST_PACKED);
    let (mut all, mut rest) = (Vec::with_capacity(texts.len()), texts);
    while !rest.is_empty() {
        let mut rows = 0;
        let fits = |tokens: &&Vec<u32>| {
            rows += tokens.len();
            rows <= most
        };
        let (pass, behind) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        rest = behind;
        if let [tokens] = pass {
            all.push(score_in_windows(model, attached, tokens, prefix)?);
        } else {
            let tokens: Vec<&[u32]> = pass.iter().map(Vec::as_slice).collect();
            all.extend(score_packed(model, attached, &tokens)?);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_scored_once_with_as_much_context_as_there_can_be() {
        for (len, most) in (0..40).flat_map(|len| (1..12).map(move |most| (len, most))) {
            let windows = windows(len, most);
            let scored: Vec<usize> = windows.iter().flat_map(|window| window.scored.clone()).collect();
            assert_eq!(scored, (0..len).collect::<Vec<_>>(), "{len} {most}");
            assert_eq!(windows.len() > 1, len > most);
            for window in &windows[1..] {
                assert_eq!(window.scored.end - window.start, most, "{len} {most}");
                assert!(window.scored.start - window.start >= most / 2, "{len} {most}");
            }
        }
        assert_eq!(
            windows(10, 4),
            [(0, 0..4), (2, 4..6), (4, 6..8), (6, 8..10)].map(|(start, scored)| Window { start, scored })
        );
    }
}
