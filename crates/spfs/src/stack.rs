//! Stacks: what an environment is made of, bottom-most first, and the layers in it.

use std::collections::HashSet;

use spfs_repo::{Annotation, Digest, Kind, ObjectBody, Repository};

use crate::error::{Result, Warning};
use crate::live::LiveBind;

/// What an environment spec means: objects, and files and directories of the host.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stack {
    /// Layers, platforms and manifests as they were named, bottom-most first; none twice.
    pub digests: Vec<Digest>,
    /// What is mounted over them, in order.
    pub live: Vec<LiveBind>,
    /// What a person should hear of.
    pub warnings: Vec<Warning>,
    /// What was done on the way, for people: what was fetched from where.
    pub remarks: Vec<String>,
    /// The remotes that have what is here only in part: from them it is fetched when it is first opened.
    pub lazy: Vec<String>,
}

impl Stack {
    /// Puts `digest` on top. One that is in the stack already moves up.
    pub fn push(&mut self, digest: Digest) {
        push(&mut self.digests, digest);
    }
}

/// Puts `digest` on top of `stack` (bottom-most first). One that is there already moves up.
pub fn push(stack: &mut Vec<Digest>, digest: Digest) {
    stack.retain(|other| *other != digest);
    stack.push(digest);
}

/// One layer of a stack, or a bare manifest, which counts as one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// The layer, or the manifest itself.
    pub digest: Digest,
    /// Its tree; `None` for a layer of annotations only.
    pub manifest: Option<Digest>,
    /// Its notes, in stored order.
    pub annotations: Vec<Annotation>,
}

/// Every layer in `stack` (bottom-most first), platforms taken apart, bottom-most first; none twice.
///
/// Errors: a blob in the stack is [`spfs_repo::Error::WrongKind`]; an object that is not there.
pub fn members(repository: &dyn Repository, stack: &[Digest]) -> Result<Vec<Member>> {
    let mut members = Vec::new();
    // What stands here a second time, a whole platform included, would only repeat what is below already. That also
    // ends platforms that contain themselves, which only a damaged repository could have.
    let mut seen = HashSet::new();
    let mut ahead: Vec<Digest> = stack.iter().rev().copied().collect();
    while let Some(digest) = ahead.pop() {
        if !seen.insert(digest) {
            continue;
        }
        match repository.read_object(&digest)?.body {
            ObjectBody::Platform(platform) => ahead.extend(platform.stack.iter().rev()),
            ObjectBody::Layer(layer) => {
                members.push(Member { digest, manifest: layer.manifest, annotations: layer.annotations });
            }
            ObjectBody::Manifest(_) => {
                members.push(Member { digest, manifest: Some(digest), annotations: Vec::new() });
            }
            ObjectBody::Blob(_) => return Err(wrong_kind(digest)),
        }
    }
    Ok(members)
}

/// The layers of `stack` that show something different, bottom-most first: of those with the same tree only the
/// bottom-most (`docs/format.md`, stacks). Layers of annotations only are kept.
pub fn expand(repository: &dyn Repository, stack: &[Digest]) -> Result<Vec<Digest>> {
    let mut trees = HashSet::new();
    let mut members = members(repository, stack)?;
    members.retain(|member| member.manifest.is_none_or(|manifest| trees.insert(manifest)));
    Ok(members.into_iter().map(|member| member.digest).collect())
}

/// The different trees of `stack`, bottom-most first: what its merged view depends on, and nothing else.
pub fn manifests(repository: &dyn Repository, stack: &[Digest]) -> Result<Vec<Digest>> {
    let mut seen = HashSet::new();
    let trees = members(repository, stack)?.into_iter().filter_map(|member| member.manifest);
    Ok(trees.filter(|manifest| seen.insert(*manifest)).collect())
}

/// The error for a blob where a layer is wanted.
pub(crate) fn wrong_kind(digest: Digest) -> crate::Error {
    let (found, wanted) = (Kind::Blob.name(), "layer or platform");
    spfs_repo::Error::WrongKind { digest, found, wanted }.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use spfs_repo::{Layer, Object, Platform};

    use super::*;
    use crate::testing::{Home, note};

    fn digest(n: u8) -> Digest {
        Digest::from_bytes([n; 32])
    }

    #[test]
    fn pushing_again_moves_up() {
        let mut stack = Stack::default();
        for n in [1, 2, 3, 1, 3] {
            stack.push(digest(n));
        }
        assert_eq!(stack.digests, [digest(2), digest(1), digest(3)]);
    }

    #[test]
    fn platforms_are_taken_apart_and_equal_trees_kept_at_the_bottom() {
        let home = Home::new();
        let a = home.layer(&[("a", "1")]);
        let b = home.layer(&[("b", "2")]);
        let manifest_of = |layer: &Digest| manifests(&home.spfs.local, &[*layer]).unwrap()[0];
        let noted = home.object(Layer { manifest: Some(manifest_of(&a)), annotations: vec![note("k", "v")] });
        let notes = home.object(Layer { manifest: None, annotations: vec![note("x", "y")] });
        let inner = home.object(Platform { stack: vec![a, b] });
        let outer = home.object(Platform { stack: vec![notes, inner, noted] });
        let expand = |stack: &[Digest]| expand(&home.spfs.local, stack).unwrap();
        assert_eq!(expand(&[]), []);
        assert_eq!(expand(&[inner]), [a, b]);
        assert_eq!(expand(&[b, inner]), [b, a]);
        assert_eq!(expand(&[outer, inner, outer]), [notes, a, b]);
        assert_eq!(expand(&[noted, a]), [noted]);
        assert_eq!(expand(&[manifest_of(&a), b, a]), [manifest_of(&a), b]);
        assert_eq!(manifests(&home.spfs.local, &[outer]).unwrap(), [manifest_of(&a), manifest_of(&b)]);
        let all: Vec<Digest> = members(&home.spfs.local, &[outer]).unwrap().iter().map(|m| m.digest).collect();
        assert_eq!(all, [notes, a, b, noted]);
    }

    #[test]
    fn a_blob_is_no_layer_and_missing_objects_are_named() {
        let home = Home::new();
        let blob = home.blob("content");
        let error = expand(&home.spfs.local, &[blob]).unwrap_err().to_string();
        assert!(error.contains("is a blob, not a layer"), "{error}");
        let platform = home.object(Object::new(Platform { stack: vec![home.layer(&[]), blob] }).body);
        assert!(expand(&home.spfs.local, &[platform]).is_err());
        let error = expand(&home.spfs.local, &[digest(9)]).unwrap_err();
        assert!(matches!(error, crate::Error::Repo(spfs_repo::Error::UnknownObject(d)) if d == digest(9)));
    }
}
