//! `spfs man`: the manual pages, made from the same texts as the help.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Command;
use clap_mangen::Man;

use super::Run;
use crate::cli;
use crate::context::Context;
use crate::errors::{Failure, Result};

/// Write the manual pages into a directory
///
/// One page for spfs and one for each command: spfs.1, spfs-run.1, and so on.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  spfs man ~/.local/share/man/man1")]
pub struct Args {
    /// The directory; made if it is missing
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        let failed = |error| Failure::io("write manual pages into", &self.directory, error);
        std::fs::create_dir_all(&self.directory).map_err(failed)?;
        let mut command = cli::command();
        command.build();
        write_pages(&command, &self.directory).map_err(failed)?;
        context.detail(format_args!("manual pages written to {}", self.directory.display()));
        Ok(ExitCode::SUCCESS)
    }
}

/// Writes the page of a command and those of its own commands.
fn write_pages(command: &Command, directory: &Path) -> io::Result<()> {
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        write_pages(command, directory)?;
    }
    let man = Man::new(command.clone()).source(concat!("spfs ", env!("CARGO_PKG_VERSION"))).manual("spfs");
    let mut page = Vec::new();
    man.render(&mut page)?;
    std::fs::write(directory.join(man.get_filename()), with_usage(&String::from_utf8_lossy(&page), command))
}

/// The page with the usage that the help shows: the page's own knows neither `--` nor what options take.
fn with_usage(page: &str, command: &Command) -> String {
    let (synopsis, description) = (".SH SYNOPSIS\n", ".SH DESCRIPTION\n");
    let Some((before, rest)) = page.split_once(synopsis) else { return page.to_owned() };
    let Some((_, after)) = rest.split_once(description) else { return page.to_owned() };
    let usage = command.clone().render_usage().to_string();
    let lines: Vec<&str> = usage.trim_start_matches("Usage:").lines().map(str::trim).collect();
    let usage = lines.join("\n.br\n").replace('-', "\\-");
    format!("{before}{synopsis}{usage}\n{description}{after}")
}
