//! What the methods of the protocol do, each on a blocking thread: a request's bytes in, an answer's bytes out.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use spfs_repo::{
    Digest, DigestPrefix, Encoded, Encoding, Error, PayloadReader, Repository, Result, TagListing, TagName, TagSpec,
    codec,
};

use super::batches::Batches;
use super::exchange::read_only;
use super::fields;
use super::tokens::{Refused, Right, Who, tag_path};
use crate::grpc::{self, status};
use crate::{convert, proto};

/// A call that failed as a call; errors of the repository travel inside answers instead.
pub struct Failed(pub u32, pub String);

/// What a call answers.
pub enum Reply {
    /// One message, framed.
    Message(Bytes),
    /// A stream of digests.
    Digests(Vec<Digest>),
    /// The beginning of a message, framed, and what holds the rest of it.
    File(Bytes, PayloadReader),
}

type Called = std::result::Result<Reply, Failed>;

/// What became of a call.
pub struct Done {
    /// What it answers.
    pub reply: Called,
    /// The tag that it was about, if it was to change one.
    pub subject: Option<String>,
}

impl Done {
    /// A call that failed before it began.
    pub fn failed(failed: Failed) -> Self {
        Done { reply: Err(failed), subject: None }
    }
}

/// How much one answer of our own methods holds: a little more than this.
const ANSWER: usize = 4 << 20;

/// An object that is larger than this is sent from its file, if it is in one.
const LARGE: u64 = 1 << 20;

/// The largest object that may come in parts, in bytes: each part takes many times its size in memory.
const PARTS: usize = 1 << 20;

/// Every method, for the log and the metrics.
pub const METHODS: &[&str] = &[
    "/spfs.Repository/Ping",
    "/spfs.TagService/LsTags",
    "/spfs.TagService/ResolveTag",
    "/spfs.TagService/FindTags",
    "/spfs.TagService/IterTagSpecs",
    "/spfs.TagService/ReadTag",
    "/spfs.TagService/InsertTag",
    "/spfs.TagService/RemoveTagStream",
    "/spfs.TagService/RemoveTag",
    "/spfs.DatabaseService/HasObject",
    "/spfs.DatabaseService/ReadObject",
    "/spfs.DatabaseService/FindDigests",
    "/spfs.DatabaseService/WriteObject",
    "/spfs.DatabaseService/RemoveObject",
    "/spfs.DatabaseService/RemoveObjectIfOlderThan",
    "/spfs.PayloadService/IterDigests",
    "/spfs.PayloadService/HasPayload",
    "/spfs.PayloadService/WritePayload",
    "/spfs.PayloadService/OpenPayload",
    "/spfs.PayloadService/RemovePayload",
    "/spfs.Exchange/PushTag",
    "/spfs.Exchange/Missing",
    "/spfs.Exchange/ReadObjects",
    "/spfs.Exchange/ReadPayloads",
    "/spfs.Exchange/PutBegin",
    "/spfs.Exchange/PutPack",
    "/spfs.Exchange/PutFinish",
    "/spfs.Exchange/PutDrop",
];

/// What a call takes of the server's memory.
pub struct Memory {
    /// The largest message, in bytes.
    pub most: usize,
    /// How many times its message is in memory while it is worked on.
    pub factor: usize,
    /// Bytes of its answer.
    pub answer: usize,
}

/// What the method at `path` takes.
pub fn memory(path: &str) -> Memory {
    match path.rsplit('/').next().unwrap_or_default() {
        "WriteObject" | "PutPack" => Memory { most: usize::MAX, factor: 3, answer: 0 },
        "ReadObject" | "ReadObjects" | "ReadPayloads" => Memory { most: ANSWER, factor: 1, answer: 2 * ANSWER },
        _ => Memory { most: ANSWER, factor: 2, answer: 0 },
    }
}

/// How much an answer holds where the client wants less.
fn most(wanted: u32) -> usize {
    if wanted == 0 { ANSWER } else { ANSWER.min(wanted as usize) }
}

/// What a method needs beyond its request.
pub struct Call<'a> {
    /// The repository that is served.
    pub repository: &'a dyn Repository,
    /// What clients have open.
    pub batches: &'a Batches,
    /// Where payloads are posted to and got from, with a `/` at its end.
    pub payloads: &'a str,
    /// Whether nothing may be changed.
    pub read_only: bool,
    /// Whether nothing may be removed.
    pub append_only: bool,
    /// Who asks.
    pub who: &'a Who,
    /// The tag that is to be changed, once it is known.
    pub subject: RefCell<Option<String>>,
}

/// Whether a method changes something; and whether it removes something.
fn changes(path: &str) -> (bool, bool) {
    let method = path.rsplit('/').next().unwrap_or_default();
    let removes = method.starts_with("Remove");
    (removes || ["Insert", "Write", "Put", "Push"].iter().any(|start| method.starts_with(start)), removes)
}

fn refused(refused: Refused) -> Error {
    Error::Denied { address: String::new(), reason: refused.reason, unauthenticated: refused.unauthenticated }
}

/// A right that is lacking is for the call as a whole, never inside an answer.
fn denied(reason: String, unauthenticated: bool) -> Failed {
    Failed(if unauthenticated { status::UNAUTHENTICATED } else { status::PERMISSION_DENIED }, reason)
}

impl Call<'_> {
    /// Does what `path` names.
    pub fn run(self, path: &str, body: Bytes) -> Done {
        let reply = match changes(path) {
            (true, _) if self.read_only => Err(denied(read_only().reason, false)),
            (_, true) if self.append_only => {
                Err(denied("this server is append-only: nothing is removed".to_owned(), false))
            }
            _ if path.starts_with("/spfs.TagService/") || path == "/spfs.Exchange/PushTag" => self.run_tags(path, body),
            _ => self.run_content(path, body),
        };
        Done { reply, subject: self.subject.into_inner() }
    }

    /// The methods about tags.
    fn run_tags(&self, path: &str, body: Bytes) -> Called {
        match path {
            "/spfs.TagService/LsTags" => self.answer(body, |r: proto::LsTagsRequest| {
                let tags = self.list(&r.namespace, r.path.trim_matches('/'))?;
                Ok(proto::EntryList { entries: tags.into_iter().map(list_entry).collect() })
            }),
            "/spfs.TagService/ResolveTag" => self.answer(body, |r: proto::ResolveTagRequest| {
                let spec: TagSpec = r.tag_spec.parse()?;
                self.tag(Right::Read, &r.namespace, &spec.name, |tags| {
                    let history = tags.history(&spec.name)?;
                    let record = usize::try_from(spec.version).ok().and_then(|version| history.get(version));
                    record.map(convert::tag).ok_or_else(|| unknown(&r.tag_spec))
                })
            }),
            "/spfs.TagService/FindTags" => self.answer(body, |r: proto::FindTagsRequest| {
                let digest = convert::read_digest(r.digest.as_ref())?;
                self.find_tags(&r.namespace, &digest)
            }),
            "/spfs.TagService/IterTagSpecs" => self.answer(body, |r: proto::IterTagSpecsRequest| {
                let names = self.tag_names(&r.namespace)?;
                Ok(proto::Texts { texts: names.iter().map(ToString::to_string).collect() })
            }),
            "/spfs.TagService/ReadTag" => self.answer(body, |r: proto::TagStreamRequest| {
                let spec: TagSpec = r.tag_spec.parse()?;
                let history = self.tag(Right::Read, &r.namespace, &spec.name, |tags| tags.history(&spec.name))?;
                if history.is_empty() {
                    return Err(unknown(&r.tag_spec));
                }
                Ok(proto::TagList { tags: history.iter().map(convert::tag).collect() })
            }),
            "/spfs.TagService/InsertTag" => self.on_tag(body, Right::Tag, |tags, tag| tags.insert_tag(tag)),
            "/spfs.TagService/RemoveTag" => self.on_tag(body, Right::Delete, |tags, tag| tags.remove_tag(tag)),
            "/spfs.TagService/RemoveTagStream" => self.answer(body, |r: proto::TagStreamRequest| {
                let name = r.tag_spec.parse::<TagSpec>()?.name;
                self.tag(Right::Delete, &r.namespace, &name, |tags| tags.remove_tag_stream(&name))?;
                Ok(proto::Ok {})
            }),
            "/spfs.Exchange/PushTag" => self.answer(body, |r: proto::TagRequest| {
                let tag = convert::read_tag(&r.tag.unwrap_or_default())?;
                self.tag(Right::Tag, &r.namespace, &tag.name, |tags| Ok(convert::tag(&tags.push_tag(&tag)?)))
            }),
            _ => Err(no_method(path)),
        }
    }

    /// The methods about objects and payloads.
    fn run_content(&self, path: &str, body: Bytes) -> Called {
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
    fn large(&self, digest: &Digest) -> Option<(u64, PayloadReader)> {
        let (len, file) = stored(self.repository, digest)?;
        (len > LARGE).then(|| (len, Box::new(std::io::Read::take(file, len)) as PayloadReader))
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

    /// One object.
    fn object(&self, digest: &Digest) -> Result<Encoded> {
        let mut found = None;
        self.repository.read_encoded(&[*digest], &mut |_, object| {
            found = Some(object);
            Ok(())
        })?;
        found.ok_or(Error::UnknownObject(*digest))
    }

    /// The methods about open batches.
    fn put(&self, path: &str, body: Bytes) -> Called {
        match path {
            "/spfs.Exchange/PutBegin" => {
                Ok(told(self.batches.begin().map(|id| proto::BatchId { id: Bytes::copy_from_slice(&id) })))
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

    /// The repository with its tags in `namespace`; empty means the one that is served.
    fn tags<T>(&self, namespace: &str, act: impl FnOnce(&dyn Repository) -> Result<T>) -> Result<T> {
        match namespace {
            "" => act(self.repository),
            name => act(&*self.repository.in_namespace(Some(name))?),
        }
    }

    /// The same, for who has this right to the tag.
    fn tag<T>(
        &self,
        right: Right,
        namespace: &str,
        name: &TagName,
        act: impl FnOnce(&dyn Repository) -> Result<T>,
    ) -> Result<T> {
        let path = tag_path(namespace, name.as_str());
        let allowed = self.who.tag(right, &path);
        if right != Right::Read {
            *self.subject.borrow_mut() = Some(path);
        }
        allowed.map_err(refused)?;
        self.tags(namespace, act)
    }

    fn on_tag(&self, body: Bytes, right: Right, act: fn(&dyn Repository, &spfs_repo::Tag) -> Result<()>) -> Called {
        self.answer(body, |r: proto::TagRequest| {
            let tag = convert::read_tag(&r.tag.unwrap_or_default())?;
            self.tag(right, &r.namespace, &tag.name, |tags| act(tags, &tag))?;
            Ok(proto::Ok {})
        })
    }

    /// What may be read directly below `folder`, which has no `/` at its ends.
    fn list(&self, namespace: &str, folder: &str) -> Result<Vec<TagListing>> {
        if folder.split('/').any(|part| matches!(part, "." | "..") || (part.is_empty() && !folder.is_empty())) {
            return Err(Error::invalid("tag folder", folder, "a part of it is no name"));
        }
        let above = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let mut found = self.tags(namespace, |tags| tags.list_tags(folder))?;
        found.retain(|listing| match listing {
            TagListing::Tag(name) => self.who.reads(&tag_path(namespace, &format!("{above}{name}"))),
            TagListing::Folder(name) => self.who.reads_below(&tag_path(namespace, &format!("{above}{name}/"))),
            TagListing::Namespace(name) => self.who.reads_below(&tag_path(name, "")),
        });
        Ok(found)
    }

    /// The tags that may be read.
    fn tag_names(&self, namespace: &str) -> Result<Vec<TagName>> {
        let mut names = self.tags(namespace, |tags| tags.tag_names())?;
        names.retain(|name| self.who.reads(&tag_path(namespace, name.as_str())));
        Ok(names)
    }

    fn find_tags(&self, namespace: &str, digest: &Digest) -> Result<proto::Texts> {
        let mut texts = Vec::new();
        for name in self.tag_names(namespace)? {
            for (version, record) in (0..).zip(self.tags(namespace, |tags| tags.history(&name))?) {
                if record.target == *digest {
                    texts.push(TagSpec { name: name.clone(), version }.to_string());
                }
            }
        }
        Ok(proto::Texts { texts })
    }

    fn on_digest<T: Message + Default + std::fmt::Debug>(
        &self,
        body: Bytes,
        act: impl FnOnce(&Digest) -> Result<T>,
    ) -> Called {
        self.answer(body, |r: proto::DigestRequest| act(&convert::read_digest(r.digest.as_ref())?))
    }

    /// A method whose answer carries errors inside.
    fn answer<R, T>(&self, body: Bytes, act: impl FnOnce(R) -> Result<T>) -> Called
    where
        R: Message + Default,
        T: Message + Default + std::fmt::Debug,
    {
        answered(act(read(body)?))
    }

    /// A method whose answer has no room for errors.
    fn plain<R: Message + Default, T: Message>(&self, body: Bytes, act: impl FnOnce(R) -> Result<T>) -> Called {
        act(read(body)?).map(|answer| Reply::Message(grpc::frame(&answer))).map_err(|error| {
            let number =
                if matches!(error, Error::Corrupt { .. }) { status::INVALID_ARGUMENT } else { status::INTERNAL };
            Failed(number, convert::with_causes(&error))
        })
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

/// An answer whose error is ready for the wire.
fn told<T: Message + Default + std::fmt::Debug>(result: std::result::Result<T, proto::Error>) -> Reply {
    Reply::Message(grpc::frame(&match result {
        Ok(ok) => proto::Answer { error: None, ok: Some(ok) },
        Err(error) => proto::Answer { error: Some(error), ok: None },
    }))
}

fn read<R: Message + Default>(mut body: Bytes) -> std::result::Result<R, Failed> {
    grpc::only(&mut body).map_err(invalid)
}

/// An answer that carries errors inside, but for rights that are lacking.
fn answered<T: Message + Default + std::fmt::Debug>(result: Result<T>) -> Called {
    let answer = match result {
        Ok(ok) => proto::Answer { error: None, ok: Some(ok) },
        Err(Error::Denied { reason, unauthenticated, .. }) => return Err(denied(reason, unauthenticated)),
        Err(error) => proto::Answer { error: Some(convert::error(&error)), ok: None },
    };
    Ok(Reply::Message(grpc::frame(&answer)))
}

/// A stream of digests; an error is its only item.
fn stream(digests: Result<Vec<Digest>>) -> Called {
    match digests {
        Ok(digests) => Ok(Reply::Digests(digests)),
        Err(error) => answered::<proto::Digest>(Err(error)),
    }
}

/// The beginning of a framed message that holds bytes of this length in nested fields, the outermost first.
fn nested(fields: &[u32], len: u64) -> Bytes {
    let (mut prefix, mut len) = (BytesMut::new(), len);
    for field in fields.iter().rev() {
        let mut one = BytesMut::new();
        encode_key(*field, WireType::LengthDelimited, &mut one);
        encode_varint(len, &mut one);
        len += one.len() as u64;
        one.extend_from_slice(&prefix);
        prefix = one;
    }
    let mut framed = BytesMut::from(&[0][..]);
    // A stored object has less than 2 GiB.
    framed.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend_from_slice(&prefix);
    framed.freeze()
}

fn no_method(path: &str) -> Failed {
    Failed(status::UNIMPLEMENTED, format!("there is no method {path}"))
}

fn invalid(reason: String) -> Failed {
    Failed(status::INVALID_ARGUMENT, reason)
}

fn list_entry(listing: TagListing) -> proto::ListEntry {
    let kind = match listing {
        TagListing::Folder(name) => proto::ListKind::Folder(name),
        TagListing::Tag(name) => proto::ListKind::Tag(name),
        TagListing::Namespace(name) => proto::ListKind::Namespace(name),
    };
    proto::ListEntry { kind: Some(kind) }
}

fn unknown(reference: &str) -> Error {
    Error::UnknownReference { reference: reference.to_owned(), searched: Vec::new(), similar: Vec::new() }
}
