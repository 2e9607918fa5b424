//! `spfs ls-tags`.

use std::io::Write;
use std::process::ExitCode;

use spfs::tags;

use super::Run;
use crate::context::Context;
use crate::errors::Result;
use crate::repository::Choice;
use crate::shared::Json;

/// List tags as a tree of folders
#[derive(clap::Args)]
#[command(after_help = "Example:\n  spfs ls-tags vfx")]
pub struct Args {
    /// The folder to list
    #[arg(default_value = "/")]
    path: String,
    /// List every tag below it, and no folders
    #[arg(long)]
    recursive: bool,
    #[command(flatten)]
    repository: Choice,
    #[command(flatten)]
    json: Json,
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        let spfs = context.spfs()?;
        let repository = self.repository.open(spfs)?;
        let names = tags::list(&*repository, &self.path, self.recursive)?;
        let mut out = context.out();
        if self.json.json {
            out.json(&names)?;
        } else {
            let slash = if self.path == "/" { "/" } else { "" };
            for name in &names {
                writeln!(out, "{slash}{name}")?;
            }
        }
        out.finish()
    }
}
