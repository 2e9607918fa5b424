//! A runtime's record: who it is, what it shows, and how far it has come. JSON with upstream's field names.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use spfs_mount::members::{self, Members};
use spfs_repo::Digest;

use crate::error::{Error, Result};
use crate::live::LiveBind;

/// What a record is called in errors.
pub const RECORD: &str = "runtime record";

/// What is known of one runtime (`docs/format.md`, runtime records). Unknown fields of newer versions are ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// A UUID unless the caller chose a name; a legal tag name without `/`.
    pub name: String,
    /// Who started it, where and when.
    pub author: Author,
    /// What it shows and whether it runs.
    pub status: Status,
    /// How it was made.
    pub config: RecordConfig,
}

/// Who started a runtime, where and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Author {
    /// The user's name.
    pub user_name: String,
    /// The host's name.
    pub host_name: String,
    /// RFC 3339, in UTC.
    pub created: String,
}

/// What a runtime shows and whether it runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// What it shows now, **top-most first**: the base and what was committed since. Layers and platforms as named.
    pub stack: Vec<Digest>,
    /// What lies below the upper directory since it was mounted, top-most first. Never changes but by a reset.
    pub base: Vec<Digest>,
    /// The layers committed since it was mounted, oldest first.
    pub committed: Vec<Digest>,
    /// Whether changes are allowed.
    pub editable: bool,
    /// Whether its processes live, as far as its monitor knows.
    pub running: bool,
    /// The pid of the command.
    pub owner: Option<i32>,
    /// The pid of the monitor.
    pub monitor: Option<i32>,
    /// The command; one empty string for an interactive shell.
    pub command: Vec<String>,
}

/// How a runtime was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordConfig {
    /// The size of the memory for changes, if one was chosen.
    pub tmpfs_size: Option<String>,
    /// The mount namespace, as `mnt:[4026532345]`.
    pub mount_namespace: Option<String>,
    /// What tells this start from all others, in the source of its mounts; earlier programs had none.
    pub mark: Option<String>,
    /// Whether it and its changes stay when its processes have ended.
    pub durable: bool,
    /// Where a durable runtime keeps its changes and its record.
    #[serde(with = "crate::json_path::option")]
    pub durable_dir: Option<PathBuf>,
    /// The upper directory of a durable runtime.
    #[serde(with = "crate::json_path::option")]
    pub upper_dir: Option<PathBuf>,
    /// The work directory beside it.
    #[serde(with = "crate::json_path::option")]
    pub work_dir: Option<PathBuf>,
    /// The boot during which it was last mounted; pids and namespaces mean nothing in another.
    pub boot_id: String,
    /// The host on which it was last mounted.
    pub host: String,
    /// The user id of the caller.
    pub uid: u32,
    /// The repository, as a path.
    #[serde(with = "crate::json_path")]
    pub repository: PathBuf,
    /// Live files and directories mounted over the view.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub live_layers: Vec<LiveBind>,
    /// Names or addresses of the remotes from which files are fetched when they are first opened.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lazy: Vec<String>,
}

impl Author {
    /// The author of something made at `now`.
    pub fn new(user_name: &str, host_name: &str, now: Timestamp) -> Self {
        // In UTC: to find the local time zone costs as much as all the rest of a start.
        let created = now.strftime("%Y-%m-%dT%H:%M:%S%.9f+00:00").to_string();
        Author { user_name: user_name.to_owned(), host_name: host_name.to_owned(), created }
    }
}

/// A boot id as text.
pub fn boot_text(boot: &[u8; 16]) -> String {
    uuid::Uuid::from_bytes(*boot).to_string()
}

impl Record {
    /// Its processes, if it is mounted and the boot is still the same.
    pub fn members(&self, boot_id: &str) -> Option<Members> {
        if self.config.boot_id != boot_id {
            return None;
        }
        let text = self.config.mount_namespace.as_deref()?;
        let namespace = text.strip_prefix("mnt:[")?.strip_suffix(']')?.parse().ok()?;
        Some(Members::new(namespace, members::source(&self.name, self.config.mark.as_deref())))
    }

    /// A mark for [`RecordConfig::mark`]: it stands in tables that people read, and only accidents are to be excluded.
    pub fn new_mark() -> String {
        spfs_repo::unique().simple().to_string()[..12].to_owned()
    }

    /// Nothing of it runs any more.
    pub fn stopped(&mut self) {
        self.status.running = false;
        self.status.owner = None;
        self.status.monitor = None;
        self.config.mount_namespace = None;
    }

    /// Reads a record; `place` is for the error.
    pub fn parse(text: &[u8], place: &std::path::Path) -> Result<Self> {
        serde_json::from_slice(text).map_err(|e| {
            let reason = e.to_string();
            // The position is told once, in front.
            let end = reason.rfind(" at line ").unwrap_or(reason.len());
            Error::SpecFile {
                what: RECORD,
                place: crate::error::Place::at(place, e.line() as u64, e.column() as u64),
                reason: reason[..end].to_owned(),
            }
        })
    }

    /// The record as JSON, for people and for the file.
    pub fn to_json(&self) -> String {
        // Only maps with keys that are no strings, paths that are no text and broken writers make this fail; there are none.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}
