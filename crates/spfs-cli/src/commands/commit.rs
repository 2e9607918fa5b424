//! `spfs commit`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use spfs::repo::{Digest, TagName};
use spfs::runtime::{self, CommitRequest, Committed, Reply, Request};
use spfs::{Spfs, commit};

use super::Run;
use crate::complete;
use crate::context::Context;
use crate::errors::{Failure, Result, warn};
use crate::repository::{self, Choice};
use crate::shared::{Count, Json, Quiet};

/// Save active changes as a layer, or the whole environment as a platform
///
/// A layer holds what changed since the last commit in this environment. A platform is the whole stack, a layer of the
/// changes on top. Afterwards /spfs is read-only, until `spfs edit`. With --path or --ref nothing is changed: a
/// directory becomes a layer, or references become a platform.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  spfs commit layer --tag my-layer
  spfs commit platform --tag my-platform
  spfs commit --path ./build --tag my-build
  spfs commit --ref my-layer+my-build --tag my-platform")]
pub struct Args {
    /// What to make of the active changes
    #[arg(value_enum, required_unless_present_any = ["path", "reference"])]
    kind: Option<Kind>,
    /// Make a layer of this directory instead
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kind", "reference", "all"])]
    path: Option<PathBuf>,
    /// Make a platform of these references instead, joined by `+`, the bottom first
    #[arg(long = "ref", value_name = "REF", conflicts_with_all = ["kind", "all"], add = complete::env_spec())]
    reference: Option<String>,
    /// Name the result; may be repeated
    #[arg(short, long, value_name = "TAG")]
    tag: Vec<TagName>,
    /// Everything since the environment was entered, also what was committed since
    #[arg(long)]
    all: bool,
    /// Make a layer even of no changes at all
    #[arg(long, hide = true)]
    allow_empty: bool,
    /// With --path: read every file, also those that have not changed since they were last committed
    #[arg(long, requires = "path")]
    no_cache: bool,
    /// With --path: how many files to read at the same time; by default as many as there are processors
    #[arg(long, value_name = "N", env = "SPFS_COMMIT_MAX_CONCURRENT_BLOBS", hide_env = true)]
    max_concurrent_blobs: Option<Count>,
    // What is always so: each file is hashed as it is stored, and the walk is within any limit.
    #[arg(long, hide = true)]
    hash_while_committing: bool,
    #[arg(long, hide = true)]
    hash_first: bool,
    #[arg(long, hide = true, value_name = "N")]
    max_concurrent_branches: Option<usize>,
    /// With --path or --ref: put it into this repository instead of the local one
    #[arg(short, long, value_name = "NAME_OR_ADDRESS", conflicts_with = "kind")]
    remote: Option<String>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    editable: Option<bool>,
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        let spfs = context.spfs()?;
        let Some(kind) = self.kind else { return self.without_runtime(context, spfs) };
        let found = runtime::active(spfs)?;
        let request = CommitRequest {
            platform: kind == Kind::Platform,
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
            out.json(&Made { layer, platform, tags: &self.tag, editable: Some(editable) })?;
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

impl Args {
    /// Commits a directory or a list of references.
    fn without_runtime(self, context: &Context, spfs: &Spfs) -> Result<ExitCode> {
        let choice = Choice { remote: self.remote };
        let repository = choice.open(spfs)?;
        let author = repository::author(spfs);
        let made = match (&self.path, &self.reference) {
            (Some(path), _) => {
                let cores = std::thread::available_parallelism().map_or(1, usize::from);
                let options = commit::Options {
                    tags: self.tag.clone(),
                    allow_empty: self.allow_empty,
                    no_cache: self.no_cache,
                    threads: self.max_concurrent_blobs.and_then(|count| count.0).unwrap_or(cores).clamp(1, cores),
                };
                let directory = repository::directory(&*repository, "committing files")?;
                commit::path(spfs, directory, path, &options, &author, &context.bar("committing"))?
            }
            (None, reference) => {
                let stack = choice.stack(spfs, &*repository, reference.as_deref().unwrap_or_default())?;
                commit::platform_of(spfs, &*repository, &stack, &self.tag, &author)?
            }
        };
        let mut out = context.out();
        if self.json.json {
            let digest = Some(made.digest);
            let (layer, platform) = if self.path.is_some() { (digest, None) } else { (None, digest) };
            out.json(&Made { layer, platform, tags: &made.tags, editable: None })?;
        } else {
            self.quiet.created(&mut out, &made.digest, &made.tags)?;
        }
        out.finish()
    }
}
