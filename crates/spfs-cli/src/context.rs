//! What every command gets: how much to say and where, and the opened spfs.

use std::cell::OnceCell;
use std::path::PathBuf;

use spfs::{Config, Env, Spfs};

use crate::errors::{Failure, Result, USAGE, tell, warn};
use crate::hints;
use crate::output::Output;
use crate::progress::{Bar, Style};

/// The circumstances of one command.
pub struct Context {
    /// How often `-v` was given.
    pub verbose: u8,
    /// What `--wrap-origin` puts before the origin.
    outer: Option<PathBuf>,
    spfs: OnceCell<Spfs>,
}

impl Context {
    /// The context for a command line with `verbose` times `-v`, and `--wrap-origin` with this path.
    pub fn new(verbose: u8, outer: Option<PathBuf>) -> Self {
        Context { verbose, outer, spfs: OnceCell::new() }
    }

    /// The local repository and all that belongs to it, opened when first asked for. Odd configuration is warned about
    /// then.
    pub fn spfs(&self) -> Result<&Spfs> {
        if let Some(spfs) = self.spfs.get() {
            return Ok(spfs);
        }
        let spfs = self.open()?;
        Ok(self.spfs.get_or_init(|| spfs))
    }

    /// The same, opened for whoever needs one of their own.
    pub fn open(&self) -> Result<Spfs> {
        let (env, mut config) = surroundings()?;
        if let Some(outer) = &self.outer {
            config.wrap_origin(outer).map_err(|error| Failure::from(error).code(USAGE))?;
        }
        let mut spfs = Spfs::open(env, config)?;
        spfs.warn = |warning| warn(&warning.to_string());
        hints::local_is(spfs.local.root());
        Ok(spfs)
    }

    /// Standard output for text; see [`Output`].
    pub fn out(&self) -> Output {
        Output::text()
    }

    /// A progress bar on standard error, if that is a terminal and the work takes long enough to show one.
    pub fn bar(&self, what: &'static str) -> Bar {
        Bar::new(what, Style::Bars)
    }

    /// A remark on standard error: what was done, for people. Scripts read standard output.
    pub fn remark(&self, message: impl std::fmt::Display) {
        tell(&format!("{message}\n"));
    }

    /// A remark that is only made with `-v`.
    pub fn detail(&self, message: impl std::fmt::Display) {
        if self.verbose > 0 {
            self.remark(message);
        }
    }
}

/// The environment and the configuration, without opening anything; warns about what is odd in them.
pub fn surroundings() -> Result<(Env, Config)> {
    let env = Env::from_process();
    let config = Config::load(&env)?;
    for warning in &config.warnings {
        warn(&warning.to_string());
    }
    Ok((env, config))
}
