//! Training pairs: SVEN JSONL files, tokenised and checked (METHOD §10).

use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::tokenizer::Tokenizer;
use crate::train::batch::TokenPair;
use crate::train::records::{CodePair, for_each_record, pair_files};

/// Pairs ready for training, and what was left out.
#[derive(Clone, Debug, Default)]
pub struct TokenizedPairs {
    /// The usable pairs; `id` counts all pairs read.
    pub pairs: Vec<TokenPair>,
    /// Pairs whose halves are identical within the length limit, so that nothing can be learnt from them.
    pub identical: usize,
    /// Pairs of which at least one half was cut to the length limit.
    pub truncated: usize,
    /// Records that cannot be used.
    pub bad_records: usize,
}

/// What becomes of a record that cannot be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "snake_case")]
pub enum OnBadRecord {
    /// It is an error.
    #[default]
    Error,
    /// It is left out, and counted.
    Skip,
}

/// Reads the pairs of a JSONL file, or of all JSONL files of a folder in the order of their names (with `split`, of its
/// subfolder of that name if there is one). Returns also how many records were left out.
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

/// Tokenises pairs, cut to `max_seq_len` tokens each, without those that become identical.
pub fn tokenize(pairs: &[CodePair], tokenizer: &Tokenizer, max_seq_len: usize) -> Result<TokenizedPairs> {
    let encode = |text: &str| tokenizer.encode(text);
    let tokens: Vec<(Vec<u32>, Vec<u32>)> = pairs
        .par_iter()
        .map(|pair| Ok((encode(&pair.secure)?, encode(&pair.vulnerable)?)))
        .collect::<Result<_>>()?;
    let mut out = TokenizedPairs::default();
    for (id, (mut secure, mut vulnerable)) in tokens.into_iter().enumerate() {
        out.truncated += usize::from(secure.len().max(vulnerable.len()) > max_seq_len);
        secure.truncate(max_seq_len);
        vulnerable.truncate(max_seq_len);
        if secure == vulnerable {
            out.identical += 1;
        } else if !secure.is_empty() && !vulnerable.is_empty() {
            out.pairs.push(TokenPair { id, secure, vulnerable });
        }
    }
    Ok(out)
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
