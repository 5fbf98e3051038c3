//! What people and other programs look at: pages that need nothing but themselves, and SARIF.

mod chart;
#[cfg(unix)]
pub mod eval;
mod heat;
mod html;
mod lines;
mod names;
mod probe;
mod run;
mod run_page;
mod sarif;
mod scores;

use std::path::Path;

use crate::error::Result;

pub use html::printable;
pub(crate) use lines::{ScoredLine, lines};
pub use names::file_name;
pub(crate) use probe::p_text;
pub use probe::page as probe_page;
pub use sarif::sarif;
pub use scores::{ScoredText, Unscored, page as scores_page};

/// The page of the run in folder `dir`, as far as it has come.
///
/// # Errors
/// Kind `Data`: `dir` is no run folder.
pub fn run_page(dir: &Path) -> Result<String> {
    Ok(run_page::page(&run::Run::read(dir)?))
}
