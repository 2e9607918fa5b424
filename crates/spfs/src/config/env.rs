//! What a process inherits, taken in one place and then passed on as a value.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::error::{Error, Result};
use crate::user;

/// What a process inherits from its surroundings. Everything in this crate reads it from here, so a test makes its own.
#[derive(Clone, Debug)]
pub struct Env {
    /// The environment variables.
    pub vars: BTreeMap<OsString, OsString>,
    /// The effective user.
    pub uid: u32,
    /// The effective group.
    pub gid: u32,
    /// `$HOME`, or the home directory in the user database; `None` if there is neither.
    pub home: Option<PathBuf>,
    /// The working directory; `.` if it is gone.
    pub cwd: PathBuf,
    /// The machine's name.
    pub hostname: String,
    /// The kernel's boot id: changes with every start of the machine. `None` where /proc does not show it, as in services
    /// that see processes only ([`Env::boot`]).
    pub boot_id: Option<[u8; 16]>,
    /// Where the system's configuration and user database are: `/etc`.
    pub etc: PathBuf,
}

/// Where the kernel says which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

impl Env {
    /// The surroundings of this process.
    pub fn from_process() -> Self {
        let mut env = Env {
            vars: std::env::vars_os().collect(),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            home: None,
            cwd: std::env::current_dir().unwrap_or_else(|_| PathBuf::from(".")),
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            boot_id: read_boot_id().ok(),
            etc: PathBuf::from("/etc"),
        };
        env.home = env.absolute("HOME").or_else(|| user::lookup(&env.etc, env.uid).map(|entry| entry.home));
        env
    }

    /// The kernel's boot id, for whoever cannot do without: runtimes and the caches of their views.
    ///
    /// Errors: /proc does not show it.
    pub fn boot(&self) -> Result<[u8; 16]> {
        self.boot_id.map_or_else(read_boot_id, Ok)
    }

    /// Surroundings with nothing in them but a home directory: for tests and embedding programs.
    pub fn bare(home: impl Into<PathBuf>) -> Self {
        let home = home.into();
        Env {
            vars: BTreeMap::new(),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            cwd: home.clone(),
            etc: home.join("etc"),
            home: Some(home),
            hostname: "localhost".to_owned(),
            boot_id: Some([1; 16]),
        }
    }

    /// The same with one more variable.
    #[must_use]
    pub fn with_var(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.vars.insert(name.into(), value.into());
        self
    }

    /// The time now, truncated to microseconds as tags are. Read once by whoever calls a verb, which takes it as an
    /// argument.
    pub fn now(&self) -> Timestamp {
        let now = Timestamp::now();
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }

    /// The caller's time zone: `TZ`, else the system's.
    pub fn zone(&self) -> TimeZone {
        let named = self.var("TZ").and_then(OsStr::to_str).and_then(|name| TimeZone::get(name).ok());
        named.unwrap_or_else(TimeZone::system)
    }

    /// A variable that is set and not empty.
    pub fn var(&self, name: impl AsRef<OsStr>) -> Option<&OsStr> {
        self.vars.get(name.as_ref()).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// A variable that holds an absolute path; the XDG rules ignore relative ones.
    pub fn absolute(&self, name: &str) -> Option<PathBuf> {
        self.var(name).map(PathBuf::from).filter(|path| path.is_absolute())
    }

    /// The directory that `variable` names, else `default` below the home directory.
    pub(crate) fn xdg(&self, variable: &str, default: &str) -> Option<PathBuf> {
        self.absolute(variable).or_else(|| Some(self.home.as_ref()?.join(default)))
    }

    /// `path` with a leading `~` replaced by the home directory.
    pub(crate) fn expand(&self, path: &Path) -> PathBuf {
        match (path.strip_prefix("~"), &self.home) {
            (Ok(rest), Some(home)) if rest.as_os_str().is_empty() => home.clone(),
            (Ok(rest), Some(home)) => home.join(rest),
            _ => path.to_owned(),
        }
    }
}

fn read_boot_id() -> Result<[u8; 16]> {
    let text = std::fs::read_to_string(BOOT_ID).map_err(Error::io("read", BOOT_ID))?;
    let id = uuid::Uuid::try_parse(text.trim());
    Ok(id.map_err(|_| Error::invalid("boot id", text.trim(), "it is not a UUID"))?.into_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_process_has_surroundings() {
        let env = Env::from_process();
        assert_eq!(env.boot_id, Some(env.boot().unwrap()));
        assert_ne!(env.boot_id, Some([0; 16]));
        assert!(!env.hostname.is_empty());
        assert!(env.cwd.is_absolute());
    }

    #[test]
    fn tilde_is_the_home_directory() {
        let env = Env::bare("/home/me");
        for (text, expected) in [("~", "/home/me"), ("~/a/b", "/home/me/a/b"), ("/x/~", "/x/~"), ("~you/a", "~you/a")] {
            assert_eq!(env.expand(Path::new(text)), Path::new(expected), "{text}");
        }
        let homeless = Env { home: None, ..env };
        assert_eq!(homeless.expand(Path::new("~/a")), Path::new("~/a"));
    }

    #[test]
    fn empty_variables_are_unset_and_relative_xdg_paths_ignored() {
        let env = Env::bare("/h").with_var("A", "").with_var("XDG_DATA_HOME", "rel");
        assert_eq!(env.var("A"), None);
        assert_eq!(env.xdg("XDG_DATA_HOME", ".local/share"), Some(PathBuf::from("/h/.local/share")));
    }
}
