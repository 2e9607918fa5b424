//! What a member of a runtime asks its monitor, and what it hears: JSON lines over a unix socket.

use std::io::{self, BufRead, BufReader, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use jiff::Timestamp;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};
use spfs_repo::{Digest, TagName};

use crate::diff::Change;
use crate::failure::Failure;

/// What is asked. The member's mount namespace travels beside it as a descriptor.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Allow or forbid changes.
    Edit {
        /// Allow.
        editable: bool,
    },
    /// Keep the runtime and its changes when its processes have ended.
    KeepRuntime,
    /// List the active changes.
    Changes,
    /// Commit the active changes.
    Commit(CommitRequest),
    /// Replace the mounts by fresh ones.
    Reset(ResetRequest),
}

/// How to commit.
#[derive(Debug, Serialize, Deserialize)]
pub struct CommitRequest {
    /// A platform of the whole stack too, not only a layer.
    pub platform: bool,
    /// Everything since the runtime was mounted, not only since the last commit.
    pub all: bool,
    /// A layer even if nothing has changed.
    pub allow_empty: bool,
    /// Names for the result.
    pub tags: Vec<TagName>,
    /// The clock of the caller.
    pub now: Timestamp,
}

/// What to reset.
#[derive(Debug, Serialize, Deserialize)]
pub struct ResetRequest {
    /// A new stack, bottom-most first, instead of the present one.
    pub stack: Option<Vec<Digest>>,
    /// Patterns of changes to give up, as in `.gitignore`; empty: all.
    pub patterns: Vec<String>,
    /// Keep all changes.
    pub keep_changes: bool,
    /// Whether changes are allowed afterwards; `None`: as before.
    pub editable: Option<bool>,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// More work is known: items and bytes.
    Expect(u64, u64),
    /// Work is done: items and bytes.
    Advance(u64, u64),
    /// The request is carried out.
    Done,
    /// The active changes.
    Changes(Vec<Change>),
    /// What a commit made.
    Committed(Committed),
    /// What a reset did: remarks for the caller.
    Replaced(Vec<String>),
    /// It failed.
    Failed(Failure),
}

/// What a commit made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The new layer, if anything had changed.
    pub layer: Option<Digest>,
    /// The platform, if one was asked for.
    pub platform: Option<Digest>,
    /// Whether changes are still allowed, because a file was open for writing.
    pub editable: bool,
}

/// Most bytes of a request: patterns and tags are short.
const MAX_REQUEST: u64 = 1 << 20;

/// Sends `request`, with the caller's mount namespace.
pub fn send_request(stream: &UnixStream, request: &Request, namespace: &OwnedFd) -> io::Result<()> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    let fds = [namespace.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    let sent = rustix::net::sendmsg(stream, &[IoSlice::new(&line)], &mut control, SendFlags::NOSIGNAL)?;
    (&mut &*stream).write_all(&line[sent..])
}

/// Receives a request and the namespace of whoever sent it.
pub fn receive_request(stream: &UnixStream) -> io::Result<(Request, OwnedFd)> {
    let mut first = [0u8; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut first)];
    let received = rustix::net::recvmsg(stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let namespace = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let namespace = namespace.ok_or_else(|| io::Error::other("a request without a namespace"))?;
    let mut line = first[..received.bytes].to_vec();
    if !line.ends_with(b"\n") {
        BufReader::new(stream.take(MAX_REQUEST)).read_until(b'\n', &mut line)?;
    }
    Ok((serde_json::from_slice(&line)?, namespace))
}

/// Sends one reply.
pub fn send_reply(mut stream: &UnixStream, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// The replies, until the monitor's side is closed.
pub fn replies(stream: &UnixStream) -> impl Iterator<Item = io::Result<Reply>> {
    let mut reader = BufReader::new(stream);
    std::iter::from_fn(move || {
        let mut line = Vec::new();
        match reader.read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_slice(&line).map_err(Into::into)),
            Err(e) => Some(Err(e)),
        }
    })
}
