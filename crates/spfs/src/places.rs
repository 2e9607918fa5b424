//! Mount points for live layers: the empty files and directories that a view needs where it has none.

use std::path::Path;

use spfs_mount::view::{self, NodeKind, ROOT, View};
use spfs_repo::manifest::{Dir, Node};
use spfs_repo::{Digest, Hasher};

use crate::error::{Error, Result};
use crate::live::LiveBind;

/// The cache key of a view with mount points for `live`, over the view called `base`.
///
/// Errors: a source that is gone.
pub(crate) fn key(base: &str, live: &[LiveBind]) -> Result<String> {
    let mut hasher = Hasher::new();
    hasher.update(b"places");
    hasher.update(base.as_bytes());
    for bind in live {
        hasher.update(if is_dir(bind)? { b"d" } else { b"f" });
        hasher.update(bind.dest.as_os_str().as_encoded_bytes());
        hasher.update(&[0]);
    }
    Ok(hasher.finish().short(spfs_repo::digest::SIGNIFICANT_LEN))
}

/// A view to merge over `base`, which adds the mount points that are missing; `None` if none is.
pub(crate) fn view(base: &View, live: &[LiveBind]) -> Result<Option<View>> {
    let mut root = Dir::default();
    let mut missing = false;
    for (number, bind) in live.iter().enumerate() {
        // Below an earlier one the mount point is on the host.
        if !live[..number].iter().any(|earlier| bind.dest.starts_with(&earlier.dest)) {
            missing |= add(&mut root, base, bind)?;
        }
    }
    if !missing {
        return Ok(None);
    }
    let no_symlinks = |digest: &Digest| Err(spfs_repo::Error::MissingPayload(*digest));
    Ok(Some(View::from_bytes(view::build(&root, no_symlinks)?)?))
}

/// Adds the mount point of `bind` with all directories above it; those that `base` has keep their modes. Whether
/// anything of it was missing.
fn add(root: &mut Dir, base: &View, bind: &LiveBind) -> Result<bool> {
    let wrong = |reason: &str| Error::invalid("live layer", bind.dest.display().to_string(), reason);
    let wants_dir = is_dir(bind)?;
    let names: Option<Vec<&str>> = bind.dest.iter().map(|name| name.to_str()).collect();
    let names = names.ok_or_else(|| wrong("it is not UTF-8"))?;
    let (mut dir, mut at, mut missing) = (root, Some(ROOT), false);
    for (number, name) in names.iter().enumerate() {
        at = at.and_then(|id| base.lookup(id, name.as_bytes()));
        let there = at.and_then(|id| base.node(id));
        if number + 1 == names.len() && !wants_dir {
            // A symlink there would be followed, and a directory cannot hold a file.
            if there.is_none_or(|node| node.kind != NodeKind::File) {
                let node = Node::Blob { digest: Digest::of(b""), mode: 0o100_644, size: 0 };
                dir.entries.insert((*name).to_owned(), node);
                missing = true;
            }
            break;
        }
        let mode = there.filter(|node| node.is_directory()).map(|node| node.mode);
        missing |= mode.is_none();
        if mode.is_none() {
            at = None;
        }
        let new = Node::Dir { mode: mode.unwrap_or(0o040_755), dir: Dir::default() };
        match dir.entries.entry((*name).to_owned()).or_insert(new) {
            Node::Dir { dir: inner, .. } => dir = inner,
            _ => return Err(wrong("a file is mounted where a directory is wanted")),
        }
    }
    Ok(missing)
}

fn is_dir(bind: &LiveBind) -> Result<bool> {
    let path: &Path = &bind.src;
    Ok(std::fs::metadata(path).map_err(Error::io("find the live source", path))?.is_dir())
}
