//! `dg-run eval compare`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::super::print;
use super::super::say::warn;
use super::result::write_tables;
use crate::error::{Error, ErrorKind, list};
use crate::eval::compare::{Difference, Requirement, Run, compare, environment_differences};
use crate::files::json_text;
use crate::report::eval::comparison_text;

/// Options of `dg-run eval compare`.
#[derive(Args)]
pub(super) struct CompareArgs {
    /// Folders of sealed runs; each of the others is compared with the first.
    #[arg(required = true, num_args = 2.., value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// What every other run has to show: METRIC:+D, at least D more than the first over all scenarios, or
    /// METRIC:-D, no more than D less; for example secure_pass@1:+0.05. If not, the exit code is 7.
    #[arg(long, value_name = "METRIC:±D")]
    require: Vec<Requirement>,
    /// Folder for eval.html, eval.csv, compare.csv and eval.md.
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &CompareArgs) -> Result<()> {
    let runs = Run::open_all(&args.runs)?;
    let differences = compare(&runs)?;
    for run in &runs[1..] {
        let found = environment_differences(&runs[0], run)?;
        if !found.is_empty() {
            let title = format!("{} and {} were judged with different", runs[0].label, run.label);
            warn(&format!("{title} versions: {}", found.join("; ")));
        }
    }
    let failures: Vec<String> =
        args.require.iter().flat_map(|requirement| requirement.failures(&differences)).collect();
    if args.json {
        print(&json_text(&to_json(&runs, &differences, &failures))?)?;
    } else {
        print(&comparison_text(&runs, &differences))?;
    }
    if let Some(dir) = &args.output_dir {
        write_tables(dir, &runs, &differences)?;
    }
    match failures.is_empty() {
        true => Ok(()),
        false => {
            Err(Error::new(ErrorKind::Verdict, list("requirements that are not fulfilled", failures)).into())
        }
    }
}

fn to_json(runs: &[Run], differences: &[Difference], failures: &[String]) -> serde_json::Value {
    let run = |run: &Run| {
        let seal = &run.seal;
        json!({
            "label": run.label, "folder": run.folder, "method": seal.method, "oracle": seal.oracle,
            "totals": seal.totals, "rates": seal.rates, "excluded": seal.excluded, "seal": seal.seal,
        })
    };
    json!({
        "runs": runs.iter().map(run).collect::<Vec<_>>(),
        "differences": differences,
        "failures": failures,
    })
}
