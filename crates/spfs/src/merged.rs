//! What a stack looks like once its layers are merged, read straight from the manifests, one directory at a time.
//!
//! This is the merge that every verb uses that looks into a stack (`ls`, `read`, `diff`, `info /spfs/…`, `render`);
//! what runtimes mount is the flat view of `spfs-mount`. Both follow overlayfs: the topmost entry of a name wins; a
//! mask hides what is below it; a file hides a directory with all that is in it; directories merge.

use std::collections::{BTreeMap, HashMap, HashSet};

use spfs_repo::manifest::MAX_PATHS;
use spfs_repo::{Digest, Entry, EntryKind, Error as RepoError, Layer, Manifest, ObjectBody, Repository};

use crate::error::{Error, Result};

/// A stack of manifests, seen as one tree.
///
/// Memory: the decoded manifests, about 150 bytes per entry, and nothing more per path.
pub struct Merged {
    /// Topmost first.
    layers: Vec<Part>,
}

/// One manifest with its trees findable by digest.
struct Part {
    manifest: Manifest,
    /// The layer or manifest object that it came from.
    source: Digest,
    /// The digest of each tree, in the manifest's order.
    digests: Vec<Digest>,
    trees: HashMap<Digest, u32>,
}

/// One directory of a merged tree.
#[derive(Clone)]
pub struct MergedDir<'a> {
    merged: &'a Merged,
    /// Layer and tree index of every layer that contributes, topmost first.
    parts: Vec<(u32, u32)>,
}

/// One name of a merged directory.
#[derive(Clone)]
pub struct Item<'a> {
    /// The topmost entry of that name; never a mask.
    pub entry: &'a Entry,
    /// Its content if it is a directory.
    pub dir: Option<MergedDir<'a>>,
    /// The object (layer or bare manifest) that it comes from; for a directory the topmost one.
    pub source: Digest,
}

/// One layer's word on a path, for [`Merged::providers`].
#[derive(Clone, Copy)]
pub struct Provider<'a> {
    /// The layer (or bare manifest).
    pub source: Digest,
    /// Its entry, which may be a mask.
    pub entry: &'a Entry,
}

impl Merged {
    /// Reads the trees of `layers` (layers or bare manifests, **bottom-most first**, as `stack::expand` gives them).
    pub fn read(repository: &dyn Repository, layers: &[Digest]) -> Result<Merged> {
        let mut parts = Vec::with_capacity(layers.len());
        let mut seen = HashSet::new();
        for layer in layers {
            let object = repository.read_object(layer)?;
            let (digest, manifest) = match object.body {
                ObjectBody::Manifest(manifest) => (*layer, Some(manifest)),
                ObjectBody::Layer(Layer { manifest: Some(digest), .. }) => (digest, None),
                ObjectBody::Layer(Layer { manifest: None, .. }) => continue,
                ObjectBody::Platform(_) | ObjectBody::Blob(_) => {
                    return Err(wrong_kind(layer, object.kind().name(), "layer"));
                }
            };
            // Of equal trees the bottom-most counts (`docs/format.md`, stacks).
            if seen.insert(digest) {
                let manifest = manifest.map_or_else(|| read_manifest(repository, &digest), Ok)?;
                parts.push(Part::new(manifest, *layer));
            }
        }
        parts.reverse();
        Ok(Merged { layers: parts })
    }

    /// One manifest alone; `source` is what its items name as their origin.
    pub fn single(manifest: Manifest, source: Digest) -> Merged {
        Merged { layers: vec![Part::new(manifest, source)] }
    }

    /// The directory at the top.
    pub fn root(&self) -> MergedDir<'_> {
        MergedDir { merged: self, parts: (0..self.layers.len() as u32).map(|layer| (layer, 0)).collect() }
    }

    /// What stands at `path` (relative to /spfs, as [`relative`] makes it); `None` if nothing, or the root.
    pub fn lookup(&self, path: &str) -> Result<Option<Item<'_>>> {
        let mut dir = self.root();
        let mut found: Option<Item<'_>> = None;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            if let Some(item) = found {
                match item.dir {
                    Some(inner) => dir = inner,
                    None => return Ok(None),
                }
            }
            match dir.get(name)? {
                Some(item) => found = Some(item),
                None => return Ok(None),
            }
        }
        Ok(found)
    }

    /// Every layer that has something at `path`, topmost first, hidden or not.
    pub fn providers(&self, path: &str) -> Result<Vec<Provider<'_>>> {
        let mut found = Vec::new();
        for part in &self.layers {
            let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
            let Some((last, parents)) = names.split_last() else { continue };
            let mut tree = Some(0);
            for name in parents {
                tree = match tree.and_then(|t| part.entry(t, name)) {
                    Some(entry) if entry.kind == EntryKind::Tree => Some(part.tree(entry)?),
                    _ => None,
                };
            }
            let entry = tree.and_then(|t| part.entry(t, last));
            found.extend(entry.map(|entry| Provider { source: part.source, entry }));
        }
        Ok(found)
    }

    /// Visits every path, parents before children, directories before files at each level. `visit` gets the path
    /// relative to the root, without a leading slash, and stops the walk with an error.
    pub fn walk<'a, E: From<Error>>(
        &'a self,
        mut visit: impl FnMut(&str, &Item<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut pending = self.root().in_path_order()?.into_iter().rev().map(|i| (0, i)).collect::<Vec<_>>();
        let (mut path, mut steps) = (String::new(), Steps::default());
        while let Some((parent_len, item)) = pending.pop() {
            steps.step()?;
            path.truncate(parent_len);
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(&item.entry.name);
            visit(&path, &item)?;
            if let Some(dir) = item.dir {
                pending.extend(dir.in_path_order()?.into_iter().rev().map(|inner| (path.len(), inner)));
            }
        }
        Ok(())
    }
}

impl Part {
    fn new(manifest: Manifest, source: Digest) -> Part {
        let digests: Vec<Digest> = manifest.trees.iter().map(spfs_repo::Tree::digest).collect();
        let trees = digests.iter().enumerate().map(|(i, digest)| (*digest, i as u32)).collect();
        Part { manifest, source, digests, trees }
    }

    /// The index of the tree that `entry` names.
    fn tree(&self, entry: &Entry) -> Result<u32> {
        self.trees.get(&entry.object).copied().ok_or_else(|| {
            let reason = format!("directory {:?} names a tree that is not in it", entry.name);
            RepoError::corrupt(format!("the manifest of {}", self.source), reason).into()
        })
    }

    fn entry(&self, tree: u32, name: &str) -> Option<&Entry> {
        self.manifest.trees.get(tree as usize)?.get(name)
    }
}

impl<'a> MergedDir<'a> {
    /// The item of this name, if there is one.
    pub fn get(&self, name: &str) -> Result<Option<Item<'a>>> {
        let entries = self.parts.iter().map(|&(layer, tree)| (layer, self.merged.part(layer).entry(tree, name)));
        self.item(entries.filter_map(|(layer, entry)| Some((layer, entry?))))
    }

    /// Everything in it, by name.
    pub fn items(&self) -> Result<Vec<Item<'a>>> {
        let mut names: BTreeMap<&'a str, Vec<(u32, &'a Entry)>> = BTreeMap::new();
        for &(layer, tree) in &self.parts {
            let tree = self.merged.part(layer).manifest.trees.get(tree as usize);
            for entry in tree.iter().flat_map(|tree| &tree.entries) {
                names.entry(&entry.name).or_default().push((layer, entry));
            }
        }
        let items = names.into_values().map(|entries| self.item(entries.into_iter()));
        items.filter_map(Result::transpose).collect()
    }

    /// Everything in it: directories first, each group by name.
    pub fn in_path_order(&self) -> Result<Vec<Item<'a>>> {
        let mut items = self.items()?;
        items.sort_by_key(|item| item.dir.is_none());
        Ok(items)
    }

    /// The digests of the trees that make it up; equal lists mean equal content.
    pub(crate) fn identity(&self) -> Vec<Digest> {
        let digests = self.parts.iter().map(|&(layer, tree)| self.merged.part(layer).digests.get(tree as usize));
        digests.flatten().copied().collect()
    }

    /// Bytes of all files below it, each path counted.
    pub fn size(&self) -> Result<u64> {
        let mut pending = vec![self.clone()];
        let (mut total, mut steps) = (0u64, Steps::default());
        while let Some(dir) = pending.pop() {
            for item in dir.items()? {
                steps.step()?;
                match item.dir {
                    Some(inner) => pending.push(inner),
                    None => total = total.saturating_add(item.entry.size),
                }
            }
        }
        Ok(total)
    }

    /// Merges the entries of one name, topmost first.
    fn item(&self, mut entries: impl Iterator<Item = (u32, &'a Entry)>) -> Result<Option<Item<'a>>> {
        let Some((layer, entry)) = entries.next() else { return Ok(None) };
        let source = self.merged.part(layer).source;
        match entry.kind {
            EntryKind::Mask => Ok(None),
            EntryKind::Blob => Ok(Some(Item { entry, dir: None, source })),
            EntryKind::Tree => {
                let mut parts = vec![(layer, self.merged.part(layer).tree(entry)?)];
                for (layer, below) in entries.take_while(|(_, below)| below.kind == EntryKind::Tree) {
                    parts.push((layer, self.merged.part(layer).tree(below)?));
                }
                Ok(Some(Item { entry, dir: Some(MergedDir { merged: self.merged, parts }), source }))
            }
        }
    }
}

impl Merged {
    fn part(&self, layer: u32) -> &Part {
        &self.layers[layer as usize]
    }
}

/// Counts the paths of a walk, and ends it where no honest tree goes on: a few kilobytes of trees that name each other
/// twice make more paths than there are atoms.
#[derive(Default)]
pub(crate) struct Steps(u64);

impl Steps {
    /// One more path.
    pub fn step(&mut self) -> Result<()> {
        self.0 += 1;
        if self.0 > MAX_PATHS {
            return Err(RepoError::corrupt("the tree", format!("it has more than {MAX_PATHS} paths")).into());
        }
        Ok(())
    }
}

/// Visits every path of one manifest, masks included: parents before children, directories before the rest.
pub fn walk_manifest(manifest: &Manifest, mut visit: impl FnMut(&str, &Entry)) -> Result<()> {
    let trees: HashMap<Digest, &spfs_repo::Tree> = manifest.trees.iter().map(|tree| (tree.digest(), tree)).collect();
    let in_order = |tree: &'_ spfs_repo::Tree| {
        let mut order: Vec<usize> = (0..tree.entries.len()).collect();
        order.sort_by_key(|&i| (tree.entries[i].kind != EntryKind::Tree, &tree.entries[i].name));
        order
    };
    let (mut path, mut steps) = (String::new(), Steps::default());
    let Some(root) = manifest.trees.first() else { return Ok(()) };
    let mut pending: Vec<(usize, &Entry)> = in_order(root).into_iter().rev().map(|i| (0, &root.entries[i])).collect();
    while let Some((parent_len, entry)) = pending.pop() {
        steps.step()?;
        path.truncate(parent_len);
        if !path.is_empty() {
            path.push('/');
        }
        path.push_str(&entry.name);
        visit(&path, entry);
        if entry.kind == EntryKind::Tree {
            let tree = trees.get(&entry.object).ok_or_else(|| {
                RepoError::corrupt("the manifest", format!("directory {path:?} names a tree that is not in it"))
            })?;
            pending.extend(in_order(tree).into_iter().rev().map(|i| (path.len(), &tree.entries[i])));
        }
    }
    Ok(())
}

/// Reads an object that must be a manifest.
pub fn read_manifest(repository: &dyn Repository, digest: &Digest) -> Result<Manifest> {
    let object = repository.read_object(digest)?;
    match object.body {
        ObjectBody::Manifest(manifest) => Ok(manifest),
        _ => Err(wrong_kind(digest, object.kind().name(), "manifest")),
    }
}

fn wrong_kind(digest: &Digest, found: &'static str, wanted: &'static str) -> Error {
    RepoError::WrongKind { digest: *digest, found, wanted }.into()
}

/// The path below /spfs that `path` means: `/spfs/a/b`, `/a/b` and `a//./b` are all `a/b`; `""` is /spfs itself.
pub fn relative(path: &str) -> Result<String> {
    let below = match path.strip_prefix("/spfs") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
        _ => path,
    };
    let names: Vec<&str> = below.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
    if names.contains(&"..") {
        return Err(Error::invalid("path", path, "'..' has no meaning in a stored tree"));
    }
    Ok(names.join("/"))
}
