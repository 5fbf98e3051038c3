//! Records of training pairs: lines of SVEN's JSONL files (METHOD §10), one at a time, so that any number of
//! them fits.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::error::{Context, Error, ErrorKind, Result};

/// A line longer than this is refused before it is kept in memory.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// A vulnerable function and its fix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct CodePair {
    /// The function before the fix: vulnerable.
    #[serde(rename = "func_src_before")]
    pub vulnerable: String,
    /// The function after the fix: secure.
    #[serde(rename = "func_src_after")]
    pub secure: String,
    /// Weakness, such as `cwe-089`; empty where the file has none.
    #[serde(default, rename = "vul_type", deserialize_with = "text_or_nothing")]
    pub cwe: String,
    /// The function's name; empty where the file has none.
    #[serde(default, rename = "func_name", deserialize_with = "text_or_nothing")]
    pub name: String,
    /// The source file it is from; empty where the file has none.
    #[serde(default, deserialize_with = "text_or_nothing")]
    pub file_name: String,
}

impl CodePair {
    /// Whether the halves differ in white space around them at most, so that nothing can be learnt from them.
    /// White space inside counts: a line's indentation may be the fix.
    pub fn is_identical(&self) -> bool {
        self.secure.trim() == self.vulnerable.trim()
    }
}

/// A field that is shown but not needed: whatever is not a text is as good as absent.
fn text_or_nothing<'de, D: Deserializer<'de>>(value: D) -> std::result::Result<String, D::Error> {
    Ok(match Value::deserialize(value)? {
        Value::String(text) => text,
        _ => String::new(),
    })
}

/// The two fields that are needed. They are all that is read of a record whose other fields cannot be.
#[derive(Deserialize)]
struct Halves {
    func_src_before: String,
    func_src_after: String,
}

/// Where a record is: `file:line`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The file.
    pub file: &'a Path,
    /// The line, from 1.
    pub line: usize,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// Where validation pairs are: where they are said to be, or in the subfolder `val` of the training pairs if
/// there is one.
pub fn validation_path(data: &Path, given: Option<&Path>) -> Option<PathBuf> {
    let inner = || Some(data.join("val")).filter(|inner| inner.is_dir());
    given.map(Path::to_owned).or_else(inner)
}

/// The JSONL files of `path`: itself, or those of a folder in the order of their names (of its subfolder
/// `split` if there is one).
pub fn pair_files(path: &Path, split: &str) -> Result<Vec<PathBuf>> {
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

/// Calls `f` with every record of a file, good or bad; empty lines are none.
pub fn for_each_record(
    path: &Path,
    mut f: impl FnMut(Place<'_>, Result<CodePair>) -> Result<()>,
) -> Result<()> {
    let complain = || format!("cannot read {}", path.display());
    let mut reader = BufReader::new(File::open(path).kind(ErrorKind::Data, complain)?);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let mut limited = std::io::Read::take(&mut reader, MAX_LINE_BYTES);
        let read = limited.read_until(b'\n', &mut line).kind(ErrorKind::Data, complain)?;
        if read == 0 {
            break;
        }
        let place = Place { file: path, line: number };
        if read as u64 == MAX_LINE_BYTES {
            return Err(Error::data(format!("{place}: a line of more than {MAX_LINE_BYTES} bytes")));
        }
        let bom = b"\xEF\xBB\xBF";
        let text = if number == 1 { line.strip_prefix(bom).unwrap_or(&line) } else { &line };
        if !text.trim_ascii().is_empty() {
            f(place, parse_pair(text))?;
        }
    }
    Ok(())
}

fn parse_pair(line: &[u8]) -> Result<CodePair> {
    let pair = serde_json::from_slice(line).or_else(|_| {
        let halves: Halves = serde_json::from_slice(line)?;
        let Halves { func_src_before: vulnerable, func_src_after: secure } = halves;
        Ok::<_, serde_json::Error>(CodePair { vulnerable, secure, ..CodePair::default() })
    });
    let pair = pair.kind(ErrorKind::Data, || {
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
