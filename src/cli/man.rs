//! `dg-run man`.

use anyhow::{Context, Result};
use clap::Args;

use super::{command_line, print};
use crate::error::Error;

/// Options of `dg-run man`.
#[derive(Args)]
pub(super) struct ManArgs {
    /// Command whose page to print; the program's if not given.
    command: Option<String>,
}

/// Prints a page in roff.
pub(super) fn run(args: &ManArgs) -> Result<()> {
    let mut program = command_line()?;
    program.build();
    let page = match &args.command {
        None => program,
        Some(name) => page_of(&program, name)?,
    };
    let mut roff = Vec::new();
    let version = format!("dg-run {}", env!("CARGO_PKG_VERSION"));
    let rendered = clap_mangen::Man::new(page).source(version).manual("User Commands").render(&mut roff);
    rendered.context("cannot make the manual page")?;
    let roff = String::from_utf8(roff);
    Ok(print(&roff.context("a manual page that is not UTF-8")?)?)
}

/// The command of this name.
fn page_of(program: &clap::Command, name: &str) -> Result<clap::Command> {
    let commands = || program.get_subcommands().filter(|command| command.get_name() != "help");
    let found = commands().find(|command| command.get_name() == name).cloned();
    let Some(command) = found else {
        let known: Vec<&str> = commands().map(clap::Command::get_name).collect();
        return Err(Error::usage(format!(
            "there is no command `{name}`; expected one of: {}",
            known.join(", ")
        ))
        .into());
    };
    Ok(command)
}
