//! `spfs platforms`.

use std::process::ExitCode;

use spfs::repo::Kind;

use super::Run;
use super::layers::Options;
use crate::context::Context;
use crate::errors::Result;

/// List all platforms
#[derive(clap::Args)]
#[command(after_help = "Example:\n  spfs platforms --tags")]
pub struct Args {
    #[command(flatten)]
    options: Options,
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        self.options.list(context, Kind::Platform)
    }
}
