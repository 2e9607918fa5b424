//! The verbs that work on repositories, over real ones in temporary directories.
#![allow(clippy::unwrap_used, missing_docs)]

mod check;
mod clean;
mod commit;
mod diff;
mod files;
mod info;
mod remotes;
mod render;
mod tags;

use std::path::PathBuf;

use spfs::repo::{
    Annotation, AnnotationValue, Blob, Digest, Dir, Directory, Layer, Manifest, Node, Object, Platform, Repository,
};
use spfs::tags::Author;
use tempfile::TempDir;

/// A repository that goes away with it.
struct Repo {
    temp: TempDir,
    dir: Directory,
}

impl std::ops::Deref for Repo {
    type Target = Directory;
    fn deref(&self) -> &Directory {
        &self.dir
    }
}

impl Repo {
    fn new() -> Repo {
        let temp = tempfile::tempdir().unwrap();
        let dir = Directory::create(temp.path().join("repo")).unwrap();
        Repo { temp, dir }
    }

    /// A path beside the repository.
    fn beside(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn add(&self, object: Object) -> Digest {
        let batch = self.begin().unwrap();
        let digest = batch.add_object(&object).unwrap();
        batch.finish().unwrap();
        digest
    }

    fn file(&self, content: &[u8]) -> Digest {
        let batch = self.begin().unwrap();
        let (payload, size) = batch.add_payload(&mut &*content, None).unwrap();
        batch.add_object(&Object::new(Blob { payload, size })).unwrap();
        batch.finish().unwrap();
        payload
    }

    fn manifest(&self, dir: &Dir) -> Digest {
        self.add(Object::new(Manifest::from_dir(dir)))
    }

    /// A layer of these files: `path`, `path -> target`, `path/`, or `!path` for a mask, each with its content.
    fn layer(&self, files: &[(&str, &str)]) -> Digest {
        let manifest = self.manifest(&self.tree(files));
        self.add(Object::new(Layer { manifest: Some(manifest), annotations: Vec::new() }))
    }

    fn note(&self, key: &str, value: &str) -> Digest {
        let annotation = Annotation { key: key.into(), value: AnnotationValue::Text(value.into()) };
        self.add(Object::new(Layer { manifest: None, annotations: vec![annotation] }))
    }

    fn platform(&self, bottom_first: &[Digest]) -> Digest {
        self.add(Object::new(Platform { stack: bottom_first.to_vec() }))
    }

    fn tag(&self, name: &str, target: &Digest) {
        spfs::tags::tag(&self.dir, target, &[name.parse().unwrap()], &author()).unwrap();
    }

    fn tree(&self, files: &[(&str, &str)]) -> Dir {
        let batch = self.begin().unwrap();
        let blob = |content: &str, mode| {
            let (payload, size) = batch.add_payload(&mut content.as_bytes(), None).unwrap();
            batch.add_object(&Object::new(Blob { payload, size })).unwrap();
            Node::Blob { digest: payload, mode, size }
        };
        let mut root = Dir::default();
        for (path, content) in files {
            let (path, node) = if let Some(path) = path.strip_prefix('!') {
                (path, Node::Mask { mode: 0o020000 })
            } else if let Some(path) = path.strip_suffix('/') {
                let mode = if content.is_empty() { 0o755 } else { u32::from_str_radix(content, 8).unwrap() };
                (path, Node::Dir { mode: 0o040000 | mode, dir: Dir::default() })
            } else if let Some((path, target)) = path.split_once(" -> ") {
                (path, blob(target, 0o120777))
            } else if let Some((mode, content)) = content.split_once(':') {
                (*path, blob(content, 0o100000 | u32::from_str_radix(mode, 8).unwrap()))
            } else {
                (*path, blob(content, 0o100644))
            };
            put(&mut root, path, node);
        }
        batch.finish().unwrap();
        root
    }
}

fn put(dir: &mut Dir, path: &str, node: Node) {
    match path.split_once('/') {
        None => drop(dir.entries.insert(path.to_owned(), node)),
        Some((first, rest)) => {
            let new = || Node::Dir { mode: 0o040755, dir: Dir::default() };
            match dir.entries.entry(first.to_owned()).or_insert_with(new) {
                Node::Dir { dir, .. } => put(dir, rest, node),
                _ => panic!("{first} is no directory"),
            }
        }
    }
}

fn author() -> Author {
    Author { user: "me@host".into(), time: "2026-11-23T01:02:03.456789Z".parse().unwrap() }
}
