//! Large payloads into a directory: each gathered in a file of its own until it is complete, and resumed there.

use std::io::Read;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use spfs_repo::directory::Part;
use spfs_repo::{Directory, Error as RepoError, Repository, Result as RepoResult};

use super::apply::Mover;
use super::{Piece, retry};
use crate::parallel;

/// How long to wait before looking again whether somebody else has let go.
const PAUSE: Duration = Duration::from_millis(50);

/// Fetches every one of `pieces` that is not there yet; of those that another process is fetching, waits for the end.
pub(super) fn fetch(mover: &Mover<'_>, directory: &Directory, pieces: &[&Piece]) -> RepoResult<()> {
    let later = Mutex::new(Vec::new());
    run(mover, pieces, &|piece| {
        if !one(mover, directory, piece, false)? {
            later.lock().unwrap_or_else(PoisonError::into_inner).push(piece);
        }
        Ok(())
    })?;
    let later = later.into_inner().unwrap_or_else(PoisonError::into_inner);
    run(mover, &later, &|piece| one(mover, directory, piece, true).map(drop))
}

/// Does `work` for every piece, some at a time; the first error ends it.
fn run<'p>(
    mover: &Mover<'_>,
    pieces: &[&'p Piece],
    work: &(dyn Fn(&'p Piece) -> RepoResult<()> + Sync),
) -> RepoResult<()> {
    parallel::each(mover.threads, pieces.len(), |number| work(pieces[number]), |_, result| result)
}

/// Fetches one payload. Whether that is done: without `wait` it is not if somebody else is at it.
fn one(mover: &Mover<'_>, directory: &Directory, piece: &Piece, wait: bool) -> RepoResult<bool> {
    let digest = piece.digest;
    loop {
        mover.go_on()?;
        let claims = directory.claims();
        let busy = !claims.take(&[digest])?.is_empty();
        // Whoever had it may have finished it.
        if directory.missing_payloads(&[digest])?.is_empty() {
            mover.progress.advance(0, piece.size);
            return Ok(true);
        }
        let part = if busy { None } else { directory.part(&digest)? };
        match part {
            Some(part) => return receive(mover, directory, part, piece).map(|()| true),
            None if !wait => return Ok(false),
            None => drop(claims),
        }
        std::thread::sleep(PAUSE);
    }
}

/// Gathers the rest of a payload and puts it into the repository.
fn receive(mover: &Mover<'_>, directory: &Directory, mut part: Part<'_>, piece: &Piece) -> RepoResult<()> {
    let resumed = !part.is_empty();
    if part.len() > piece.size {
        part.clear()?;
    }
    let had = part.len();
    mover.progress.advance(0, had);
    let result = fill(mover, part, piece);
    match result {
        // What an earlier process left may be damaged: after a power cut, say. Once more, from the beginning.
        Err(RepoError::Corrupt { .. }) if resumed => match directory.part(&piece.digest)? {
            Some(mut part) => {
                part.clear()?;
                fill(mover, part, piece)
            }
            None => Err(RepoError::Interrupted),
        },
        result => result,
    }
    .map_err(|error| mover.blame_source(error))
}

fn fill(mover: &Mover<'_>, mut part: Part<'_>, piece: &Piece) -> RepoResult<()> {
    let advance = |bytes| mover.progress.advance(0, bytes);
    if part.len() < piece.size {
        let content = retry::Content::open(mover.source, piece.digest, part.len(), &advance)?;
        let guarded = Interruptible { mover, inner: content };
        // One byte more than promised is enough to know that it is wrong: a stream may have no end.
        let appended = part.append(&mut guarded.take(piece.size - part.len() + 1));
        match appended {
            // A disk is not left full by what is of no use.
            Err(error) if error.is_out_of_space() => {
                part.discard();
                return Err(error);
            }
            result => result?,
        }
    }
    if part.len() != piece.size {
        let wrong = mover.check_size(piece, part.len());
        part.discard();
        return wrong;
    }
    part.keep()
}

/// Content whose reading ends when the work is to end.
struct Interruptible<'a, 'm> {
    mover: &'m Mover<'a>,
    inner: retry::Content<'m>,
}

impl Read for Interruptible<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.mover.go_on().map_err(std::io::Error::other)?;
        self.inner.read(buffer)
    }
}
