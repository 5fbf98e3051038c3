//! `dg-run eval verify`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::super::print;
use crate::adapter::AdapterFolder;
use crate::error::{Error, ErrorKind};
use crate::eval::seal::{Origin, verify};
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
    /// Hugging Face directory of the model, whose weights are then verified as well.
    #[arg(long, short, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Adapter folder, or a finished run folder, whose files are then verified as well.
    #[arg(long, short, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Hugging Face directory of the expert's base model, if it had its own, whose weights are then verified
    /// as well.
    #[arg(long, value_name = "DIR")]
    expert_model: Option<PathBuf>,
    /// Adapter folder, or finished run folder, of the expert that drafted, whose files are then verified as
    /// well.
    #[arg(long, value_name = "DIR")]
    expert_adapter: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What a seal without differences vouches for.
fn verified(origin: &Origin<'_>) -> String {
    let mut all = vec!["samples", "verdicts", "rates"];
    all.extend(origin.suite.map(|_| "prompts, checks and harness"));
    all.extend(origin.model.map(|_| "the model's weights"));
    all.extend(origin.adapter.map(|_| "the adapter"));
    all.extend(origin.expert_model.map(|_| "the expert's weights"));
    all.extend(origin.expert_adapter.map(|_| "the expert's adapter"));
    all.join(", ")
}

pub(super) fn run(args: &VerifyArgs) -> Result<()> {
    let suite = args.suite.as_ref().map(|dir| Suite::open(dir, &[])).transpose()?;
    let find = |folder: &Option<PathBuf>| folder.as_deref().map(AdapterFolder::find).transpose();
    let (adapter, expert) = (find(&args.adapter)?, find(&args.expert_adapter)?);
    let origin = Origin {
        suite: suite.as_ref(),
        model: args.model.as_deref(),
        adapter: adapter.as_ref().map(AdapterFolder::path),
        expert_model: args.expert_model.as_deref(),
        expert_adapter: expert.as_ref().map(AdapterFolder::path),
    };
    let differences = verify(&args.run, origin)?;
    if args.json {
        print(&json_text(&json!({"run": args.run, "differences": differences}))?)?;
    } else if differences.is_empty() {
        print(&format!("{}: {} are those that were sealed\n", args.run.display(), verified(&origin)))?;
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
