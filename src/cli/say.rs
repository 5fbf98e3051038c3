//! Lines for people on standard error: as many as `--quiet` and `--verbose` ask for.

use std::io::Write;
use std::sync::atomic::{AtomicU8, Ordering};

use clap::Args;

use super::terminal;

/// How much is said.
#[derive(Args, Clone, Copy)]
pub(super) struct Verbosity {
    /// Say nothing but warnings and errors.
    #[arg(long, short, global = true, conflicts_with = "verbose", help_heading = "Output")]
    quiet: bool,
    /// Say more: what goes on before the first step, the memory plan tensor by tensor.
    #[arg(long, short, global = true, help_heading = "Output")]
    verbose: bool,
}

const SILENT: u8 = 0;
const QUIET: u8 = 1;
const NORMAL: u8 = 2;
const VERBOSE: u8 = 3;

static LEVEL: AtomicU8 = AtomicU8::new(NORMAL);

impl Verbosity {
    /// Holds for the whole process from now on.
    pub(super) fn set(self) {
        let level = match self {
            Verbosity { quiet: true, .. } => QUIET,
            Verbosity { verbose: true, .. } => VERBOSE,
            _ => NORMAL,
        };
        LEVEL.store(level, Ordering::Relaxed);
    }
}

/// From now on nothing is said but errors: another rank says the same.
pub(super) fn leave_it_to_rank_0() {
    LEVEL.store(SILENT, Ordering::Relaxed);
}

fn is_at_least(level: u8) -> bool {
    LEVEL.load(Ordering::Relaxed) >= level
}

fn line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A line about what goes on.
pub(super) fn note(text: &str) {
    if is_at_least(NORMAL) {
        line(text);
    }
}

/// A line for those who want to know more.
pub(super) fn detail(text: &str) {
    if is_at_least(VERBOSE) {
        line(text);
    }
}

/// A line that is said even to those who want it quiet.
pub(super) fn warn(text: &str) {
    if is_at_least(QUIET) {
        line(&format!("warning: {text}"));
    }
}

/// Whether details are said.
pub(super) fn is_verbose() -> bool {
    is_at_least(VERBOSE)
}

/// Whether progress bars are shown: on a terminal that nobody wants quiet.
pub(super) fn shows_bars() -> bool {
    is_at_least(NORMAL) && terminal::shows_bars()
}
