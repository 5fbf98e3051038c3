//! `dg-run report`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use super::output::write_file;
use crate::report;

/// Options of `dg-run report`.
#[derive(Args)]
pub(super) struct ReportArgs {
    /// Folder of a run: finished, going on or cut off.
    run: PathBuf,
    /// Page to write; `-` is standard output. If not given, report.html in the folder of the run.
    #[arg(long, short)]
    out: Option<PathBuf>,
}

/// Writes the page.
pub(super) fn run(args: &ReportArgs) -> Result<()> {
    let page = report::run_page(&args.run).context("cannot make the page of the run")?;
    let out = args.out.clone().unwrap_or_else(|| args.run.join("report.html"));
    Ok(write_file(&out, &page)?)
}
