//! What people look at of an evaluation, beside its seal.

use std::path::Path;

use super::super::output::write_file;
use crate::error::Result;
use crate::eval::compare::{Difference, Run};
use crate::eval::seal::{Judgement, Seal, seal};
use crate::report::eval::{differences_csv, markdown, page, rates_csv};

/// Seals a run's folder and writes its page and tables.
///
/// # Errors
/// Those of [`seal`]; kind `Device` where a file cannot be written.
pub(super) fn finish(folder: &Path, judgement: &Judgement<'_>, method: Option<&str>) -> Result<Seal> {
    let seal = seal(folder, judgement, method)?;
    write_tables(folder, &[Run::open(folder)?], &[])?;
    Ok(seal)
}

/// Writes page and tables of runs of the same scenarios.
///
/// # Errors
/// Kind `Device`: a file cannot be written.
pub(super) fn write_tables(dir: &Path, runs: &[Run], differences: &[Difference]) -> Result<()> {
    write_file(&dir.join("eval.html"), &page(runs, differences))?;
    write_file(&dir.join("eval.csv"), &rates_csv(runs))?;
    write_file(&dir.join("eval.md"), &markdown(runs, differences))?;
    if !differences.is_empty() {
        write_file(&dir.join("compare.csv"), &differences_csv(differences))?;
    }
    Ok(())
}
