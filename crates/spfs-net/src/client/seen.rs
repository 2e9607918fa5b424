//! What a batch has seen of its server: what is there, and whether something went wrong.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use spfs_repo::{Digest, Error, Given, Kind, Object, ObjectBody, Repository as _, Result};

use super::{Client, MANY};

/// What was added, or found to be there.
#[derive(Default)]
pub struct Seen {
    /// Payloads.
    pub payloads: HashSet<Digest>,
    /// Objects.
    pub objects: HashSet<Digest>,
    broken: bool,
}

impl Seen {
    /// Passes on what came of something. A failure stays: what others rely on may be missing.
    pub fn noted<T>(&mut self, result: Result<T>) -> Result<T> {
        self.broken |= result.is_err();
        result
    }

    /// Refuses to finish what is not complete.
    pub fn check_whole(&self, client: &Client) -> Result<()> {
        let reason = "an earlier write failed, so it is not complete";
        if self.broken { Err(Error::invalid("batch", client.connection.address.text.clone(), reason)) } else { Ok(()) }
    }

    /// Whether an object is still to be sent.
    ///
    /// Errors: as [`Seen::check_children`], if it is.
    pub fn is_new(&mut self, client: &Client, digest: &Digest, given: Given<'_>) -> Result<bool> {
        let is_new = !self.objects.contains(digest);
        if is_new {
            self.check_children(client, given)?;
        }
        Ok(is_new)
    }

    /// Refuses an object whose children were neither seen nor are at the server.
    fn check_children(&mut self, client: &Client, given: Given<'_>) -> Result<()> {
        if let Given::Object(Object { body: ObjectBody::Blob(blob), .. }) = given {
            if !self.payloads.contains(&blob.payload) {
                match client.missing_payloads(&[blob.payload])?.first() {
                    None => self.payloads.insert(blob.payload),
                    Some(absent) => return Err(Error::MissingPayload(*absent)),
                };
            }
            return Ok(());
        }
        given.children(MANY, &mut |mut unknown| {
            unknown.retain(|digest| !self.objects.contains(digest));
            if let Some(absent) = client.missing(&unknown)?.first() {
                return Err(Error::UnknownObject(*absent));
            }
            // The blobs of a manifest are not remembered: there may be a million, and few manifests share them.
            if given.kind() != Kind::Manifest {
                self.objects.extend(unknown);
            }
            Ok(())
        })
    }
}

/// What a batch keeps between calls, also after a thread has died with it.
pub fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
