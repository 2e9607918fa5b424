//! The first pass: where everything will stand.

use super::format::{BLOCK, DIRENT_LEN, Data, FILE_TAIL, FIRST_INODE, INODE_LEN, MAX_FILE, SLOT};
use crate::error::{Error, Result};
use crate::view::{Node, NodeId, NodeKind, ROOT, View};

/// The place of every inode and of all data that does not stand behind its inode.
pub(super) struct Layout {
    /// Inode number of each node: its position divided by [`SLOT`].
    pub slots: Vec<u32>,
    /// The nodes with data in blocks of its own, ascending, with the first of those blocks.
    pub outside: Vec<(NodeId, u32)>,
    /// Number of blocks of the whole image.
    pub blocks: u32,
}

/// The data of a directory or symlink: so many whole blocks, and so many bytes in the last one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Extent {
    pub full_blocks: u64,
    pub tail: u64,
}

impl Extent {
    /// The extent of a node's data, as far as the image holds any.
    pub fn of(view: &View, id: NodeId, node: &Node) -> Extent {
        match node.kind {
            NodeKind::Directory { .. } => directory_extent(view, id),
            NodeKind::Symlink => Extent { full_blocks: 0, tail: node.size },
            _ => Extent { full_blocks: 0, tail: 0 },
        }
    }

    /// Whether the last bytes can stand behind the inode: they must be in one block with it.
    pub fn fits_inline(self) -> bool {
        INODE_LEN + self.tail <= BLOCK
    }

    /// Blocks that are needed elsewhere.
    pub fn outside_blocks(self) -> u64 {
        self.full_blocks + u64::from(!self.fits_inline())
    }

    /// Length in bytes.
    pub fn size(self) -> u64 {
        self.full_blocks * BLOCK + self.tail
    }

    /// What the inode says, if the data in blocks begins at `block`.
    pub fn data(self, block: u32) -> Data {
        if self.fits_inline() { Data::Inline(block) } else { Data::Blocks(block) }
    }
}

impl Layout {
    /// Places all nodes of `view`, which must be a merged one.
    pub fn of(view: &View) -> Result<Layout> {
        let mut slots = Vec::with_capacity(view.len() as usize);
        let mut outside = Vec::new();
        let mut position = FIRST_INODE;
        for id in 0..view.len() {
            let node = node(view, id)?;
            position = position.next_multiple_of(SLOT);
            let mut length = INODE_LEN;
            if has_redirect(&node) {
                length += FILE_TAIL;
            } else {
                let extent = Extent::of(view, id, &node);
                if extent.outside_blocks() > 0 {
                    outside.push((id, extent.outside_blocks()));
                }
                if extent.fits_inline() {
                    length += extent.tail;
                    if position % BLOCK + length > BLOCK {
                        position = position.next_multiple_of(BLOCK);
                    }
                }
            }
            slots.push(u32::try_from(position / SLOT).map_err(|_| too_large())?);
            position += length;
        }
        let mut block = position.div_ceil(BLOCK);
        let mut placed = Vec::with_capacity(outside.len());
        for (id, count) in outside {
            placed.push((id, u32::try_from(block).map_err(|_| too_large())?));
            block += count;
        }
        Ok(Layout { slots, outside: placed, blocks: u32::try_from(block).map_err(|_| too_large())? })
    }
}

/// Whether a node's data is a payload that the overlay shows. An empty file needs none.
pub(super) fn has_redirect(node: &Node) -> bool {
    node.kind == NodeKind::File && node.size > 0
}

/// The node `id`, if an image can hold it.
pub(super) fn node(view: &View, id: NodeId) -> Result<Node> {
    let node = view.node(id).ok_or_else(|| damaged(format!("there is no node {id}")))?;
    if (id != ROOT && view.name(id).is_empty()) || (node.kind == NodeKind::Symlink && view.target(id).is_none()) {
        return Err(damaged(format!("node {id} has no name or no target")));
    }
    if node.kind == NodeKind::Mask {
        return Err(Error::Limit(format!("{:?} is a mask: only a merged view can be shown", view.path(id))));
    }
    if node.kind == NodeKind::File && node.size > MAX_FILE {
        return Err(Error::Limit(format!("{:?} is too large: a file can have 8 TiB", view.path(id))));
    }
    Ok(node)
}

/// What a directory's data holds: its children, `.` and `..`, in the order of the names' bytes.
///
/// Each is a name and the node that it stands for; children that say they belong elsewhere are nonsense, and skipped.
fn entries(view: &View, id: NodeId) -> impl Iterator<Item = Entry<'_>> {
    let children = view.children(id);
    let (mut dot, end) = (children.start, children.end);
    while dot < end && view.name(dot) < b".".as_slice() {
        dot += 1;
    }
    let mut dotdot = dot;
    while dotdot < end && view.name(dotdot) < b"..".as_slice() {
        dotdot += 1;
    }
    let parent = view.node(id).map_or(id, |node| node.parent);
    let named = move |range: std::ops::Range<NodeId>| {
        let ours = move |child: &NodeId| view.node(*child).is_some_and(|node| node.parent == id);
        range.filter(ours).map(move |child| (view.name(child), child))
    };
    let this = std::iter::once((b".".as_slice(), id));
    let above = std::iter::once((b"..".as_slice(), parent));
    named(children.start..dot).chain(this).chain(named(dot..dotdot)).chain(above).chain(named(dotdot..end))
}

/// One entry of a directory: a name, and the node that it stands for.
pub(super) type Entry<'a> = (&'a [u8], NodeId);

/// Hands the entries of directory `id` to `each`, block by block, numbered from 0. `block` is room for them.
pub(super) fn for_each_block<'a>(
    view: &'a View,
    id: NodeId,
    block: &mut Vec<Entry<'a>>,
    mut each: impl FnMut(u64, &[Entry<'a>]) -> Result<()>,
) -> Result<()> {
    let (mut number, mut used) = (0, 0);
    block.clear();
    for entry in entries(view, id) {
        if !fits(used, entry.0) {
            each(number, block)?;
            block.clear();
            (number, used) = (number + 1, 0);
        }
        used += entry_len(entry.0);
        block.push(entry);
    }
    each(number, block)
}

/// How much room the entries of directory `id` take, in the blocks of [`for_each_block`].
fn directory_extent(view: &View, id: NodeId) -> Extent {
    let mut extent = Extent { full_blocks: 0, tail: 0 };
    for (name, _) in entries(view, id) {
        if !fits(extent.tail, name) {
            extent = Extent { full_blocks: extent.full_blocks + 1, tail: 0 };
        }
        extent.tail += entry_len(name);
    }
    extent
}

/// Whether an entry has room in a block of which so much is used: none crosses the end of a block.
fn fits(used: u64, name: &[u8]) -> bool {
    used + entry_len(name) <= BLOCK
}

fn entry_len(name: &[u8]) -> u64 {
    (DIRENT_LEN + name.len()) as u64
}

/// The error for a view that is nonsense inside.
pub(super) fn damaged(reason: String) -> Error {
    Error::Damaged { path: "view".into(), reason }
}

fn too_large() -> Error {
    Error::Limit("the view is too large for an image".into())
}
