//! Copying from the secondaries into the primary: parts of the graph that it lacks, children first.

use std::collections::HashSet;

use super::Chain;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::object::{Object, ObjectBody};
use crate::repository::Batch;

/// One step of a walk without recursion: platforms nest as deep as anyone likes.
enum Step {
    /// Look for the object, and for its children before it.
    Enter(Digest),
    /// All its children are there.
    Leave(Object),
}

impl Chain {
    /// Copies the object and all that it refers to, as far as the primary lacks it.
    pub(super) fn repair_object(&self, digest: &Digest) -> Result<()> {
        let batch = self.primary.begin()?;
        self.copy_graph(&*batch, vec![Step::Enter(*digest)])?;
        batch.finish()
    }

    /// Copies one payload.
    pub(super) fn repair_payload(&self, digest: &Digest) -> Result<()> {
        let batch = self.primary.begin()?;
        self.copy_payload(&*batch, digest)?;
        batch.finish()
    }

    /// Copies those children of `object` that only secondaries have. What nobody has is left to the batch to say.
    pub(super) fn copy_children(&self, batch: &dyn Batch, object: &Object) -> Result<()> {
        if let ObjectBody::Blob(blob) = &object.body {
            return match self.copy_payload(batch, &blob.payload) {
                Err(e) if e.is_unknown() => Ok(()),
                result => result,
            };
        }
        let mut waiting = self.primary.missing(&object.children())?;
        // Children that wait in the batch are unknown to everyone.
        let absent: HashSet<Digest> =
            self.missing_everywhere(&waiting, |repository, digests| repository.missing(digests))?.into_iter().collect();
        waiting.retain(|digest| !absent.contains(digest));
        self.copy_graph(batch, waiting.into_iter().map(Step::Enter).collect())
    }

    fn copy_graph(&self, batch: &dyn Batch, mut steps: Vec<Step>) -> Result<()> {
        let mut seen = HashSet::new();
        while let Some(step) = steps.pop() {
            let digest = match step {
                Step::Leave(object) => {
                    batch.add_object(&object)?;
                    continue;
                }
                Step::Enter(digest) => digest,
            };
            if !seen.insert(digest) {
                continue;
            }
            let (object, _) = self.ask(Error::UnknownObject(digest), |secondary| secondary.read_object(&digest))?;
            let mut children = Vec::new();
            if let ObjectBody::Blob(blob) = &object.body {
                if !self.primary.missing_payloads(&[blob.payload])?.is_empty() {
                    self.copy_payload(batch, &blob.payload)?;
                }
            } else {
                children = self.primary.missing(&object.children())?;
            }
            steps.push(Step::Leave(object));
            steps.extend(children.into_iter().map(Step::Enter));
        }
        Ok(())
    }

    /// Copies one payload from the first secondary that has it undamaged.
    fn copy_payload(&self, batch: &dyn Batch, digest: &Digest) -> Result<()> {
        let copy = |secondary: &dyn crate::Repository| {
            let mut reader = secondary.open_payload(digest)?;
            batch.add_payload(&mut reader, Some(digest))
        };
        self.ask(Error::MissingPayload(*digest), copy).map(|_| ())
    }
}
