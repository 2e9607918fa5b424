//! The numbers of the FUSE protocol, version 7.40 (kernel: `include/uapi/linux/fuse.h`), and its handshake.

use rustix::io::Errno;

use super::reply::Reply;
use super::request::Request;
use super::{Answer, Outcome};

/// The version spoken here; a newer kernel adapts.
const MAJOR: u32 = 7;
const MINOR: u32 = 40;

/// `struct fuse_in_header`, before every request.
pub(super) const IN_HEADER: usize = 40;
/// `struct fuse_out_header`, before every answer.
pub(super) const OUT_HEADER: usize = 16;
/// `struct fuse_entry_out`.
pub(super) const ENTRY_OUT: usize = 128;
/// `struct fuse_dirent` without the name, which follows, padded to 8 bytes.
pub(super) const DIRENT: usize = 24;
/// `struct fuse_init_out`.
const INIT_OUT: usize = 64;

/// Room for a request: more than the 8 KiB that the kernel insists on, so that forgets come many at a time. An
/// extended attribute may be larger; the kernel refuses such a request itself.
pub(super) const REQUEST_MAX: usize = 64 << 10;
/// Room for an answer: the largest are pieces of directories.
pub(super) const REPLY_MAX: usize = OUT_HEADER + (128 << 10);

/// The same for a server that has data: its largest answers are pieces of files.
pub(super) const DATA_REPLY_MAX: usize = OUT_HEADER + (1 << 20);

/// How long answers stay valid, in seconds: nothing ever changes.
pub(super) const FOREVER: u64 = 1 << 40;

/// `FUSE_NOTIFY_RESEND` (7.40, Linux 6.9): send unanswered requests again.
pub(super) const NOTIFY_RESEND: u32 = 7;

/// What a request asks for (`enum fuse_opcode`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Opcode(pub u32);

impl Opcode {
    pub const LOOKUP: Opcode = Opcode(1);
    pub const FORGET: Opcode = Opcode(2);
    pub const GETATTR: Opcode = Opcode(3);
    pub const SETATTR: Opcode = Opcode(4);
    pub const READLINK: Opcode = Opcode(5);
    pub const SYMLINK: Opcode = Opcode(6);
    pub const MKNOD: Opcode = Opcode(8);
    pub const MKDIR: Opcode = Opcode(9);
    pub const UNLINK: Opcode = Opcode(10);
    pub const RMDIR: Opcode = Opcode(11);
    pub const RENAME: Opcode = Opcode(12);
    pub const LINK: Opcode = Opcode(13);
    pub const READ: Opcode = Opcode(15);
    pub const WRITE: Opcode = Opcode(16);
    pub const STATFS: Opcode = Opcode(17);
    pub const RELEASE: Opcode = Opcode(18);
    pub const SETXATTR: Opcode = Opcode(21);
    pub const GETXATTR: Opcode = Opcode(22);
    pub const LISTXATTR: Opcode = Opcode(23);
    pub const REMOVEXATTR: Opcode = Opcode(24);
    pub const INIT: Opcode = Opcode(26);
    pub const READDIR: Opcode = Opcode(28);
    pub const RELEASEDIR: Opcode = Opcode(29);
    pub const CREATE: Opcode = Opcode(35);
    pub const INTERRUPT: Opcode = Opcode(36);
    pub const DESTROY: Opcode = Opcode(38);
    pub const NOTIFY_REPLY: Opcode = Opcode(41);
    pub const BATCH_FORGET: Opcode = Opcode(42);
    pub const FALLOCATE: Opcode = Opcode(43);
    pub const READDIRPLUS: Opcode = Opcode(44);
    pub const RENAME2: Opcode = Opcode(45);
    pub const COPY_FILE_RANGE: Opcode = Opcode(47);
    pub const TMPFILE: Opcode = Opcode(51);
    pub const STATX: Opcode = Opcode(52);

    /// Whether it would change something.
    pub fn writes(self) -> bool {
        matches!(
            self,
            Opcode::SETATTR
                | Opcode::SYMLINK
                | Opcode::MKNOD
                | Opcode::MKDIR
                | Opcode::UNLINK
                | Opcode::RMDIR
                | Opcode::RENAME
                | Opcode::LINK
                | Opcode::WRITE
                | Opcode::SETXATTR
                | Opcode::REMOVEXATTR
                | Opcode::CREATE
                | Opcode::FALLOCATE
                | Opcode::RENAME2
                | Opcode::COPY_FILE_RANGE
                | Opcode::TMPFILE
        )
    }
}

/// What the two sides agree on (`FUSE_*` flags of `INIT`).
mod flag {
    /// Reads may come in any order.
    pub const ASYNC_READ: u64 = 1 << 0;
    /// Directories are listed with attributes, which saves a lookup for each name.
    pub const DO_READDIRPLUS: u64 = 1 << 13;
    /// ENOSYS on `OPEN` means that opening needs no request.
    pub const NO_OPEN_SUPPORT: u64 = 1 << 17;
    /// A directory may be looked into by many at once.
    pub const PARALLEL_DIROPS: u64 = 1 << 18;
    /// `max_pages` is valid.
    pub const MAX_PAGES: u64 = 1 << 22;
    /// Symlinks may be cached.
    pub const CACHE_SYMLINKS: u64 = 1 << 23;
    /// ENOSYS on `OPENDIR` means that opening a directory needs no request, and that its content may be cached.
    pub const NO_OPENDIR_SUPPORT: u64 = 1 << 24;
    /// `flags2` is valid.
    pub const INIT_EXT: u64 = 1 << 30;

    /// All that is wanted here.
    pub const WANTED: u64 = ASYNC_READ
        | DO_READDIRPLUS
        | NO_OPEN_SUPPORT
        | PARALLEL_DIROPS
        | MAX_PAGES
        | CACHE_SYMLINKS
        | NO_OPENDIR_SUPPORT
        | INIT_EXT;
}

/// Answers `INIT`: the version, and of what the kernel offers what is wanted.
/// `reply_max` bytes are the largest answer.
pub(super) fn init(request: &Request<'_>, reply_max: usize, reply: &mut Reply) -> Outcome {
    let (major, minor) = (request.u32(0)?, request.u32(4)?);
    if major < MAJOR {
        return Err(Errno::PROTO);
    }
    reply.u32(MAJOR);
    if major > MAJOR {
        // The kernel tries again with our major version.
        reply.u32(MINOR);
        reply.zeros(INIT_OUT - 8);
        return Ok(Answer::Sent);
    }
    let (readahead, offered) = (request.u32(8)?, u64::from(request.u32(12)?));
    let offered = offered | u64::from(request.u32(16).unwrap_or(0)) << 32;
    let agreed = offered & flag::WANTED;
    reply.u32(minor.min(MINOR));
    reply.u32(readahead);
    reply.u32(agreed as u32);
    reply.u16(0); // max_background: the kernel's default
    reply.u16(0); // congestion_threshold: likewise
    reply.u32(4096); // max_write: the least there is
    reply.u32(1); // time_gran
    reply.u16(((reply_max - OUT_HEADER) / 4096) as u16); // max_pages
    reply.u16(0); // map_alignment
    reply.u32((agreed >> 32) as u32);
    reply.zeros(INIT_OUT - 36);
    Ok(Answer::Sent)
}
