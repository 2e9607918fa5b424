//! Pieces of directories, with and without attributes.

use rustix::io::Errno;

use super::protocol::{DIRENT, ENTRY_OUT, OUT_HEADER, REPLY_MAX};
use super::request::Request;
use super::{Answer, Outcome, Reply, Server};
use crate::view::{Node, NodeId, NodeKind};

impl Server<'_> {
    /// `READDIR` and, if `plus`, `READDIRPLUS`: as many entries as fit into the size that the caller gives.
    ///
    /// The offset of an entry is its place (0 is `.`, 1 is `..`, then the children in the view's order), plus one:
    /// that of the entry after it. So a listing can go on anywhere, at any time.
    pub(super) fn readdir(&self, request: &Request<'_>, reply: &mut Reply, plus: bool) -> Outcome {
        let (directory, node) = self.directory(request)?;
        let (offset, size) = (request.u64(8)?, request.u32(16)?);
        let room = (size as usize).min(REPLY_MAX - OUT_HEADER);
        let children = self.view.children(directory);
        let total = children.len() as u64 + 2;
        for place in offset..total {
            let (name, id): (&[u8], NodeId) = match place {
                0 => (b".", directory),
                1 => (b"..", node.parent),
                // Less than the number of children, a u32.
                _ => (self.view.name(children.start + (place - 2) as u32), children.start + (place - 2) as u32),
            };
            let Some(child) = self.view.node(id).filter(|child| child.kind != NodeKind::Mask) else { continue };
            let length = (DIRENT + name.len()).next_multiple_of(8) + if plus { ENTRY_OUT } else { 0 };
            if reply.len() + length > room {
                // An empty piece would mean the end.
                return if reply.len() > 0 { Ok(Answer::Sent) } else { Err(Errno::INVAL) };
            }
            if plus && place < 2 {
                reply.zeros(ENTRY_OUT); // the kernel takes no attributes of these two
            } else if plus {
                self.entry(id, &child, reply);
            }
            dirent(id, &child, place + 1, name, reply);
        }
        Ok(Answer::Sent)
    }
}

/// `struct fuse_dirent`.
fn dirent(id: NodeId, node: &Node, next: u64, name: &[u8], reply: &mut Reply) {
    let start = reply.len();
    reply.u64(u64::from(id) + 1);
    reply.u64(next);
    reply.u32(name.len() as u32);
    reply.u32(node.mode >> 12 & 0o17); // DT_DIR and so on
    reply.bytes(name);
    reply.zeros((reply.len() - start).next_multiple_of(8) - (reply.len() - start));
}
