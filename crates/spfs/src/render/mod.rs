//! Writing a stack out as real directories: into any directory, or into the repository's own `renders/`.
//!
//! A render in the repository is keyed by manifest and user, complete once it stands under its name, and safe
//! against others that make the same at the same time (`docs/format.md`, renders).

mod clean;
mod engine;
mod proxy;
mod summary;

use std::collections::HashMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use serde::Serialize;
use spfs_mount::MTIME;
use spfs_mount::view::{NodeId, NodeKind, ROOT, View};
use spfs_repo::manifest::{Dir, Node};
use spfs_repo::{Digest, Directory, Manifest, ObjectBody, Progress, Repository as _};

use crate::error::{Error, Result};
use crate::merged::Merged;
use crate::parallel;
pub use clean::{Unused, clean};
use engine::Engine;
use proxy::Proxies;
pub use summary::Summary;

/// How often a directory that others clean away is made again.
const REMADE: usize = 100;

/// How the files of a render come to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Strategy {
    /// Hard links of files that the user keeps in the repository, one for each payload and mode.
    HardLink,
    /// Hard links of the payloads themselves: no second copy, but every file has its payload's mode and owner.
    HardLinkNoProxy,
    /// Copies.
    Copy,
}

/// How to render.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// How files come to be.
    pub strategy: Strategy,
    /// Whether the target may have something in it already: links leave such files alone, copies replace them.
    pub allow_existing: bool,
    /// Threads to use; 0 for one per core.
    pub threads: usize,
    /// The login name below which the repository keeps renders and proxies.
    pub user: &'a str,
    /// Whether a payload of another user may be linked where its mode fits (`allow_payload_sharing_between_users`).
    pub share_payloads: bool,
    /// Now.
    pub now: Timestamp,
}

/// What was rendered. As JSON it is what upstream's `spfs-render` prints.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Rendered {
    /// The directories.
    #[serde(serialize_with = "crate::json_path::list::serialize")]
    pub paths_rendered: Vec<PathBuf>,
    /// What was done for them.
    pub render_summary: Summary,
}

/// Renders `layers` (**bottom-most first**) as one tree into `target`, which is made if it is missing.
///
/// A target that did not exist appears complete or not at all; one that was empty is emptied again if it fails.
pub fn to_directory(
    repository: &Directory,
    layers: &[Digest],
    target: &Path,
    options: &Options<'_>,
    progress: &dyn Progress,
) -> Result<Rendered> {
    let merged = Merged::read(repository, layers)?;
    let proxies = Proxies::new(repository, options)?;
    let engine = Engine::new(repository, &merged, options, proxies.as_ref(), progress);
    let target = std::path::absolute(target).map_err(Error::io("find", target))?;
    match fs::read_dir(&target) {
        Ok(mut entries) => {
            let empty = entries.next().is_none();
            if !empty && !options.allow_existing {
                return Err(not_empty(&target));
            }
            let filled = engine.fill(&open_dir(&target)?, &target);
            if filled.is_err() && empty {
                empty_again(&target);
            }
            filled?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let parent = target.parent().unwrap_or(Path::new("/"));
            fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
            clean::sweep_beside(parent, options.now);
            let work = parent.join(clean::work_name_beside());
            fs::create_dir(&work).map_err(Error::io("create", &work))?;
            if !publish_or_remove(&engine, &work, &target)? {
                return Err(not_empty(&target));
            }
        }
        Err(error) => return Err(Error::io("read", &target)(error)),
    }
    Ok(Rendered { paths_rendered: vec![target], render_summary: engine.summary() })
}

fn not_empty(target: &Path) -> Error {
    Error::invalid("target directory", target.display().to_string(), "it is not empty")
}

/// Renders the tree of every one of `layers` (layers or bare manifests, **bottom-most first**) into the repository,
/// where it is not there yet. The paths are in the same order; a layer without a tree has none.
pub fn in_repository(
    repository: &Directory,
    layers: &[Digest],
    options: &Options<'_>,
    progress: &dyn Progress,
) -> Result<Rendered> {
    let base = user_dir(repository, options.user)?;
    clean::sweep(&base, options.now);
    let proxies = Proxies::new(repository, options)?;
    let mut rendered = Rendered { paths_rendered: Vec::new(), render_summary: Summary::default() };
    for layer in layers {
        let manifest = match repository.read_object(layer)?.body {
            ObjectBody::Manifest(_) => *layer,
            ObjectBody::Layer(object) => match object.manifest {
                Some(manifest) => manifest,
                None => continue,
            },
            _ => return Err(Error::invalid("layer", layer.to_string(), "it is neither a layer nor a manifest")),
        };
        let path = base.join(split(&manifest));
        if !path.is_dir() {
            let merged = Merged::read(repository, &[manifest])?;
            let engine = Engine::new(repository, &merged, options, proxies.as_ref(), progress);
            make_one(repository, &engine, &base, &path)?;
            rendered.render_summary.add(&engine.summary());
        }
        if !rendered.paths_rendered.contains(&path) {
            rendered.paths_rendered.push(path);
        }
    }
    Ok(rendered)
}

/// Where the render of `view` is, or would be: `<repository>/renders/<user>/<2>/<54>` of the digest of the view itself,
/// which is no manifest's.
pub fn view_path(repository: &Directory, user: &str, view: &View) -> Result<PathBuf> {
    Ok(user_dir(repository, user)?.join(split(&view.identity())))
}

/// Renders `view` into the repository, at its `path`, where it is not there yet. All that is made has the time that
/// runtimes show.
pub fn of_view(
    repository: &Directory,
    view: &View,
    path: &Path,
    options: &Options<'_>,
    progress: &dyn Progress,
) -> Result<()> {
    let base = user_dir(repository, options.user)?;
    clean::sweep(&base, options.now);
    let proxies = Proxies::new(repository, options)?;
    let merged = Merged::single(manifest(view)?, view.identity());
    let engine = Engine::new(repository, &merged, options, proxies.as_ref(), progress).with_time(MTIME);
    make_one(repository, &engine, &base, path)
}

/// The tree of a view as a manifest.
fn manifest(view: &View) -> Result<Manifest> {
    // Children have greater numbers than their parents: from the end, every directory is complete when it is met.
    let mut dirs: HashMap<NodeId, Dir> = HashMap::new();
    for id in (1..view.len()).rev() {
        let Some(node) = view.node(id) else { continue };
        let name = String::from_utf8_lossy(view.name(id)).into_owned();
        let entry = match node.kind {
            NodeKind::Directory { .. } => Node::Dir { mode: node.mode, dir: dirs.remove(&id).unwrap_or_default() },
            NodeKind::File | NodeKind::Symlink => {
                let digest = view.digest(id).unwrap_or(Digest::NULL);
                Node::Blob { digest, mode: node.mode, size: node.size }
            }
            NodeKind::Mask => continue,
        };
        dirs.entry(node.parent).or_default().entries.insert(name, entry);
    }
    Ok(Manifest::from_dir(&dirs.remove(&ROOT).unwrap_or_default()))
}

/// Makes one render in the repository, whose work directory is below `base`.
fn make_one(repository: &Directory, engine: &Engine<'_>, base: &Path, path: &Path) -> Result<()> {
    let work = base.join("work").join(clean::work_name());
    make_dirs(repository, &work)?;
    if let Some(parent) = path.parent() {
        make_dirs(repository, parent)?;
    }
    // Somebody else's equal render is as good.
    publish_or_remove(engine, &work, path).map(drop)
}

/// Fills `work` and gives it its name; whether that was still free. If not, or if that fails, `work` is gone afterwards.
fn publish_or_remove(engine: &Engine<'_>, work: &Path, path: &Path) -> Result<bool> {
    let result = publish(engine, work, path);
    if !matches!(result, Ok(true)) {
        remove_tree(work);
    }
    result
}

fn publish(engine: &Engine<'_>, work: &Path, path: &Path) -> Result<bool> {
    // Who cleans leaves it alone while this is open.
    let dir = clean::hold(work)?;
    engine.fill(&dir, work)?;
    // A render that exists is taken for complete: its files must be on disk before its name is.
    rustix::fs::syncfs(&dir).map_err(Error::io("write to disk", work))?;
    engine.publish_proxies()?;
    match in_its_directory(path, || rustix::fs::rename(work, path))? {
        Ok(()) => Ok(true),
        Err(Errno::EXIST | Errno::NOTEMPTY) if path.is_dir() => Ok(false),
        Err(error) => Err(Error::io("rename to", path)(error)),
    }
}

/// Does `make`, which makes `path`, and makes the directory of that again as often as it is missing: `spfs clean` removes
/// one that it finds empty, and may do so at any moment.
fn in_its_directory(path: &Path, mut make: impl FnMut() -> Result<(), Errno>) -> Result<Result<(), Errno>> {
    for _ in 0..REMADE {
        match (make(), path.parent()) {
            (Err(Errno::NOENT), Some(parent)) => match fs::create_dir_all(parent) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("create", parent)(error));
                }
                _ => {}
            },
            (other, _) => return Ok(other),
        }
    }
    Ok(make())
}

/// `<repository>/renders/<user>`.
fn user_dir(repository: &Directory, user: &str) -> Result<PathBuf> {
    if user.is_empty() || user.starts_with('.') || user.contains(['/', '\0']) {
        return Err(Error::invalid("user name", user, "it cannot be the name of a directory"));
    }
    Ok(repository.root().join("renders").join(user))
}

/// `<2>/<54>` of a digest's text.
fn split(digest: &Digest) -> PathBuf {
    let text = digest.to_string();
    let (first, rest) = text.split_at(2);
    Path::new(first).join(rest)
}

/// Makes a directory and what is missing above it, with the modes of the repository's own directories.
pub(crate) fn make_dirs(repository: &Directory, path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_dirs(repository, parent)?;
    }
    let mode = Mode::from_raw_mode(if repository.is_shared() { 0o777 } else { 0o755 });
    match rustix::fs::mkdir(path, mode) {
        // The umask may have taken something away.
        Ok(()) => rustix::fs::chmod(path, mode).map_err(Error::io("set the mode of", path)),
        Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(Error::io("create", path)(error)),
    }
}

fn open_dir(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(Error::io("open", path))
}

/// Removes what is in a directory, as far as that can be done.
fn empty_again(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => remove_tree(&entry.path()),
            _ => drop(fs::remove_file(entry.path())),
        }
    }
}

/// Removes a directory with everything in it, as far as that can be done: it is only called when something else has
/// failed already, or somebody else was first.
fn remove_tree(path: &Path) {
    let mut pending = vec![path.to_owned()];
    while let Some(dir) = pending.pop() {
        // Rendered directories may be closed even to their owner.
        let _ = rustix::fs::chmod(&dir, Mode::RWXU);
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                pending.push(entry.path());
            }
        }
    }
    let _ = fs::remove_dir_all(path);
}

/// The number of threads to use.
fn threads(options: &Options<'_>) -> usize {
    if options.threads == 0 { parallel::cores() } else { options.threads }
}
