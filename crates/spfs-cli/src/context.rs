//! What every command gets: how much to say, and where.

use std::io::Write as _;

use crate::output::Output;
use crate::progress::Bar;

/// The circumstances of one command.
pub struct Context {
    /// How often `-v` was given.
    pub verbose: u8,
}

impl Context {
    /// The context for a command line with `verbose` times `-v`.
    pub fn new(verbose: u8) -> Self {
        Context { verbose }
    }

    /// Standard output for text; see [`Output`].
    pub fn out(&self) -> Output {
        Output::text()
    }

    /// A progress bar on standard error, if that is a terminal and the work takes long enough to show one.
    pub fn bar(&self, what: &'static str) -> Bar {
        Bar::new(what)
    }

    /// A remark on standard error: what was done, for people. Scripts read standard output.
    pub fn remark(&self, message: impl std::fmt::Display) {
        // Nobody to tell is no reason to fail.
        let _ = writeln!(anstream::stderr(), "{message}");
    }

    /// A remark that is only made with `-v`.
    pub fn detail(&self, message: impl std::fmt::Display) {
        if self.verbose > 0 {
            self.remark(message);
        }
    }
}
