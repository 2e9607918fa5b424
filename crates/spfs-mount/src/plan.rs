//! What is to be mounted, as data: it can be printed and compared without mounting anything.

use std::fmt;
use std::path::PathBuf;

/// Everything that makes one runtime's `/spfs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The runtime's name.
    pub name: String,
    /// The source of its mounts ([`crate::members::source`]).
    pub source: String,
    /// How the files are shown: the first of these that can be mounted. One alone was asked for by name.
    pub strategies: Vec<Strategy>,
    /// The flat view of names and metadata.
    pub view: PathBuf,
    /// The directory that payload paths (`/QU/77SN…`) start from.
    pub payloads: PathBuf,
    /// Whether payloads that are not there are fetched when their files are first opened: the monitor knows from where.
    pub fetch: bool,
    /// Where changes go.
    pub upper: Upper,
    /// Where an overlay without a place for changes is shared with other runtimes of the view, if it may be.
    pub share: Option<PathBuf>,
    /// Where on disk changes go that are wanted in memory, where tmpfs cannot hold them; made when it is needed.
    pub spare: Option<PathBuf>,
    /// Whether changes are allowed from the start.
    pub editable: bool,
    /// What is mounted on top, in order.
    pub binds: Vec<Bind>,
}

/// How the files of a view are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Names and metadata from an EROFS image, data straight from the payloads. For root.
    Image(PathBuf),
    /// Names and metadata from a FUSE server in the monitor, data straight from the payloads.
    Server,
    /// A tree of hard links to the payloads, in this directory; made if it is not there.
    Render(PathBuf),
    /// Names, metadata and data from a FUSE server in the monitor.
    Full,
}

impl Strategy {
    /// Whether runtimes may share its overlay without a top: overlayfs wants two layers below then.
    pub fn can_be_shared(&self) -> bool {
        matches!(self, Strategy::Image(_) | Strategy::Server)
    }

    /// What it is called where it is chosen (`--backend`, `filesystem.backend`).
    pub fn name(&self) -> &'static str {
        match self {
            Strategy::Image(_) => "image",
            Strategy::Server => "server",
            Strategy::Render(_) => "render",
            Strategy::Full => "fuse",
        }
    }
}

/// Where a runtime's changes are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upper {
    /// In memory, with the size that tmpfs is to have (`10G`, `50%`), else the kernel's default.
    Memory {
        /// The size option of tmpfs.
        size: Option<String>,
    },
    /// In the directories `upper` and `work` below this one.
    Disk {
        /// The directory of a durable runtime.
        dir: PathBuf,
    },
}

/// A live file or directory mounted over one of the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The host's file or directory.
    pub source: PathBuf,
    /// Where it goes, relative to `/spfs`.
    pub target: PathBuf,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, strategy) in self.strategies.iter().enumerate() {
            let label = if place == 0 { "metadata:" } else { "or else: " };
            match strategy {
                Strategy::Image(path) => writeln!(f, "{label} image {}", path.display())?,
                Strategy::Server => writeln!(f, "{label} server, of {}", self.view.display())?,
                Strategy::Render(path) => writeln!(f, "{label} render {}", path.display())?,
                Strategy::Full => writeln!(f, "{label} server with data, of {}", self.view.display())?,
            }
        }
        let fetched = if self.fetch { ", fetched when it is first opened" } else { "" };
        writeln!(f, "data:     {}{fetched}", self.payloads.display())?;
        match &self.upper {
            _ if self.share.is_some() => writeln!(f, "changes:  none; shared with other runtimes of the view")?,
            Upper::Memory { size: None } => writeln!(f, "changes:  in memory")?,
            Upper::Memory { size: Some(size) } => writeln!(f, "changes:  in memory, at most {size}")?,
            Upper::Disk { dir } => writeln!(f, "changes:  in {}", dir.join("upper").display())?,
        }
        for bind in &self.binds {
            writeln!(f, "bind:     {} at /spfs/{}", bind.source.display(), bind.target.display())?;
        }
        write!(f, "mounted:  overlay at /spfs, nosuid,nodev,{}", if self.editable { "rw" } else { "ro" })
    }
}
