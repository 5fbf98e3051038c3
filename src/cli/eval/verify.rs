//! `dg-run eval verify`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::super::print;
use crate::error::{Error, ErrorKind};
use crate::eval::seal::verify;
use crate::eval::suite::Suite;
use crate::files::json_text;
use crate::report::printable;

/// Options of `dg-run eval verify`.
#[derive(Args)]
pub(super) struct VerifyArgs {
    /// Folder of a sealed run.
    #[arg(value_name = "DIR")]
    run: PathBuf,
    /// The suite, whose prompts, checks and harness are then verified as well.
    #[arg(long, value_name = "DIR")]
    suite: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &VerifyArgs) -> Result<()> {
    let suite = args.suite.as_ref().map(|dir| Suite::open(dir, &[])).transpose()?;
    let differences = verify(&args.run, suite.as_ref())?;
    if args.json {
        print(&json_text(&json!({"run": args.run, "differences": differences}))?)?;
    } else if differences.is_empty() {
        let of_suite = if suite.is_some() { ", and the suite is the one that judged" } else { "" };
        print(&format!(
            "{}: samples, verdicts and rates are those that were sealed{of_suite}\n",
            args.run.display()
        ))?;
    } else {
        let line = |difference: &String| printable(difference).replace('\n', " ") + "\n";
        print(&differences.iter().map(line).collect::<String>())?;
    }
    match differences.len() {
        0 => Ok(()),
        count => {
            let text = format!("{}: the seal is broken: {count} differences", args.run.display());
            Err(Error::new(ErrorKind::Verdict, text).into())
        }
    }
}
