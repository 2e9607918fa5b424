//! `spfs shell`.

use std::process::ExitCode;

use super::{Run, run};
use crate::context::Context;
use crate::environment::Environment;
use crate::errors::Result;

/// Enter an environment with your shell
///
/// /spfs shows the environment to your shell and to everything that is started from it, and to nobody else. It ends
/// with the last of these processes. Changes are lost then, unless they are committed, or the runtime is kept.
///
/// An environment of something that exists is read-only unless --edit is given; the empty one is not.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  spfs shell -                          an empty environment
  spfs shell my-layer
  spfs shell base+tools --edit
  spfs shell --keep-runtime --runtime-name work my-layer
  spfs shell --rerun work")]
pub struct Args {
    #[command(flatten)]
    environment: Environment,
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        run::enter(context, &self.environment, &[])
    }
}
