//! Moving what a plan says: payloads with their blobs first (`small`, `large`), then the objects, then the tags.

use spfs_repo::{Digest, Error as RepoError, Progress, Repository, Result as RepoResult};

use super::{Options, Piece, Plan, Policy, large, objects, retry, small};
use crate::error::Result;

/// Payloads on their way at the same time if nothing else is said.
pub(super) const THREADS: usize = 4;
/// From this size on, a payload on its way into a directory is gathered in a file of its own, so that it goes on where
/// it stopped.
pub(super) const LARGE: u64 = 8 << 20;

/// Does what `plan` says. The destination has all of it, safe on disk, on return; after an error or a crash what
/// arrived is kept, and nothing refers to what did not.
pub fn apply(
    source: &dyn Repository,
    destination: &dyn Repository,
    plan: &Plan,
    options: &Options,
    progress: &dyn Progress,
) -> Result<()> {
    let threads = if options.threads == 0 { THREADS } else { options.threads };
    let mover = Mover { source, destination, progress, threads, resync: plan.policy == Policy::Resync };
    progress.expect(plan.blobs.len() as u64, plan.bytes);
    let into_files = destination.as_directory();
    let is_large = |piece: &Piece| into_files.is_some() && piece.payload && piece.size >= LARGE;
    if let Some(directory) = into_files {
        let pieces: Vec<&Piece> = plan.blobs.iter().filter(|piece| is_large(piece)).collect();
        large::fetch(&mover, directory, &pieces)?;
    }
    small::fetch(&mover, &plan.blobs, &is_large)?;
    if !plan.order.is_empty() {
        progress.expect(plan.order.len() as u64, 0);
        mover.objects(&plan.order)?;
    }
    if !plan.records.is_empty() {
        retry::again(|| destination.insert_tags(&plan.records))?;
    }
    Ok(())
}

/// What all of the moving needs.
pub(super) struct Mover<'a> {
    pub source: &'a dyn Repository,
    pub destination: &'a dyn Repository,
    pub progress: &'a dyn Progress,
    pub threads: usize,
    pub resync: bool,
}

impl Mover<'_> {
    /// Ends the work if somebody asked for that.
    pub fn go_on(&self) -> RepoResult<()> {
        if self.progress.interrupted() { Err(RepoError::Interrupted) } else { Ok(()) }
    }

    /// Says where damage came from.
    pub fn blame_source(&self, error: RepoError) -> RepoError {
        match error {
            RepoError::Corrupt { what, reason } => {
                RepoError::Corrupt { what: format!("{what} from {}", self.source.address()), reason }
            }
            other => other,
        }
    }

    /// Refuses a payload of another size than promised.
    pub fn check_size(&self, piece: &Piece, size: u64) -> RepoResult<()> {
        if size == piece.size {
            return Ok(());
        }
        let size = if size > piece.size { "more".to_owned() } else { size.to_string() };
        let reason = format!("it has {size} bytes, and what refers to it says {}", piece.size);
        Err(RepoError::corrupt(format!("payload {} from {}", piece.digest, self.source.address()), reason))
    }

    /// Moves the other objects, children first.
    fn objects(&self, order: &[Digest]) -> RepoResult<()> {
        if self.resync {
            for digest in order {
                if let Err(RepoError::Corrupt { .. }) = self.destination.read_object(digest) {
                    self.destination.remove_object(digest)?;
                }
            }
        }
        let mut patience = retry::Patience::new();
        loop {
            match self.try_objects(order) {
                Err(error) if patience.wait(&error) => {}
                result => return result,
            }
        }
    }

    fn try_objects(&self, order: &[Digest]) -> RepoResult<()> {
        let batch = self.destination.begin()?;
        objects::each(self.source, order, &mut |_, object| {
            self.go_on()?;
            match object {
                // The plan has made sure that the destination has it then.
                Err(error) if error.is_unknown() => return Ok(()),
                object => batch.add_encoded(&object?)?,
            };
            self.progress.advance(1, 0);
            Ok(())
        })?;
        batch.finish()
    }
}
