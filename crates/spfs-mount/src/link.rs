//! Descriptors and short messages between a launcher and its monitor, over a socket pair.

use std::cell::Cell;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};

use crate::error::{Error, Result};

/// One end of the connection; the other end's closing is told as [`Message::Closed`].
pub struct Link(OwnedFd);

/// Where new mounts are announced: to the monitor, and to the server that waits for the first of them, if one does.
pub struct Announce<'a> {
    /// The monitor, which keeps the descriptors.
    pub monitor: &'a Link,
    /// A server that was forked in advance.
    pub server: Cell<Option<&'a Link>>,
}

/// What a mount shows.
#[derive(Clone, Copy)]
pub struct Served<'a> {
    /// The view's file; nothing for a mount that is only there to tell the end.
    pub view: Option<BorrowedFd<'a>>,
    /// The directory of the payloads, if data is served too.
    pub payloads: Option<BorrowedFd<'a>>,
    /// Whether what is missing is fetched. Without `payloads` it is a layer that does nothing else.
    pub fetch: bool,
}

impl Announce<'_> {
    /// Hands over a FUSE mount.
    pub fn serve(&self, fuse: BorrowedFd<'_>, what: &Served<'_>) -> Result<()> {
        if let Some(server) = self.server.take() {
            server.send_serve(fuse, what)?;
        }
        self.monitor.send_serve(fuse, what)
    }
}

/// What one side tells the other.
#[derive(Debug)]
pub enum Message {
    /// A FUSE mount wants to be served.
    Serve {
        /// The `/dev/fuse` descriptor.
        fuse: OwnedFd,
        /// The view's file; nothing for a mount that is only there to tell the end.
        view: Option<OwnedFd>,
        /// The directory of the payloads, if data is served too.
        payloads: Option<OwnedFd>,
        /// Whether what is missing is fetched. Without `payloads` it is a layer that does nothing else.
        fetch: bool,
    },
    /// A descriptor to be held as long as what is mounted next is there: a lock on what it shows.
    Hold(OwnedFd),
    /// The mounts are in place: the upper directory (`O_PATH`), and what tells their end if no server does.
    Mounted {
        /// The number of the mount namespace that they are in.
        namespace: u64,
        /// The overlay's upper directory; nothing if the overlay is shared.
        upper: Option<OwnedFd>,
        /// An inotify descriptor that hears of the unmount.
        watch: Option<OwnedFd>,
    },
    /// A detached clone of the overlay, for the monitor to keep for other runtimes.
    Keep(OwnedFd),
    /// The monitor is ready.
    Ready,
    /// The other side is gone.
    Closed,
}

/// Most descriptors that one message carries.
const MAX_FDS: usize = 3;

impl Link {
    /// Two connected ends.
    pub fn pair() -> Result<(Link, Link)> {
        let flags = SocketFlags::CLOEXEC;
        let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let (a, b) = pair.map_err(Error::system("make a socket pair"))?;
        Ok((Link(a), Link(b)))
    }

    fn send_serve(&self, fuse: BorrowedFd<'_>, what: &Served<'_>) -> Result<()> {
        let number = u64::from(what.fetch);
        match (what.view, what.payloads) {
            (Some(view), Some(payloads)) => self.send(b'S', number, &[fuse, view, payloads]),
            (Some(view), None) => self.send(b'S', number, &[fuse, view]),
            (None, _) => self.send(b'S', number, &[fuse]),
        }
    }

    /// Hands over what is to be held as long as what is mounted next is there.
    pub fn send_hold(&self, fd: BorrowedFd<'_>) -> Result<()> {
        self.send(b'H', 0, &[fd])
    }

    /// Says that the mounts are in place.
    pub fn send_mounted(
        &self,
        namespace: u64,
        upper: Option<BorrowedFd<'_>>,
        watch: Option<BorrowedFd<'_>>,
    ) -> Result<()> {
        let fds: Vec<BorrowedFd<'_>> = upper.into_iter().chain(watch).collect();
        self.send(if upper.is_some() { b'M' } else { b'W' }, namespace, &fds)
    }

    /// Hands over a clone of the overlay that others may use.
    pub fn send_keep(&self, mount: BorrowedFd<'_>) -> Result<()> {
        self.send(b'K', 0, &[mount])
    }

    /// Says that the monitor is ready.
    pub fn send_ready(&self) -> Result<()> {
        self.send(b'R', 0, &[])
    }

    fn send(&self, tag: u8, number: u64, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        let (tag, number) = ([tag], number.to_le_bytes());
        let parts = [IoSlice::new(&tag), IoSlice::new(&number)];
        let sent = rustix::net::sendmsg(&self.0, &parts, &mut control, SendFlags::NOSIGNAL);
        match sent {
            Ok(_) => Ok(()),
            Err(Errno::PIPE | Errno::CONNRESET) => Err(Error::MonitorGone),
            Err(e) => Err(Error::system("talk to the monitor")(e)),
        }
    }

    /// Waits for the next message.
    pub fn receive(&self) -> Result<Message> {
        let (mut tag, mut number) = ([0u8; 1], [0u8; 8]);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut parts = [IoSliceMut::new(&mut tag), IoSliceMut::new(&mut number)];
            match rustix::net::recvmsg(&self.0, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => return Ok(Message::Closed),
                other => break other.map_err(Error::system("hear from the other side"))?,
            }
        };
        let mut fds = control.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
            _ => Vec::new(),
        });
        match (received.bytes, tag[0], fds.next()) {
            (0, _, _) => Ok(Message::Closed),
            (_, b'S', Some(fuse)) => {
                let fetch = u64::from_le_bytes(number) != 0;
                Ok(Message::Serve { fuse, view: fds.next(), payloads: fds.next(), fetch })
            }
            (_, b'K', Some(mount)) => Ok(Message::Keep(mount)),
            (_, b'H', Some(fd)) => Ok(Message::Hold(fd)),
            (_, b'M', Some(upper)) => {
                let namespace = u64::from_le_bytes(number);
                Ok(Message::Mounted { namespace, upper: Some(upper), watch: fds.next() })
            }
            (_, b'W', watch) => Ok(Message::Mounted { namespace: u64::from_le_bytes(number), upper: None, watch }),
            (_, b'R', _) => Ok(Message::Ready),
            (_, tag, _) => Err(Error::Limit(format!("unexpected message {tag} between launcher and monitor"))),
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
