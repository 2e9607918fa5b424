//! `spfs layers`, and with the same options `spfs platforms`.

use std::io::Write;
use std::process::ExitCode;

use spfs::objects;
use spfs::repo::Kind;

use super::Run;
use crate::context::Context;
use crate::errors::Result;
use crate::format;
use crate::repository::Choice;
use crate::shared::Json;

/// List all layers
#[derive(clap::Args)]
#[command(after_help = "Example:\n  spfs layers --tags")]
pub struct Args {
    #[command(flatten)]
    pub options: Options,
}

// How objects are listed.
#[derive(clap::Args)]
pub struct Options {
    /// Show short digests
    #[arg(long)]
    short: bool,
    /// Show short digests and the tags that point to each
    #[arg(long)]
    tags: bool,
    #[command(flatten)]
    repository: Choice,
    #[command(flatten)]
    json: Json,
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        self.options.list(context, Kind::Layer)
    }
}

impl Options {
    /// Lists every object of this kind.
    pub fn list(&self, context: &Context, kind: Kind) -> Result<ExitCode> {
        let spfs = context.spfs()?;
        let repository = self.repository.open(spfs)?;
        let found = objects::list(&*repository, kind)?;
        let mut out = context.out();
        if self.json.json {
            out.json(&found)?;
            return out.finish();
        }
        for object in &found {
            match (self.tags, self.short) {
                (true, _) => writeln!(out, "{}", format::with_tags(&object.short, &object.tags))?,
                (false, true) => writeln!(out, "{}", object.short)?,
                (false, false) => writeln!(out, "{}", object.digest)?,
            }
        }
        out.finish()
    }
}
