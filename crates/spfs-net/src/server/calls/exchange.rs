//! Our own methods about content: many things in one call, and open batches.

use bytes::Bytes;
use spfs_repo::{Digest, Error, Result};

use super::answer::{answered, invalid, nested, no_method, read, told};
use super::{ANSWER, Call, Called, Reply};
use crate::server::fields;
use crate::{convert, proto};

/// How much an answer holds where the client wants less.
fn most(wanted: u32) -> usize {
    if wanted == 0 { ANSWER } else { ANSWER.min(wanted as usize) }
}

impl Call<'_> {
    /// The methods of our own about objects and payloads.
    pub(super) fn run_exchange(&self, path: &str, body: Bytes) -> Called {
        let repository = self.repository;
        match path {
            "/spfs.Exchange/Missing" => self.answer(body, |r: proto::Digests| {
                let objects = repository.missing(&convert::read_digests(&r.objects)?)?;
                let payloads = repository.missing_payloads(&convert::read_digests(&r.payloads)?)?;
                Ok(proto::Digests {
                    objects: convert::digests(&objects),
                    payloads: convert::digests(&payloads),
                    most: 0,
                })
            }),
            "/spfs.Exchange/ReadObjects" => {
                let request: proto::Digests = read(body)?;
                let digests = convert::read_digests(&request.objects);
                match digests.as_ref().ok().and_then(|digests| self.large(digests.first()?)) {
                    // Objects { buffers } in Answer { ok }, with one of them.
                    Some((len, content)) => Ok(Reply::File(nested(&[2, 1], len), content)),
                    None => answered(digests.and_then(|digests| self.read_objects(&digests, most(request.most)))),
                }
            }
            "/spfs.Exchange/ReadPayloads" => {
                self.answer(body, |r: proto::Digests| self.read_payloads(&r.payloads, most(r.most)))
            }
            _ if path.starts_with("/spfs.Exchange/Put") => self.put(path, body),
            _ => Err(no_method(path)),
        }
    }

    fn read_objects(&self, digests: &[Digest], limit: usize) -> Result<proto::Objects> {
        let mut answer = proto::Objects::default();
        let mut size = 0;
        for digest in digests {
            if !answer.buffers.is_empty() && self.large(digest).is_some() {
                break;
            }
            let object = match self.object(digest) {
                // Asked for first the next time, that is the answer.
                Err(_) if !answer.buffers.is_empty() => break,
                object => object?,
            };
            size += object.wire().len();
            if size > limit && !answer.buffers.is_empty() {
                break;
            }
            answer.buffers.push(object.wire().clone());
        }
        Ok(answer)
    }

    /// The methods about open batches.
    fn put(&self, path: &str, body: Bytes) -> Called {
        match path {
            "/spfs.Exchange/PutBegin" => {
                Ok(told(self.batches.begin(self.owner).map(|id| proto::BatchId { id: Bytes::copy_from_slice(&id) })))
            }
            "/spfs.Exchange/PutPack" => {
                let pack = fields::single(body).map_err(invalid)?;
                Ok(told(self.batches.put(pack).map(|()| proto::Ok {})))
            }
            "/spfs.Exchange/PutFinish" => {
                let id = read::<proto::BatchId>(body)?.id;
                Ok(told(self.batches.get(&id).and_then(|batch| batch.finish()).map(|()| proto::Ok {})))
            }
            "/spfs.Exchange/PutDrop" => {
                self.batches.abandon(&read::<proto::BatchId>(body)?.id);
                Ok(told(Ok(proto::Ok {})))
            }
            _ => Err(no_method(path)),
        }
    }

    fn read_payloads(&self, digests: &[u8], limit: usize) -> Result<proto::Payloads> {
        use std::io::Read as _;
        let mut answer = proto::Payloads::default();
        let mut size = 0;
        for digest in convert::read_digests(digests)? {
            let mut content = Vec::new();
            let most = (limit - size) as u64 + 1;
            let mut reader = self.repository.open_payload(&digest)?.take(most);
            reader.read_to_end(&mut content).map_err(Error::io("read", format!("payload {digest}")))?;
            size += content.len();
            if size > limit {
                break;
            }
            answer.contents.push(content.into());
        }
        Ok(answer)
    }
}
