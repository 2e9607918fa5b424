//! The program `spfs`: words, colours, hints, exit codes, progress bars and JSON around the library of the same name.
//!
//! One file a command in [`commands`]; [`cli`] turns the command line into one of them; [`errors`] says what went
//! wrong and [`hints`] what to type next; [`output`] and [`progress`] are the only places that write.

mod cli;
mod commands;
mod complete;
mod context;
mod environment;
mod errors;
mod external;
mod format;
mod hints;
mod output;
mod progress;
mod repository;
mod shared;
mod style;
mod transfer;
mod usage;

use std::process::ExitCode;

fn main() -> ExitCode {
    spfs::mount::sys::process::keep_own_permissions();
    cli::answer_completion();
    let result = match cli::parse(std::env::args_os()) {
        cli::Line::Run(command, context) => command.run(&context),
        cli::Line::External(name, arguments) => external::run(&name, &arguments),
        cli::Line::Done(code) => return code,
    };
    result.unwrap_or_else(|failure| failure.report())
}
