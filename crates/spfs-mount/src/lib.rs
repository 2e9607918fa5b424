//! How a stack of layers becomes `/spfs` for one process tree.
//!
//! [`enter::enter`] carries out a [`plan::Plan`]: namespaces, mounts, and the hand-over to the runtime's monitor.
//! Every system call that needs `unsafe` is in [`sys`]. This crate knows nothing of tags, remotes or configuration.

pub mod enter;
pub mod error;
pub mod inside;
pub mod link;
pub mod namespace;
pub mod overlay;
pub mod plan;
pub mod sys;

pub use error::{Error, Result};

/// Where every runtime's files appear.
pub const SPFS: &str = "/spfs";
