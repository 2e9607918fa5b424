//! `spfs read`.

use std::io::Write;
use std::process::ExitCode;

use spfs::files::{self, Content};
use spfs::merged::{self, Merged};

use super::Run;
use crate::complete;
use crate::context::Context;
use crate::errors::{Failure, Result};
use crate::output::Output;
use crate::repository::{self, Choice};

/// Print a file of a layer or platform; of a symlink, its target
#[derive(clap::Args)]
#[command(after_help = "Example:\n  spfs read my-layer message.txt")]
pub struct Args {
    /// The layer, platform or manifest that holds the file; or the file itself, if it was stored with `spfs write`
    #[arg(add = complete::env_spec())]
    reference: String,
    /// The file's path in it
    path: Option<String>,
    #[command(flatten)]
    repository: Choice,
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        let spfs = context.spfs()?;
        let repository = self.repository.open(spfs)?;
        let digest = match &self.path {
            None => {
                let digest = repository::resolve(&*repository, &self.reference)?.digest;
                if !files::is_blob(&*repository, &digest)? {
                    return Err(Failure::new(format!("{} is not a single file", self.reference))
                        .hint(format!("name a file in it: spfs read {} PATH", self.reference))
                        .hint(format!("`spfs ls {}` lists what there is", self.reference)));
                }
                digest
            }
            Some(path) => {
                let layers = self.repository.layers(spfs, &*repository, &self.reference)?;
                files::payload_at(&Merged::read(&*repository, &layers)?, &merged::relative(path)?)?
            }
        };
        let mut content = Content::open(&*repository, &digest)?;
        let mut out = Output::raw();
        let mut buffer = vec![0; 256 << 10];
        loop {
            match content.read(&mut buffer)? {
                0 => return out.finish(),
                count => out.write_all(&buffer[..count])?,
            }
        }
    }
}
