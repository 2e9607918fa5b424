//! Manifests in FlatBuffers, read where they lie: a million names take no memory but that of their bytes.

use std::collections::HashSet;

use flatbuffers::{ForwardsUOffset, Vector};

use super::body::{Item, put_item, put_u64};
use super::generated as fb;
use super::{SALT, check, flat};
use crate::digest::{Digest, Hasher};
use crate::error::Result;
use crate::manifest::EntryKind;
use crate::object::{Kind, Strategy};

type Entries<'a> = Vector<'a, ForwardsUOffset<fb::Entry<'a>>>;

/// Bytes that are gathered before they are hashed.
const PIECE: usize = 16 << 10;

/// The digest of the manifest in `body`, if it is sound and laid out as [`super::encode`] does it: entries in stored
/// order, and no more bytes than they need. Of any other, nothing: it is for [`super::decode_wire`] to judge.
///
/// Errors: [`crate::Error::Corrupt`] for what is no sound buffer, or no sound entry.
pub(super) fn digest(strategy: Strategy, body: &[u8]) -> Result<Option<Digest>> {
    let Some(manifest) = flat::root(Kind::Manifest, body)?.object_as_manifest() else { return Ok(None) };
    let trees = manifest.trees();
    let mut whole = Hasher::new();
    if strategy == Strategy::WithKindAndSalt {
        whole.update(SALT);
        whole.update(&[Kind::Manifest as u8]);
    }
    let mut known = HashSet::new();
    let mut room = flat::FIXED.saturating_add(trees.len().saturating_mul(flat::TREE));
    for (number, tree) in trees.iter().enumerate() {
        let Some(tree) = hash(&tree.entries(), &mut whole, &mut room)? else { return Ok(None) };
        known.insert(tree);
        if number == 0 {
            whole.update(&(trees.len() as u64 - 1).to_be_bytes());
        }
    }
    // A tree is named by its hash, so a tree that names itself, at whatever distance, cannot pass here.
    for tree in trees {
        for entry in tree.entries() {
            let item = flat::item(entry)?;
            if item.kind != EntryKind::Tree {
                break;
            }
            if !known.contains(&Digest::from_bytes(*item.object)) {
                return Ok(None);
            }
        }
    }
    Ok((!known.is_empty() && body.len() <= room).then(|| whole.finish()))
}

/// Hashes one directory into `whole`, takes what it needs from `room`, and gives its own digest; nothing if its
/// entries are not in stored order, or a name stands twice.
fn hash(entries: &Entries<'_>, whole: &mut Hasher, room: &mut usize) -> Result<Option<Digest>> {
    let count = entries.len();
    let key = |item: &Item<'_>| item.kind != EntryKind::Tree;
    let (mut directories, mut before): (usize, Option<Item<'_>>) = (0, None);
    for entry in entries {
        let item = flat::item(entry)?;
        check::item(&item)?;
        if before.is_some_and(|before| (key(&before), before.name) >= (key(&item), item.name)) {
            return Ok(None);
        }
        directories += usize::from(item.kind == EntryKind::Tree);
        *room = room.saturating_add(flat::entry_len(item.name));
        before = Some(item);
    }
    let mut own = Hasher::new();
    let mut piece = Vec::with_capacity(PIECE.min(count.saturating_mul(128).saturating_add(8)));
    put_u64(&mut piece, count as u64);
    // What is hashed is sorted by name alone: the two sorted runs are merged.
    let (mut left, mut right) = (0, directories);
    while left < directories || right < count {
        let of = |at: usize, end: usize| (at < end).then(|| flat::item(entries.get(at))).transpose();
        let item = match (of(left, directories)?, of(right, count)?) {
            (Some(directory), Some(other)) if directory.name == other.name => return Ok(None),
            (Some(directory), other) if other.is_none_or(|other| directory.name < other.name) => {
                left += 1;
                directory
            }
            (_, Some(other)) => {
                right += 1;
                other
            }
            (_, None) => break,
        };
        put_item(&mut piece, &item);
        if piece.len() >= PIECE {
            own.update(&piece);
            whole.update(&piece);
            piece.clear();
        }
    }
    own.update(&piece);
    whole.update(&piece);
    Ok(Some(own.finish()))
}

/// Calls `each` with the digest and the size of every blob that the manifest in `body` names, as often as it does.
pub(super) fn blobs(body: &[u8], each: &mut dyn FnMut(Digest, u64) -> Result<()>) -> Result<()> {
    let Some(manifest) = flat::root(Kind::Manifest, body)?.object_as_manifest() else { return Ok(()) };
    for tree in manifest.trees() {
        for entry in tree.entries() {
            let item = flat::item(entry)?;
            if item.kind == EntryKind::Blob {
                each(Digest::from_bytes(*item.object), item.size)?;
            }
        }
    }
    Ok(())
}
