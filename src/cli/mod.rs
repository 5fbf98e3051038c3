//! The command line: arguments → resolved options → one match on the device.

mod completions;
mod config;
mod data;
mod device;
mod export;
mod generate;
mod hub;
mod import;
mod info;
mod man;
mod output;
mod probe;
mod progress;
mod report;
mod schema;
mod score;
mod signals;
mod summary;
mod train;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use device::{DeviceArgs, Task};
use signals::{Signal, Signals};

use crate::deepguard::DeepGuard;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::model::tokenizer::silence_caught_panics;
use crate::ops::Backend;

/// More threads than any machine has cores.
const MAX_THREADS: usize = 4096;

/// Harden code language models: train a guard, score code token by token, generate under guidance.
#[derive(Parser)]
#[command(name = "dg-run", version, about, max_term_width = 100)]
struct Cli {
    /// Threads to compute with; all cores if not given.
    #[arg(long, global = true)]
    threads: Option<usize>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train adapter and guard on pairs of vulnerable and secure functions.
    Train(Box<train::TrainArgs>),
    /// Score source files token by token.
    Score(score::ScoreArgs),
    /// Make a page of a training run: curves, token statistics, configuration.
    Report(report::ReportArgs),
    /// Ask which layers of the model tell secure from vulnerable functions.
    Probe(probe::ProbeArgs),
    /// Continue a prompt, guided towards secure code when an adapter is given.
    Generate(generate::GenerateArgs),
    /// Write the base model with its adapter merged in.
    Export(export::ExportArgs),
    /// Turn a GGUF file into a Hugging Face directory.
    Import(import::ImportArgs),
    /// Look at training pairs.
    Data(data::DataArgs),
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
#[derive(Args)]
struct ModelArgs {
    /// Base model: a Hugging Face directory, or a hub id, downloaded if it is not in the local cache.
    #[arg(long, short, alias = "model-name-or-path")]
    model: String,
    /// Branch, tag or commit of a hub id [default: main].
    #[arg(long)]
    revision: Option<String>,
    /// Adapter folder, or a finished run folder.
    #[arg(long, short, alias = "lora")]
    adapter: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

impl ModelArgs {
    /// Loads model and adapter on the chosen device and does `task` with them.
    fn run(&self, task: impl Task) -> Result<()> {
        let task = WithAdapter { adapter: self.adapter.as_deref(), task };
        self.device.run(&self.model, self.revision.as_deref(), task)
    }
}

/// A task for a model with its adapter attached.
struct WithAdapter<'a, T> {
    adapter: Option<&'a Path>,
    task: T,
}

impl<T: Task> Task for WithAdapter<'_, T> {
    fn run<B: Backend>(self, mut guard: DeepGuard<B>) -> Result<()> {
        if let Some(adapter) = self.adapter {
            guard.attach(adapter)?;
        }
        self.task.run(guard)
    }
}

/// Runs the command line and returns the exit code.
pub fn run() -> u8 {
    silence_caught_panics();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ErrorKind::Usage.exit_code() } else { 0 };
        }
    };
    let signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => return complain(&error),
    };
    match execute(cli, &signals) {
        Ok(()) => 0,
        Err(error) => {
            let code = complain(&error);
            let signal = signals.received().filter(|_| error.kind() == ErrorKind::Interrupted);
            signal.map_or(code, Signal::exit_code)
        }
    }
}

/// Shows an error and returns its exit code.
fn complain(error: &Error) -> u8 {
    let _ = writeln!(std::io::stderr(), "dg-run: {error}");
    error.kind().exit_code()
}

/// Runs the command on a worker of the thread pool: from outside, every parallel operation would pay for waking it.
fn execute(cli: Cli, signals: &Signals) -> Result<()> {
    if let Some(threads) = cli.threads.filter(|threads| !(1..=MAX_THREADS).contains(threads)) {
        return Err(Error::usage(format!("--threads: expected 1 to {MAX_THREADS}, found {threads}")));
    }
    let threads = cli.threads.unwrap_or(0); // 0 is one per core
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.kind(ErrorKind::Device, || format!("cannot start {threads} threads"))?;
    pool.install(|| match cli.command {
        Command::Train(args) => train::run(&args, signals),
        Command::Score(args) => score::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Data(args) => data::run(&args),
        Command::Info(args) => info::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Probe(args) => probe::run(&args),
        Command::Config(args) => schema::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    })
}

/// Writes data to standard output; a reader that has gone away is no error.
fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::device("cannot write to standard output").with_source(e))
        }
        _ => Ok(()),
    }
}

/// Writes a line for people to standard error.
fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Whether standard output shows colours.
fn colours() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Reads a text file, or standard input for `-`.
fn read_text(path: &Path) -> Result<String> {
    let complain = || format!("cannot read {}", path.display());
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
        Error::data(format!("{}: expected UTF-8 text, found another byte at offset {at}", path.display()))
    })
}
