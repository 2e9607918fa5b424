//! `spfs init`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use spfs::repo::Directory;

use super::Run;
use crate::context::Context;
use crate::errors::Result;

/// Make a repository
///
/// The local repository needs no such thing: it is made when it is first used. This is for repositories elsewhere.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  spfs init repo /shared/spfs")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Make a repository in a directory, or complete one
    #[command(after_help = "Example:\n  spfs init repo /shared/spfs")]
    Repo {
        /// The directory; made if it is missing
        path: PathBuf,
    },
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        let What::Repo { path } = self.what;
        let repository = Directory::create(&path)?;
        context.detail(format_args!("repository at {}", repository.root().display()));
        Ok(ExitCode::SUCCESS)
    }
}
