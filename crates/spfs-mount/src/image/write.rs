//! The second pass: the image itself, front to back.

use std::io::Write;
use std::ops::Range;

use super::format::{self, BLOCK, DIRENT_LEN, Data, FIRST_INODE, Inode, SLOT, SUPERBLOCK_AT};
use super::layout::{Entry, Extent, Layout, damaged, for_each_block, has_redirect, node};
use crate::BootId;
use crate::error::{Error, Result};
use crate::redirect::redirect;
use crate::view::{NodeId, NodeKind, View};

/// Bytes that are collected before they are written.
const CHUNK: usize = 1 << 20;

/// Writes the image of `view` to `out`, with all files owned by `uid` and `gid`, and stamped with `boot`.
///
/// Fails for a layer's view with masks, for a file of more than 8 TiB, and when `out` does.
pub fn write(view: &View, out: &mut impl Write, uid: u32, gid: u32, boot: &BootId) -> Result<()> {
    let layout = Layout::of(view)?;
    let out = Sink { out, buffer: Vec::with_capacity(CHUNK + 2 * BLOCK as usize), written: 0 };
    let mut writer = Writer { view, layout, out, uid, gid, block: Vec::new() };
    writer.out.pad_to(SUPERBLOCK_AT);
    writer.out.put(&format::superblock(view.len().into(), writer.layout.blocks, boot))?;
    writer.out.pad_to(FIRST_INODE);
    writer.inodes()?;
    writer.blocks()?;
    writer.out.pad_to(u64::from(writer.layout.blocks) * BLOCK);
    writer.out.flush()
}

struct Writer<'a, W> {
    view: &'a View,
    layout: Layout,
    out: Sink<'a, W>,
    uid: u32,
    gid: u32,
    /// The entries of one directory block, collected before they are written.
    block: Vec<Entry<'a>>,
}

impl<W: Write> Writer<'_, W> {
    /// All inodes, each with what stands behind it.
    fn inodes(&mut self) -> Result<()> {
        let mut outside = 0;
        for id in 0..self.view.len() {
            let node = node(self.view, id)?;
            let extent = Extent::of(self.view, id, &node);
            let first_block = match self.layout.outside.get(outside) {
                Some(&(other, block)) if other == id => {
                    outside += 1;
                    block
                }
                _ => 0,
            };
            let (size, data) = match node.kind {
                NodeKind::File if has_redirect(&node) => (node.size, Data::Redirect),
                NodeKind::File => (0, Data::Blocks(0)),
                _ => (extent.size(), extent.data(first_block)),
            };
            let inode = Inode {
                mode: node.mode,
                size,
                data,
                number: id.wrapping_add(1),
                uid: self.uid,
                gid: self.gid,
                links: node.links(),
            };
            self.out.pad_to(u64::from(self.slot(id)?) * SLOT);
            self.out.put(&inode.encode())?;
            match data {
                Data::Redirect => {
                    let digest = self.view.digest(id).ok_or_else(|| damaged(format!("node {id} has no digest")))?;
                    self.out.put(&format::file_tail(&redirect(&digest)))?;
                }
                Data::Inline(_) => self.data(id, extent.full_blocks..extent.full_blocks + 1, Start::Here)?,
                Data::Blocks(_) => {}
            }
        }
        Ok(())
    }

    /// All data that has blocks of its own.
    fn blocks(&mut self) -> Result<()> {
        for index in 0..self.layout.outside.len() {
            let (id, block) = self.layout.outside[index];
            let extent = Extent::of(self.view, id, &node(self.view, id)?);
            self.out.pad_to(u64::from(block) * BLOCK);
            self.data(id, 0..extent.outside_blocks(), Start::Block)?;
        }
        Ok(())
    }

    /// The blocks numbered `wanted` of a directory's data, or a symlink's target.
    fn data(&mut self, id: NodeId, wanted: Range<u64>, start: Start) -> Result<()> {
        if let Some(target) = self.view.target(id) {
            return self.out.put(target);
        }
        let mut block = std::mem::take(&mut self.block);
        let written = for_each_block(self.view, id, &mut block, |number, entries| match wanted.contains(&number) {
            true => self.directory_block(entries, start),
            false => Ok(()),
        });
        self.block = block;
        written
    }

    /// One block of a directory: the fixed part of all entries, then all names.
    fn directory_block(&mut self, entries: &[Entry<'_>], start: Start) -> Result<()> {
        if start == Start::Block {
            self.out.pad_to(self.out.position().next_multiple_of(BLOCK));
        }
        let mut name_at = entries.len() * DIRENT_LEN;
        for (name, child) in entries {
            let kind = node(self.view, *child)?.kind;
            // Less than the 4096 of a block.
            self.out.put(&format::dirent(self.slot(*child)?, name_at as u16, file_type(kind)))?;
            name_at += name.len();
        }
        entries.iter().try_for_each(|(name, _)| self.out.put(name))
    }

    /// The inode number of node `id`.
    fn slot(&self, id: NodeId) -> Result<u32> {
        self.layout.slots.get(id as usize).copied().ok_or_else(|| damaged(format!("there is no node {id}")))
    }
}

/// Where a piece of a directory's data begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// Right here, behind the inode.
    Here,
    /// At the next block.
    Block,
}

/// The type of file in a directory entry (kernel: `include/linux/fs_types.h`).
fn file_type(kind: NodeKind) -> u8 {
    match kind {
        NodeKind::File => 1,
        NodeKind::Directory { .. } => 2,
        NodeKind::Symlink => 7,
        NodeKind::Mask => 0,
    }
}

/// Collects what is written, and knows the position in the image.
struct Sink<'a, W> {
    out: &'a mut W,
    buffer: Vec<u8>,
    /// What has left the buffer.
    written: u64,
}

impl<W: Write> Sink<'_, W> {
    fn position(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    /// Zeros up to `position`, less than two blocks ahead.
    fn pad_to(&mut self, position: u64) {
        let missing = position.saturating_sub(self.position());
        self.buffer.resize(self.buffer.len() + missing as usize, 0);
    }

    fn flush(&mut self) -> Result<()> {
        self.out.write_all(&self.buffer).map_err(Error::io("write", "metadata image"))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}
