//! `dg-run export`.

use std::path::PathBuf;

use clap::Args;

use super::{ModelArgs, note};
use crate::error::{Error, Result};
use crate::export::merge;
use crate::model::hub::resolve_model;

/// Options of `dg-run export`.
#[derive(Args)]
pub struct ExportArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Merge the adapter into the base model's weights.
    #[arg(long, required = true)]
    merge: bool,
    /// Folder to write.
    #[arg(long, short)]
    out: PathBuf,
}

/// Text whose logits must be the same before and after the merge.
const CHECK_TEXT: &str = "import sqlite3\n\ndef find_user(connection, name):\n    \"\"\"Return the row of one user.\"\"\"\n    \
                          cursor = connection.cursor()\n    cursor.execute(\"SELECT id FROM users WHERE name = ?\", (name,))\n";

/// Exports.
pub fn run(args: &ExportArgs) -> Result<()> {
    let guard = args.model.load()?;
    let attached = guard.attached.as_ref();
    let attached =
        attached.ok_or_else(|| Error::usage("export needs an adapter: give its folder with --adapter"))?;
    let base = resolve_model(&args.model.model, None)?;
    let tokens = guard.tokenizer.encode(CHECK_TEXT)?;
    let check = merge(&guard.model, attached, &base, &args.out, &tokens)?;
    note(&format!(
        "{}: logits differ from base and adapter by {:.1e} (relative; {:.0e} allowed), {:.0} % of {} positions have the \
         same likeliest token",
        args.out.display(),
        check.relative_error,
        check.tolerance,
        100.0 * check.same_top_token,
        tokens.len()
    ));
    Ok(())
}
