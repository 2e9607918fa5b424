//! `spfs search`.

use std::io::Write;
use std::process::ExitCode;

use serde::Serialize;
use spfs::repo::{Repository, TagName};
use spfs::tags;

use super::Run;
use crate::context::Context;
use crate::errors::{Result, chain, warn};
use crate::repository::Choice;
use crate::shared::Json;

/// Look for tags by a part of their name, in the local repository and in all remotes
#[derive(clap::Args)]
#[command(after_help = "Example:\n  spfs search maya")]
pub struct Args {
    /// A part of the name
    term: String,
    #[command(flatten)]
    repository: Choice,
    #[command(flatten)]
    json: Json,
}

#[derive(Serialize)]
struct Found {
    tag: TagName,
    repository: String,
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        let spfs = context.spfs()?;
        let mut found = Vec::new();
        let mut look = |repository: &dyn Repository, name: &str| -> spfs::Result<()> {
            let tags = tags::search(repository, &self.term)?;
            found.extend(tags.into_iter().map(|tag| Found { tag, repository: name.to_owned() }));
            Ok(())
        };
        if let Some(remote) = &self.repository.remote {
            look(&*self.repository.open(spfs)?, remote)?;
        } else {
            look(&spfs.local, "local")?;
            for name in spfs.config.remotes.keys() {
                // One that is away may say so when it is opened or when it is asked.
                let searched = spfs::remotes::open(spfs, Some(name)).and_then(|remote| look(&*remote, name));
                if let Err(error) = searched {
                    let causes: Vec<String> = chain(&error).map(ToString::to_string).collect();
                    warn(&format!("the remote {name} was not searched: {}", causes.join(": ")));
                }
            }
        }
        let mut out = context.out();
        if self.json.json {
            out.json(&found)?;
        } else {
            let width = found.iter().map(|found| found.tag.as_str().len()).max().unwrap_or(0);
            for found in &found {
                writeln!(out, "{:width$}  {}", found.tag, found.repository)?;
            }
        }
        out.finish()
    }
}
