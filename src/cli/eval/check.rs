//! `dg-run eval check`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::super::print;
use super::super::signals::Signals;
use super::{Bar, SuiteArgs, with_judging};
use crate::error::{Error, ErrorKind};
use crate::eval::references::{Excluded, ReferenceLine, Scope, check};
use crate::eval::suite::{Scenario, Suite};
use crate::files::json_text;
use crate::report::printable;

/// Options of `dg-run eval check`.
#[derive(Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    suite: SuiteArgs,
    /// Keep the verdicts in this file; those that are in it already, and right, are not found anew.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &CheckArgs, signals: &Signals) -> Result<()> {
    let suite = args.suite.open()?;
    let judge = args.suite.judge.judge(&suite)?;
    let scenarios: Vec<&Scenario> = suite.scenarios.iter().collect();
    let bar = Bar::new("references", scenarios.iter().map(|scenario| scenario.references.len()).sum());
    let advice = match args.output {
        Some(_) => "the same command goes on from there",
        None => "nothing is kept; with --output FILE verdicts are",
    };
    let (lines, excluded) = with_judging(&judge, signals, advice, |judging| {
        check(judging, &scenarios, Scope::All, args.output.as_deref(), &mut |_| bar.advance())
    })?;
    drop(bar);
    if args.json {
        let usable = scenarios.len() - excluded.len();
        print(&json_text(&json!({
            "suite": suite.dir, "layout": suite.layout, "scenarios": scenarios.len(), "usable": usable,
            "references": lines.len(), "right": lines.iter().filter(|line| line.is_right()).count(),
            "excluded": excluded, "environment": judge.environment(),
        }))?)?;
    } else {
        print(&to_text(&suite, &lines, &excluded))?;
    }
    if excluded.len() == scenarios.len() {
        let text = format!("{}: no scenario can be judged on this machine", suite.dir.display());
        return Err(Error::new(ErrorKind::Verdict, text).into());
    }
    Ok(())
}

fn to_text(suite: &Suite, lines: &[ReferenceLine], excluded: &Excluded) -> String {
    let scenarios = suite.scenarios.len();
    let right = lines.iter().filter(|line| line.is_right()).count();
    let mut text = format!(
        "{} of {scenarios} scenarios can be judged here; {right} of {} references got their verdicts\n",
        scenarios - excluded.len(),
        lines.len()
    );
    text += &excluded_text(excluded);
    text
}

/// A line for every excluded scenario.
pub(super) fn excluded_text(excluded: &Excluded) -> String {
    if excluded.is_empty() {
        return String::new();
    }
    let line = |(id, why): (&String, &String)| printable(&format!("  {id}: {why}")) + "\n";
    "excluded:\n".to_owned() + &excluded.iter().map(line).collect::<String>()
}
