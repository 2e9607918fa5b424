//! `spfs tag`.

use std::io::Write;
use std::process::ExitCode;

use spfs::repo::TagName;
use spfs::tags;

use super::Run;
use crate::complete;
use crate::context::Context;
use crate::errors::Result;
use crate::repository::{self, Choice};
use crate::shared::{Json, Quiet};

/// Give names to a layer, a platform or a file
///
/// A name that exists already is moved to TARGET; what it meant before stays in its history (`spfs log`).
#[derive(clap::Args)]
#[command(after_help = "Example:\n  spfs tag my-layer vfx/tools   # vfx/tools now means the same as my-layer")]
pub struct Args {
    /// What to name: a tag, a digest, or the beginning of one
    #[arg(add = complete::reference())]
    target: String,
    /// The names to give it
    #[arg(required = true, value_name = "TAG")]
    tags: Vec<TagName>,
    #[command(flatten)]
    repository: Choice,
    #[command(flatten)]
    quiet: Quiet,
    #[command(flatten)]
    json: Json,
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        let spfs = context.spfs()?;
        let repository = self.repository.open(spfs)?;
        let target = repository::resolve(&*repository, &self.target)?.digest;
        tags::tag(&*repository, &target, &self.tags, &repository::author(spfs))?;
        let mut out = context.out();
        if self.json.json {
            out.json(&serde_json::json!({ "digest": target, "tags": self.tags }))?;
        } else if self.quiet.quiet {
            writeln!(out, "{target}")?;
        } else {
            for tag in &self.tags {
                writeln!(out, "created tag={tag}")?;
            }
        }
        out.finish()
    }
}
