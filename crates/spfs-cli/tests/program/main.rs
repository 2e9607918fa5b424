//! The real program `spfs`, in hermetic homes, as root and as an ordinary user: one test binary, so that the harness is
//! compiled and linked once. `cargo test --test program durable::` runs one file of it.
#![allow(clippy::unwrap_used)]

mod common;

mod caches;
mod changes;
mod containers;
mod doctor;
mod durable;
mod editing;
mod ending;
mod fallbacks;
mod guide;
mod harness;
mod hostile_damage;
mod hostile_input;
mod hostile_machine;
mod hostile_power;
mod hostile_references;
mod hostile_signals;
mod hostile_storage;
mod hostile_together;
mod hostile_trees;
mod identity;
mod json;
mod lazy;
mod lazy_ahead;
mod lazy_clean;
mod lazy_remotes;
mod leftovers;
mod members;
mod nesting;
mod posix;
mod processes;
mod push_pull;
mod real_packages;
mod real_programs;
mod remote_ssh;
mod remote_wire;
mod remotes;
mod resetting;
mod running_damage;
mod semantics;
mod server;
mod sharing;
mod shells;
mod soak;
mod specs;
mod strategies;
mod studio;
mod sync_bad_luck;
mod thousand;
mod verbs;
mod words;
