//! `spfs render`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use spfs::render::{self, Options, Strategy};

use super::Run;
use crate::complete;
use crate::context::Context;
use crate::errors::Result;
use crate::repository::{self, Choice};
use crate::shared::{Count, Json};

/// Write an environment out as plain directories
///
/// Into TARGET, all layers merged; or, without TARGET, each layer by itself into the store, where existing SPFS finds
/// them. Prints JSON: the directories, and what was done for them.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  spfs render my-platform /tmp/my-platform")]
pub struct Args {
    /// The environment
    #[arg(add = complete::env_spec())]
    reference: String,
    /// Where to; made if it is missing, and must be empty
    target: Option<PathBuf>,
    /// TARGET may have files in it: copies replace them, links leave them
    #[arg(long, requires = "target")]
    allow_existing: bool,
    /// How files are made; Copy into TARGET, HardLink into the store
    #[arg(long, value_enum, ignore_case = true)]
    strategy: Option<How>,
    /// How many files to make at the same time; by default as many as there are processors
    #[arg(long, value_name = "N", env = "SPFS_RENDER_MAX_CONCURRENT_BLOBS", hide_env = true)]
    max_concurrent_blobs: Option<Count>,
    // Directories are made one after the other, which is within any limit.
    #[arg(long, hide = true, value_name = "N")]
    max_concurrent_branches: Option<usize>,
    #[command(flatten)]
    repository: Choice,
    #[command(flatten)]
    json: Json,
}

#[derive(Clone, Copy, ValueEnum)]
enum How {
    /// Links of files that the store keeps for you, one for each content and mode
    #[value(name = "HardLink")]
    HardLink,
    /// Links of the stored files themselves: all of mode 0444
    #[value(name = "HardLinkNoProxy")]
    HardLinkNoProxy,
    /// Copies
    #[value(name = "Copy")]
    Copy,
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        let spfs = context.spfs()?;
        let repository = self.repository.open(spfs)?;
        let repository = repository::directory(&*repository, "rendering")?;
        let layers = self.repository.layers(spfs, repository, &self.reference)?;
        let strategy = match (self.strategy, &self.target) {
            (Some(How::HardLink), _) | (None, None) => Strategy::HardLink,
            (Some(How::HardLinkNoProxy), _) => Strategy::HardLinkNoProxy,
            (Some(How::Copy), _) | (None, Some(_)) => Strategy::Copy,
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let user = spfs::user::name(&spfs.env);
        let options = Options {
            strategy,
            allow_existing: self.allow_existing,
            threads: self.max_concurrent_blobs.and_then(|count| count.0).unwrap_or(cores).clamp(1, cores),
            user: &user,
            share_payloads: true,
            now: spfs.env.now(),
        };
        let bar = context.bar("rendering");
        let rendered = match &self.target {
            Some(target) => render::to_directory(repository, &layers, target, &options, &bar)?,
            None => render::in_repository(repository, &layers, &options, &bar)?,
        };
        let mut out = context.out();
        out.json(&rendered)?;
        out.finish()
    }
}
