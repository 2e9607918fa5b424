//! Repositories at the other end of a wire: the protocol, its client and its server.
//!
//! Blocking outside; the async runtime inside is nobody else's business and starts with the first connection.

mod address;
mod body;
mod budget;
pub mod client;
mod connection;
mod convert;
mod dial;
mod grpc;
mod proto;
pub mod server;
mod threads;

pub use client::Client;
pub use server::Server;

/// The longest file of tokens, settings or certificates that makes sense, in bytes.
pub(crate) const LONGEST_FILE: u64 = 16 << 20;
