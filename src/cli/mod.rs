//! The command line: arguments → resolved options → one match on the device.

mod completions;
mod config;
mod config_file;
mod data;
mod device;
mod dist;
#[cfg(unix)]
mod eval;
mod expert;
mod export;
mod generate;
mod guidance;
mod hub;
mod import;
mod info;
mod keys;
mod leases;
mod man;
mod output;
mod probe;
mod progress;
mod ranks;
mod report;
mod say;
mod schema;
mod score;
mod signals;
mod spawn;
mod summary;
mod terminal;
mod train;
mod train_args;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use device::{DeviceArgs, Task};
use say::{Verbosity, note};
use signals::{Signal, Signals};
use terminal::{ReaderGone, print};

use crate::adapter::AdapterFolder;
use crate::deepguard::DeepGuard;
use crate::error::{Context as _, Error, ErrorKind};
use crate::model::config::Config;
use crate::model::tokenizer::silence_caught_panics;
use crate::ops::Backend;

/// More threads than any machine has cores.
const MAX_THREADS: usize = 4096;

/// Harden code language models: train a guard, score code token by token, generate under guidance.
#[derive(Parser)]
#[command(name = "dg-run", version, about, max_term_width = 100)]
struct Cli {
    /// Threads to compute with; all cores if not given.
    #[arg(long, global = true, help_heading = "Device and memory")]
    threads: Option<usize>,
    #[command(flatten)]
    verbosity: Verbosity,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train adapter and guard on pairs of vulnerable and secure functions.
    Train(Box<train_args::TrainArgs>),
    /// Score source files token by token.
    Score(score::ScoreArgs),
    /// Make a page of a training run: curves, token statistics, configuration.
    Report(report::ReportArgs),
    /// Ask which layers of the model tell secure from vulnerable functions.
    Probe(probe::ProbeArgs),
    /// Continue a prompt, with an adapter's weights and, if asked for, guided towards secure code.
    Generate(generate::GenerateArgs),
    /// Write the base model with its adapter merged in.
    Export(export::ExportArgs),
    /// Turn a GGUF file into a Hugging Face directory.
    Import(import::ImportArgs),
    /// Look at training pairs.
    Data(data::DataArgs),
    /// Ask whether the code that a model writes is functional and secure.
    #[cfg(unix)]
    Eval(eval::EvalArgs),
    /// Look at the ranks of a cluster: whether they meet, and how fast they are connected.
    Dist(dist::DistArgs),
    /// Show what this program was built with and what it can compute on.
    Info(info::InfoArgs),
    /// Print every option of the training configuration file, with type, default and help, as TOML.
    Config(schema::ConfigArgs),
    /// Print the completions of a shell.
    Completions(completions::CompletionsArgs),
    /// Print the manual page, of the program or of one command, for `man -l`.
    Man(man::ManArgs),
}

/// The model that a command runs.
#[derive(Args, Clone)]
struct ModelArgs {
    /// Base model: a Hugging Face directory, or a hub id, downloaded if it is not in the local cache.
    #[arg(long, short, alias = "model-name-or-path")]
    model: String,
    /// Branch, tag or commit of a hub id; main if not given.
    #[arg(long)]
    revision: Option<String>,
    /// Adapter folder, or a finished run folder.
    #[arg(long, short, alias = "lora")]
    adapter: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Whether a command needs the guard of an adapter.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Guard {
    Needed,
    /// A plain PEFT adapter will do.
    Unused,
}

impl ModelArgs {
    /// Loads model and adapter on the chosen device and does `task` with them. The adapter is looked for
    /// first: a model may be large.
    fn run(&self, guard: Guard, task: impl Task) -> Result<()> {
        let adapter = self.adapter(guard)?;
        self.device.run(&self.model, self.revision.as_deref(), WithAdapter { adapter, task })
    }

    /// The adapter, if one is given.
    fn adapter(&self, guard: Guard) -> Result<Option<AdapterFolder>> {
        let folder = self.adapter.as_deref().map(AdapterFolder::find).transpose()?;
        if let Some(folder) = folder.as_ref().filter(|_| guard == Guard::Needed) {
            folder
                .require_guard()
                .map_err(|e| e.advice("give the folder of a run of the method deepguard"))?;
        }
        Ok(folder)
    }
}

/// A task for a model with its adapter attached.
struct WithAdapter<T> {
    adapter: Option<AdapterFolder>,
    task: T,
}

impl<T: Task> Task for WithAdapter<T> {
    fn check(&self, model: &Config) -> Result<()> {
        self.task.check(model)
    }

    fn run<B: Backend>(self, mut guard: DeepGuard<B>) -> Result<()> {
        if let Some(adapter) = self.adapter {
            let named = || format!("cannot attach the adapter {}", adapter.path().display());
            guard.attach(adapter.path()).with_context(named)?;
        }
        self.task.run(guard)
    }
}

/// Runs the command line and returns the exit code.
pub fn run() -> u8 {
    silence_caught_panics();
    match parse(std::env::args_os()) {
        Ok((cli, matches)) => {
            cli.verbosity.set();
            run_command(cli, &matches)
        }
        Err(error) => complain(&error),
    }
}

/// The command line and what clap knows of it, or the exit code of one that ends here.
fn parse(arguments: impl Iterator<Item = OsString>) -> std::result::Result<(Cli, ArgMatches), anyhow::Error> {
    let program = command_line()?;
    let parsed = program.try_get_matches_from(with_hyphens(arguments));
    let parsed = parsed.and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
    Ok(parsed?)
}

fn run_command(cli: Cli, matches: &ArgMatches) -> u8 {
    let signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => return complain(&error.into()),
    };
    match execute(cli, matches, &signals) {
        Ok(()) => 0,
        Err(error) if ReaderGone::is_cause_of(error.as_ref()) => 0,
        Err(error) => {
            let code = complain(&error);
            let signal = signals.received().filter(|_| kind(&error) == ErrorKind::Interrupted);
            signal.map_or(code, Signal::exit_code)
        }
    }
}

/// The command line, with the defaults of `train` in its help.
fn command_line() -> Result<clap::Command> {
    let defaults = keys::defaults()?;
    let with_defaults = |command: clap::Command| match command.get_name() {
        "train" => command.mut_args(|arg| keys::with_default(arg, &defaults)),
        _ => command,
    };
    Ok(Cli::command().mut_subcommands(with_defaults))
}

/// Underscores in the names of flags are as good as hyphens.
fn with_hyphens(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut flags_end = false;
    let with_hyphens = |argument: OsString| {
        flags_end |= argument == "--";
        match argument.to_str().filter(|text| !flags_end && text.starts_with("--")) {
            None => argument,
            Some(text) => match text.split_once('=') {
                Some((name, value)) => format!("{}={value}", name.replace('_', "-")).into(),
                None => text.replace('_', "-").into(),
            },
        }
    };
    arguments.map(with_hyphens).collect()
}

/// Shows an error with its context and returns its exit code.
fn complain(error: &anyhow::Error) -> u8 {
    if let Some(error) = error.downcast_ref::<clap::Error>() {
        let _ = error.print();
        return if error.use_stderr() { ErrorKind::Usage.exit_code() } else { 0 };
    }
    let mut text = Vec::new();
    for cause in error.chain() {
        text.push(cause.to_string());
        // The text of the library's own errors has their sources.
        if cause.is::<Error>() {
            break;
        }
    }
    let _ = writeln!(std::io::stderr(), "dg-run: {}", with_flags(&text.join(": ")));
    kind(error).exit_code()
}

/// What stands before names of fields and keys of files.
const OF_FILES: [&str; 3] = ["field ", "key ", "mean "];

/// The library calls an option by the name of its field, between backticks; here it is a flag.
fn with_flags(text: &str) -> String {
    let program = Cli::command();
    let arguments = program.get_subcommands().flat_map(clap::Command::get_arguments);
    let flags: BTreeSet<&str> = arguments.filter_map(clap::Arg::get_long).collect();
    let mut parts = text.split('`');
    let mut shown = parts.next().unwrap_or_default().to_owned();
    // Every other part is between backticks, unless the last one has no end.
    while let Some(name) = parts.next() {
        let Some(behind) = parts.next() else { return shown + "`" + name };
        let flag = name.replace('_', "-");
        let of_file = OF_FILES.iter().any(|before| shown.ends_with(before));
        let is_option = flags.contains(flag.as_str()) && !of_file;
        shown += &if is_option { format!("--{flag}") } else { format!("`{name}`") };
        shown += behind;
    }
    shown
}

/// What went wrong: the kind of the library's error, which has everything else as its context.
fn kind(error: &anyhow::Error) -> ErrorKind {
    let of_library = error.chain().find_map(|cause| cause.downcast_ref::<Error>());
    of_library.map_or(ErrorKind::Internal, Error::kind)
}

fn execute(cli: Cli, matches: &ArgMatches, signals: &Signals) -> Result<()> {
    let threads = cli.threads;
    match cli.command {
        Command::Train(args) => {
            let matches = matches.subcommand_matches("train").context("no matches of `train`")?;
            let options = config::resolve(&args, matches)?;
            train::run(&args, &options, signals)
        }
        Command::Score(args) => score::run(&args, (threads, signals)),
        Command::Generate(args) => generate::run(&args, (threads, signals)),
        Command::Export(args) => on_threads(threads, || export::run(&args)),
        Command::Import(args) => on_threads(threads, || import::run(&args)),
        Command::Data(args) => on_threads(threads, || data::run(&args)),
        #[cfg(unix)]
        Command::Eval(args) => eval::run(&args, (threads, signals)),
        Command::Dist(args) => dist::run(&args, threads, signals),
        Command::Info(args) => on_threads(threads, || info::run(&args)),
        Command::Report(args) => on_threads(threads, || report::run(&args)),
        Command::Probe(args) => probe::run(&args, (threads, signals)),
        Command::Config(args) => schema::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    }
}

/// Runs a command on a worker of the thread pool: from outside, every parallel operation would pay for waking
/// it.
fn on_threads<E: Into<anyhow::Error> + Send>(
    threads: Option<usize>,
    command: impl FnOnce() -> std::result::Result<(), E> + Send,
) -> Result<()> {
    check_threads(threads).map_err(|message| Error::usage(format!("--threads: {message}")))?;
    let threads = threads.unwrap_or(0); // 0 is one per core
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.kind(ErrorKind::Device, || format!("cannot start {threads} threads"))?;
    pool.install(command).map_err(Into::into)
}

fn check_threads(threads: Option<usize>) -> std::result::Result<(), String> {
    match threads.filter(|threads| !(1..=MAX_THREADS).contains(threads)) {
        Some(threads) => Err(format!("expected 1 to {MAX_THREADS}, found {threads}")),
        None => Ok(()),
    }
}

/// Reads a text file, or standard input for `-`. Errors do not name it.
fn read_text(path: &Path) -> crate::Result<String> {
    let complain = || "cannot be read".to_owned();
    if path.is_dir() {
        return Err(Error::data(
            "expected a file, found a folder; give its files, for instance those that `git ls-files` or `find` list",
        ));
    }
    let bytes = if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut bytes)
            .kind(ErrorKind::Data, complain)?;
        bytes
    } else {
        std::fs::read(path).kind(ErrorKind::Data, complain)?
    };
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Error::data(format!("expected UTF-8 text, found another byte at offset {at}"))
    })
}

#[cfg(test)]
mod tests {
    use super::with_flags;

    #[test]
    fn options_of_the_library_are_flags() {
        for (text, shown) in [
            ("lower `max_seq_len`, or", "lower --max-seq-len, or"),
            ("`output_dir`: `x y` and `device` cpu", "--output-dir: `x y` and --device cpu"),
            ("missing field `model` in it", "missing field `model` in it"),
            ("key `x`; did you mean `seed`?", "key `x`; did you mean `seed`?"),
            ("`q_proj` and `seed", "`q_proj` and `seed"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(with_flags(text), shown);
        }
    }
}
