//! Training pairs: SVEN JSONL files, tokenised and checked (METHOD §10).

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Deserialize;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::model::tokenizer::Tokenizer;
use crate::train::batch::TokenPair;

/// A line longer than this is refused before it is kept in memory.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// A vulnerable function and its fix.
#[derive(Clone, Debug, Deserialize)]
pub struct CodePair {
    /// The function before the fix: vulnerable.
    #[serde(rename = "func_src_before")]
    pub vulnerable: String,
    /// The function after the fix: secure.
    #[serde(rename = "func_src_after")]
    pub secure: String,
    /// Weakness, such as `cwe-089`; empty where the file has none.
    #[serde(default, rename = "vul_type")]
    pub cwe: String,
    /// The function's name; empty where the file has none.
    #[serde(default, rename = "func_name")]
    pub name: String,
}

/// Pairs ready for training, and what was left out.
#[derive(Clone, Debug, Default)]
pub struct TokenizedPairs {
    /// The usable pairs; `id` counts all pairs read.
    pub pairs: Vec<TokenPair>,
    /// Pairs whose halves are identical within the length limit, so that nothing can be learnt from them.
    pub identical: usize,
    /// Pairs of which at least one half was cut to the length limit.
    pub truncated: usize,
}

/// Reads the pairs of a JSONL file, or of all JSONL files of a folder in the order of their names (with `split`, of its
/// subfolder of that name if there is one).
pub fn read_pairs(path: &Path, split: &str) -> Result<Vec<CodePair>> {
    let files = pair_files(path, split)?;
    let mut pairs = Vec::new();
    for file in &files {
        read_file(file, &mut pairs)?;
    }
    if pairs.is_empty() {
        return Err(Error::data(format!("{}: there is no pair in it", path.display())));
    }
    Ok(pairs)
}

fn pair_files(path: &Path, split: &str) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let inner = path.join(split);
    let folder = if inner.is_dir() { inner } else { path.to_owned() };
    let entries = std::fs::read_dir(&folder).kind(ErrorKind::Data, || {
        format!("cannot read {}: expected a JSONL file or a folder of them", folder.display())
    })?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| file.extension().is_some_and(|e| e == "jsonl") && file.is_file())
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(Error::data(format!(
            "{}: expected files ending in .jsonl, found none",
            folder.display()
        )));
    }
    Ok(files)
}

fn read_file(path: &Path, pairs: &mut Vec<CodePair>) -> Result<()> {
    let complain = || format!("cannot read {}", path.display());
    let mut reader = BufReader::new(File::open(path).kind(ErrorKind::Data, complain)?);
    for number in 1.. {
        let mut line = Vec::new();
        let mut limited = std::io::Read::take(&mut reader, MAX_LINE_BYTES);
        let read = limited.read_until(b'\n', &mut line).kind(ErrorKind::Data, complain)?;
        if read == 0 {
            break;
        }
        let at = || format!("{}:{number}", path.display());
        if read as u64 == MAX_LINE_BYTES {
            return Err(Error::data(format!("{}: a line of more than {MAX_LINE_BYTES} bytes", at())));
        }
        let bom = b"\xEF\xBB\xBF";
        let text = if number == 1 { line.strip_prefix(bom).unwrap_or(&line) } else { &line };
        if !text.trim_ascii().is_empty() {
            pairs.push(parse_pair(text).map_err(|e| e.context(at()))?);
        }
    }
    Ok(())
}

fn parse_pair(line: &[u8]) -> Result<CodePair> {
    let pair: CodePair = serde_json::from_slice(line).kind(ErrorKind::Data, || {
        "expected a JSON object with the texts func_src_before and func_src_after".to_owned()
    })?;
    for (field, text) in [("func_src_before", &pair.vulnerable), ("func_src_after", &pair.secure)] {
        if text.trim().is_empty() {
            return Err(Error::data(format!(
                "{field}: expected the source of a function, found an empty text"
            )));
        }
    }
    Ok(pair)
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
    use super::*;

    fn write(dir: &Path, name: &str, text: &[u8]) -> PathBuf {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    const GOOD: &str =
        r#"{"func_src_before": "a", "func_src_after": "b", "vul_type": "cwe-089", "extra": [1]}"#;

    #[test]
    fn reads_files_folders_and_splits() {
        let dir = tempfile::tempdir().unwrap();
        let file = write(dir.path(), "train/b.jsonl", format!("\u{feff}{GOOD}\r\n\n{GOOD}").as_bytes());
        write(dir.path(), "train/a.jsonl", GOOD.as_bytes());
        assert_eq!(read_pairs(&file, "train").unwrap().len(), 2);
        assert_eq!(read_pairs(dir.path(), "train").unwrap().len(), 3);
        assert_eq!(read_pairs(&dir.path().join("train"), "train").unwrap()[0].cwe, "cwe-089");
    }

    #[test]
    fn bad_records_are_named_by_line() {
        let dir = tempfile::tempdir().unwrap();
        let cases: [(&[u8], &str); 5] = [
            (b"{\"func_src_before\": 3}", "func_src_before"),
            (b"not json", "JSON object"),
            (b"{\"func_src_before\": \"a\"}", "func_src_after"),
            (b"{\"func_src_before\": \"a\", \"func_src_after\": \"  \"}", "empty text"),
            (b"{\"func_src_before\": \"\xff\", \"func_src_after\": \"b\"}", "JSON object"),
        ];
        for (bad, expected) in cases {
            let file = write(dir.path(), "x.jsonl", &[GOOD.as_bytes(), b"\n", bad].concat());
            let error = read_pairs(&file, "train").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data);
            let message = error.to_string();
            assert!(message.contains("x.jsonl:2") && message.contains(expected), "{message}");
        }
        assert_eq!(read_pairs(&dir.path().join("nothing"), "train").unwrap_err().kind(), ErrorKind::Data);
        let empty = write(dir.path(), "empty.jsonl", b"\n");
        assert_eq!(read_pairs(&empty, "train").unwrap_err().kind(), ErrorKind::Data);
    }
}
