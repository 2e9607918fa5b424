//! `spfs pull`.

use std::process::ExitCode;

use spfs::{fetch, sync};

use super::Run;
use super::push::{How, references};
use crate::complete;
use crate::context::Context;
use crate::errors::Result;

/// Fetch layers, platforms and tags from a remote, with all that they need
///
/// Looks in `origin`, then in the other remotes. A tag that is here already stays as it is, unless --sync is given.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  spfs pull my-platform
  spfs pull --sync my-platform")]
pub struct Args {
    /// What to fetch: tags or digests, or several joined by `+`
    #[arg(required = true, value_name = "REF", add = complete::env_spec())]
    references: Vec<String>,
    /// Where from: a configured remote, an address, or a path with a `/`; by default all remotes, `origin` first
    #[arg(short, long, value_name = "NAME_OR_ADDRESS")]
    remote: Option<String>,
    /// The same as --remote
    #[arg(long, value_name = "NAME_OR_ADDRESS", conflicts_with = "remote")]
    from: Option<String>,
    /// Where to, instead of the local repository
    #[arg(long, value_name = "NAME_OR_ADDRESS")]
    to: Option<String>,
    #[command(flatten)]
    how: How,
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        let spfs = context.spfs()?;
        let destination = spfs::remotes::open(spfs, self.to.as_deref())?;
        let references = references(&self.references)?;
        let from = self.from.as_deref().or(self.remote.as_deref());
        let mut code = ExitCode::SUCCESS;
        for (source, name, wanted) in fetch::find_all(spfs, from, &references)? {
            context.remark(format!("found in {name} ({})", source.address()));
            code = self.how.go(context, (&*source, &*destination), &wanted, sync::Policy::MissingOnly)?;
        }
        Ok(code)
    }
}
