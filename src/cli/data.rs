//! `dg-run data`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};

use super::hub::HubArgs;
use super::keys::named;
use super::print;
use super::progress::limit_warning;
use super::say::warn;
use crate::error::Error;
use crate::files::json_text;
use crate::hub::download::Need;
use crate::model::config::Config;
use crate::model::tokenizer::Tokenizer;
use crate::train::check::{CheckOptions, DataReport, Findings, SplitReport, TokenReport, check};
use crate::train::config::default_max_seq_len;
use crate::train::data::OnBadRecord;

/// What to do with data.
#[derive(Args)]
pub struct DataArgs {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Subcommand)]
enum DataCommand {
    /// Look at training pairs: what there is, and what is wrong with it.
    Check(CheckArgs),
}

/// Options of `dg-run data check`.
#[derive(Args)]
struct CheckArgs {
    /// Training pairs: a JSONL file or a folder of them (SVEN format).
    data: PathBuf,
    /// Validation pairs; default: the folder `val` in the data if there is one.
    #[arg(long)]
    val_data: Option<PathBuf>,
    /// Model whose tokenizer counts tokens: a Hugging Face directory, or a hub id, downloaded if it is not in
    /// the local cache.
    #[arg(long, short, alias = "model-name-or-path")]
    model: Option<String>,
    /// Branch, tag or commit of a hub id; main if not given.
    #[arg(long, requires = "model")]
    revision: Option<String>,
    /// Longest function in tokens. If not given, 1024, or the model's context if that is shorter.
    #[arg(long, alias = "max-length", alias = "max-seq-length")]
    max_seq_len: Option<usize>,
    /// Whether records that cannot be used are an error (exit code 3) or left out.
    #[arg(long, value_parser = named(OnBadRecord::ALL, OnBadRecord::name), default_value = OnBadRecord::default().name())]
    on_bad_record: OnBadRecord,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hub: HubArgs,
}

/// Checks the data and prints the report.
pub fn run(args: &DataArgs) -> Result<()> {
    let DataCommand::Check(args) = &args.command;
    let model = args.model.as_deref().map(|model| CheckModel::load(model, args)).transpose()?;
    let report = check(&CheckOptions {
        data: &args.data,
        val_data: args.val_data.as_deref(),
        tokenizer: model.as_ref().map(|model| &model.tokenizer),
        max_seq_len: max_seq_len(args.max_seq_len, model.as_ref().and_then(|model| model.context))?,
    })?;
    if args.json {
        print(&json_text(&report)?)?;
    } else {
        print(&to_text(&report))?;
    }
    let splits = [("training", Some(&report.train)), ("validation", report.validation.as_ref())];
    let splits = splits.map(|(name, split)| {
        let tokens = split.and_then(|split| split.tokens.as_ref());
        if let Some(text) = tokens.and_then(|tokens| limit_warning(name, &tokens.limit)) {
            warn(&text);
        }
        split
    });
    let bad: usize = splits.into_iter().flatten().map(|split| split.bad_records.count).sum();
    if bad > 0 && args.on_bad_record == OnBadRecord::Error {
        let advice = "mend them, or leave them out with --on-bad-record skip";
        return Err(Error::data(format!("{bad} records cannot be used; {advice}")).into());
    }
    if report.train.usable() == 0 {
        return Err(Error::data(format!("{}: there is no pair to train on", args.data.display())).into());
    }
    Ok(())
}

/// What is asked of a model.
struct CheckModel {
    tokenizer: Tokenizer,
    /// `None` where the model itself cannot be used.
    context: Option<usize>,
}

impl CheckModel {
    fn load(model: &str, args: &CheckArgs) -> Result<Self> {
        let dir = args.hub.obtain(model, args.revision.as_deref(), Need::Tokenizer)?;
        let tokenizer =
            Tokenizer::from_dir(&dir).with_context(|| format!("cannot load the tokenizer of {model}"))?;
        tokenizer.notes().iter().for_each(|note| warn(note));
        let context = Config::from_dir(&dir).ok().map(|config| config.max_position_embeddings);
        Ok(CheckModel { tokenizer, context })
    }
}

/// The limit that training would have.
fn max_seq_len(given: Option<usize>, context: Option<usize>) -> Result<usize> {
    let most = context.unwrap_or(usize::MAX);
    let Some(found) = given.filter(|given| !(2..=most).contains(given)) else {
        return Ok(given.unwrap_or_else(|| default_max_seq_len(most)));
    };
    let expected = match context {
        Some(context) => format!("2 to {context} tokens, the model's context"),
        None => "at least 2 tokens".to_owned(),
    };
    Err(Error::usage(format!("--max-seq-len: expected {expected}, found {found}")).into())
}

fn to_text(report: &DataReport) -> String {
    let mut text = split_text("training", &report.train);
    if let Some(validation) = &report.validation {
        text += &split_text("validation", validation);
        text += &findings("functions of validation pairs that are in training pairs", &report.leaks);
    }
    text
}

fn split_text(name: &str, split: &SplitReport) -> String {
    let counts = |of: &std::collections::BTreeMap<String, usize>| {
        of.iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", ")
    };
    let mut text = format!("{name}: {} pairs\n", split.pairs);
    text += &format!("  weaknesses: {}\n", counts(&split.by_cwe));
    text += &format!("  languages: {}\n", counts(&split.by_language));
    if let Some(tokens) = &split.tokens {
        text += &tokens_text(tokens, split.pairs);
    }
    text += &findings("records that cannot be used", &split.bad_records);
    text += &findings("pairs that are there twice", &split.duplicates);
    text += &findings("pairs whose halves are the same", &split.identical);
    text
}

fn tokens_text(tokens: &TokenReport, pairs: usize) -> String {
    let TokenReport { max_seq_len, total, longest, shared_prefix_share, histogram, .. } = tokens;
    let mean = *total as f64 / (2 * pairs).max(1) as f64;
    let mut text = format!(
        "  tokens: {total}, {mean:.0} a function, {longest} at most; {:.0} % of a vulnerable function is a prefix that \
         the secure one shares\n",
        100.0 * shared_prefix_share
    );
    let most = histogram.iter().map(|(_, n)| *n).max().unwrap_or(0).max(1);
    let last = histogram.iter().rposition(|(_, n)| *n > 0).unwrap_or(0);
    for (end, n) in &histogram[..=last] {
        let end = end.map_or("more".to_owned(), |end| format!("to {end}"));
        text += &format!("    {end:>8} {n:>7} {}\n", "#".repeat((40 * n).div_ceil(most)));
    }
    text += &findings(&format!("pairs with a half of more than {max_seq_len} tokens"), &tokens.over_limit);
    text + &findings(
        &format!("pairs whose halves are the same within {max_seq_len} tokens"),
        &tokens.identical_within_limit,
    )
}

/// A line with the number, and one for each of the first places; nothing where there is nothing.
fn findings(what: &str, found: &Findings) -> String {
    if found.count == 0 {
        return String::new();
    }
    let mut text = format!("  {what}: {}\n", found.count);
    found.places.iter().for_each(|place| text += &format!("    {place}\n"));
    if found.count > found.places.len() {
        text += &format!("    and {} more\n", found.count - found.places.len());
    }
    text
}
