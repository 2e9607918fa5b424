//! What people do with spfs, one verb a file; silent, for programs to build on.
//!
//! Start with [`Env::from_process`], [`Config::load`] and [`Spfs::open`]; everything else takes an `&Spfs`. Nothing in
//! here prints, and only [`Env`] and [`Config`] look at the environment, the home directory and configuration files.

pub mod annotation;
pub mod cache;
pub mod check;
pub mod clean;
pub mod commit;
pub mod config;
pub mod diff;
pub mod dirs;
pub mod doctor;
pub mod env_spec;
pub mod error;
pub mod failure;
pub mod fetch;
pub mod files;
mod graph;
pub mod info;
mod json_path;
pub mod lazy;
pub mod live;
pub mod merged;
pub mod names;
pub mod objects;
mod parallel;
mod places;
pub mod remotes;
pub mod render;
pub mod resolve;
mod run_spec;
pub mod runtime;
pub mod shell;
pub mod similar;
mod spec_file;
pub mod spfs;
pub mod stack;
pub mod sync;
pub mod tags;
#[cfg(test)]
mod testing;
mod time_spec;
pub mod tracking;
pub mod user;
pub mod views;
mod yaml;

pub use spfs_mount as mount;
pub use spfs_repo as repo;

pub use config::{Config, Env};
pub use dirs::Dirs;
pub use env_spec::EnvSpec;
pub use error::{Error, Place, Result, Warning};
pub use live::LiveBind;
pub use resolve::resolve;
pub use spfs::Spfs;
pub use stack::Stack;
