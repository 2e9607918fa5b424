//! `spfs version`.

use std::io::Write;
use std::process::ExitCode;

use super::Run;
use crate::context::Context;
use crate::errors::Result;

/// Print the version of spfs
#[derive(clap::Args)]
#[command(after_help = "Example:\n  spfs version")]
pub struct Args {}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        let mut out = context.out();
        writeln!(out, "{}", env!("CARGO_PKG_VERSION"))?;
        out.finish()
    }
}
