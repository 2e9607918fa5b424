//! `spfs man`: the manual pages, made from the same texts as the help.

use std::path::PathBuf;
use std::process::ExitCode;

use super::Run;
use crate::cli;
use crate::context::Context;
use crate::errors::{Failure, Result};

/// Write the manual pages into a directory
///
/// One page for spfs and one for each command: spfs.1, spfs-run.1, and so on.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  spfs man ~/.local/share/man/man1")]
pub struct Args {
    /// The directory; made if it is missing
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        let failed = |error| Failure::io("write manual pages into", &self.directory, error);
        std::fs::create_dir_all(&self.directory).map_err(failed)?;
        clap_mangen::generate_to(cli::command(), &self.directory).map_err(failed)?;
        context.detail(format_args!("manual pages written to {}", self.directory.display()));
        Ok(ExitCode::SUCCESS)
    }
}
