//! `dg-run export`.

use std::path::PathBuf;

use clap::Args;

use super::hub::HubArgs;
use super::note;
use super::say::warn;
use crate::adapter::AdapterFolder;
use crate::cpu::Cpu;
use crate::deepguard::DeepGuard;
use crate::error::{Error, Result};
use crate::export::merge;
use crate::files::require_vacant;
use crate::hub::download::Need;

/// Options of `dg-run export`.
#[derive(Args)]
pub struct ExportArgs {
    /// Base model: a Hugging Face directory, or a hub id, downloaded if it is not in the local cache.
    #[arg(long, short, alias = "model-name-or-path")]
    model: String,
    /// Branch, tag or commit of a hub id [default: main].
    #[arg(long)]
    revision: Option<String>,
    /// Adapter folder, or a finished run folder.
    #[arg(long, short, alias = "lora")]
    adapter: PathBuf,
    /// Merge the adapter into the base model's weights.
    #[arg(long, required = true)]
    merge: bool,
    /// Folder to write.
    #[arg(long, short)]
    out: PathBuf,
    #[command(flatten)]
    hub: HubArgs,
}

/// Text whose logits must be the same before and after the merge.
const CHECK_TEXT: &str = "import sqlite3\n\ndef find_user(connection, name):\n    \"\"\"Return the row of one user.\"\"\"\n    \
                          cursor = connection.cursor()\n    cursor.execute(\"SELECT id FROM users WHERE name = ?\", (name,))\n";

/// Exports.
pub fn run(args: &ExportArgs) -> Result<()> {
    let adapter = AdapterFolder::find(&args.adapter)?;
    require_vacant(&args.out)?;
    let base = args.hub.obtain(&args.model, args.revision.as_deref(), Need::Model)?;
    let mut guard = DeepGuard::load(Cpu::new(), &base)?;
    guard.notes().for_each(warn);
    guard.attach(adapter.path())?;
    let attached = guard.attached.as_ref();
    let attached = attached.ok_or_else(|| Error::internal("the adapter is not attached"))?;
    let tokens = guard.tokenizer.encode(CHECK_TEXT)?;
    let check = merge(&guard.model, attached, &args.out, &tokens)?;
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
