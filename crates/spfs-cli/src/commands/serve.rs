//! `spfs serve`: the other end of an `ssh://` remote.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use spfs::repo::{Directory, Repository};
use spfs_net::server;

use super::Run;
use crate::context::Context;
use crate::errors::{Failure, Result, USAGE};

/// Serve one client over standard input and output
///
/// This is what runs on the other side of an `ssh://` remote; nobody types it. `spfs server` serves many clients over
/// the network.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  ssh host spfs serve --stdio /path/to/repository
  spfs tags -r ssh://host/path/to/repository")]
pub struct Args {
    /// Speak on standard input and output
    #[arg(long, required = true)]
    stdio: bool,
    /// Refuse everything that changes the repository
    #[arg(long)]
    read_only: bool,
    /// The repository, relative to the current directory; without it, the local one
    #[arg(value_name = "PATH")]
    root: Option<PathBuf>,
    /// The same
    #[arg(long = "root", value_name = "PATH", conflicts_with = "root", id = "root_option")]
    root_option: Option<PathBuf>,
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        if std::io::stdin().is_terminal() {
            let failure = Failure::new("standard input is a terminal, not a client");
            return Err(failure.hint("`spfs tags -r ssh://HOST/PATH` starts this on HOST").code(USAGE));
        }
        let repository: Arc<dyn Repository> = match self.root.or(self.root_option) {
            Some(root) => Arc::new(Directory::open(root)?),
            None => Arc::new(context.spfs()?.local.clone()),
        };
        let options = server::Options { read_only: self.read_only, ..server::Options::default() };
        match server::serve_stdio(repository, options) {
            // A client that has gone, however it went, has had what it wanted.
            Ok(()) | Err(_) => Ok(ExitCode::SUCCESS),
        }
    }
}
