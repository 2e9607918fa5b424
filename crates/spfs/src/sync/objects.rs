//! Reading objects from the source: many in a round trip, one after the other in memory, each the one asked for.

use spfs_repo::{Digest, Encoded, Error as RepoError, Object, ObjectBody, Repository, Result as RepoResult};

use super::retry::Patience;
use crate::graph;

/// What [`each`] calls for every object.
type Each<'a> = dyn FnMut(&Digest, RepoResult<Encoded>) -> RepoResult<()> + 'a;

/// How many objects to ask for at a time: of a directory one, so that several threads share the work.
pub(super) fn lot_size(source: &dyn Repository, most: usize) -> usize {
    if source.as_directory().is_some() { 1 } else { most }
}

/// Bytes of these objects where they are stored, if that is a directory; what travels has its own limits.
pub(super) fn stored_size(source: &dyn Repository, digests: &[Digest]) -> u64 {
    let Some(directory) = source.as_directory() else { return 0 };
    let size = |digest| std::fs::symlink_metadata(directory.object_path(digest)).map_or(0, |metadata| metadata.len());
    digests.iter().map(size).sum()
}

/// Calls `each` with every one of `digests`, in order, and the object, or with the error that it is not there. Any other
/// error ends it, as does the first of `each`; where the connection breaks, it goes on with what is left.
pub(super) fn each(source: &dyn Repository, digests: &[Digest], each: &mut Each<'_>) -> RepoResult<()> {
    let (mut done, mut patience) = (0, Patience::new());
    while done < digests.len() {
        let (before, mut refused) = (done, None);
        let result = source.read_encoded(&digests[done..], &mut |digest, object| {
            let wanted = digests.get(done) == Some(digest) && object.digest() == *digest;
            let result = if wanted { each(digest, Ok(object)) } else { Err(other(source, digest, &object)) };
            done += 1;
            // Whose error it is: that of reading may pass.
            result.map_err(|error| {
                refused = Some(error);
                RepoError::Interrupted
            })
        });
        if let Some(error) = refused {
            return Err(error);
        }
        if done > before {
            patience.renew();
        }
        match result {
            Ok(()) if done == digests.len() => {}
            Ok(()) => return Err(RepoError::UnknownObject(digests[done])),
            Err(error) if error.is_unknown() && done < digests.len() => {
                each(&digests[done], Err(error))?;
                done += 1;
            }
            Err(error) if patience.wait(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn other(source: &dyn Repository, digest: &Digest, object: &Encoded) -> RepoError {
    let reason = format!("what came is a {} with the digest {}", object.kind(), object.digest());
    RepoError::corrupt(format!("object {digest} from {}", source.address()), reason)
}

/// Reads one object, taken apart, and makes sure that it is the one that was asked for.
pub(crate) fn read_verified(source: &dyn Repository, digest: &Digest) -> RepoResult<Object> {
    let object = source.read_object(digest)?;
    let wrong = match &object.body {
        ObjectBody::Blob(blob) if blob.payload == *digest => None,
        ObjectBody::Blob(blob) => Some(format!("it is the blob of another payload, {}", blob.payload)),
        _ => graph::mismatch(&object, digest),
    };
    match wrong {
        None => Ok(object),
        Some(reason) => Err(RepoError::Corrupt { what: format!("object {digest} from {}", source.address()), reason }),
    }
}
