//! `dg-run`: see [`deepguard::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(deepguard::cli::run())
}
