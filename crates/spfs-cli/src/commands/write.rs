//! `spfs write`.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use spfs::files;
use spfs::repo::TagName;

use super::Run;
use crate::context::Context;
use crate::errors::{Failure, Result};
use crate::repository::{self, Choice};
use crate::shared::{Json, Quiet};

/// Store one file, from standard input or from --file
#[derive(clap::Args)]
#[command(after_help = "Example:\n  echo hello | spfs write --tag greeting\n  spfs read greeting")]
pub struct Args {
    /// Name it; may be repeated
    #[arg(short, long, value_name = "TAG")]
    tag: Vec<TagName>,
    /// The file to store
    #[arg(short, long)]
    file: Option<PathBuf>,
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
        let mut content: Box<dyn Read> = match &self.file {
            Some(path) if path.is_dir() => {
                return Err(Failure::io("read", path, std::io::ErrorKind::IsADirectory.into()));
            }
            Some(path) => Box::new(File::open(path).map_err(spfs::Error::io("open", path))?),
            None => Box::new(std::io::stdin().lock()),
        };
        let written = files::write(&*repository, &mut *content, &self.tag, &repository::author(spfs))?;
        let mut out = context.out();
        if self.json.json {
            out.json(&written)?;
        } else {
            self.quiet.created(&mut out, &written.digest, &written.tags)?;
        }
        out.finish()
    }
}
