//! The metadata server: a FUSE file system that knows names, modes, sizes and where data is, but no data.
//!
//! An overlay lies over it and takes the data from the payload directory, so that the server is asked once for each
//! file that is touched, and never when a file is opened or read. Whoever reads past the overlay gets an I/O error.
//! Where overlayfs cannot do that, the server has the data too ([`serve_with_data`]). What is not here yet is fetched by
//! another server, [`serve_fetches`].
//!
//! The protocol is written out here, because no library can do what this needs: `OPEN` and `OPENDIR` answered with
//! ENOSYS, after which the kernel never sends them again; answers that stay valid for ever (2^40 seconds); and a worker
//! without any state, that can be killed at any moment and forked again by whoever holds the descriptor. A node's
//! number is its place in the [`View`] plus one, so nothing has to be remembered or forgotten, `INIT` is answered
//! once and not needed again, and after [`resend`] the kernel repeats what the dead worker had taken but not answered.
//!
//! Sources of the protocol: the kernel's `include/uapi/linux/fuse.h`, version 7.40, and `fs/fuse/`.

mod ahead;
mod attributes;
mod beside;
mod data;
mod fetch;
mod meek;
mod protocol;
mod readdir;
mod reply;
mod request;

#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::redirect::{METACOPY, REDIRECT, redirect};
use crate::view::{Node, NodeId, NodeKind, View};

pub use fetch::{Fetch, Wanted, serve_fetches};
pub use reply::Reply;

use beside::{Beside, Pace};
use data::Data;
use meek::{Meek, Turns};
use protocol::{DATA_REPLY_MAX, FOREVER, Opcode, REPLY_MAX, REQUEST_MAX, init};
use request::Request;

/// What a request leads to: an answer in the reply, an error for the caller, or nothing at all.
type Outcome = Result<Answer, Errno>;

/// Whether the kernel waits for an answer.
enum Answer {
    /// What the reply holds.
    Sent,
    /// Nothing: these requests are never answered.
    None,
}

/// Answers requests about one view, until the file system is unmounted (`Ok`).
///
/// `device` is `/dev/fuse` after the mount; all files belong to `uid` and `gid`. One thread at a time is enough: a
/// request takes a microsecond or two (a second one takes its turn, see `meek.rs`). Fails if the connection was aborted,
/// or if the device cannot be read; before it is mounted it cannot (EPERM).
pub fn serve(view: &View, device: BorrowedFd<'_>, uid: u32, gid: u32) -> io::Result<()> {
    let server = Server::new(view, uid, gid);
    let meek = Meek::new(view, (uid, gid), device);
    std::thread::scope(|scope| answer_all(&server, device, REPLY_MAX, Some(Turns::new(&meek, scope))))
}

/// The same with the data of all files, from the directory `payloads`, by as many threads as there are processors (four
/// at most): one may wait for the disk. With `fetch`, which brings payloads that are not there, it is eight.
pub fn serve_with_data(
    view: &View,
    device: BorrowedFd<'_>,
    uid: u32,
    gid: u32,
    payloads: BorrowedFd<'_>,
    fetch: Option<&dyn Fetch>,
) -> io::Result<()> {
    let processors = || std::thread::available_parallelism().map_or(1, usize::from).min(4);
    let threads = fetch.map_or_else(processors, |_| fetch::WORKERS);
    let work = || {
        let server = Server { data: Some(Data::new(payloads, fetch)), ..Server::new(view, uid, gid) };
        answer_all(&server, device, DATA_REPLY_MAX, None)
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let first = work();
        others.into_iter().fold(first, |result, other| {
            result.and(other.join().unwrap_or_else(|_| Err(io::Error::other("a thread of the server panicked"))))
        })
    })
}

/// Answers until the end, if there are `turns`, in turn with another thread.
fn answer_all(
    server: &Server<'_>,
    device: BorrowedFd<'_>,
    reply_max: usize,
    mut turns: Option<Turns<'_, '_>>,
) -> io::Result<()> {
    let mut hands = Hands::new(reply_max);
    let mut beside = Beside::default();
    loop {
        match hands.take(device) {
            Ok(pid) => {
                let steady = beside.request_of(pid) == Some(Pace::Steady);
                let turns = turns.as_mut().filter(|turns| steady && turns.wanted());
                hands.answer(server, device);
                turns.map_or(Ok(()), Turns::hand_over)?;
            }
            Err(Errno::NODEV) => return Ok(()),
            // A signal; or the request was withdrawn before we could take it.
            Err(Errno::INTR | Errno::NOENT) => {}
            Err(Errno::AGAIN) => drop(wait(device, None)?),
            Err(error) => return Err(error.into()),
        }
    }
}

/// What a thread works with: one request, and the answer to it.
struct Hands {
    request: Vec<u8>,
    length: usize,
    reply: Reply,
}

impl Hands {
    fn new(reply_max: usize) -> Hands {
        Hands { request: vec![0; REQUEST_MAX], length: 0, reply: Reply::with_capacity(reply_max) }
    }

    /// Takes one request. The process that it came from, 0 if that cannot be seen.
    fn take(&mut self, device: BorrowedFd<'_>) -> Result<u32, Errno> {
        self.length = rustix::io::read(device, &mut self.request)?;
        match &self.request[..self.length] {
            // No request is empty: the device has no more.
            [] => Err(Errno::NODEV),
            request => Ok(request::process(request)),
        }
    }

    /// Answers what was taken last.
    fn answer(&mut self, server: &Server<'_>, device: BorrowedFd<'_>) {
        if let Some(answer) = server.answer(&self.request[..self.length], &mut self.reply) {
            send(device, answer);
        }
    }
}

/// Asks the kernel to repeat all requests that were taken but not answered (Linux 6.9): for a new worker that follows
/// a dead one on the same descriptor.
pub fn resend(device: BorrowedFd<'_>) -> io::Result<()> {
    rustix::io::write(device, &reply::notification(protocol::NOTIFY_RESEND))?;
    Ok(())
}

/// Waits until a device that does not block has something to read; for `limit` at most, then `false`.
fn wait(device: BorrowedFd<'_>, limit: Option<Duration>) -> io::Result<bool> {
    let limit = limit.map(|limit| Timespec { tv_sec: 0, tv_nsec: limit.subsec_nanos().into() });
    match poll(&mut [PollFd::new(&device, PollFlags::IN)], limit.as_ref()) {
        Ok(0) => Ok(false),
        Ok(_) | Err(Errno::INTR) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Sends one answer.
fn send(device: BorrowedFd<'_>, answer: &[u8]) {
    match rustix::io::write(device, answer) {
        // ENOENT: whoever asked was interrupted and is gone. ENODEV: so is the mount, as the next read will tell.
        Ok(_) | Err(Errno::NOENT | Errno::NODEV) => {}
        // The kernel did not like the answer; somebody still waits for one.
        Err(_) => drop(rustix::io::write(device, &reply::failure(answer, Errno::IO))),
    }
}

/// Answers single requests; all that it knows is the view and the owner.
pub struct Server<'a> {
    view: &'a View,
    uid: u32,
    gid: u32,
    data: Option<Data<'a>>,
}

impl<'a> Server<'a> {
    /// A server for `view`, all of whose files belong to `uid` and `gid`.
    pub fn new(view: &'a View, uid: u32, gid: u32) -> Self {
        Server { view, uid, gid, data: None }
    }

    /// One that answers reads too, from the directory `payloads`.
    pub fn with_data(view: &'a View, uid: u32, gid: u32, payloads: BorrowedFd<'a>) -> Self {
        Server { data: Some(Data::new(payloads, None)), ..Server::new(view, uid, gid) }
    }

    /// The answer to the `request` with these bytes, or `None` if it gets none.
    pub fn answer<'r>(&self, request: &[u8], reply: &'r mut Reply) -> Option<&'r [u8]> {
        let request = Request::parse(request)?;
        reply.begin(request.unique);
        match self.dispatch(&request, reply) {
            Ok(Answer::Sent) => Some(reply.finish(None)),
            Ok(Answer::None) => None,
            Err(error) => Some(reply.finish(Some(error))),
        }
    }

    fn dispatch(&self, request: &Request<'_>, reply: &mut Reply) -> Outcome {
        match request.opcode {
            Opcode::FORGET | Opcode::BATCH_FORGET | Opcode::INTERRUPT | Opcode::NOTIFY_REPLY => Ok(Answer::None),
            _ if !request.whole => Err(Errno::INVAL),
            Opcode::INIT => init(request, self.reply_max(), reply),
            Opcode::LOOKUP => self.lookup(request, reply),
            Opcode::GETATTR => self.getattr(request, reply),
            Opcode::STATX => self.statx(request, reply),
            Opcode::READLINK => self.readlink(request, reply),
            Opcode::READDIR => self.readdir(request, reply, false),
            Opcode::READDIRPLUS => self.readdir(request, reply, true),
            // No attributes: the kernel remembers it, and asks no more.
            Opcode::GETXATTR | Opcode::LISTXATTR if self.data.is_some() => Err(Errno::NOSYS),
            Opcode::GETXATTR => self.getxattr(request, reply),
            Opcode::LISTXATTR => self.listxattr(request, reply),
            Opcode::READ => self.read(request, reply),
            Opcode::STATFS => self.statfs(reply),
            Opcode::DESTROY | Opcode::RELEASE | Opcode::RELEASEDIR => Ok(Answer::Sent),
            opcode if opcode.writes() => Err(Errno::ROFS),
            // ENOSYS is a lasting answer: OPEN, OPENDIR, ACCESS and FLUSH are then done by the kernel alone.
            _ => Err(Errno::NOSYS),
        }
    }

    /// The node that a request is about.
    fn node(&self, request: &Request<'_>) -> Result<(NodeId, Node), Errno> {
        let id = request.node.checked_sub(1).and_then(|id| NodeId::try_from(id).ok()).ok_or(Errno::NOENT)?;
        let node = self.view.node(id).filter(|node| node.kind != NodeKind::Mask).ok_or(Errno::NOENT)?;
        Ok((id, node))
    }

    /// The directory that a request is about.
    fn directory(&self, request: &Request<'_>) -> Result<(NodeId, Node), Errno> {
        self.node(request).and_then(|(id, node)| if node.is_directory() { Ok((id, node)) } else { Err(Errno::NOTDIR) })
    }

    fn lookup(&self, request: &Request<'_>, reply: &mut Reply) -> Outcome {
        let (directory, _) = self.directory(request)?;
        let name = request.text(0)?;
        let found = self.view.lookup(directory, name);
        match found.and_then(|id| Some((id, self.view.node(id).filter(|node| node.kind != NodeKind::Mask)?))) {
            Some((id, node)) => self.entry(id, &node, reply),
            None => reply.missing_entry(FOREVER),
        }
        Ok(Answer::Sent)
    }

    fn readlink(&self, request: &Request<'_>, reply: &mut Reply) -> Outcome {
        let (id, _) = self.node(request)?;
        reply.bytes(self.view.target(id).ok_or(Errno::INVAL)?);
        Ok(Answer::Sent)
    }

    /// Data is the overlay's business, unless this server has it; an empty file has none.
    fn read(&self, request: &Request<'_>, reply: &mut Reply) -> Outcome {
        let (id, node) = self.node(request)?;
        match (node, &self.data) {
            (Node { kind: NodeKind::Directory { .. }, .. }, _) => Err(Errno::ISDIR),
            (Node { size: 0, .. }, _) => Ok(Answer::Sent),
            (Node { kind: NodeKind::File, size, .. }, Some(data)) => {
                let what = || Some(Wanted { digest: self.view.digest(id)?, size, path: self.view.path(id) });
                data.read(id, size, &what, (request.u64(8)?, request.u32(16)?), reply)
            }
            _ => Err(Errno::IO),
        }
    }

    /// The largest answer.
    fn reply_max(&self) -> usize {
        if self.data.is_some() { DATA_REPLY_MAX } else { REPLY_MAX }
    }

    fn getxattr(&self, request: &Request<'_>, reply: &mut Reply) -> Outcome {
        let (id, node) = self.node(request)?;
        let (room, name) = (request.u32(0)?, request.text(8)?);
        if !has_redirect(&node) {
            return Err(Errno::NODATA);
        }
        if name == METACOPY.as_bytes() {
            reply.sized(room, &[b""])
        } else if name == REDIRECT.as_bytes() {
            let digest = self.view.digest(id).ok_or(Errno::IO)?;
            reply.sized(room, &[&redirect(&digest)])
        } else {
            Err(Errno::NODATA)
        }
    }

    fn listxattr(&self, request: &Request<'_>, reply: &mut Reply) -> Outcome {
        let (_, node) = self.node(request)?;
        let room = request.u32(0)?;
        let names: &[&[u8]] = &[METACOPY.as_bytes(), b"\0", REDIRECT.as_bytes(), b"\0"];
        reply.sized(room, if has_redirect(&node) { names } else { &[] })
    }
}

/// Whether a file's data is a payload. An empty file is shown as it is.
fn has_redirect(node: &Node) -> bool {
    node.kind == NodeKind::File && node.size > 0
}
