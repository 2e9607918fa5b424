//! How a stack of layers becomes `/spfs` for one process tree.
//!
//! [`enter::enter`] carries out a [`plan::Plan`]: namespaces, mounts, and the hand-over to the runtime's monitor.
//! What is mounted comes from a [`view::View`]: as an EROFS [`image`], or through the FUSE metadata [`server`].
//! Every system call that needs `unsafe` is in [`sys`]. This crate knows nothing of tags, remotes or configuration.

pub mod changes;
pub mod enter;
pub mod error;
pub mod image;
pub mod inside;
pub mod link;
pub mod lower;
pub mod members;
pub mod namespace;
pub mod overlay;
pub mod plan;
pub mod probe;
pub mod publish;
mod redirect;
pub mod server;
pub mod share;
pub mod sys;
pub mod view;

pub use error::{Error, Result};

/// Where every runtime's files appear.
pub const SPFS: &str = "/spfs";

/// The id of one boot of this machine (`/proc/sys/kernel/random/boot_id`), the stamp of cache files.
///
/// A cache file that carries the current boot's id was written, whole, since the machine started, and is trusted. One
/// of an earlier boot may have been torn by a power cut. Hence no cache file is ever synced to the disk.
pub type BootId = [u8; 16];

/// The modification time that every file of a runtime shows: 1980-01-01T00:00:00Z, in seconds.
///
/// Times are not kept. This one can be stored in a zip file and is older than any edit.
pub const MTIME: u64 = 315_532_800;
