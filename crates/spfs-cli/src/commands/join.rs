//! `spfs join`.

use std::ffi::OsString;
use std::process::ExitCode;

use spfs::runtime::{self, Target};

use super::{Run, run};
use crate::complete;
use crate::context::Context;
use crate::errors::Result;

/// Enter an environment that is running
///
/// By the name of the runtime, or by any process in it. Without a command it starts your shell.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  spfs join work
  spfs join --pid 4711 -- ls /spfs")]
pub struct Args {
    /// The name of the runtime, as `spfs runtime list` shows it
    #[arg(value_name = "RUNTIME", required_unless_present = "pid", conflicts_with = "pid", add = complete::runtime())]
    runtime: Option<String>,
    /// A process that is inside
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,
    /// The program and its arguments, after `--`
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        let spfs = context.spfs()?;
        let target = match (self.runtime, self.pid) {
            (_, Some(pid)) => Target::Pid(pid),
            (name, None) => Target::Name(name.unwrap_or_default()),
        };
        let found = runtime::join(spfs, &target)?;
        Err(run::not_started(runtime::exec(spfs, &found.record.name, &found.dir, &self.command)))
    }
}
