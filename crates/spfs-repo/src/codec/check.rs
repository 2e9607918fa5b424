//! What makes an object sound in itself. Applied before writing and after reading.

use std::collections::HashSet;

use super::body::Item;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::manifest::{Entry, EntryKind, MODE_TYPE, Manifest, TYPE_DIRECTORY, TYPE_REGULAR, TYPE_SYMLINK, Tree};
use crate::object::{AnnotationValue, Layer, ObjectBody};

/// Checks what the types leave open. Errors: [`Error::Corrupt`].
pub(super) fn body(body: &ObjectBody) -> Result<()> {
    match body {
        ObjectBody::Blob(_) | ObjectBody::Platform(_) => Ok(()),
        ObjectBody::Layer(layer) => check_layer(layer),
        ObjectBody::Manifest(manifest) => check_manifest(manifest),
    }
}

fn check_layer(layer: &Layer) -> Result<()> {
    if layer.manifest.is_none() && layer.annotations.is_empty() {
        return Err(Error::corrupt("layer", "it has neither a manifest nor an annotation"));
    }
    for annotation in &layer.annotations {
        let texts = match &annotation.value {
            AnnotationValue::Text(text) => [annotation.key.as_str(), text],
            AnnotationValue::Blob(_) => [annotation.key.as_str(), ""],
        };
        if texts.iter().any(|text| text.contains('\0')) {
            return Err(Error::corrupt("layer", format!("NUL in the annotation {:?}", annotation.key)));
        }
    }
    Ok(())
}

fn check_manifest(manifest: &Manifest) -> Result<()> {
    if manifest.trees.is_empty() {
        return Err(Error::corrupt("manifest", "it has no root tree"));
    }
    manifest.trees.iter().try_for_each(check_tree)?;
    // A tree is named by its hash, so a tree that names itself, at whatever distance, cannot pass here.
    let known: HashSet<Digest> = manifest.trees.iter().map(Tree::digest).collect();
    let directories = manifest.trees.iter().flat_map(|tree| &tree.entries).filter(|e| e.kind == EntryKind::Tree);
    for entry in directories {
        if !known.contains(&entry.object) {
            let reason = format!("the directory {:?} names the tree {}, which is not in it", entry.name, entry.object);
            return Err(Error::corrupt("manifest", reason));
        }
    }
    Ok(())
}

fn check_tree(tree: &Tree) -> Result<()> {
    tree.entries.iter().try_for_each(check_entry)?;
    if tree.entries.is_sorted_by(|a, b| a.name < b.name) {
        return Ok(());
    }
    let mut names: Vec<&str> = tree.entries.iter().map(|entry| &*entry.name).collect();
    names.sort();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => Err(Error::corrupt("manifest", format!("the name {:?} stands twice in one directory", pair[0]))),
    }
}

fn check_entry(entry: &Entry) -> Result<()> {
    item(&Item::of(entry))
}

/// Checks one name in a directory. Errors: [`Error::Corrupt`].
pub(super) fn item(item: &Item<'_>) -> Result<()> {
    let corrupt = |reason: String| Err(Error::corrupt("manifest", reason));
    if let "" | "." | ".." = item.name {
        return corrupt(format!("{:?} cannot be a name", item.name));
    }
    if item.name.bytes().any(|b| b == b'/' || b == 0) {
        return corrupt(format!("a '/' or NUL in the name {:?}", item.name));
    }
    // Old data may leave the type out. A mask has the mode of the whiteout that it was made from.
    let types: &[u32] = match item.kind {
        EntryKind::Blob => &[0, TYPE_REGULAR, TYPE_SYMLINK],
        EntryKind::Tree => &[0, TYPE_DIRECTORY],
        EntryKind::Mask => return Ok(()),
    };
    if !types.contains(&(item.mode & MODE_TYPE)) {
        return corrupt(format!("{:?} is a {:?} with the mode {:o}", item.name, item.kind, item.mode));
    }
    Ok(())
}
