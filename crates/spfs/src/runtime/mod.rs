//! Runtimes: one stack shown at /spfs to one process tree, with its record, its changes and its monitor.
//!
//! [`prepare`] → [`Prepared::enter`] → [`Entered::exec`] is a runtime's beginning. Inside, a command finds its runtime
//! with [`active`] and asks the monitor through [`ask`]. [`list`], [`find`] and [`remove`] see all of them.

mod changes;
mod client;
mod commit;
mod dir;
mod durable;
mod files;
mod health;
mod images;
mod jobs;
mod join;
mod listing;
mod monitor;
mod protocol;
mod record;
mod registry;
mod reset;
mod shown;
mod start;
mod teller;
mod warm;

pub use client::{VARIABLE, active, ask};
pub use dir::RuntimeDir;
pub use health::{BadPayload, bad_payloads};
pub use join::{Target, join};
pub use protocol::{CommitRequest, Committed, Reply, Request, ResetRequest};
pub use record::{Author, RECORD, Record, RecordConfig, Status};
pub use registry::{Found, Removal, State, check_name, damaged, find, list, remove, remove_left_changes};
pub use start::{Entered, Origin, Prepared, StartRequest, exec, prepare};
pub use warm::give_up;
