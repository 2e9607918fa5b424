//! A home directory with a repository, for this crate's tests.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use spfs_repo::manifest::{Dir, Node};
use spfs_repo::{Annotation, AnnotationValue, Blob, Digest, Layer, Manifest, Object, ObjectBody, Repository, Tag};

use crate::{Config, Env, Spfs};

/// A home directory that goes when this is dropped, and an spfs that lives in it.
pub(crate) struct Home {
    pub dir: tempfile::TempDir,
    pub spfs: Spfs,
}

impl Home {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::bare(dir.path());
        let config = Config::load(&env).unwrap();
        Home { spfs: Spfs::open(env, config).unwrap(), dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn object(&self, body: impl Into<ObjectBody>) -> Digest {
        let batch = self.spfs.local.begin().unwrap();
        let digest = batch.add_object(&Object::new(body)).unwrap();
        batch.finish().unwrap();
        digest
    }

    pub fn blob(&self, content: &str) -> Digest {
        let batch = self.spfs.local.begin().unwrap();
        let (payload, size) = batch.add_payload(&mut content.as_bytes(), None).unwrap();
        batch.add_object(&Object::new(Blob { payload, size })).unwrap();
        batch.finish().unwrap();
        payload
    }

    /// A layer with these paths and contents: `"a/b"` is a file, `"a/"` a directory, `"l@"` a symlink to its content,
    /// `"m!"` a mask.
    pub fn layer(&self, entries: &[(&str, &str)]) -> Digest {
        let manifest = self.object(self.manifest(entries));
        self.object(Layer { manifest: Some(manifest), annotations: Vec::new() })
    }

    pub fn manifest(&self, entries: &[(&str, &str)]) -> Manifest {
        let mut root = Dir::default();
        for (path, content) in entries {
            let mut dir = &mut root;
            let (parents, last) = path.trim_end_matches('/').rsplit_once('/').unwrap_or(("", path));
            for name in parents.split('/').filter(|name| !name.is_empty()) {
                let empty = Node::Dir { mode: 0o40755, dir: Dir::default() };
                let Node::Dir { dir: inner, .. } = dir.entries.entry(name.to_owned()).or_insert(empty) else {
                    panic!("{path}: {name} is no directory");
                };
                dir = inner;
            }
            let last = last.trim_end_matches('/');
            let blob = |mode| Node::Blob { digest: self.blob(content), mode, size: content.len() as u64 };
            let (name, node) = if path.ends_with('/') {
                (last, Node::Dir { mode: 0o40755, dir: Dir::default() })
            } else if let Some(name) = last.strip_suffix('@') {
                (name, blob(0o120777))
            } else if let Some(name) = last.strip_suffix('!') {
                (name, Node::Mask { mode: 0o20000 })
            } else {
                (last, blob(0o100644))
            };
            dir.entries.insert(name.to_owned(), node);
        }
        Manifest::from_dir(&root)
    }

    pub fn tag(&self, name: &str, target: Digest) {
        let (name, user) = (name.parse().unwrap(), self.spfs.user());
        let tag = Tag { name, target, parent: Digest::NULL, user, time: self.spfs.env.now() };
        self.spfs.local.push_tag(&tag).unwrap();
    }
}

pub(crate) fn note(key: &str, value: &str) -> Annotation {
    Annotation { key: key.to_owned(), value: AnnotationValue::Text(value.to_owned()) }
}

/// An error with its causes, as the program prints it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
