//! `dg-run score`.

use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::device::Task;
use super::leases::{self, facts, of_bytes, to_bytes};
use super::output::write_file;
use super::ranks::RanksArgs;
use super::say::note;
use super::signals::Signals;
use super::terminal::{ReaderGone, colours, has_reader, print, require_reader};
use super::{Guard, ModelArgs, read_text};
use crate::deepguard::{DeepGuard, TextScores, TokenScore};
use crate::dist::leases::{Facts, Unit};
use crate::dist::{Crew, Work};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::ops::Backend;
use crate::report::{self, ScoredLine, ScoredText, Unscored, printable};

/// Options of `dg-run score`.
#[derive(Args)]
pub struct ScoreArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// One JSON object per file instead of a heat map.
    #[arg(long, conflicts_with = "sarif")]
    json: bool,
    /// One SARIF 2.1.0 log instead of a heat map: lines with scores below --threshold as results.
    #[arg(long)]
    sarif: bool,
    /// With --sarif: the score, from 0 to 1, below which a line is a result. 0.5 is the middle of the scale;
    /// a threshold for a guard is best chosen on code whose weaknesses are known.
    #[arg(long, default_value_t = 0.5, requires = "sarif")]
    threshold: f64,
    /// Write a page that needs no network: heat maps of all files side by side, and where the guard looked.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Source files; `-` reads standard input. Those that cannot be scored are named at the end, after all
    /// others have been.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    ranks: RanksArgs,
}

/// Scores every file.
pub fn run(args: &ScoreArgs, process: (Option<usize>, &Signals)) -> anyhow::Result<()> {
    if args.model.adapter.is_none() {
        return Err(
            Error::usage("scoring needs a guard: give the folder of a training run with --adapter").into()
        );
    }
    if !(0.0..=1.0).contains(&args.threshold) {
        return Err(Error::usage(format!("--threshold: expected 0 to 1, found {}", args.threshold)).into());
    }
    leases::run(&args.ranks, &args.model, process, |crew, model| {
        let files = if crew.is_first() { &args.files[..] } else { &[] };
        let sources: Vec<Source> = files.iter().map(|file| Source::read(file)).collect();
        let scoring = Scoring { sources, args, model, crew };
        if crew.is_first() && scoring.sources.iter().all(|source| source.text.is_err()) {
            model.adapter(Guard::Needed)?;
            return Ok(scoring.show_all(&mut |_| Err(Error::internal("no text was read")), Vec::new())?);
        }
        model.run(Guard::Needed, scoring)
    })
}

/// A file and its text, or why it has none.
struct Source {
    name: PathBuf,
    text: Result<String>,
}

impl Source {
    fn read(file: &Path) -> Self {
        let name = if file == Path::new("-") { Path::new("stdin") } else { file };
        Source { name: name.to_owned(), text: read_text(file) }
    }
}

struct Scoring<'a> {
    /// On rank 0.
    sources: Vec<Source>,
    args: &'a ScoreArgs,
    model: &'a ModelArgs,
    crew: &'a Crew,
}

impl Task for Scoring<'_> {
    fn run<B: Backend>(self, guard: DeepGuard<B>) -> anyhow::Result<()> {
        let facts = facts(self.crew, self.model, &guard, None, "")?;
        let mut compute = |text: &[u8]| {
            let text = std::str::from_utf8(text).kind(ErrorKind::Internal, || "a text to score".into())?;
            to_bytes(&Told::of(guard.score(text)))
        };
        match self.crew.is_first() {
            true => self.show_all(&mut compute, facts)?,
            false => self.crew.serve(facts, &mut compute, &|| false)?,
        }
        Ok(())
    }
}

/// A file's text and scores, or why it has none.
type Outcome = Result<(String, TextScores)>;

impl Scoring<'_> {
    /// Scores what can be scored, each file a unit, says what cannot, and fails at the end if there is any of
    /// that.
    fn show_all(self, compute: &mut dyn FnMut(&[u8]) -> Result<Vec<u8>>, facts: Facts) -> Result<()> {
        let Scoring { sources, args, crew, .. } = self;
        let mut units = Vec::new();
        for Source { name, text } in &sources {
            let input = text.as_ref().map(|text| text.clone().into_bytes());
            units.extend(input.map(|input| Unit { name: printable(&report::file_name(name)), input }));
        }
        let (mut outcomes, mut sources) = (Vec::new(), sources.into_iter());
        let mut show = |name: PathBuf, outcome: Outcome| {
            args.show(&name, &outcome)?;
            outcomes.push((name, outcome));
            Ok(())
        };
        let mut merge = |_, result: Option<Vec<u8>>| {
            for Source { name, text } in sources.by_ref() {
                match text {
                    Err(error) => show(name, Err(error))?,
                    Ok(text) => return show(name, Told::read(result)?.map(|scores| (text, scores))),
                }
            }
            Ok(())
        };
        let should_stop = || args.html.is_none() && !has_reader();
        let lent = crew.lend(Work { units, facts, compute, merge: &mut merge, should_stop: &should_stop });
        args.require_reader()?;
        if lent.as_ref().is_err_and(|error| error.kind() != ErrorKind::Verdict) {
            return lent;
        }
        for Source { name, text } in sources {
            show(name, text.and_then(|_| Err(Error::internal("a text without a result"))))?;
        }
        args.write_documents(&outcomes)?;
        lent?;
        failure(outcomes)
    }
}

/// What a rank tells of a file. Numbers are bit patterns: JSON knows no NaN.
#[derive(Serialize, Deserialize)]
enum Told {
    Scores { tokens: Vec<(u32, Range<usize>, u32, Vec<u32>)>, mean: u64, layers: Vec<usize> },
    Failed { code: u8, message: String },
}

impl Told {
    fn of(scored: Result<TextScores>) -> Self {
        match scored {
            Ok(TextScores { tokens, mean, layers }) => {
                let token = |token: TokenScore| {
                    let attention = token.attention.into_iter().map(f32::to_bits).collect();
                    (token.token, token.range, token.score.to_bits(), attention)
                };
                Told::Scores { tokens: tokens.into_iter().map(token).collect(), mean: mean.to_bits(), layers }
            }
            Err(error) => Told::Failed { code: error.kind().exit_code(), message: error.to_string() },
        }
    }

    /// The scores of a file, or why it has none.
    ///
    /// # Errors
    /// Kind `Internal`: this is not what a rank tells.
    fn read(result: Option<Vec<u8>>) -> Result<Result<TextScores>> {
        let Some(bytes) = result else {
            return Ok(Err(Error::new(ErrorKind::Verdict, "two ranks were lost while they scored it")));
        };
        Ok(match of_bytes(&bytes)? {
            Told::Failed { code, message } => {
                Err(Error::new(ErrorKind::of_exit_code(code).unwrap_or(ErrorKind::Internal), message))
            }
            Told::Scores { tokens, mean, layers } => {
                let token = |(token, range, score, attention): (u32, Range<usize>, u32, Vec<u32>)| {
                    let attention = attention.into_iter().map(f32::from_bits).collect();
                    TokenScore { token, range, score: f32::from_bits(score), attention }
                };
                let tokens = tokens.into_iter().map(token).collect();
                Ok(TextScores { tokens, mean: f64::from_bits(mean), layers })
            }
        })
    }
}

/// What a batch with files that could not be scored ends with.
fn failure(outcomes: Vec<(PathBuf, Outcome)>) -> Result<()> {
    let all = outcomes.len();
    let errors: Vec<Error> = outcomes.into_iter().filter_map(|(_, outcome)| outcome.err()).collect();
    match errors.first() {
        None => Ok(()),
        Some(first) => {
            let text = format!("{} of {all} files could not be scored", errors.len());
            Err(Error::new(first.kind(), text))
        }
    }
}

impl ScoreArgs {
    /// Whether scores go to standard output as they come.
    fn shows_maps(&self) -> bool {
        !(self.json || self.sarif || self.html.is_some())
    }

    /// Ends the command where nobody reads standard output and no page is wanted.
    fn require_reader(&self) -> Result<()> {
        if self.html.is_some() { Ok(()) } else { require_reader() }
    }

    /// [`print`] to a reader who may have gone, if there is a page to be written all the same.
    fn print(&self, text: &str) -> Result<()> {
        match print(text) {
            Err(error) if self.html.is_some() && ReaderGone::is_cause_of(&error) => Ok(()),
            printed => printed,
        }
    }

    /// What is said of a file when it has been scored.
    fn show(&self, name: &Path, outcome: &Outcome) -> Result<()> {
        let said = match outcome {
            Ok((_, scores)) => scores.summary(),
            Err(error) => error.to_string(),
        };
        if !self.json || outcome.is_err() {
            note(&printable(&format!("{}: {said}", report::file_name(name))));
        }
        if self.json {
            self.print(&format!("{}\n", to_json(name, outcome)))?;
        }
        match outcome {
            Ok((text, scores)) if self.shows_maps() => self.print(&heat_map(text, scores, colours())),
            _ => Ok(()),
        }
    }

    /// What is written of all files together.
    fn write_documents(&self, outcomes: &[(PathBuf, Outcome)]) -> Result<()> {
        let reasons: Vec<(&Path, String)> = outcomes
            .iter()
            .filter_map(|(name, outcome)| Some((name.as_path(), outcome.as_ref().err()?.to_string())))
            .collect();
        let unscored: Vec<Unscored<'_>> =
            reasons.iter().map(|(name, reason)| Unscored { name, reason }).collect();
        let scored = outcomes.iter().filter_map(|(name, outcome)| {
            let (text, scores) = outcome.as_ref().ok()?;
            Some(ScoredText { name, text, scores })
        });
        let scored: Vec<ScoredText<'_>> = scored.collect();
        if self.sarif {
            self.print(&format!("{:#}\n", report::sarif(&scored, &unscored, self.threshold)))?;
        }
        let Some(page) = &self.html else { return Ok(()) };
        let adapter = self.model.adapter.as_deref().map(report::file_name).unwrap_or_default();
        write_file(page, &report::scores_page(&scored, &unscored, &self.model.model, &adapter))
    }
}

fn to_json(name: &Path, outcome: &Outcome) -> serde_json::Value {
    let file = report::file_name(name);
    let (text, scores) = match outcome {
        Ok((text, scores)) => (text, scores),
        Err(error) => return json!({"file": file, "error": error.to_string()}),
    };
    let tokens: Vec<_> = scores
        .tokens
        .iter()
        .map(|t| {
            let piece = text.get(t.range.clone());
            let mut token = json!({"id": t.token, "start": t.range.start, "end": t.range.end, "text": piece,
                                   "score": t.score});
            if !t.attention.is_empty() {
                token["layer_attention"] = json!(t.attention);
            }
            token
        })
        .collect();
    json!({"file": file, "mean_score": scores.mean, "layers": scores.layers, "tokens": tokens})
}

/// The text on backgrounds from red (likely vulnerable) to green (likely secure), stretched to the scores'
/// range.
fn heat_map(text: &str, scores: &TextScores, colours: bool) -> String {
    if !colours {
        return plain_map(text, scores);
    }
    let (low, high) = range(scores);
    let mut out = String::new();
    let mut at = 0;
    for token in &scores.tokens {
        out.push_str(&printable(text.get(at..token.range.start).unwrap_or_default()));
        let piece = text.get(token.range.clone()).unwrap_or_default();
        let heat = (token.score - low) / (high - low).max(1e-6);
        // A background must not run to the end of the line.
        for (i, line) in piece.split('\n').enumerate() {
            let line = printable(line.trim_end_matches('\r'));
            if i > 0 {
                out.push('\n');
            }
            if !line.is_empty() {
                out.push_str(&format!("\x1b[48;5;{}m\x1b[38;5;16m{line}\x1b[0m", colour(heat)));
            }
        }
        at = at.max(token.range.end);
    }
    out.push_str(&printable(text.get(at..).unwrap_or_default()));
    if !out.ends_with('\n') {
        out.push('\n');
    }
    out
}

/// Where there are no colours: every line with the mean score of its tokens.
fn plain_map(text: &str, scores: &TextScores) -> String {
    let row = |line: ScoredLine| {
        let mean = line.score.map_or_else(|| " ".repeat(6), |mean| format!("{mean:.4}"));
        format!("{mean}  {}\n", printable(&text[line.range]))
    };
    report::lines(text, scores).into_iter().map(row).collect()
}

fn range(scores: &TextScores) -> (f32, f32) {
    let each = || scores.tokens.iter().map(|t| t.score);
    (each().fold(f32::INFINITY, f32::min), each().fold(f32::NEG_INFINITY, f32::max))
}

/// A colour of the 6×6×6 cube, from red over yellow to green.
fn colour(heat: f32) -> u8 {
    let steps = (heat.clamp(0.0, 1.0) * 10.0).round() as u8;
    let (red, green) = if steps <= 5 { (5, steps) } else { (10 - steps, 5) };
    16 + 36 * red + 6 * green + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores() -> TextScores {
        let token = |start, end, score| TokenScore { token: 1, range: start..end, score, attention: vec![] };
        TextScores {
            tokens: vec![token(0, 2, 0.2), token(2, 5, 0.8), token(5, 7, 0.6)],
            mean: 0.5,
            layers: vec![4],
        }
    }

    #[test]
    fn maps_keep_the_text() {
        let text = "ab\ncdéf";
        let map = heat_map("ab\ncdé", &scores(), true);
        let stripped: String =
            map.split('\x1b').map(|s| s.split_once('m').map_or(s, |(_, rest)| rest)).collect();
        assert_eq!(stripped, "ab\ncdé\n");
        assert_eq!(heat_map(text, &scores(), false), "0.5000  ab\n0.6000  cdéf\n");
    }

    #[test]
    fn a_source_does_not_command_the_terminal() {
        let text = "a\x07\r\nc\x1b]d";
        for colours in [true, false] {
            let map = heat_map(text, &scores(), colours);
            assert!(!map.contains(['\x07', '\r']) && !map.contains("\x1b]"), "{map:?}");
            assert!(map.contains("a\u{2407}") && map.contains('\u{241b}'), "{map:?}");
        }
    }

    #[test]
    fn colours_run_from_red_to_green() {
        assert_eq!((colour(0.0), colour(0.5), colour(1.0)), (16 + 180 + 1, 16 + 180 + 30 + 1, 16 + 30 + 1));
    }

    /// Bit by bit: also what is no number.
    #[test]
    fn what_ranks_tell_is_what_they_have_found() {
        let mut found = scores();
        (found.mean, found.tokens[0].score) = (f64::NAN, f32::NAN);
        found.tokens[1].attention = vec![0.1, 0.9];
        let told = |outcome| Told::read(Some(to_bytes(&Told::of(outcome)).unwrap())).unwrap();
        let read = told(Ok(found.clone())).unwrap();
        assert_eq!(format!("{read:?}"), format!("{found:?}"));
        let failed = told(Err(Error::device("out of memory"))).unwrap_err();
        assert_eq!((failed.kind(), failed.to_string().as_str()), (ErrorKind::Device, "out of memory"));
        assert_eq!(Told::read(None).unwrap().unwrap_err().kind(), ErrorKind::Verdict);
        assert!(Told::read(Some(b"{}".to_vec())).is_err());
    }
}
