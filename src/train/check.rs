//! Looking at pairs before training: what there is, and what is wrong with it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;

use crate::error::Result;
use crate::model::tokenizer::Tokenizer;
use crate::train::batch::TokenPair;
use crate::train::data::{LimitReport, Verdict, encode};
use crate::train::records::{CodePair, Place, for_each_record, pair_files, validation_path};

/// Records that are tokenised together.
const BATCH: usize = 1024;
/// Places of each kind of finding that are named; the others are only counted.
const NAMED: usize = 20;
/// Upper ends of the histogram's bars, in tokens of the longer half; the last one has none.
const BARS: [usize; 8] = [64, 128, 256, 512, 1024, 2048, 4096, 8192];

/// What [`check`] finds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DataReport {
    /// The training pairs.
    pub train: SplitReport,
    /// The validation pairs, if there are any.
    pub validation: Option<SplitReport>,
    /// Functions of validation pairs that are in a training pair as well.
    pub leaks: Findings,
}

/// What is found in a split.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SplitReport {
    /// Pairs that can be read.
    pub pairs: usize,
    /// Pairs by weakness.
    pub by_cwe: BTreeMap<String, usize>,
    /// Pairs by language, as the names of their source files tell.
    pub by_language: BTreeMap<String, usize>,
    /// Records that cannot be read: where, and what was expected.
    pub bad_records: Findings,
    /// Pairs that are in the split already.
    pub duplicates: Findings,
    /// Pairs from which nothing can be learnt, because their halves are the same. White space around them
    /// does not count.
    pub identical: Findings,
    /// Lengths in tokens, where there is a tokenizer.
    pub tokens: Option<TokenReport>,
}

impl SplitReport {
    /// Pairs that training uses; without a tokenizer, at most so many.
    pub fn usable(&self) -> usize {
        let lost = self.tokens.as_ref().map_or(0, |tokens| tokens.identical_within_limit.count);
        self.pairs - self.identical.count - lost
    }
}

/// Lengths in tokens.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TokenReport {
    /// The limit that a function is cut to.
    pub max_seq_len: usize,
    /// Tokens of both halves together.
    pub total: usize,
    /// Tokens of the longest function.
    pub longest: usize,
    /// Tokens that the halves of a pair begin with, of those of the vulnerable halves.
    pub shared_prefix_share: f64,
    /// Pairs by the length of their longer half: up to so many tokens (none for the last), and how many.
    pub histogram: Vec<(Option<usize>, usize)>,
    /// Pairs of which a half is longer than the limit.
    pub over_limit: Findings,
    /// Pairs whose halves are the same up to the limit, though not beyond: training leaves them out.
    pub identical_within_limit: Findings,
    /// The smallest limit with which at least 99 % of the pairs are whole.
    pub keeps_99_percent: usize,
    /// What the limit does, in numbers.
    #[serde(skip)]
    pub limit: LimitReport,
}

/// How often something was found, and where the first times.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Findings {
    /// How often.
    pub count: usize,
    /// `file:line`, and what is to be said about it.
    pub places: Vec<String>,
}

impl Findings {
    fn add(&mut self, place: impl FnOnce() -> String) {
        self.count += 1;
        if self.places.len() < NAMED {
            self.places.push(place());
        }
    }
}

/// Where to look, and with what.
pub struct CheckOptions<'a> {
    /// Training pairs, as for training.
    pub data: &'a Path,
    /// Validation pairs; if not given, the subfolder `val` of `data`.
    pub val_data: Option<&'a Path>,
    /// What lengths in tokens are counted with.
    pub tokenizer: Option<&'a Tokenizer>,
    /// The limit that a function is cut to.
    pub max_seq_len: usize,
}

/// Looks at all pairs. Errors are those of reading files; what is wrong with a record is in the report.
pub fn check(options: &CheckOptions<'_>) -> Result<DataReport> {
    let mut functions = HashMap::new();
    let files = pair_files(options.data, "train")?;
    let train = check_split(options, &files, |place, digests| {
        digests.iter().for_each(|digest| {
            functions.entry(*digest).or_insert(place);
        });
    })?;
    let mut leaks = Findings::default();
    let validation = validation_path(options.data, options.val_data).map(|path| {
        let val_files = pair_files(&path, "val")?;
        check_split(options, &val_files, |place, digests| {
            if let Some(first) = digests.iter().find_map(|digest| functions.get(digest)) {
                leaks.add(|| format!("{} is in {}", place.text(&val_files), first.text(&files)));
            }
        })
    });
    Ok(DataReport { train, validation: validation.transpose()?, leaks })
}

/// A place that is small: a record in the list of files.
#[derive(Clone, Copy)]
struct At {
    file: u32,
    line: u32,
}

impl At {
    fn text(self, files: &[PathBuf]) -> String {
        Place { file: &files[self.file as usize], line: self.line as usize }.to_string()
    }
}

/// What identifies a function.
type Digest = [u8; 16];

fn digest(text: &str) -> Digest {
    let hash = blake3::hash(text.trim().as_bytes());
    std::array::from_fn(|i| hash.as_bytes()[i])
}

/// A split being looked at.
struct Split<'a> {
    options: &'a CheckOptions<'a>,
    files: &'a [PathBuf],
    report: SplitReport,
    seen: HashMap<[Digest; 2], At>,
    waiting: Vec<(At, CodePair)>,
    shared: usize,
    vulnerable_tokens: usize,
}

fn check_split(
    options: &CheckOptions<'_>,
    files: &[PathBuf],
    mut on_pair: impl FnMut(At, &[Digest; 2]),
) -> Result<SplitReport> {
    let mut split = Split {
        options,
        files,
        report: SplitReport::default(),
        seen: HashMap::new(),
        waiting: Vec::new(),
        shared: 0,
        vulnerable_tokens: 0,
    };
    split.report.tokens = options.tokenizer.map(|_| TokenReport {
        max_seq_len: options.max_seq_len,
        limit: LimitReport::new(options.max_seq_len),
        histogram: BARS.iter().map(|&end| Some(end)).chain([None]).map(|end| (end, 0)).collect(),
        ..TokenReport::default()
    });
    for (number, file) in files.iter().enumerate() {
        for_each_record(file, |place, record| {
            let at = At { file: number as u32, line: place.line as u32 };
            match record {
                Ok(pair) => on_pair(at, &split.take(at, pair)?),
                Err(error) => split.report.bad_records.add(|| format!("{place}: {error}")),
            }
            Ok(())
        })?;
    }
    split.finish()
}

impl Split<'_> {
    fn take(&mut self, at: At, pair: CodePair) -> Result<[Digest; 2]> {
        let report = &mut self.report;
        report.pairs += 1;
        let cwe = if pair.cwe.is_empty() { "none given" } else { &pair.cwe };
        *report.by_cwe.entry(cwe.to_owned()).or_default() += 1;
        *report.by_language.entry(language(&pair.file_name).to_owned()).or_default() += 1;
        let digests = [digest(&pair.secure), digest(&pair.vulnerable)];
        if pair.is_identical() {
            report.identical.add(|| at.text(self.files));
        }
        match self.seen.get(&digests) {
            Some(first) => {
                report.duplicates.add(|| format!("{} is {}", at.text(self.files), first.text(self.files)));
            }
            None => {
                self.seen.insert(digests, at);
            }
        }
        if self.options.tokenizer.is_some() {
            self.waiting.push((at, pair));
            if self.waiting.len() == BATCH {
                self.tokenize()?;
            }
        }
        Ok(digests)
    }

    fn tokenize(&mut self) -> Result<()> {
        let (Some(tokenizer), Some(report)) = (self.options.tokenizer, &mut self.report.tokens) else {
            return Ok(());
        };
        let encode = |(_, pair): &(At, CodePair)| encode(0, pair, tokenizer);
        let encoded: Vec<TokenPair> = self.waiting.par_iter().map(encode).collect::<Result<_>>()?;
        for ((at, pair), tokens) in self.waiting.drain(..).zip(encoded) {
            self.shared += tokens.shared();
            self.vulnerable_tokens += tokens.vulnerable.len();
            let verdict = Verdict::of(&pair, &tokens, self.options.max_seq_len);
            if verdict == Verdict::Identical && !pair.is_identical() {
                self.report.identical.add(|| format!("{}, as tokens", at.text(self.files)));
            }
            report.add(&tokens, verdict, || at.text(self.files));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<SplitReport> {
        self.tokenize()?;
        if let Some(report) = &mut self.report.tokens {
            report.keeps_99_percent = report.limit.keeps_99_percent();
            report.shared_prefix_share = self.shared as f64 / self.vulnerable_tokens.max(1) as f64;
        }
        Ok(self.report)
    }
}

impl TokenReport {
    fn add(&mut self, pair: &TokenPair, verdict: Verdict, place: impl Fn() -> String) {
        let longest = pair.longest();
        self.total += pair.secure.len() + pair.vulnerable.len();
        self.longest = self.longest.max(longest);
        let bar = BARS.iter().position(|&end| longest <= end).unwrap_or(BARS.len());
        self.histogram[bar].1 += 1;
        self.limit.add(pair, verdict);
        if matches!(verdict, Verdict::Cut | Verdict::Lost) {
            self.over_limit.add(|| format!("{}: {longest} tokens", place()));
        }
        if verdict == Verdict::Lost {
            self.identical_within_limit.add(place);
        }
    }
}

/// The language that a source file's name tells.
fn language(file_name: &str) -> &'static str {
    match Path::new(file_name).extension().and_then(|e| e.to_str()) {
        Some("py") => "Python",
        Some("c" | "h") => "C",
        Some("cc" | "cpp" | "cxx" | "hpp" | "hh") => "C++",
        Some("js" | "jsx" | "mjs") => "JavaScript",
        Some("ts" | "tsx") => "TypeScript",
        Some("java") => "Java",
        Some("go") => "Go",
        Some("rb") => "Ruby",
        Some("rs") => "Rust",
        Some("php") => "PHP",
        Some("cs") => "C#",
        _ => "unknown",
    }
}
