//! `spfs commit`.

use std::process::ExitCode;

use clap::ValueEnum;
use spfs::repo::{Digest, TagName};
use spfs::runtime::{self, CommitRequest, Committed, Reply, Request};

use super::Run;
use crate::context::Context;
use crate::errors::{Failure, Result, warn};
use crate::shared::{Json, Quiet};

/// Save active changes as a layer, or the whole environment as a platform
///
/// A layer holds what changed since the last commit in this environment. A platform is the whole stack, a layer of the
/// changes on top. Afterwards /spfs is read-only, until `spfs edit`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  spfs commit layer --tag my-layer
  spfs commit platform --tag my-platform")]
pub struct Args {
    /// What to make of the active changes
    #[arg(value_enum)]
    kind: Kind,
    /// Name the result; may be repeated
    #[arg(short, long, value_name = "TAG")]
    tag: Vec<TagName>,
    /// Everything since the environment was entered, also what was committed since
    #[arg(long)]
    all: bool,
    /// Make a layer even of no changes at all
    #[arg(long, hide = true)]
    allow_empty: bool,
    #[command(flatten)]
    quiet: Quiet,
    #[command(flatten)]
    json: Json,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// The changes alone
    Layer,
    /// The changes and what they were made on
    Platform,
}

#[derive(serde::Serialize)]
struct Made<'a> {
    layer: Option<Digest>,
    platform: Option<Digest>,
    tags: &'a [TagName],
    editable: bool,
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        let spfs = context.spfs()?;
        let found = runtime::active(spfs)?;
        let request = CommitRequest {
            platform: self.kind == Kind::Platform,
            all: self.all,
            allow_empty: self.allow_empty,
            tags: self.tag.clone(),
            now: spfs.env.now(),
        };
        let reply = runtime::ask(&found.dir, &Request::Commit(request), &context.bar("committing"))?;
        let Reply::Committed(Committed { layer, platform, editable }) = reply else {
            return Err(Failure::new("the runtime's monitor is of another version of spfs"));
        };
        let mut out = context.out();
        if self.json.json {
            out.json(&Made { layer, platform, tags: &self.tag, editable })?;
            return out.finish();
        }
        if let (Some(layer), Some(_)) = (layer, platform) {
            context.detail(format_args!("layer {layer}"));
        }
        if let Some(digest) = platform.or(layer) {
            self.quiet.created(&mut out, &digest, &self.tag)?;
        }
        let ended = out.finish()?;
        match editable {
            true => warn("a file in /spfs is open for writing: changes are still allowed"),
            false => context.remark("edit mode disabled"),
        }
        Ok(ended)
    }
}
