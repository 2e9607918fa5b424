//! The methods about objects and payloads that existing programs know too.

use bytes::Bytes;
use spfs_repo::{Digest, DigestPrefix, Encoded, Encoding, Error, PayloadReader, Repository, Result, codec};

use super::answer::{Failed, denied, invalid, nested, no_method, read, stream};
use super::{Call, Called, Reply};
use crate::grpc::{self, status};
use crate::server::fields;
use crate::server::tokens::{Refused, Right};
use crate::{convert, proto};

/// An object that is larger than this is sent from its file, if it is in one.
const LARGE: u64 = 1 << 20;

/// The largest object that may come in parts, in bytes: each part takes many times its size in memory.
const PARTS: usize = 1 << 20;

impl Call<'_> {
    /// The methods about objects and payloads.
    pub(super) fn run_content(&self, path: &str, body: Bytes) -> Called {
        let repository = self.repository;
        self.content_right(path).map_err(|refused| denied(refused.reason, refused.unauthenticated))?;
        match path {
            "/spfs.Repository/Ping" => self.plain(body, |_: proto::Ok| Ok(proto::Ok {})),
            "/spfs.DatabaseService/HasObject" => self.plain(body, |r: proto::DigestRequest| {
                let digest = convert::read_digest(r.digest.as_ref())?;
                Ok(proto::HasObjectResponse { exists: repository.missing(&[digest])?.is_empty() })
            }),
            "/spfs.PayloadService/HasPayload" => self.plain(body, |r: proto::DigestRequest| {
                let digest = convert::read_digest(r.digest.as_ref())?;
                Ok(proto::HasPayloadResponse { exists: repository.missing_payloads(&[digest])?.is_empty() })
            }),
            "/spfs.DatabaseService/ReadObject" => {
                let request: proto::DigestRequest = read(body.clone())?;
                let large = convert::read_digest(request.digest.as_ref()).ok().and_then(|digest| self.large(&digest));
                match large {
                    // Object { buffer } in Answer { ok }.
                    Some((len, content)) => Ok(Reply::File(nested(&[2, 7], len), content)),
                    None => self.on_digest(body, |d| self.object(d).map(|object| convert::encoded(&object))),
                }
            }
            "/spfs.DatabaseService/FindDigests" => self.find(body),
            "/spfs.DatabaseService/WriteObject" => {
                let request = fields::single(body.clone()).map_err(invalid)?;
                if request.len() > PARTS && fields::is_in_parts(request) {
                    let reason = format!("an object in parts has at most {PARTS} bytes; send it as a buffer");
                    return Err(Failed(status::RESOURCE_EXHAUSTED, reason));
                }
                self.answer(body, |r: proto::WriteObjectRequest| {
                    let object = convert::read_encoded(r.object)?;
                    let batch = repository.begin()?;
                    batch.add_encoded(&object)?;
                    batch.finish()?;
                    Ok(proto::Ok {})
                })
            }
            "/spfs.DatabaseService/RemoveObject" => self.on_digest(body, |d| {
                repository.remove_object(d)?;
                Ok(proto::Ok {})
            }),
            // Repositories do not say how old an object is, so every one is too young to go.
            "/spfs.DatabaseService/RemoveObjectIfOlderThan" => {
                let request: proto::RemoveIfOlderRequest = read(body)?;
                let time = request.older_than.unwrap_or_default().iso_timestamp;
                let asked = convert::read_time(&time).and_then(|_| convert::read_digest(request.digest.as_ref()));
                let young = asked.and_then(|digest| match repository.missing(&[digest])?.first() {
                    None => Ok(false),
                    Some(absent) => Err(Error::UnknownObject(*absent)),
                });
                Ok(Reply::Message(grpc::frame(&match young {
                    Ok(removed) => proto::AnswerBool { error: None, ok: Some(removed) },
                    Err(error) => proto::AnswerBool { error: Some(convert::error(&error)), ok: None },
                })))
            }
            "/spfs.PayloadService/IterDigests" => stream(repository.payloads()),
            "/spfs.PayloadService/WritePayload" => {
                self.answer(body, |_: proto::Ok| Ok(proto::UploadOption { url: self.payloads.to_owned() }))
            }
            "/spfs.PayloadService/OpenPayload" => self.on_digest(body, |digest| {
                drop(repository.open_payload(digest)?);
                Ok(proto::DownloadOption { locations: vec![format!("{}{digest}", self.payloads)] })
            }),
            "/spfs.PayloadService/RemovePayload" => self.on_digest(body, |digest| {
                repository.remove_payload(digest)?;
                Ok(proto::Ok {})
            }),
            _ if path.starts_with("/spfs.Exchange/") => self.run_exchange(path, body),
            _ => Err(no_method(path)),
        }
    }

    fn find(&self, body: Bytes) -> Called {
        let request: proto::FindDigestsRequest = read(body)?;
        let missing = || Failed(status::INVALID_ARGUMENT, "the search criteria are missing".to_owned());
        match request.search_criteria.and_then(|criteria| criteria.criteria).ok_or_else(missing)? {
            proto::Criterion::All(_) => stream(self.repository.find(&DigestPrefix::any())),
            proto::Criterion::StartsWith(start) => {
                let all = self.repository.find(&DigestPrefix::any());
                stream(all.map(|all| all.into_iter().filter(|d| d.as_bytes().starts_with(&start.bytes)).collect()))
            }
        }
    }

    /// Checks the right that a method about content needs.
    fn content_right(&self, path: &str) -> std::result::Result<(), Refused> {
        match path.rsplit('/').next().unwrap_or_default() {
            "HasObject" | "HasPayload" | "Missing" => self.who.look(),
            "ReadObject" | "ReadObjects" | "ReadPayloads" | "OpenPayload" => self.who.anywhere(Right::Read),
            "FindDigests" | "IterDigests" => self.who.everywhere(Right::Read),
            "WriteObject" | "WritePayload" => self.who.anywhere(Right::Write),
            method if method.starts_with("Put") => self.who.anywhere(Right::Write),
            method if method.starts_with("Remove") => self.who.everywhere(Right::Delete),
            _ => Ok(()),
        }
    }

    /// A large object as it is stored, if that is how it travels: its bytes, and how many.
    pub(super) fn large(&self, digest: &Digest) -> Option<(u64, PayloadReader)> {
        let (len, file) = stored(self.repository, digest)?;
        (len > LARGE).then(|| (len, Box::new(std::io::Read::take(file, len)) as PayloadReader))
    }

    /// One object.
    pub(super) fn object(&self, digest: &Digest) -> Result<Encoded> {
        let mut found = None;
        self.repository.read_encoded(&[*digest], &mut |_, object| {
            found = Some(object);
            Ok(())
        })?;
        found.ok_or(Error::UnknownObject(*digest))
    }
}

/// The file of an object that travels as it is stored, and its size.
pub fn stored(repository: &dyn Repository, digest: &Digest) -> Option<(u64, std::fs::File)> {
    use std::io::{Read as _, Seek as _};
    let mut file = std::fs::File::open(repository.as_directory()?.object_path(digest)).ok()?;
    let mut header = [0; codec::HEADER_LEN];
    file.read_exact(&mut header).ok()?;
    let (_, format, _) = codec::decode_header(&header).ok()?;
    file.rewind().ok()?;
    (format.encoding == Encoding::FlatBuffers).then_some((file.metadata().ok()?.len(), file))
}
