//! `spfs edit`.

use std::process::ExitCode;

use spfs::repo::NoProgress;
use spfs::runtime::{self, Reply, Request};

use super::Run;
use crate::context::Context;
use crate::errors::Result;

/// Allow changes in the environment you are in
///
/// In a shell, open files and programs stay as they are. What `spfs run` has started read-only gets a /spfs of its own:
/// what sits in it must `cd` to its directory again. `--off` forbids changes again; those made so far
/// stay visible, and can be committed later.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  spfs edit
  spfs edit --off
  spfs edit --keep-runtime")]
pub struct Args {
    /// Forbid changes
    #[arg(long, conflicts_with = "keep_runtime")]
    off: bool,
    /// Keep this runtime and its changes on disk when its last process has gone
    #[arg(long)]
    keep_runtime: bool,
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        let found = runtime::active(context.spfs()?)?;
        if self.keep_runtime
            && let Reply::Replaced(remarks) = runtime::ask(&found.dir, &Request::KeepRuntime, &context.bar("keeping"))?
        {
            remarks.iter().for_each(|remark| context.remark(remark));
        }
        let editable = !self.off;
        if found.record.status.editable == editable {
            return Ok(ExitCode::SUCCESS);
        }
        if let Reply::Replaced(remarks) = runtime::ask(&found.dir, &Request::Edit { editable }, &NoProgress)? {
            remarks.iter().for_each(|remark| context.remark(remark));
        }
        context.remark(if editable { "edit mode enabled" } else { "edit mode disabled" });
        Ok(ExitCode::SUCCESS)
    }
}
