//! What is here only in part: environments whose files stay in a remote until they are first opened.
//!
//! Present means complete, so what is known of them must not stand among the objects of the repository. Their
//! platforms, layers and manifests are kept apart, in `<repository>/partial`, a repository of its own in which the same
//! holds but for blobs: an object there has all layers and manifests below it there too. Nothing but [`Spfs::shown`]
//! looks into it, so for `push`, `check`, tags and everything else that asks what is here, it is not here.
//!
//! Payloads and their blobs go into the repository itself, one by one as they come: they refer to nothing, so each is
//! complete. Symlinks and long annotations come at once, because a view is made of them. When all is here, or when
//! something is to refer to it, [`complete`] makes it an ordinary part of the repository.

mod clean;
mod fetcher;
mod uses;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use spfs_mount::view::NodeKind;
use spfs_repo::{
    Batch, Chain, Digest, Directory, Entry, EntryKind, Error as RepoError, Manifest, NoProgress, Object, ObjectBody,
    Progress, Repository,
};

use crate::error::Result;
use crate::runtime::Record;
use crate::sync::{self, Options, Policy, Wanted};
use crate::{Spfs, parallel, remotes, views};

pub use clean::{Unused, clean};
pub use fetcher::{Fetcher, network_descriptors};
pub use uses::{Gate, Use};

/// Objects that are read at the same time.
const THREADS: usize = 4;
/// Platforms within platforms, at most.
const DEEPEST: usize = 256;

/// Brings the objects of `root` without the files. Whether that was done: `false` if `root`, or every file of it, is
/// here already, and when everything was asked to be looked at; then it is to be brought whole.
pub fn bring(
    spfs: &Spfs,
    remote: &dyn Repository,
    root: &Digest,
    options: &Options,
    progress: &dyn Progress,
) -> Result<bool> {
    if options.policy >= Policy::Check || spfs.local.missing(&[*root])?.is_empty() {
        return Ok(false);
    }
    let partial = spfs.local.make_partial()?;
    spfs.gate.enter(&partial);
    if partial.missing(&[*root])?.is_empty() {
        return Ok(true);
    }
    let batch = partial.begin()?;
    let mut walk = Walk::new(spfs, remote, &partial, &*batch);
    walk.down_from(root, progress)?;
    if !walk.lacks_files {
        return Ok(false);
    }
    walk.add_small(root)?;
    let plan = sync::plan_blobs(&spfs.local, &walk.blobs)?;
    sync::apply(remote, &spfs.local, &plan, options, progress)?;
    batch.finish()?;
    Ok(true)
}

/// A repository, and behind it the objects of what is there in part.
pub(crate) fn with_partial(repository: &Directory) -> Result<Arc<dyn Repository>> {
    let whole = Arc::new(repository.clone());
    Ok(match repository.partial()? {
        Some(partial) => Arc::new(Chain::new(whole, vec![Arc::new(partial)])),
        None => whole,
    })
}

/// What lazy runtimes show of what is in `repository` in part: roots for cleaning.
pub fn roots(spfs: &Spfs, repository: &Directory) -> Result<Vec<Digest>> {
    repository.partial()?.map_or(Ok(Vec::new()), |partial| uses::needed(&partial, &spfs.env.hostname, false))
}

/// Whether the objects of `root` are here, kept apart.
pub fn is_here(spfs: &Spfs, root: &Digest) -> bool {
    let partial = spfs.local.partial().ok().flatten();
    partial.is_some_and(|partial| {
        spfs.gate.enter(&partial);
        partial.missing(&[*root]).is_ok_and(|missing| missing.is_empty())
    })
}

/// Notes that the runtime of `record` uses what is here in part, if it is lazy. What of it is not here any more is
/// brought again.
pub fn hold(spfs: &Spfs, record: &Record) -> Result<Option<Use>> {
    if record.config.lazy.is_empty() {
        spfs.gate.leave();
        return Ok(None);
    }
    let partial = spfs.local.make_partial()?;
    spfs.gate.enter(&partial);
    for root in partial.missing(&spfs.local.missing(&record.status.base)?)? {
        bring_again(spfs, &record.config.lazy, &root)?;
    }
    let noted = Use::note(&partial, record);
    spfs.gate.leave();
    // Where nothing can be written nobody cleans.
    Ok(noted.ok())
}

/// Brings `root` once more, from one of `remotes`.
fn bring_again(spfs: &Spfs, remotes: &[String], root: &Digest) -> Result<()> {
    let mut trouble = None;
    for name in remotes {
        let brought = remotes::open(spfs, Some(name))
            .and_then(|remote| bring(spfs, &*remote, root, &Options::default(), &NoProgress));
        match brought {
            Ok(true) => return Ok(()),
            // Its files are all here.
            Ok(false) => return complete(spfs, remotes, &[*root], &NoProgress),
            Err(error) => trouble = trouble.or(Some(error)),
        }
    }
    trouble.map_or(Ok(()), Err)
}

/// What a remote that was found under `name` is called in a runtime's record: good from every directory.
pub fn name(spfs: &Spfs, name: &str, remote: &dyn Repository) -> String {
    if spfs.config.remotes.contains_key(name) { name.to_owned() } else { remote.address() }
}

/// One walk over what is to be known of an environment.
struct Walk<'a> {
    spfs: &'a Spfs,
    remote: &'a dyn Repository,
    partial: &'a Directory,
    batch: &'a dyn Batch,
    /// Platforms and layers; manifests go into the batch as they come.
    small: HashMap<Digest, Object>,
    /// What is needed before any file is opened.
    blobs: Vec<(Digest, u64)>,
    lacks_files: bool,
}

impl<'a> Walk<'a> {
    fn new(spfs: &'a Spfs, remote: &'a dyn Repository, partial: &'a Directory, batch: &'a dyn Batch) -> Self {
        Walk { spfs, remote, partial, batch, small: HashMap::new(), blobs: Vec::new(), lacks_files: false }
    }

    /// Reads level after level.
    fn down_from(&mut self, root: &Digest, progress: &dyn Progress) -> Result<()> {
        let mut seen = HashSet::from([*root]);
        let mut level = vec![*root];
        for _ in 0..DEEPEST {
            level = self.partial.missing(&level)?;
            if level.is_empty() {
                return Ok(());
            }
            progress.expect(level.len() as u64, 0);
            let (spfs, remote) = (self.spfs, self.remote);
            let read = |at: usize| read(spfs, remote, &level[at]);
            let mut next = Vec::new();
            parallel::each(THREADS, level.len(), read, |at, object| -> Result<()> {
                if progress.interrupted() {
                    return Err(RepoError::Interrupted.into());
                }
                progress.advance(1, 0);
                next.extend(self.take(level[at], object?)?);
                Ok(())
            })?;
            next.retain(|digest| seen.insert(*digest));
            level = next;
        }
        Err(RepoError::corrupt("the stack", format!("platforms are nested more than {DEEPEST} deep")).into())
    }

    /// Keeps what is needed of an object; the layers and manifests that come next.
    fn take(&mut self, digest: Digest, object: Object) -> Result<Vec<Digest>> {
        let next = match &object.body {
            ObjectBody::Blob(_) => return Ok(Vec::new()),
            ObjectBody::Manifest(manifest) => {
                self.blobs.extend(symlinks(manifest));
                self.lacks_files = self.lacks_files || lacks(&self.spfs.local, &manifest.blobs())?;
                self.batch.add_object(&object)?;
                return Ok(Vec::new());
            }
            ObjectBody::Layer(layer) => {
                for child in layer.children().iter().filter(|child| layer.manifest.as_ref() != Some(child)) {
                    if let ObjectBody::Blob(blob) = read(self.spfs, self.remote, child)?.body {
                        self.blobs.push((blob.payload, blob.size));
                    }
                }
                layer.manifest.into_iter().collect()
            }
            ObjectBody::Platform(_) => object.children(),
        };
        self.small.insert(digest, object);
        Ok(next)
    }

    /// Puts platforms and layers into the batch, children first.
    fn add_small(&self, root: &Digest) -> Result<()> {
        let mut done = HashSet::new();
        let mut steps = vec![(*root, false)];
        while let Some((digest, children_done)) = steps.pop() {
            let Some(object) = self.small.get(&digest) else { continue };
            if children_done {
                self.batch.add_object(object)?;
            } else if done.insert(digest) {
                steps.push((digest, true));
                steps.extend(object.children().into_iter().map(|child| (child, false)));
            }
        }
        Ok(())
    }
}

/// An object from here if it is, else from the remote.
fn read(spfs: &Spfs, remote: &dyn Repository, digest: &Digest) -> Result<Object> {
    match spfs.local.read_object(digest) {
        Err(error) if error.is_unknown() => Ok(sync::again(|| sync::read_verified(remote, digest))?),
        other => Ok(other?),
    }
}

fn symlinks(manifest: &Manifest) -> Vec<(Digest, u64)> {
    let entries = manifest.trees.iter().flat_map(|tree| &tree.entries);
    let is_link = |entry: &&Entry| entry.kind == EntryKind::Blob && entry.is_symlink();
    entries.filter(is_link).map(|entry| (entry.object, entry.size)).collect()
}

/// Whether any of these payloads is not here.
fn lacks(local: &Directory, payloads: &[Digest]) -> Result<bool> {
    for some in payloads.chunks(1000) {
        if !local.missing_payloads(some)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Makes `objects` whole, so that others may refer to them: brings what is not here from `remotes`.
///
/// Errors: what is missing, or why a remote could not be asked.
pub fn complete(spfs: &Spfs, remotes: &[String], objects: &[Digest], progress: &dyn Progress) -> Result<()> {
    let missing = spfs.local.missing(objects)?;
    if missing.is_empty() || remotes.is_empty() {
        return Ok(());
    }
    let (mut behind, mut trouble): (Vec<Arc<dyn Repository>>, _) = (Vec::new(), None);
    behind.extend(spfs.local.partial()?.map(|partial| Arc::new(partial) as Arc<dyn Repository>));
    for name in remotes {
        match remotes::open(spfs, Some(name)) {
            Ok(remote) => behind.push(remote),
            Err(error) => trouble = trouble.or(Some(error)),
        }
    }
    let source = Chain::new(Arc::new(spfs.local.clone()), behind);
    let wanted: Vec<Wanted> = missing.into_iter().map(|digest| Wanted { digest, tag: None }).collect();
    let options = Options::default();
    let moved = sync::plan(&source, &spfs.local, &wanted, &options, progress)
        .and_then(|plan| sync::apply(&source, &spfs.local, &plan, &options, progress));
    moved.map_err(|error| trouble.unwrap_or(error))
}

/// Brings these payloads (with their sizes), as far as they are not here.
pub fn bring_payloads(
    spfs: &Spfs,
    remotes: &[String],
    payloads: &[(Digest, u64)],
    progress: &dyn Progress,
) -> Result<()> {
    let plan = sync::plan_blobs(&spfs.local, payloads)?;
    if plan.is_empty() {
        return Ok(());
    }
    let mut trouble = None;
    for name in remotes {
        let moved = remotes::open(spfs, Some(name))
            .and_then(|remote| sync::apply(&*remote, &spfs.local, &plan, &Options::default(), progress));
        match moved {
            Ok(()) => return Ok(()),
            Err(error) => trouble = trouble.or(Some(error)),
        }
    }
    trouble.map_or(Ok(()), Err)
}

/// How much of a runtime's files is here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Here {
    /// Different payloads that it shows.
    pub payloads: u64,
    /// Those of them that are here.
    pub payloads_here: u64,
    /// Bytes of all.
    pub bytes: u64,
    /// Bytes of those that are here.
    pub bytes_here: u64,
}

/// Counts what is here of what the runtime of `record` shows. One `stat` for each payload.
pub fn here(spfs: &Spfs, record: &Record) -> Result<Here> {
    let bottom_up: Vec<Digest> = record.status.base.iter().rev().copied().collect();
    let view = views::merged(spfs, &bottom_up, &record.config.live_layers)?.view;
    let mut sizes: HashMap<Digest, u64> = HashMap::new();
    for id in 0..view.len() {
        let file = view.node(id).filter(|node| node.kind == NodeKind::File && node.size > 0);
        sizes.extend(view.digest(id).zip(file.map(|node| node.size)));
    }
    let digests: Vec<Digest> = sizes.keys().copied().collect();
    let missing = spfs.local.missing_payloads(&digests)?;
    let bytes: u64 = sizes.values().sum();
    let away: u64 = missing.iter().filter_map(|digest| sizes.get(digest)).sum();
    let payloads = sizes.len() as u64;
    let payloads_here = payloads - missing.len() as u64;
    Ok(Here { payloads, payloads_here, bytes, bytes_here: bytes - away })
}

/// The last lines that the fetching for a runtime has logged, if there was trouble.
pub fn last_trouble(runtime: &Path) -> Vec<String> {
    const LAST: usize = 3;
    let text = std::fs::read_to_string(fetcher::log_path(runtime)).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST)..].iter().map(|line| (*line).to_owned()).collect()
}
