//! What `stat` and its kin are told.

use super::protocol::FOREVER;
use super::request::Request;
use super::{Answer, Outcome, Reply, Server};
use crate::MTIME;
use crate::view::{Node, NodeId};

use rustix::io::Errno;

/// Preferred size of reads, and the unit that space is counted in.
const BLOCK: u32 = 4096;
/// `STATX_BASIC_STATS`: what is known of every file; all but the time of birth.
const STATX_BASIC: u32 = 0x7ff;
/// `struct fuse_statx` after its times.
const STATX_REST: usize = 16 + 14 * 8;

impl Server<'_> {
    /// `struct fuse_entry_out`: a name's node, and how long that is true.
    pub(super) fn entry(&self, id: NodeId, node: &Node, reply: &mut Reply) {
        reply.u64(u64::from(id) + 1);
        reply.u64(0); // generation: numbers are never used again
        reply.u64(FOREVER);
        reply.u64(FOREVER);
        reply.u32(0);
        reply.u32(0);
        self.attr(id, node, reply);
    }

    /// `struct fuse_attr_out`.
    pub(super) fn getattr(&self, request: &Request<'_>, reply: &mut Reply) -> Outcome {
        let (id, node) = self.node(request)?;
        reply.u64(FOREVER);
        reply.u32(0);
        reply.u32(0);
        self.attr(id, &node, reply);
        Ok(Answer::Sent)
    }

    /// `struct fuse_attr`.
    fn attr(&self, id: NodeId, node: &Node, reply: &mut Reply) {
        reply.u64(u64::from(id) + 1); // ino
        reply.u64(node.size);
        reply.u64(node.size.div_ceil(512)); // blocks
        (0..3).for_each(|_| reply.u64(MTIME)); // atime, mtime, ctime
        (0..3).for_each(|_| reply.u32(0)); // and their nanoseconds
        reply.u32(node.mode);
        reply.u32(node.links());
        reply.u32(self.uid);
        reply.u32(self.gid);
        reply.u32(0); // rdev
        reply.u32(BLOCK);
        reply.u32(0); // flags
    }

    /// `struct fuse_statx_out`; asked for where the time of birth is wanted, which nothing here has.
    pub(super) fn statx(&self, request: &Request<'_>, reply: &mut Reply) -> Outcome {
        let (id, node) = self.node(request)?;
        reply.u64(FOREVER);
        reply.u32(0);
        reply.u32(0); // flags
        reply.zeros(16);
        reply.u32(STATX_BASIC);
        reply.u32(BLOCK);
        reply.u64(0); // attributes
        reply.u32(node.links());
        reply.u32(self.uid);
        reply.u32(self.gid);
        reply.u16(u16::try_from(node.mode).map_err(|_| Errno::IO)?);
        reply.u16(0);
        reply.u64(u64::from(id) + 1);
        reply.u64(node.size);
        reply.u64(node.size.div_ceil(512));
        reply.u64(0); // attributes_mask
        for time in [MTIME, 0, MTIME, MTIME] {
            reply.u64(time); // atime, btime, ctime, mtime
            reply.u64(0);
        }
        reply.zeros(STATX_REST);
        Ok(Answer::Sent)
    }

    /// `struct fuse_kstatfs`: as full as can be, like every read-only file system.
    pub(super) fn statfs(&self, reply: &mut Reply) -> Outcome {
        reply.u64(self.view.file_bytes().div_ceil(BLOCK.into()));
        reply.u64(0); // free
        reply.u64(0); // available
        reply.u64(self.view.len().into());
        reply.u64(0); // free nodes
        reply.u32(BLOCK);
        reply.u32(255); // longest name
        reply.u32(BLOCK); // fragment
        reply.zeros(4 + 6 * 4);
        Ok(Answer::Sent)
    }
}
