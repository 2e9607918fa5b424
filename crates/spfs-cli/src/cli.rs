//! The command line: from words to one command and its context, or to a help text and an exit code.
//!
//! Each command's arguments are built only when that command is the one (`Command::defer`): building all of them
//! would cost every start.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use clap_complete::CompleteEnv;

use crate::commands::{self, Entry};
use crate::context::Context;
use crate::errors::{self, Result};
use crate::output::Output;
use crate::usage;

/// The variable through which a shell asks for completions; set by the scripts of `spfs completion`.
pub const COMPLETE_VARIABLE: &str = "SPFS_COMPLETE";

/// What a command line asks for.
#[expect(clippy::large_enum_variant, reason = "there is one of it in a process")]
pub enum Line {
    /// One of our commands.
    Run(Chosen, Context),
    /// A command that we do not have, with its arguments.
    External(OsString, Vec<OsString>),
    /// Nothing more: help was printed, or a usage error.
    Done(ExitCode),
}

/// One command with its arguments, not yet looked into.
pub struct Chosen {
    entry: &'static Entry,
    matches: ArgMatches,
}

impl Chosen {
    /// Runs the command.
    pub fn run(&self, context: &Context) -> Result<ExitCode> {
        (self.entry.run)(&self.matches, context)
    }
}

/// Answers a shell that asks for completions, and then ends the process; otherwise does nothing.
pub fn answer_completion() {
    if std::env::var_os(COMPLETE_VARIABLE).is_some() {
        CompleteEnv::with_factory(command).var(COMPLETE_VARIABLE).complete();
    }
}

/// The whole command line as clap knows it.
pub fn command() -> Command {
    let verbose = Arg::new("verbose")
        .short('v')
        .long("verbose")
        .action(ArgAction::Count)
        .global(true)
        .help("Show more of what is done; repeat for more");
    // Shared by everything, and rarely wanted: in docs/configuration.md, not in each help.
    let rare = |name: &'static str| Arg::new(name).long(name).global(true).hide(true);
    let path = || value_parser!(PathBuf);
    Command::new("spfs")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Isolate, capture and share software environments under /spfs")
        .disable_help_subcommand(true)
        .allow_external_subcommands(true)
        .arg(verbose)
        .arg(rare("log-file").value_name("FILE").value_parser(path()))
        .arg(rare("timestamp").action(ArgAction::SetTrue))
        .arg(rare("wrap-origin").value_name("PATH").value_parser(path()))
        .subcommands(commands::ALL.iter().map(Entry::command))
}

/// Reads a command line, the program's own name first.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Line {
    let words: Vec<OsString> = words.into_iter().collect();
    let mut matches = match command().try_get_matches_from(&words) {
        Ok(matches) => matches,
        Err(error) if is_overview(&error, &words) => return Line::Done(print_overview(false)),
        Err(error) => return Line::Done(report(&error, &words)),
    };
    let verbose = matches.get_count("verbose");
    match matches.remove_subcommand() {
        Some((name, matches)) => match commands::find(&name) {
            Some(entry) => {
                start_log(&matches);
                let verbose = verbose.max(matches.get_count("verbose")).max(logged(std::env::var("SPFS_LOG").ok()));
                let outer = matches.get_one::<PathBuf>("wrap-origin").cloned();
                Line::Run(Chosen { entry, matches }, Context::new(verbose, outer))
            }
            None => {
                let arguments = matches.get_many::<OsString>("").unwrap_or_default().cloned().collect();
                Line::External(name.into(), arguments)
            }
        },
        None => Line::Done(print_overview(true)),
    }
}

/// Begins what `--log-file` and `--timestamp`, or their variables, ask for.
fn start_log(matches: &ArgMatches) {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let file = matches.get_one::<PathBuf>("log-file").cloned().or_else(|| variable("SPFS_LOG_FILE").map(PathBuf::from));
    let no =
        |value: &OsString| ["0", "n", "no", "f", "false", "off"].contains(&&*value.to_string_lossy().to_lowercase());
    let timestamp = matches.get_flag("timestamp") || variable("SPFS_LOG_TIMESTAMP").is_some_and(|value| !no(&value));
    errors::log_to(file.as_deref(), timestamp);
}

/// What `SPFS_LOG` asks for, in `-v`s: existing SPFS knows it as a filter like `spfs=debug,info`.
fn logged(filter: Option<String>) -> u8 {
    let filter = filter.unwrap_or_default().to_lowercase();
    let ours = filter.split(',').filter_map(|part| match part.split_once('=') {
        Some((target, level)) => (target.trim() == "spfs").then_some(level.trim()),
        None => Some(part.trim()),
    });
    ours.map(|level| match level {
        "trace" => 2,
        "debug" => 1,
        _ => 0,
    })
    .max()
    .unwrap_or(0)
}

/// Whether this is `spfs --help`, with no command.
fn is_overview(error: &clap::Error, words: &[OsString]) -> bool {
    let option = |word: &OsString| word.to_string_lossy().starts_with('-');
    error.kind() == ErrorKind::DisplayHelp && words.iter().skip(1).all(option)
}

fn print_overview(missing_command: bool) -> ExitCode {
    let text = commands::help::overview();
    if missing_command {
        errors::tell(&text);
        return ExitCode::from(errors::USAGE);
    }
    show(&text).unwrap_or_else(|failure| failure.report())
}

/// Prints a help text.
fn show(text: &str) -> Result<ExitCode> {
    let mut out = Output::text();
    out.write_all(text.as_bytes())?;
    out.finish()
}

/// Prints a help text or a usage error of clap's, and says with which code to end.
fn report(error: &clap::Error, words: &[OsString]) -> ExitCode {
    let text = error.render().ansi().to_string();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return show(&text).unwrap_or_else(|failure| failure.report());
    }
    errors::refuse(text, usage::hint(words));
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(errors::USAGE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_of_logs_are_counts_of_v() {
        for (filter, verbose) in
            [("spfs=debug,info", 1), ("trace", 2), ("spfs=info,warn", 0), ("hyper=trace", 0), ("", 0)]
        {
            assert_eq!(logged(Some(filter.to_owned())), verbose, "{filter}");
        }
    }
}
