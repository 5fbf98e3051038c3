//! `dg-run completions`.

use anyhow::Result;
use clap::Args;
use clap_complete::Shell;

use super::{command_line, print};
use crate::error::Error;

/// Options of `dg-run completions`.
#[derive(Args)]
pub(super) struct CompletionsArgs {
    /// Shell to complete in.
    shell: Shell,
}

/// Prints the script.
pub(super) fn run(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command_line()?, "dg-run", &mut script);
    let script = String::from_utf8(script);
    let script = script.map_err(|e| Error::internal("completions that are not UTF-8").with_source(e))?;
    Ok(print(&if args.shell == Shell::Bash { with_one_name(&script) } else { script })?)
}

/// clap_complete 4.6 looks for options of a command under another name than it keeps them under, where the
/// program's name has a hyphen (clap-rs/clap#6421).
fn with_one_name(script: &str) -> String {
    script.replace("dg__subcmd__run", "dg__run")
}
