//! `spfs completion`: the script that makes a shell complete commands, options, tags and digests.

use std::io::Write;
use std::process::ExitCode;

use clap::ValueEnum;
use clap_complete::env::Shells;

use super::Run;
use crate::cli::COMPLETE_VARIABLE;
use crate::context::Context;
use crate::errors::{Failure, Result};

/// Print the script that lets a shell complete spfs commands and tags
///
/// Source it from the shell's start-up file. The shell then asks spfs itself, so tags that are made later complete too.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  echo 'source <(spfs completion bash)' >> ~/.bashrc
  echo 'source <(spfs completion zsh)' >> ~/.zshrc
  spfs completion fish > ~/.config/fish/completions/spfs.fish")]
pub struct Args {
    /// The shell to complete for
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        let name = match self.shell {
            Shell::Bash => "bash",
            Shell::Zsh => "zsh",
            Shell::Fish => "fish",
        };
        let shells = Shells::builtins();
        let shell = shells.completer(name).ok_or_else(|| Failure::new(format!("cannot complete for {name}")))?;
        let mut script = Vec::new();
        shell.write_registration(COMPLETE_VARIABLE, "spfs", "spfs", "spfs", &mut script)?;
        let mut out = context.out();
        out.write_all(&script)?;
        out.finish()
    }
}
