//! [`Client`]: a repository behind a server, ours or an existing one.
//!
//! The protocol of the existing program does everything. Where the other end makes itself known as ours (a header of
//! its answers), questions about many digests, small objects and small payloads go many at a time.

mod batch;
mod payload;
mod seen;
mod segments;
mod session;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use http::StatusCode;
use prost::Message;
use spfs_repo::{
    Batch, Digest, DigestPrefix, EachObject, EachPayload, Encoded, Error, NetTrouble, Object, PayloadReader,
    Repository, Result, Tag, TagListing, TagName, TagSpec, codec,
};

use crate::address::Address;
use crate::connection::Connection;
use crate::{convert, proto};

/// What a client is given beside its address.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The tag namespace, if the address says nothing.
    pub namespace: Option<String>,
    /// Instead of `ssh`: a command line for the shell, which gets the arguments of ssh.
    pub ssh_command: Option<String>,
}

/// A repository behind a server. Nothing is connected before the first question.
pub struct Client {
    connection: Arc<Connection>,
    options: Options,
}

/// Digests in one question.
const MANY: usize = 16 * 1024;

impl Client {
    /// The repository at `address`: `grpc://host:port`, `http2://host:port`, `grpcs://host:port` (TLS) or
    /// `ssh://[user@]host[:port]/path` (`docs/remotes.md`). Reads what the address says and connects to nothing yet.
    pub fn new(address: &str, mut options: Options) -> Result<Self> {
        let mut address = Address::parse(address)?;
        options.namespace = address.namespace.take().or(options.namespace);
        let connection = Connection::new(address, options.ssh_command.clone());
        Ok(Client { connection: connection.into(), options })
    }

    fn namespace(&self) -> String {
        self.options.namespace.clone().unwrap_or_default()
    }

    /// A call whose answer is either an error or what was asked for.
    fn ask<T>(&self, path: &str, action: &str, request: &impl Message) -> Result<T>
    where
        T: Message + Default + std::fmt::Debug,
    {
        self.answered(self.connection.call(path, request)?, action)
    }

    fn answered<T>(&self, answer: proto::Answer<T>, action: &str) -> Result<T>
    where
        T: Message + Default + std::fmt::Debug,
    {
        answered(&self.connection, answer, action)
    }

    fn nonsense(&self, action: &str, reason: &str) -> Error {
        let (address, action) = (self.connection.address.text.clone(), action.to_owned());
        Error::Remote { address, action, reason: reason.to_owned() }
    }

    /// All digests of a stream, sorted.
    fn digests(&self, path: &str, action: &str, request: &impl Message) -> Result<Vec<Digest>> {
        let mut frames = self.connection.call_stream(path, request)?;
        let mut digests = Vec::new();
        while let Some(answer) = frames.next().map_err(|reason| self.nonsense(action, &reason))? {
            digests.push(convert::read_digest(Some(&self.answered(answer, action)?))?);
        }
        digests.sort_unstable();
        Ok(digests)
    }

    /// As [`Client::many_missing`], for servers that answer for one digest at a time.
    fn missing_one_by_one<A: prost::Message + Default>(
        &self,
        path: &str,
        digests: &[Digest],
        exists: impl Fn(A) -> bool,
    ) -> Result<Vec<Digest>> {
        let mut missing = Vec::new();
        for digest in digests {
            let here = exists(self.connection.call(path, &one(digest))?);
            missing.extend((!here).then_some(*digest));
        }
        Ok(missing)
    }

    /// Those of many digests that are missing, many at a time.
    fn many_missing(&self, digests: &[Digest], payloads: bool) -> Result<Vec<Digest>> {
        let mut missing = Vec::new();
        for some in digests.chunks(MANY) {
            let mut request = proto::Digests::default();
            *(if payloads { &mut request.payloads } else { &mut request.objects }) = convert::digests(some);
            let answer: proto::Digests = self.ask("/spfs.Exchange/Missing", "say what is missing", &request)?;
            missing.extend(convert::read_digests(if payloads { &answer.payloads } else { &answer.objects })?);
        }
        Ok(missing)
    }

    fn tag_request(&self, tag: &Tag) -> proto::TagRequest {
        proto::TagRequest { tag: Some(convert::tag(tag)), namespace: self.namespace() }
    }

    /// Reads one object.
    fn one_object(&self, digest: &Digest) -> Result<Encoded> {
        let object = match self.ask("/spfs.DatabaseService/ReadObject", "read an object", &one(digest)) {
            // The connection does not live long enough for all of it.
            Err(Error::Unreachable { trouble: NetTrouble::Lost, .. }) if self.connection.is_ours()? => {
                Encoded::read(payload::object(&self.connection, digest)?)?
            }
            object => convert::read_encoded(Some(object?))?,
        };
        self.verified(object, digest)
    }

    /// Checks that what came is what was asked for.
    fn verified(&self, object: Encoded, digest: &Digest) -> Result<Encoded> {
        let actual = object.digest();
        if actual != *digest {
            let what = format!("object {digest} from {}", self.connection.address.text);
            return Err(Error::corrupt(what, format!("what came is a {} with the digest {actual}", object.kind())));
        }
        Ok(object)
    }
}

/// What was asked for, or the error that travelled instead of it.
fn answered<T>(connection: &Connection, answer: proto::Answer<T>, action: &str) -> Result<T>
where
    T: Message + Default + std::fmt::Debug,
{
    match answer {
        proto::Answer { error: Some(error), .. } => Err(convert::read_error(error, &connection.address.text, action)),
        proto::Answer { ok: Some(ok), .. } => Ok(ok),
        proto::Answer { .. } => {
            let (address, action) = (connection.address.text.clone(), action.to_owned());
            Err(Error::Remote { address, action, reason: "the answer is empty".to_owned() })
        }
    }
}

/// An answer of the payload channel that is no success.
fn refused(connection: &Connection, status: StatusCode, words: &[u8]) -> Error {
    let address = connection.address.text.clone();
    let words = String::from_utf8_lossy(words).trim().to_owned();
    match status.as_u16() {
        number @ (401 | 403) => Error::Denied { address, reason: words, unauthenticated: number == 401 },
        502..=504 => connection.trouble(NetTrouble::Lost, format!("{status}: {words}")),
        _ => Error::Remote { address, action: "store a payload".to_owned(), reason: format!("{status}: {words}") },
    }
}

fn check_expected(actual: &Digest, expected: Option<&Digest>) -> Result<()> {
    match expected {
        Some(expected) if expected != actual => Err(Error::corrupt(
            format!("payload {expected}"),
            format!("the content that arrived has the digest {actual}"),
        )),
        _ => Ok(()),
    }
}

fn one(digest: &Digest) -> proto::DigestRequest {
    proto::DigestRequest { digest: Some(convert::digest(digest)) }
}

/// A payload is reported as an unknown object on the wire.
fn as_payload(error: Error) -> Error {
    match error {
        Error::UnknownObject(digest) => Error::MissingPayload(digest),
        other => other,
    }
}

impl Repository for Client {
    fn address(&self) -> String {
        self.connection.address.text.clone()
    }

    fn read_object(&self, digest: &Digest) -> Result<Object> {
        self.one_object(digest)?.object()
    }

    fn read_encoded(&self, digests: &[Digest], each: &mut EachObject<'_>) -> Result<()> {
        let mut rest = digests;
        while let Some((first, others)) = rest.split_first() {
            if others.is_empty() || !self.connection.is_ours()? {
                each(first, self.one_object(first)?)?;
                rest = others;
                continue;
            }
            let wanted = &rest[..rest.len().min(MANY)];
            let answer: Result<proto::Objects> = self.connection.in_pieces(|most| {
                let request = proto::Digests { objects: convert::digests(wanted), most, ..Default::default() };
                self.ask("/spfs.Exchange/ReadObjects", "read objects", &request)
            });
            let buffers = match answer {
                Ok(answer) => answer.buffers,
                // Perhaps the first of them is too large for this connection; or one is not there, and those before it
                // are still wanted.
                Err(Error::Unreachable { trouble: NetTrouble::Lost, .. } | Error::UnknownObject(_)) => {
                    each(first, self.one_object(first)?)?;
                    rest = others;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if buffers.is_empty() || buffers.len() > wanted.len() {
                return Err(self.nonsense("read objects", "the answer has another number of them"));
            }
            let (answered, others) = rest.split_at(buffers.len());
            for (digest, buffer) in answered.iter().zip(buffers) {
                each(digest, self.verified(Encoded::read(buffer)?, digest)?)?;
            }
            rest = others;
        }
        Ok(())
    }

    fn missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        if digests.len() > 1 && self.connection.is_ours()? {
            return self.many_missing(digests, false);
        }
        let exists = |answer: proto::HasObjectResponse| answer.exists;
        self.missing_one_by_one("/spfs.DatabaseService/HasObject", digests, exists)
    }

    fn find(&self, prefix: &DigestPrefix) -> Result<Vec<Digest>> {
        // The protocol matches whole bytes; the rest is sifted here.
        let start: Vec<u8> = prefix_bytes(prefix.as_str());
        let criteria = proto::Criterion::StartsWith(proto::Digest { bytes: start.into() });
        let criteria = Some(proto::Criteria { criteria: Some(criteria) });
        let request = proto::FindDigestsRequest { search_criteria: criteria };
        let mut found = self.digests("/spfs.DatabaseService/FindDigests", "find objects", &request)?;
        found.retain(|digest| prefix.matches(digest));
        Ok(found)
    }

    fn remove_object(&self, digest: &Digest) -> Result<()> {
        self.ask::<proto::Ok>("/spfs.DatabaseService/RemoveObject", "remove an object", &one(digest)).map(drop)
    }

    fn open_payload(&self, digest: &Digest) -> Result<PayloadReader> {
        self.open_payload_at(digest, 0)
    }

    fn open_payload_at(&self, digest: &Digest, offset: u64) -> Result<PayloadReader> {
        payload::open(&self.connection, digest, offset)
    }

    fn read_payloads(&self, digests: &[Digest], each: &mut EachPayload<'_>) -> Result<()> {
        let ours = digests.len() > 1 && self.connection.is_ours()?;
        let mut rest = digests;
        while let Some((first, others)) = rest.split_first() {
            let mut contents = Vec::new();
            if ours {
                let wanted = &rest[..rest.len().min(MANY)];
                let answer: Result<proto::Payloads> = self.connection.in_pieces(|most| {
                    let request = proto::Digests { payloads: convert::digests(wanted), most, ..Default::default() };
                    self.ask("/spfs.Exchange/ReadPayloads", "read payloads", &request)
                });
                match answer {
                    Ok(answer) => contents = answer.contents,
                    // One of them is not there: those before it are still wanted.
                    Err(Error::UnknownObject(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            if contents.is_empty() {
                each(first, &mut *self.open_payload(first)?)?;
                rest = others;
                continue;
            }
            if contents.len() > rest.len() {
                return Err(self.nonsense("read payloads", "the answer has more of them"));
            }
            let (answered, others) = rest.split_at(contents.len());
            for (digest, content) in answered.iter().zip(&contents) {
                each(digest, &mut &content[..])?;
            }
            rest = others;
        }
        Ok(())
    }

    fn missing_payloads(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        if digests.len() > 1 && self.connection.is_ours()? {
            return self.many_missing(digests, true);
        }
        let exists = |answer: proto::HasPayloadResponse| answer.exists;
        self.missing_one_by_one("/spfs.PayloadService/HasPayload", digests, exists)
    }

    fn payloads(&self) -> Result<Vec<Digest>> {
        self.digests("/spfs.PayloadService/IterDigests", "list payloads", &proto::Ok {})
    }

    fn remove_payload(&self, digest: &Digest) -> Result<()> {
        self.ask::<proto::Ok>("/spfs.PayloadService/RemovePayload", "remove a payload", &one(digest)).map(drop)
    }

    fn begin(&self) -> Result<Box<dyn Batch + '_>> {
        Ok(match self.connection.is_ours()? {
            true => Box::new(session::SessionBatch::new(self)),
            false => Box::new(batch::ClientBatch::new(self)),
        })
    }

    fn in_namespace(&self, namespace: Option<&str>) -> Result<Box<dyn Repository>> {
        let options = Options { namespace: namespace.map(str::to_owned), ..self.options.clone() };
        Ok(Box::new(Client { connection: self.connection.clone(), options }))
    }

    fn history(&self, name: &TagName) -> Result<Vec<Tag>> {
        let request = proto::TagStreamRequest { tag_spec: name.to_string(), namespace: self.namespace() };
        match self.ask::<proto::TagList>("/spfs.TagService/ReadTag", "read a tag", &request) {
            Ok(list) => list.tags.iter().map(convert::read_tag).collect(),
            Err(Error::UnknownReference { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn insert_tag(&self, tag: &Tag) -> Result<()> {
        self.ask::<proto::Ok>("/spfs.TagService/InsertTag", "insert a tag", &self.tag_request(tag)).map(drop)
    }

    fn push_tag(&self, tag: &Tag) -> Result<Tag> {
        if self.connection.is_ours()? {
            let pushed: proto::Tag = self.ask("/spfs.Exchange/PushTag", "push a tag", &self.tag_request(tag))?;
            return convert::read_tag(&pushed);
        }
        let mut tag = tag.clone();
        tag.time = microseconds(tag.time.as_microsecond())?;
        if let Some(newest) = self.history(&tag.name)?.into_iter().next() {
            if newest.target == tag.target {
                return Ok(newest);
            }
            tag.parent = codec::tag::digest(&newest);
            tag.time = tag.time.max(microseconds(newest.time.as_microsecond() + 1)?);
        }
        self.insert_tag(&tag)?;
        Ok(tag)
    }

    fn list_tags(&self, folder: &str) -> Result<Vec<TagListing>> {
        let request = proto::LsTagsRequest { path: folder.to_owned(), namespace: self.namespace() };
        if folder.split('/').any(|part| part == ".." || part == ".") {
            return Err(Error::invalid("tag folder", folder, "'.' and '..' are no names"));
        }
        let list: proto::EntryList = self.ask("/spfs.TagService/LsTags", "list tags", &request)?;
        let listing = |entry: proto::ListEntry| match entry.kind {
            Some(proto::ListKind::Folder(name)) => Some(TagListing::Folder(name)),
            Some(proto::ListKind::Tag(name)) => Some(TagListing::Tag(name)),
            Some(proto::ListKind::Namespace(name)) => Some(TagListing::Namespace(name)),
            None => None,
        };
        let mut listings: Vec<TagListing> = list.entries.into_iter().filter_map(listing).collect();
        // Of one name, the folder comes first.
        let key = |listing: &TagListing| match listing {
            TagListing::Folder(name) => (name.clone(), 0),
            TagListing::Tag(name) => (name.clone(), 1),
            TagListing::Namespace(name) => (name.clone(), 2),
        };
        listings.sort_by_key(key);
        Ok(listings)
    }

    fn tag_names(&self) -> Result<Vec<TagName>> {
        let request = proto::IterTagSpecsRequest { namespace: self.namespace() };
        let list: proto::Texts = self.ask("/spfs.TagService/IterTagSpecs", "list tags", &request)?;
        let name = |text: &String| text.parse::<TagSpec>().map(|spec| spec.name);
        let mut names: Vec<TagName> = list.texts.iter().map(name).collect::<Result<_>>()?;
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    fn remove_tag(&self, tag: &Tag) -> Result<()> {
        self.ask::<proto::Ok>("/spfs.TagService/RemoveTag", "remove a tag", &self.tag_request(tag)).map(drop)
    }

    fn remove_tag_stream(&self, name: &TagName) -> Result<()> {
        let request = proto::TagStreamRequest { tag_spec: name.to_string(), namespace: self.namespace() };
        self.ask::<proto::Ok>("/spfs.TagService/RemoveTagStream", "remove a tag", &request).map(drop)
    }
}

fn microseconds(count: i64) -> Result<jiff::Timestamp> {
    jiff::Timestamp::from_microsecond(count).map_err(|e| Error::invalid("time", count.to_string(), e.to_string()))
}

/// The whole bytes that the digits of a base32 prefix begin with.
fn prefix_bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (mut bits, mut held) = (0u32, 0u32);
    for c in text.bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'2'..=b'7' => c - b'2' + 26,
            _ => break,
        };
        bits = (bits << 5) | u32::from(value);
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    bytes
}
