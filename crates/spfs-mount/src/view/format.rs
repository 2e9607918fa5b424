//! The bytes of a view: header, nodes, digests, strings. All numbers are little-endian.
//!
//! ```text
//!   0  magic "spfsview"                           8
//!   8  version                              u32   4
//!  12  reserved, zero                             4
//!  16  boot id of the last check                 16   (not covered by the checksum)
//!  32  SHA-256 of all bytes from 64 on           32
//!  64  nodes (at least 1)                   u32   4
//!  68  digests                              u32   4
//!  72  bytes of strings                     u32   4
//!  76  masks                                u32   4
//!  80  sum of the sizes of regular files    u64   8
//!  88  nodes        36 bytes each, breadth first, the children of a directory together and sorted by name
//!   …  digests      32 bytes each, no two equal
//!   …  strings      names and symlink targets, in the order of the nodes
//! ```
//!
//! A node:
//!
//! ```text
//!   0  size of a regular file, length of a symlink's target, else 0    u64
//!   8  st_mode, type bits included                                     u32
//!  12  parent (of the root: itself)                                    u32
//!  16  name: offset in the strings                                     u32
//!  20  name: length                                                    u16
//!  22  flags: 1 = mask                                                 u16
//!  24  directory: first child     file: digest     symlink: target's offset in the strings    u32
//!  28  directory: children        file: 0          symlink: digest                            u32
//!  32  directory: subdirectories  else 0                                                      u32
//! ```

use crate::BootId;

/// Version of these bytes. It belongs into the key of every cached view.
pub const VERSION: u32 = 1;
/// The first bytes of a view.
pub(super) const MAGIC: &[u8; 8] = b"spfsview";
/// Bytes before the first node.
pub(super) const HEADER_LEN: usize = 88;
/// Where the checksum begins to count.
pub(super) const BODY: usize = 64;
/// Where the boot stamp stands.
pub(super) const STAMP: usize = 16;
/// Bytes of a node.
pub(super) const NODE_LEN: usize = 36;
/// Bytes of a digest.
pub(super) const DIGEST_LEN: usize = 32;
/// Node flag: the name is deleted here.
pub(super) const MASK: u16 = 1;
/// Longest file name in bytes, on Linux.
pub(super) const MAX_NAME: usize = 255;
/// Longest symlink target in bytes, on Linux.
pub(super) const MAX_TARGET: usize = 4095;

/// Type bits of `st_mode`.
pub const S_IFMT: u32 = 0o170_000;
/// A directory.
pub const S_IFDIR: u32 = 0o040_000;
/// A regular file.
pub const S_IFREG: u32 = 0o100_000;
/// A symbolic link.
pub const S_IFLNK: u32 = 0o120_000;

/// What the header says, but for the checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub stamp: BootId,
    pub nodes: u32,
    pub digests: u32,
    pub strings: u32,
    pub masks: u32,
    pub file_bytes: u64,
}

impl Header {
    /// The header at the beginning of `bytes`, if these are the bytes of a view of exactly the right length.
    pub fn decode(bytes: &[u8]) -> Result<Header, String> {
        let header = bytes.get(..HEADER_LEN).ok_or("it is too short")?;
        if header.get(..8) != Some(MAGIC) {
            return Err("it is not a view".into());
        }
        let version = u32_at(header, 8);
        if version != VERSION {
            return Err(format!("it has version {version} instead of {VERSION}"));
        }
        let mut stamp = [0; 16];
        stamp.copy_from_slice(&header[STAMP..STAMP + 16]);
        let decoded = Header {
            stamp,
            nodes: u32_at(header, 64),
            digests: u32_at(header, 68),
            strings: u32_at(header, 72),
            masks: u32_at(header, 76),
            file_bytes: u64_at(header, 80),
        };
        if decoded.nodes == 0 || decoded.total_len() != bytes.len() as u64 {
            return Err(format!("it has {} bytes instead of {}", bytes.len(), decoded.total_len()));
        }
        Ok(decoded)
    }

    /// Writes the header into the first [`HEADER_LEN`] bytes, all but the checksum.
    pub fn encode(&self, bytes: &mut [u8]) {
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].fill(0);
        bytes[STAMP..STAMP + 16].copy_from_slice(&self.stamp);
        bytes[64..68].copy_from_slice(&self.nodes.to_le_bytes());
        bytes[68..72].copy_from_slice(&self.digests.to_le_bytes());
        bytes[72..76].copy_from_slice(&self.strings.to_le_bytes());
        bytes[76..80].copy_from_slice(&self.masks.to_le_bytes());
        bytes[80..88].copy_from_slice(&self.file_bytes.to_le_bytes());
    }

    /// Where the digests begin.
    pub fn digests_at(&self) -> usize {
        HEADER_LEN + self.nodes as usize * NODE_LEN
    }

    /// Where the strings begin.
    pub fn strings_at(&self) -> usize {
        self.digests_at() + self.digests as usize * DIGEST_LEN
    }

    /// Length of the whole view. Cannot overflow: three products of a u32 and a small number.
    fn total_len(&self) -> u64 {
        HEADER_LEN as u64
            + u64::from(self.nodes) * NODE_LEN as u64
            + u64::from(self.digests) * DIGEST_LEN as u64
            + u64::from(self.strings)
    }
}

/// A node as it is stored; what `a`, `b` and `c` mean depends on the type.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct RawNode {
    pub size: u64,
    pub mode: u32,
    pub parent: u32,
    pub name_at: u32,
    pub name_len: u16,
    pub flags: u16,
    pub a: u32,
    pub b: u32,
    pub c: u32,
}

impl RawNode {
    /// The node in these bytes.
    pub fn decode(raw: &[u8; NODE_LEN]) -> RawNode {
        RawNode {
            size: u64_at(raw, 0),
            mode: u32_at(raw, 8),
            parent: u32_at(raw, 12),
            name_at: u32_at(raw, 16),
            name_len: u16::from_le_bytes([raw[20], raw[21]]),
            flags: u16::from_le_bytes([raw[22], raw[23]]),
            a: u32_at(raw, 24),
            b: u32_at(raw, 28),
            c: u32_at(raw, 32),
        }
    }

    /// The bytes of the node.
    pub fn encode(&self) -> [u8; NODE_LEN] {
        let mut raw = [0; NODE_LEN];
        raw[0..8].copy_from_slice(&self.size.to_le_bytes());
        raw[8..12].copy_from_slice(&self.mode.to_le_bytes());
        raw[12..16].copy_from_slice(&self.parent.to_le_bytes());
        raw[16..20].copy_from_slice(&self.name_at.to_le_bytes());
        raw[20..22].copy_from_slice(&self.name_len.to_le_bytes());
        raw[22..24].copy_from_slice(&self.flags.to_le_bytes());
        raw[24..28].copy_from_slice(&self.a.to_le_bytes());
        raw[28..32].copy_from_slice(&self.b.to_le_bytes());
        raw[32..36].copy_from_slice(&self.c.to_le_bytes());
        raw
    }
}

/// The number at `at`, which must lie inside `bytes`.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The number at `at`, which must lie inside `bytes`.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
