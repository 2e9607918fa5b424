//! The pieces of an EROFS image as bytes (kernel: `fs/erofs/erofs_fs.h`). All numbers are little-endian.

use crate::BootId;
use crate::MTIME;
use crate::redirect::{METACOPY, REDIRECT, REDIRECT_LEN};

/// Bytes of a block: the page size everywhere, so that any kernel can mount the image.
pub(super) const BLOCK: u64 = 4096;
/// Inodes begin at multiples of this; an inode's number is its position divided by it.
pub(super) const SLOT: u64 = 32;
/// Where the superblock stands.
pub(super) const SUPERBLOCK_AT: u64 = 1024;
/// Bytes of the superblock.
pub(super) const SUPERBLOCK_LEN: usize = 128;
/// Where the first inode, the root, stands.
pub(super) const FIRST_INODE: u64 = BLOCK;
/// Bytes of an extended inode.
pub(super) const INODE_LEN: u64 = 64;
/// Bytes of a directory entry without its name.
pub(super) const DIRENT_LEN: usize = 12;
/// Bytes between the inode of a file with data and its end: attributes and the address of its only chunk.
pub(super) const FILE_TAIL: u64 = XATTRS_LEN as u64 + 4;
/// Largest file: one chunk, of the largest size there is (2^31 blocks).
pub(super) const MAX_FILE: u64 = 1 << 43;

const MAGIC: u32 = 0xE0F5_E1E2;
const BLOCK_BITS: u8 = 12;
/// Feature: inodes carry a modification time.
const COMPAT_MTIME: u32 = 2;
/// Feature: files in chunks, whose addresses may say "hole".
const INCOMPAT_CHUNKED_FILE: u32 = 4;
/// `EROFS_XATTR_INDEX_USER`: the name goes on after `user.`.
const XATTR_USER: u8 = 1;
/// Bytes of the header before an inode's attributes.
const XATTR_HEADER: usize = 12;
/// Bytes of an attribute's own header.
const XATTR_ENTRY: usize = 4;
/// Bytes of an attribute's name after `user.`: `overlay.metacopy`, `overlay.redirect`.
const XATTR_NAME: usize = 16;
/// Bytes of the attributes of a file with data: a header, one without a value, one with a redirect, padded to 4.
const XATTRS_LEN: usize = XATTR_HEADER + XATTR_ENTRY + XATTR_NAME + REDIRECT_ENTRY;
const REDIRECT_ENTRY: usize = (XATTR_ENTRY + XATTR_NAME + REDIRECT_LEN).next_multiple_of(4);
/// Attribute space is counted in words, the header as one.
const XATTR_COUNT: u16 = ((XATTRS_LEN - XATTR_HEADER) / 4 + 1) as u16;
/// `i_u` of a chunked file: a chunk has 2^(12+31) bytes, and addresses are 4 bytes.
const ONE_CHUNK: u32 = 31;
/// The address that says "hole".
const HOLE: u32 = u32::MAX;

/// The superblock.
pub(super) fn superblock(inodes: u64, blocks: u32, boot: &BootId) -> [u8; SUPERBLOCK_LEN] {
    let mut block = [0; SUPERBLOCK_LEN];
    block[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    block[8..12].copy_from_slice(&COMPAT_MTIME.to_le_bytes());
    block[12] = BLOCK_BITS;
    block[14..16].copy_from_slice(&((FIRST_INODE / SLOT) as u16).to_le_bytes());
    block[16..24].copy_from_slice(&inodes.to_le_bytes());
    block[24..32].copy_from_slice(&MTIME.to_le_bytes());
    block[36..40].copy_from_slice(&blocks.to_le_bytes());
    block[48..64].copy_from_slice(boot);
    block[64..68].copy_from_slice(b"spfs");
    block[80..84].copy_from_slice(&INCOMPAT_CHUNKED_FILE.to_le_bytes());
    block
}

/// The boot id in a superblock, in the place of the UUID, and the bytes of the whole image. `None` if it is none.
pub(super) fn stamp(block: &[u8; SUPERBLOCK_LEN]) -> Option<(BootId, u64)> {
    if block[0..4] != MAGIC.to_le_bytes() {
        return None;
    }
    let blocks = block[36..].first_chunk::<4>().copied().map(u32::from_le_bytes)?;
    Some((*block[48..].first_chunk::<16>()?, u64::from(blocks) * BLOCK))
}

/// Where an inode's data is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Data {
    /// In whole blocks from this one on.
    Blocks(u32),
    /// Whole blocks from this one on, and the rest right behind the inode.
    Inline(u32),
    /// Nowhere: one hole, with attributes that say where the data is.
    Redirect,
}

/// What an inode says.
pub(super) struct Inode {
    pub mode: u32,
    pub size: u64,
    pub data: Data,
    /// The number that 32-bit programs see.
    pub number: u32,
    pub uid: u32,
    pub gid: u32,
    pub links: u32,
}

impl Inode {
    /// The bytes of an extended inode (`struct erofs_inode_extended`).
    pub fn encode(&self) -> [u8; INODE_LEN as usize] {
        let (layout, place, xattrs): (u16, u32, u16) = match self.data {
            Data::Blocks(block) => (0, block, 0),
            Data::Inline(block) => (2, block, 0),
            Data::Redirect => (4, ONE_CHUNK, XATTR_COUNT),
        };
        let mut inode = [0; INODE_LEN as usize];
        inode[0..2].copy_from_slice(&(1 | layout << 1).to_le_bytes());
        inode[2..4].copy_from_slice(&xattrs.to_le_bytes());
        inode[4..6].copy_from_slice(&(self.mode as u16).to_le_bytes());
        inode[8..16].copy_from_slice(&self.size.to_le_bytes());
        inode[16..20].copy_from_slice(&place.to_le_bytes());
        inode[20..24].copy_from_slice(&self.number.to_le_bytes());
        inode[24..28].copy_from_slice(&self.uid.to_le_bytes());
        inode[28..32].copy_from_slice(&self.gid.to_le_bytes());
        inode[32..40].copy_from_slice(&MTIME.to_le_bytes());
        inode[44..48].copy_from_slice(&self.links.to_le_bytes());
        inode
    }
}

/// What follows the inode of a file with data: its attributes and its hole.
pub(super) fn file_tail(redirect: &[u8; REDIRECT_LEN]) -> [u8; FILE_TAIL as usize] {
    let mut tail = [0; FILE_TAIL as usize];
    let second = XATTR_HEADER + XATTR_ENTRY + XATTR_NAME;
    xattr(&mut tail[XATTR_HEADER..second], METACOPY, b"");
    xattr(&mut tail[second..XATTRS_LEN], REDIRECT, redirect);
    tail[XATTRS_LEN..].copy_from_slice(&HOLE.to_le_bytes());
    tail
}

/// One attribute of the `user.` namespace (`struct erofs_xattr_entry`).
fn xattr(room: &mut [u8], name: &str, value: &[u8]) {
    let name = name.trim_start_matches("user.").as_bytes();
    room[0] = name.len() as u8;
    room[1] = XATTR_USER;
    room[2..4].copy_from_slice(&(value.len() as u16).to_le_bytes());
    let (names, values) = room[XATTR_ENTRY..].split_at_mut(name.len());
    names.copy_from_slice(name);
    values[..value.len()].copy_from_slice(value);
}

/// A directory entry (`struct erofs_dirent`): whose inode it is, and where its name begins in the block.
pub(super) fn dirent(slot: u32, name_at: u16, kind: u8) -> [u8; DIRENT_LEN] {
    let mut entry = [0; DIRENT_LEN];
    entry[0..4].copy_from_slice(&slot.to_le_bytes());
    entry[8..10].copy_from_slice(&name_at.to_le_bytes());
    entry[10] = kind;
    entry
}
