//! What the methods of the protocol do, each on a blocking thread: a request's bytes in, an answer's bytes out.

use bytes::{Bytes, BytesMut};
use prost::Message;
use spfs_repo::{Digest, DigestPrefix, Error, Repository, Result, TagListing, TagSpec, codec};

use crate::grpc::{self, status};
use crate::{convert, proto};

/// A call that failed as a call; errors of the repository travel inside answers instead.
pub struct Failed(pub u32, pub String);

type Called = std::result::Result<Bytes, Failed>;

/// How much one answer of our own methods holds: a little more than this.
const ANSWER: usize = 4 << 20;

/// What a method needs beyond its request.
pub struct Call<'a> {
    /// The repository that is served.
    pub repository: &'a dyn Repository,
    /// Where payloads are posted to and got from, with a `/` at its end.
    pub payloads: &'a str,
    /// Whether nothing may be changed.
    pub read_only: bool,
}

/// Whether a method changes something.
pub fn writes(path: &str) -> bool {
    let method = path.rsplit('/').next().unwrap_or_default();
    ["Insert", "Remove", "Write", "Put", "Push"].iter().any(|start| method.starts_with(start))
}

impl Call<'_> {
    /// Does what `path` names.
    pub fn run(&self, path: &str, body: Bytes) -> Called {
        if self.read_only && writes(path) {
            return Err(Failed(status::PERMISSION_DENIED, "this server is read-only".to_owned()));
        }
        match path {
            "/spfs.Repository/Ping" => self.plain(body, |_: proto::Ok| Ok(proto::Ok {})),
            "/spfs.TagService/LsTags" => self.answer(body, |r: proto::LsTagsRequest| {
                self.tags(&r.namespace, |tags| {
                    let entries = tags.list_tags(&r.path)?.into_iter().map(list_entry).collect();
                    Ok(proto::EntryList { entries })
                })
            }),
            "/spfs.TagService/ResolveTag" => self
                .answer(body, |r: proto::ResolveTagRequest| self.tags(&r.namespace, |tags| resolve(tags, &r.tag_spec))),
            "/spfs.TagService/FindTags" => self.answer(body, |r: proto::FindTagsRequest| {
                let digest = convert::read_digest(r.digest.as_ref())?;
                self.tags(&r.namespace, |tags| find_tags(tags, &digest))
            }),
            "/spfs.TagService/IterTagSpecs" => self.answer(body, |r: proto::IterTagSpecsRequest| {
                self.tags(&r.namespace, |tags| {
                    Ok(proto::Texts { texts: tags.tag_names()?.iter().map(ToString::to_string).collect() })
                })
            }),
            "/spfs.TagService/ReadTag" => self.answer(body, |r: proto::TagStreamRequest| {
                self.tags(&r.namespace, |tags| {
                    let spec: TagSpec = r.tag_spec.parse()?;
                    let history = tags.history(&spec.name)?;
                    if history.is_empty() {
                        return Err(unknown(&r.tag_spec));
                    }
                    Ok(proto::TagList { tags: history.iter().map(convert::tag).collect() })
                })
            }),
            "/spfs.TagService/InsertTag" => self.on_tag(body, |tags, tag| tags.insert_tag(tag)),
            "/spfs.TagService/RemoveTag" => self.on_tag(body, |tags, tag| tags.remove_tag(tag)),
            "/spfs.TagService/RemoveTagStream" => self.answer(body, |r: proto::TagStreamRequest| {
                self.tags(&r.namespace, |tags| tags.remove_tag_stream(&r.tag_spec.parse::<TagSpec>()?.name))?;
                Ok(proto::Ok {})
            }),
            "/spfs.Exchange/PushTag" => self.answer(body, |r: proto::TagRequest| {
                let tag = convert::read_tag(&r.tag.unwrap_or_default())?;
                self.tags(&r.namespace, |tags| Ok(convert::tag(&tags.push_tag(&tag)?)))
            }),
            _ => self.run_content(path, body),
        }
    }

    /// The methods about objects and payloads.
    fn run_content(&self, path: &str, body: Bytes) -> Called {
        let repository = self.repository;
        match path {
            "/spfs.DatabaseService/HasObject" => self.plain(body, |r: proto::DigestRequest| {
                let digest = convert::read_digest(r.digest.as_ref())?;
                Ok(proto::HasObjectResponse { exists: repository.missing(&[digest])?.is_empty() })
            }),
            "/spfs.PayloadService/HasPayload" => self.plain(body, |r: proto::DigestRequest| {
                let digest = convert::read_digest(r.digest.as_ref())?;
                Ok(proto::HasPayloadResponse { exists: repository.missing_payloads(&[digest])?.is_empty() })
            }),
            "/spfs.DatabaseService/ReadObject" => {
                self.on_digest(body, |d| convert::object(&repository.read_object(d)?))
            }
            "/spfs.DatabaseService/FindDigests" => self.find(body),
            "/spfs.DatabaseService/WriteObject" => self.answer(body, |r: proto::WriteObjectRequest| {
                let object = convert::read_object(r.object)?;
                let batch = repository.begin()?;
                batch.add_object(&object)?;
                batch.finish()?;
                Ok(proto::Ok {})
            }),
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
                Ok(grpc::frame(&match young {
                    Ok(removed) => proto::AnswerBool { error: None, ok: Some(removed) },
                    Err(error) => proto::AnswerBool { error: Some(convert::error(&error)), ok: None },
                }))
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
                Ok(proto::Digests { objects: convert::digests(&objects), payloads: convert::digests(&payloads) })
            }),
            "/spfs.Exchange/ReadObjects" => self.answer(body, |r: proto::Digests| {
                let mut answer = proto::Objects::default();
                let mut size = 0;
                for digest in convert::read_digests(&r.objects)? {
                    let buffer = codec::encode_wire(&repository.read_object(&digest)?)?;
                    size += buffer.len();
                    answer.buffers.push(buffer.into());
                    if size > ANSWER {
                        break;
                    }
                }
                Ok(answer)
            }),
            "/spfs.Exchange/ReadPayloads" => self.answer(body, |r: proto::Digests| self.read_payloads(&r.payloads)),
            "/spfs.Exchange/PutPack" => self.answer(body, |pack: proto::Pack| {
                let batch = repository.begin()?;
                for payload in &pack.payloads {
                    batch.add_payload(&mut &payload[..], None)?;
                }
                for object in &pack.objects {
                    batch.add_object(&codec::decode_wire(object)?)?;
                }
                batch.finish()?;
                Ok(proto::Ok {})
            }),
            _ => Err(Failed(status::UNIMPLEMENTED, format!("there is no method {path}"))),
        }
    }

    fn read_payloads(&self, digests: &[u8]) -> Result<proto::Payloads> {
        use std::io::Read as _;
        let mut answer = proto::Payloads::default();
        let mut size = 0;
        for digest in convert::read_digests(digests)? {
            let mut content = Vec::new();
            let most = (ANSWER - size) as u64 + 1;
            let mut reader = self.repository.open_payload(&digest)?.take(most);
            reader.read_to_end(&mut content).map_err(Error::io("read", format!("payload {digest}")))?;
            size += content.len();
            if size > ANSWER {
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

    fn on_tag(&self, body: Bytes, act: fn(&dyn Repository, &spfs_repo::Tag) -> Result<()>) -> Called {
        self.answer(body, |r: proto::TagRequest| {
            let tag = convert::read_tag(&r.tag.unwrap_or_default())?;
            self.tags(&r.namespace, |tags| act(tags, &tag))?;
            Ok(proto::Ok {})
        })
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
        let answer = match act(read(body)?) {
            Ok(ok) => proto::Answer { error: None, ok: Some(ok) },
            Err(error) => proto::Answer { error: Some(convert::error(&error)), ok: None },
        };
        Ok(grpc::frame(&answer))
    }

    /// A method whose answer has no room for errors.
    fn plain<R: Message + Default, T: Message>(&self, body: Bytes, act: impl FnOnce(R) -> Result<T>) -> Called {
        act(read(body)?).map(|answer| grpc::frame(&answer)).map_err(|error| {
            let number =
                if matches!(error, Error::Corrupt { .. }) { status::INVALID_ARGUMENT } else { status::INTERNAL };
            Failed(number, convert::with_causes(&error))
        })
    }
}

fn read<R: Message + Default>(mut body: Bytes) -> std::result::Result<R, Failed> {
    grpc::only(&mut body).map_err(|reason| Failed(status::INVALID_ARGUMENT, reason))
}

/// A stream of digests; an error is its only item.
fn stream(digests: Result<Vec<Digest>>) -> Called {
    let mut out = BytesMut::new();
    match digests {
        Ok(digests) => digests.iter().for_each(|digest| {
            out.extend_from_slice(&grpc::frame(&proto::Answer { error: None, ok: Some(convert::digest(digest)) }));
        }),
        Err(error) => {
            let error = Some(convert::error(&error));
            out.extend_from_slice(&grpc::frame(&proto::Answer::<proto::Digest> { error, ok: None }));
        }
    }
    Ok(out.freeze())
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

fn resolve(tags: &dyn Repository, text: &str) -> Result<proto::Tag> {
    let spec: TagSpec = text.parse()?;
    let history = tags.history(&spec.name)?;
    let record = usize::try_from(spec.version).ok().and_then(|version| history.get(version));
    record.map(convert::tag).ok_or_else(|| unknown(text))
}

fn find_tags(tags: &dyn Repository, digest: &Digest) -> Result<proto::Texts> {
    let mut texts = Vec::new();
    for name in tags.tag_names()? {
        for (version, record) in (0..).zip(tags.history(&name)?) {
            if record.target == *digest {
                texts.push(TagSpec { name: name.clone(), version }.to_string());
            }
        }
    }
    Ok(proto::Texts { texts })
}
