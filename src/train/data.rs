//! Training pairs: SVEN JSONL files, tokenised and checked (METHOD §10).

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
#[cfg(feature = "text")]
use crate::model::tokenizer::Tokenizer;
use crate::train::batch::TokenPair;
use crate::train::changes::Changes;
#[cfg(feature = "text")]
use crate::train::method::Method;
use crate::train::records::{CodePair, for_each_record, pair_files};

/// Pairs ready for training, and what was left out.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TokenizedPairs {
    /// The usable pairs; `id` counts all pairs read.
    pub pairs: Vec<TokenPair>,
    /// Pairs left out because nothing can be learnt from them, whatever the length limit: their halves are
    /// the same, or one of them has no token.
    pub identical: usize,
    /// What the length limit does to the others.
    pub limit: LimitReport,
    /// Records that cannot be used.
    pub bad_records: usize,
}

impl TokenizedPairs {
    /// Pairs of tokens, cut to `max_seq_len` each, without those from which nothing can be learnt. Each gets
    /// its place among `pairs` as its number, and, if it has none, the marks of [`Changes::of_tokens`].
    pub fn new(pairs: Vec<TokenPair>, max_seq_len: usize) -> Self {
        let marked = |(id, pair): (usize, TokenPair)| {
            let TokenPair { secure, vulnerable, changes, .. } = pair;
            let changes = changes.unwrap_or_else(|| Changes::of_tokens(&secure, &vulnerable));
            TokenPair { id, secure, vulnerable, changes: Some(changes) }
        };
        let pairs: Vec<TokenPair> = pairs.into_par_iter().enumerate().map(marked).collect();
        let judged = pairs.into_iter().map(|pair| (Verdict::of_tokens(&pair, max_seq_len), pair));
        Self::collect(judged, max_seq_len)
    }

    fn collect(judged: impl Iterator<Item = (Verdict, TokenPair)>, max_seq_len: usize) -> Self {
        let mut out = TokenizedPairs { limit: LimitReport::new(max_seq_len), ..TokenizedPairs::default() };
        for (verdict, mut tokens) in judged {
            out.limit.add(&tokens, verdict);
            match verdict {
                Verdict::Identical => out.identical += 1,
                Verdict::Lost => {}
                Verdict::Whole | Verdict::Cut => {
                    tokens.secure.truncate(max_seq_len);
                    tokens.vulnerable.truncate(max_seq_len);
                    tokens.changes.iter_mut().for_each(|changes| changes.truncate(max_seq_len));
                    out.pairs.push(tokens);
                }
            }
        }
        out
    }
}

/// What becomes of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The pair is trained on.
    Whole,
    /// The pair is trained on, with at least one half cut to the length limit.
    Cut,
    /// The pair is left out, because its halves are the same up to the length limit.
    Lost,
    /// The pair is left out, because nothing can be learnt from it at any length.
    Identical,
}

impl Verdict {
    /// Decides, for training as for everything that speaks of it. `tokens` are those of the whole pair.
    pub fn of(pair: &CodePair, tokens: &TokenPair, max_seq_len: usize) -> Self {
        if pair.is_identical() { Verdict::Identical } else { Verdict::of_tokens(tokens, max_seq_len) }
    }

    /// Decides about a pair whose texts are not known.
    pub fn of_tokens(tokens: &TokenPair, max_seq_len: usize) -> Self {
        let (secure, vulnerable) = (&tokens.secure, &tokens.vulnerable);
        let within = |tokens: &[u32]| tokens.len().min(max_seq_len);
        if secure == vulnerable || secure.is_empty() || vulnerable.is_empty() {
            Verdict::Identical
        } else if secure[..within(secure)] == vulnerable[..within(vulnerable)] {
            Verdict::Lost
        } else if tokens.longest() > max_seq_len {
            Verdict::Cut
        } else {
            Verdict::Whole
        }
    }
}

/// What a length limit does to pairs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LimitReport {
    /// The limit, in tokens of a function.
    pub max_seq_len: usize,
    /// Pairs of which at least one half is cut.
    pub cut: usize,
    /// Pairs that are left out because their halves are the same up to the limit.
    pub lost: usize,
    /// How many pairs have a longer half of so many tokens.
    #[serde(skip)]
    lengths: BTreeMap<usize, usize>,
}

impl LimitReport {
    /// No pair yet.
    pub fn new(max_seq_len: usize) -> Self {
        LimitReport { max_seq_len, ..LimitReport::default() }
    }

    /// Counts a pair; one that is left out at any length does not count.
    pub fn add(&mut self, tokens: &TokenPair, verdict: Verdict) {
        match verdict {
            Verdict::Identical => return,
            Verdict::Cut => self.cut += 1,
            Verdict::Lost => self.lost += 1,
            Verdict::Whole => {}
        }
        *self.lengths.entry(tokens.longest()).or_default() += 1;
    }

    /// Pairs that are counted.
    pub fn pairs(&self) -> usize {
        self.lengths.values().sum()
    }

    /// The smallest limit with which at least 99 % of the pairs are whole.
    pub fn keeps_99_percent(&self) -> usize {
        let wanted = (99 * self.pairs()).div_ceil(100);
        let mut whole = 0;
        let reaches = |(_, n): &(&usize, &usize)| {
            whole += **n;
            whole >= wanted
        };
        self.lengths.iter().find(reaches).map_or(0, |(length, _)| *length)
    }
}

/// What becomes of a record that cannot be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnBadRecord {
    /// The record is an error.
    #[default]
    Error,
    /// The record is left out, and counted.
    Skip,
}

impl OnBadRecord {
    /// Both.
    pub const ALL: [OnBadRecord; 2] = [OnBadRecord::Error, OnBadRecord::Skip];

    /// The name in options and files.
    pub fn name(self) -> &'static str {
        match self {
            OnBadRecord::Error => "error",
            OnBadRecord::Skip => "skip",
        }
    }
}

/// Reads the pairs of a JSONL file, or of all JSONL files of a folder in the order of their names (with
/// `split`, of its subfolder of that name if there is one). Returns also how many records were left out.
pub fn read_pairs(path: &Path, split: &str, on_bad: OnBadRecord) -> Result<(Vec<CodePair>, usize)> {
    let (mut pairs, mut skipped) = (Vec::new(), 0);
    for file in &pair_files(path, split)? {
        for_each_record(file, |place, record| {
            match record {
                Ok(pair) => pairs.push(pair),
                Err(_) if on_bad == OnBadRecord::Skip => skipped += 1,
                Err(error) => return Err(error.context(place)),
            }
            Ok(())
        })?;
    }
    if pairs.is_empty() {
        return Err(Error::data(format!("{}: there is no pair in it", path.display())));
    }
    Ok((pairs, skipped))
}

/// Tokenises pairs, cut to `max_seq_len` tokens each, without those from which nothing can be learnt. Their
/// changes are marked as `method` reads them, if it does: in the whole functions, before these are cut.
///
/// # Errors
/// Kind `Model`: the tokenizer fails on a text.
#[cfg(feature = "text")]
pub fn tokenize(
    pairs: &[CodePair],
    tokenizer: &Tokenizer,
    max_seq_len: usize,
    method: Method,
) -> Result<TokenizedPairs> {
    let encode = |(id, pair)| encode_for(method, id, pair, tokenizer);
    let tokens: Vec<TokenPair> = pairs.par_iter().enumerate().map(encode).collect::<Result<_>>()?;
    let judged =
        pairs.iter().zip(tokens).map(|(pair, tokens)| (Verdict::of(pair, &tokens, max_seq_len), tokens));
    Ok(TokenizedPairs::collect(judged, max_seq_len))
}

/// The tokens of a whole pair, and the changes that `method` reads.
#[cfg(feature = "text")]
fn encode_for(method: Method, id: usize, pair: &CodePair, tokenizer: &Tokenizer) -> Result<TokenPair> {
    match method {
        Method::DeepGuard | Method::Ce => encode(id, pair, tokenizer),
        Method::SafeCoder => {
            let tokens = encode(id, pair, tokenizer)?;
            let changes = Changes::of_tokens(&tokens.secure, &tokens.vulnerable);
            Ok(TokenPair { changes: Some(changes), ..tokens })
        }
        Method::Sven | Method::CoSec => {
            let encode = |text: &str| -> Result<(Vec<_>, Vec<_>)> {
                Ok(tokenizer.encode_with_offsets(text)?.into_iter().unzip())
            };
            let ((secure, of_secure), (vulnerable, of_vulnerable)) =
                (encode(&pair.secure)?, encode(&pair.vulnerable)?);
            let changes = Changes::of_texts((&pair.secure, &of_secure), (&pair.vulnerable, &of_vulnerable));
            Ok(TokenPair { id, secure, vulnerable, changes: Some(changes) })
        }
    }
}

/// The tokens of a whole pair.
#[cfg(feature = "text")]
pub(super) fn encode(id: usize, pair: &CodePair, tokenizer: &Tokenizer) -> Result<TokenPair> {
    let (secure, vulnerable) = (tokenizer.encode(&pair.secure)?, tokenizer.encode(&pair.vulnerable)?);
    Ok(TokenPair::new(id, secure, vulnerable))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::error::ErrorKind;

    fn write(dir: &Path, name: &str, text: &[u8]) -> PathBuf {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    fn pairs(path: &Path) -> Result<(Vec<CodePair>, usize)> {
        read_pairs(path, "train", OnBadRecord::Error)
    }

    const GOOD: &str =
        r#"{"func_src_before": "a", "func_src_after": "b", "vul_type": "cwe-089", "extra": [1]}"#;

    #[test]
    fn reads_files_folders_and_splits() {
        let dir = tempfile::tempdir().unwrap();
        let file = write(dir.path(), "train/b.jsonl", format!("\u{feff}{GOOD}\r\n\n{GOOD}").as_bytes());
        write(dir.path(), "train/a.jsonl", GOOD.as_bytes());
        assert_eq!(pairs(&file).unwrap().0.len(), 2);
        assert_eq!(pairs(dir.path()).unwrap().0.len(), 3);
        assert_eq!(pairs(&dir.path().join("train")).unwrap().0[0].cwe, "cwe-089");
    }

    #[test]
    fn bad_records_are_named_by_line() {
        let dir = tempfile::tempdir().unwrap();
        let cases: [(&[u8], &str); 6] = [
            (br#"{"func_src_before": "\ud800", "func_src_after": "b"}"#, "JSON object"),
            (b"{\"func_src_before\": 3}", "func_src_before"),
            (b"not json", "JSON object"),
            (b"{\"func_src_before\": \"a\"}", "func_src_after"),
            (b"{\"func_src_before\": \"a\", \"func_src_after\": \"  \"}", "empty text"),
            (b"{\"func_src_before\": \"\xff\", \"func_src_after\": \"b\"}", "JSON object"),
        ];
        for (bad, expected) in cases {
            let file = write(dir.path(), "x.jsonl", &[GOOD.as_bytes(), b"\n", bad].concat());
            let error = pairs(&file).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data);
            let message = error.to_string();
            assert!(message.contains("x.jsonl:2") && message.contains(expected), "{message}");
            let (pairs, skipped) = read_pairs(&file, "train", OnBadRecord::Skip).unwrap();
            assert_eq!((pairs.len(), skipped), (1, 1));
        }
        assert_eq!(pairs(&dir.path().join("nothing")).unwrap_err().kind(), ErrorKind::Data);
        let empty = write(dir.path(), "empty.jsonl", b"\n");
        assert_eq!(pairs(&empty).unwrap_err().kind(), ErrorKind::Data);
    }
}
