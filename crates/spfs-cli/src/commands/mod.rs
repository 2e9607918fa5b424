//! The commands, one file each: its arguments, whose doc comments are its help, and [`Run::run`].
//!
//! To add one: a file with `Args` (its struct's doc comment is the help, `after_help` an example), and a line in
//! [`ALL`].

pub mod check;
pub mod clean;
pub mod commit;
pub mod completion;
pub mod config;
pub mod diff;
pub mod doctor;
pub mod edit;
pub mod help;
pub mod info;
pub mod init;
pub mod join;
pub mod layers;
pub mod log;
pub mod ls;
pub mod ls_tags;
pub mod man;
pub mod platforms;
pub mod pull;
pub mod push;
pub mod read;
pub mod remote;
pub mod render;
pub mod reset;
pub mod run;
pub mod runtime;
pub mod search;
pub mod serve;
pub mod server;
pub mod shell;
pub mod tag;
pub mod tags;
pub mod untag;
pub mod version;
pub mod write;

use std::process::ExitCode;

use clap::{ArgMatches, Args, Command};

use crate::context::Context;
use crate::errors::Result;

/// Every command, in the order of the help.
pub const ALL: &[Entry] = &[
    entry::<shell::Args>("shell", &[], Place::Front("Environments")),
    entry::<run::Args>("run", &[], Place::Front("Environments")),
    entry::<edit::Args>("edit", &[], Place::Front("Environments")),
    entry::<commit::Args>("commit", &[], Place::Front("Environments")),
    entry::<reset::Args>("reset", &[], Place::Front("Environments")),
    entry::<info::Args>("info", &[], Place::Front("Looking")),
    entry::<diff::Args>("diff", &[], Place::Front("Looking")),
    entry::<ls::Args>("ls", &["list-dir", "list"], Place::Front("Looking")),
    entry::<read::Args>("read", &["read-file", "cat", "cat-file"], Place::Front("Looking")),
    entry::<push::Args>("push", &[], Place::Front("Sharing")),
    entry::<pull::Args>("pull", &[], Place::Front("Sharing")),
    entry::<tag::Args>("tag", &[], Place::Front("Names")),
    entry::<untag::Args>("untag", &[], Place::Front("Names")),
    entry::<tags::Args>("tags", &[], Place::Front("Names")),
    entry::<log::Args>("log", &[], Place::Front("Names")),
    entry::<search::Args>("search", &[], Place::Front("Names")),
    entry::<ls_tags::Args>("ls-tags", &["list-tags"], Place::More("store")),
    entry::<layers::Args>("layers", &[], Place::More("store")),
    entry::<platforms::Args>("platforms", &[], Place::More("store")),
    entry::<write::Args>("write", &["write-file"], Place::More("store")),
    entry::<check::Args>("check", &[], Place::More("store")),
    entry::<clean::Args>("clean", &[], Place::More("store")),
    entry::<render::Args>("render", &[], Place::More("store")),
    entry::<join::Args>("join", &[], Place::More("runtimes")),
    entry::<runtime::Args>("runtime", &["rt"], Place::More("runtimes")),
    entry::<doctor::Args>("doctor", &[], Place::More("set up")),
    entry::<serve::Args>("serve", &[], Place::More("set up")),
    entry::<init::Args>("init", &[], Place::More("set up")),
    entry::<config::Args>("config", &[], Place::More("set up")),
    entry::<remote::Args>("remote", &[], Place::More("set up")),
    entry::<server::Args>("server", &[], Place::More("set up")),
    entry::<completion::Args>("completion", &[], Place::More("set up")),
    entry::<man::Args>("man", &[], Place::More("set up")),
    entry::<version::Args>("version", &[], Place::More("set up")),
    entry::<help::Args>("help", &[], Place::Hidden),
];

/// A command: its arguments, and what it does.
pub trait Run: Args {
    /// Does it. Results go to `context.out()`, remarks to `context.remark()`.
    fn run(self, context: &Context) -> Result<ExitCode>;
}

/// Where the overview of `spfs help` shows a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// With a line of its own, under this heading.
    Front(&'static str),
    /// By its name alone, behind this word.
    More(&'static str),
    /// Not at all.
    Hidden,
}

/// One line of [`ALL`].
pub struct Entry {
    /// The name to type.
    pub name: &'static str,
    /// Other names for the same.
    pub aliases: &'static [&'static str],
    /// Where the overview shows it.
    pub place: Place,
    /// Adds its arguments and help texts to an empty command.
    augment: fn(Command) -> Command,
    /// Reads its arguments and does it.
    pub run: fn(&ArgMatches, &Context) -> Result<ExitCode>,
}

const fn entry<A: Run>(name: &'static str, aliases: &'static [&'static str], place: Place) -> Entry {
    let run = |matches: &ArgMatches, context: &Context| A::from_arg_matches(matches)?.run(context);
    Entry { name, aliases, place, augment: A::augment_args, run }
}

impl Entry {
    /// As a subcommand for clap, its arguments left for later.
    pub fn command(&self) -> Command {
        Command::new(self.name).visible_aliases(self.aliases.iter().copied()).defer(self.augment)
    }

    /// As a subcommand for clap, complete.
    pub fn built(&self) -> Command {
        (self.augment)(Command::new(self.name).visible_aliases(self.aliases.iter().copied()))
    }
}

/// The command with this name or alias.
pub fn find(name: &str) -> Option<&'static Entry> {
    ALL.iter().find(|entry| entry.name == name || entry.aliases.contains(&name))
}

#[cfg(test)]
mod tests;
