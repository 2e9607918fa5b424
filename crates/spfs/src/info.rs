//! What an object is, what it holds, and where a file of a runtime comes from.

use serde::Serialize;
use spfs_repo::{Annotation, AnnotationValue, Digest, EntryKind, ObjectBody, Repository};

use crate::diff::Change;
use crate::error::Result;
use crate::files::Content;
use crate::merged::{self, Merged};
use crate::names::{Named, Names};
use crate::spfs::Spfs;
use crate::{runtime, stack};

/// The runtime around the caller, as data.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ActiveRuntime {
    /// The runtime's name.
    pub name: String,
    /// Whether /spfs may be written to.
    pub editable: bool,
    /// Its stack, **topmost first**, not expanded; what was committed since it began is part of it.
    pub stack: Vec<Digest>,
    /// What differs from that stack; `None` if that was not looked at.
    pub changes: Option<Vec<Change>>,
}

/// The runtime around the caller, without its changes, which take a walk: see [`crate::diff::active`].
///
/// Errors: [`crate::Error::NoRuntime`] outside of any.
pub fn active(spfs: &Spfs) -> Result<ActiveRuntime> {
    let record = runtime::active(spfs)?.record;
    let (editable, stack) = (record.status.editable, record.status.stack);
    Ok(ActiveRuntime { name: record.name, editable, stack, changes: None })
}

/// One object, described.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Description {
    /// Its names.
    #[serde(flatten)]
    pub names: Named,
    /// What it holds.
    #[serde(flatten)]
    pub content: ObjectContent,
}

/// What an object holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum ObjectContent {
    /// A stack.
    Platform {
        /// Topmost first.
        stack: Vec<Named>,
    },
    /// A tree with notes.
    Layer {
        /// The tree, if any.
        manifest: Option<Named>,
        /// The notes, in stored order.
        annotations: Vec<Note>,
    },
    /// A directory tree.
    Manifest {
        /// The first paths of it, in path order.
        entries: Vec<PathEntry>,
        /// How many paths there are in all.
        total: u64,
        /// Bytes of all its files, each path counted.
        size: u64,
    },
    /// A file.
    Blob {
        /// Bytes.
        size: u64,
    },
}

/// One annotation. Exactly one of `value` and `blob` is there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Note {
    /// The key.
    pub key: String,
    /// The value, where it is in the layer itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The blob that holds a long value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blob: Option<Named>,
}

/// One path of a manifest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PathEntry {
    /// Relative to /spfs, without a leading slash.
    pub path: String,
    /// `tree`, `file` or `mask`.
    pub kind: &'static str,
    /// The full `st_mode`.
    pub mode: u32,
    /// Bytes of a file.
    pub size: u64,
    /// Payload of a file, tree digest of a directory, null of a mask.
    pub digest: Digest,
}

/// Describes one object. Of a manifest, at most `limit` paths are listed.
pub fn describe(names: &Names<'_>, digest: &Digest, limit: usize) -> Result<Description> {
    let object = names.repository().read_object(digest)?;
    let content = match object.body {
        ObjectBody::Blob(blob) => ObjectContent::Blob { size: blob.size },
        ObjectBody::Platform(platform) => {
            let stack = platform.stack.iter().rev().map(|item| names.name(item)).collect::<Result<_>>()?;
            ObjectContent::Platform { stack }
        }
        ObjectBody::Layer(layer) => {
            let manifest = layer.manifest.map(|manifest| names.name(&manifest)).transpose()?;
            let annotations = layer.annotations.into_iter().map(|a| note(names, a)).collect::<Result<_>>()?;
            ObjectContent::Layer { manifest, annotations }
        }
        ObjectBody::Manifest(manifest) => {
            let (mut entries, mut total, mut size) = (Vec::new(), 0, 0u64);
            merged::walk_manifest(&manifest, |path, entry| {
                total += 1;
                size = size.saturating_add(if entry.kind == EntryKind::Blob { entry.size } else { 0 });
                if entries.len() < limit {
                    let path = path.to_owned();
                    let (mode, size, digest) = (entry.mode, entry.size, entry.object);
                    entries.push(PathEntry { path, kind: kind_name(entry.kind), mode, size, digest });
                }
            })?;
            ObjectContent::Manifest { entries, total, size }
        }
    };
    Ok(Description { names: names.name(digest)?, content })
}

/// Describes an object and everything below it but files, depth first; what was seen once is not repeated.
pub fn describe_below(names: &Names<'_>, digest: &Digest, limit: usize) -> Result<Vec<Description>> {
    let mut seen = std::collections::HashSet::new();
    let mut pending = vec![*digest];
    let mut descriptions = Vec::new();
    while let Some(digest) = pending.pop() {
        if !seen.insert(digest) {
            continue;
        }
        let description = describe(names, &digest, limit)?;
        match &description.content {
            ObjectContent::Platform { stack } => pending.extend(stack.iter().rev().map(|item| item.digest)),
            ObjectContent::Layer { manifest, .. } => pending.extend(manifest.iter().map(|m| m.digest)),
            ObjectContent::Manifest { .. } | ObjectContent::Blob { .. } => {}
        }
        descriptions.push(description);
    }
    Ok(descriptions)
}

fn note(names: &Names<'_>, annotation: Annotation) -> Result<Note> {
    let (value, blob) = match annotation.value {
        AnnotationValue::Text(text) => (Some(text), None),
        AnnotationValue::Blob(digest) => (None, Some(names.name(&digest)?)),
    };
    Ok(Note { key: annotation.key, value, blob })
}

/// The word for an entry's kind, as upstream prints it.
pub const fn kind_name(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Tree => "tree",
        EntryKind::Blob => "file",
        EntryKind::Mask => "mask",
    }
}

/// Every annotation of a stack (**bottom-most first**, not expanded), each key once: the topmost layer's value wins,
/// and within a layer the last one. Sorted by key.
pub fn annotations(repository: &dyn Repository, stack: &[Digest]) -> Result<Vec<(String, String)>> {
    let mut found = std::collections::BTreeMap::new();
    for annotation in stack::members(repository, stack)?.into_iter().flat_map(|member| member.annotations) {
        found.insert(annotation.key, annotation.value);
    }
    let text = |(key, value)| Ok((key, annotation_text(repository, value)?));
    found.into_iter().map(text).collect()
}

/// The text of an annotation, wherever it is kept.
fn annotation_text(repository: &dyn Repository, value: AnnotationValue) -> Result<String> {
    let digest = match value {
        AnnotationValue::Text(text) => return Ok(text),
        AnnotationValue::Blob(digest) => digest,
    };
    let mut content = Content::open(repository, &digest)?;
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        match content.read(&mut buffer)? {
            0 => break,
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// One layer's part in a path.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Source {
    /// The layer.
    pub layer: Named,
    /// The platform of the stack that brought the layer in, if it was one.
    pub platform: Option<Named>,
    /// What the layer says about the path; a mask if it deletes it.
    pub entry: PathEntry,
}

/// Which layers have something at `path` (as [`crate::merged::relative`] makes it), topmost first. `stack` is a
/// runtime's, **topmost first** and not expanded.
pub fn sources(names: &Names<'_>, stack: &[Digest], path: &str) -> Result<Vec<Source>> {
    let repository = names.repository();
    let bottom_first: Vec<Digest> = stack.iter().rev().copied().collect();
    let layers = stack::expand(repository, &bottom_first)?;
    let merged = Merged::read(repository, &layers)?;
    let mut sources = Vec::new();
    for provider in merged.providers(path)? {
        let mut platform = None;
        for item in stack.iter().filter(|item| **item != provider.source) {
            if stack::expand(repository, &[*item])?.contains(&provider.source) {
                platform = Some(names.name(item)?);
                break;
            }
        }
        let entry = provider.entry;
        let entry = PathEntry {
            path: path.to_owned(),
            kind: kind_name(entry.kind),
            mode: entry.mode,
            size: entry.size,
            digest: entry.object,
        };
        sources.push(Source { layer: names.name(&provider.source)?, platform, entry });
    }
    Ok(sources)
}
