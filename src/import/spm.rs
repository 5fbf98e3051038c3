//! SentencePiece BPE (`llama`): the merges of a `tokenizer.json`, recovered from the scores of the pieces.
//!
//! SentencePiece joins the neighbours whose union has the highest score; a `tokenizer.json` lists the unions
//! in that order. Where a union can be made from two different pairs, both are listed, the pair of older
//! pieces first, as Hugging Face's converter does.

use super::pipeline::Pipeline;
use super::vocabulary::{TokenKind, Vocabulary};
use crate::error::{Error, Result};
use serde_json::{Value, json};
use std::collections::HashMap;

/// Stands for a space inside a piece.
const SPACE: &str = "\u{2581}";

/// The parts of `tokenizer.json` that are particular to SentencePiece BPE.
///
/// # Errors
/// [`crate::ErrorKind::Model`] where the scores do not order the pieces, a byte has no token, or there is no
/// unknown token.
pub(super) fn pipeline(vocabulary: &Vocabulary<'_>) -> Result<Pipeline> {
    require_bytes(vocabulary)?;
    refuse_unused_pieces(vocabulary)?;
    let prefix = vocabulary.metadata.get("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    Ok(Pipeline {
        kind: "llama".into(),
        normalizer: normalizer(prefix),
        pre_tokenizer: Value::Null,
        decoder: decoder(prefix),
        model: json!({
            "type": "BPE", "dropout": null, "unk_token": vocabulary.unk.map(|id| vocabulary.tokens[id]),
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
            "byte_fallback": true, "ignore_merges": false, "vocab": vocabulary.ids(),
            "merges": merges(vocabulary)?,
        }),
        add_bos: true,
    })
}

fn normalizer(prefix: bool) -> Value {
    let spaces = json!({ "type": "Replace", "pattern": { "String": " " }, "content": SPACE });
    let steps =
        if prefix { vec![json!({ "type": "Prepend", "prepend": SPACE }), spaces] } else { vec![spaces] };
    json!({ "type": "Sequence", "normalizers": steps })
}

fn decoder(prefix: bool) -> Value {
    let mut steps = vec![
        json!({ "type": "Replace", "pattern": { "String": SPACE }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if prefix {
        steps.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    json!({ "type": "Sequence", "decoders": steps })
}

fn require_bytes(vocabulary: &Vocabulary<'_>) -> Result<()> {
    let ids = vocabulary.ids();
    let missing =
        (0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>")).find(|name| !ids.contains_key(name.as_str()));
    match missing {
        None => Ok(()),
        Some(name) => Err(Error::model(format!(
            "tokenizer: expected a token for each of the 256 bytes, found none for `{name}`; use the Hugging Face \
             directory of this model instead"
        ))),
    }
}

/// SentencePiece merges through an unused piece and then splits it again, which a list of merges cannot say;
/// the converter's own padding is never reached.
fn refuse_unused_pieces(vocabulary: &Vocabulary<'_>) -> Result<()> {
    let unused = vocabulary
        .iter()
        .find(|(id, text, kind)| *kind == TokenKind::Unused && *text != format!("[PAD{id}]"));
    match unused {
        None => Ok(()),
        Some((id, text, _)) => Err(Error::model(format!(
            "token {id}: expected no unused pieces, found `{text}`; use the Hugging Face directory of this model \
             instead"
        ))),
    }
}

/// Every pair of pieces whose union is a piece, the union of the highest score first.
fn merges<'m>(vocabulary: &Vocabulary<'m>) -> Result<Vec<[&'m str; 2]>> {
    let pieces = scored_pieces(vocabulary)?;
    let mut unions: Vec<&Piece<'m>> = pieces.values().filter(|piece| piece.is_union()).collect();
    unions.sort_by(|a, b| b.score.total_cmp(&a.score));
    refuse_ties(&unions)?;
    Ok(unions.into_iter().flat_map(|union| pairs(union.text, &pieces)).collect())
}

/// A piece that takes part in merging.
struct Piece<'m> {
    id: usize,
    text: &'m str,
    score: f32,
}

impl Piece<'_> {
    fn is_union(&self) -> bool {
        self.text.chars().nth(1).is_some()
    }
}

fn scored_pieces<'m>(vocabulary: &Vocabulary<'m>) -> Result<HashMap<&'m str, Piece<'m>>> {
    let scores: Vec<f32> = vocabulary.metadata.need("tokenizer.ggml.scores")?;
    if scores.len() != vocabulary.tokens.len() || scores.iter().any(|score| score.is_nan()) {
        return Err(Error::model(format!(
            "metadata key `tokenizer.ggml.scores`: expected {} numbers, one per token, found {}; convert the model \
             again",
            vocabulary.tokens.len(),
            scores.len()
        )));
    }
    let normal = vocabulary.iter().zip(scores).filter(|((_, _, kind), _)| *kind == TokenKind::Normal);
    Ok(normal.map(|((id, text, _), score)| (text, Piece { id, text, score })).collect())
}

/// Some converters write one score for all pieces; the order of merges is then lost. `unions` is sorted by
/// score.
fn refuse_ties(unions: &[&Piece<'_>]) -> Result<()> {
    match unions.windows(2).find(|pair| pair[0].score == pair[1].score) {
        None => Ok(()),
        Some(pair) => Err(Error::model(format!(
            "tokens {} and {}: expected different scores, found {} twice, so the order of merges is unknown; use the \
             Hugging Face directory of this model instead",
            pair[0].id, pair[1].id, pair[0].score
        ))),
    }
}

fn pairs<'m>(union: &'m str, pieces: &HashMap<&'m str, Piece<'m>>) -> Vec<[&'m str; 2]> {
    let cuts = union.char_indices().skip(1).map(|(at, _)| union.split_at(at));
    let mut pairs: Vec<_> = cuts.filter_map(|(l, r)| Some((pieces.get(l)?, pieces.get(r)?))).collect();
    pairs.sort_by_key(|(left, right)| (left.id, right.id));
    pairs.into_iter().map(|(left, right)| [left.text, right.text]).collect()
}
