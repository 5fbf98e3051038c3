//! The two files in which an evaluation keeps what it has: completions and verdicts, a line of JSON each.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::verdict::Verdict;

/// A line of `samples.jsonl`. Samples of other programs need `id` and `completion` only.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct SampleLine {
    /// Id of the scenario in its suite.
    pub id: String,
    /// Number of the sample among those of its scenario, from 0.
    pub sample: u32,
    /// What the model added to the prompt, cut where the function ends.
    pub completion: String,
    /// Generated tokens, those beyond the cut included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u32>,
    /// Why generation ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish: Option<Finish>,
    /// What the adapter's guard makes of the completion behind its prompt, piece by piece from its beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scores: Option<Vec<ScoredPiece>>,
}

/// A token of a completion, or several that share a character; in JSON `[bytes, score]`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq)]
#[serde(from = "(u32, f32)", into = "(u32, f32)")]
pub struct ScoredPiece {
    /// Its bytes, which follow those of the piece before.
    pub bytes: u32,
    /// Score in (0, 1) with four decimals; high is secure.
    pub score: f32,
}

impl From<(u32, f32)> for ScoredPiece {
    fn from((bytes, score): (u32, f32)) -> Self {
        ScoredPiece { bytes, score }
    }
}

impl From<ScoredPiece> for (u32, f32) {
    fn from(ScoredPiece { bytes, score }: ScoredPiece) -> Self {
        (bytes, score)
    }
}

/// A line of `samples.jsonl` as other programs write it.
#[derive(Debug, Deserialize)]
pub(super) struct GivenSample {
    id: String,
    sample: Option<u32>,
    completion: String,
    tokens: Option<u32>,
    finish: Option<Finish>,
    scores: Option<Vec<ScoredPiece>>,
}

/// Samples without a number get that of their place among those of their scenario.
pub(super) fn numbered(given: Vec<GivenSample>) -> Vec<SampleLine> {
    let mut counts: HashMap<String, u32> = HashMap::new();
    let number = |GivenSample { id, sample, completion, tokens, finish, scores }: GivenSample| {
        let count = counts.entry(id.clone()).or_default();
        let sample = sample.unwrap_or(*count);
        *count += 1;
        SampleLine { id, sample, completion, tokens, finish, scores }
    };
    given.into_iter().map(number).collect()
}

/// Why generation ended.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// A token that ends a text.
    EndOfText,
    /// The function was complete.
    Stop,
    /// The limit of tokens or of the context.
    Length,
}

/// A line of `verdicts.jsonl`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct VerdictLine {
    /// Id of the scenario.
    pub id: String,
    /// Number of the sample.
    pub sample: u32,
    /// BLAKE3 of the program that was judged, prompt and completion.
    pub program: String,
    /// BLAKE3 of program, checks, harness and environment: all that the verdict depends on.
    #[serde(default)]
    pub key: String,
    /// What the judge found out.
    #[serde(flatten)]
    pub verdict: Verdict,
}
