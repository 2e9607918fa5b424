//! The messages of the wire protocol (`docs/format.md`, the wire): package `spfs`, proto3.
//!
//! The field numbers are the protocol; they never change. An unknown field is skipped, as proto3 wants it.
#![allow(missing_docs, reason = "the names are the protocol's own, and its description says what they mean")]

use bytes::Bytes;
use prost::{Message, Oneof};

#[derive(Clone, PartialEq, Message)]
pub struct Digest {
    #[prost(bytes = "bytes", tag = "1")]
    pub bytes: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub struct DateTime {
    #[prost(string, tag = "1")]
    pub iso_timestamp: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Ok {}

/// The four errors that have a name: all alike.
#[derive(Clone, PartialEq, Message)]
pub struct Named {
    #[prost(string, tag = "1")]
    pub message: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Error {
    #[prost(oneof = "ErrorKind", tags = "1, 2, 3, 4, 5")]
    pub kind: Option<ErrorKind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum ErrorKind {
    #[prost(string, tag = "1")]
    Other(String),
    #[prost(message, tag = "2")]
    UnknownObject(Named),
    #[prost(message, tag = "3")]
    UnknownReference(Named),
    #[prost(message, tag = "4")]
    AmbiguousReference(Named),
    #[prost(message, tag = "5")]
    InvalidReference(Named),
}

#[derive(Clone, PartialEq, Message)]
pub struct Object {
    #[prost(oneof = "ObjectKind", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub kind: Option<ObjectKind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum ObjectKind {
    #[prost(message, tag = "1")]
    Platform(Platform),
    #[prost(message, tag = "2")]
    Layer(Layer),
    #[prost(message, tag = "3")]
    Manifest(Manifest),
    #[prost(message, tag = "4")]
    Tree(Tree),
    #[prost(message, tag = "5")]
    Blob(Blob),
    #[prost(bool, tag = "6")]
    Mask(bool),
    #[prost(bytes = "bytes", tag = "7")]
    Buffer(Bytes),
}

#[derive(Clone, PartialEq, Message)]
pub struct Platform {
    #[prost(message, repeated, tag = "1")]
    pub stack: Vec<Digest>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Layer {
    #[prost(message, optional, tag = "1")]
    pub manifest: Option<Digest>,
    #[prost(message, repeated, tag = "2")]
    pub annotations: Vec<Annotation>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Annotation {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(oneof = "AnnotationValue", tags = "2, 3")]
    pub value: Option<AnnotationValue>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum AnnotationValue {
    #[prost(string, tag = "2")]
    Data(String),
    #[prost(message, tag = "3")]
    Digest(Digest),
}

#[derive(Clone, PartialEq, Message)]
pub struct Manifest {
    #[prost(message, optional, tag = "1")]
    pub root: Option<Tree>,
    #[prost(message, repeated, tag = "2")]
    pub trees: Vec<Tree>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Tree {
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Entry {
    #[prost(message, optional, tag = "1")]
    pub object: Option<Digest>,
    /// Tree 0, blob 1, mask 2: the protocol's own numbering.
    #[prost(int32, tag = "2")]
    pub kind: i32,
    #[prost(uint32, tag = "3")]
    pub mode: u32,
    #[prost(uint64, tag = "4")]
    pub size: u64,
    #[prost(string, tag = "5")]
    pub name: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Blob {
    #[prost(message, optional, tag = "1")]
    pub payload: Option<Digest>,
    #[prost(uint64, tag = "2")]
    pub size: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Tag {
    #[prost(string, tag = "1")]
    pub org: String,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(message, optional, tag = "3")]
    pub target: Option<Digest>,
    #[prost(message, optional, tag = "4")]
    pub parent: Option<Digest>,
    #[prost(string, tag = "5")]
    pub user: String,
    #[prost(message, optional, tag = "6")]
    pub time: Option<DateTime>,
}

/// An answer that is either an error (field 1) or what was asked for (field 2).
#[derive(Clone, PartialEq, Message)]
pub struct Answer<T: Message + Default + std::fmt::Debug> {
    #[prost(message, optional, tag = "1")]
    pub error: Option<Error>,
    #[prost(message, optional, tag = "2")]
    pub ok: Option<T>,
}

/// The same, where what was asked for is a yes or no.
#[derive(Clone, PartialEq, Message)]
pub struct AnswerBool {
    #[prost(message, optional, tag = "1")]
    pub error: Option<Error>,
    #[prost(bool, optional, tag = "2")]
    pub ok: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
pub struct LsTagsRequest {
    #[prost(string, tag = "1")]
    pub path: String,
    #[prost(string, tag = "2")]
    pub namespace: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct EntryList {
    #[prost(message, repeated, tag = "2")]
    pub entries: Vec<ListEntry>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ListEntry {
    #[prost(oneof = "ListKind", tags = "1, 2, 3")]
    pub kind: Option<ListKind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum ListKind {
    #[prost(string, tag = "1")]
    Folder(String),
    #[prost(string, tag = "2")]
    Tag(String),
    #[prost(string, tag = "3")]
    Namespace(String),
}

#[derive(Clone, PartialEq, Message)]
pub struct ResolveTagRequest {
    #[prost(string, tag = "2")]
    pub tag_spec: String,
    #[prost(string, tag = "3")]
    pub namespace: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct FindTagsRequest {
    #[prost(message, optional, tag = "1")]
    pub digest: Option<Digest>,
    #[prost(string, tag = "2")]
    pub namespace: String,
}

/// A list of tag specs: `FindTags`, `IterTagSpecs`.
#[derive(Clone, PartialEq, Message)]
pub struct Texts {
    #[prost(string, repeated, tag = "1")]
    pub texts: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct IterTagSpecsRequest {
    #[prost(string, tag = "1")]
    pub namespace: String,
}

/// `ReadTag` and `RemoveTagStream`, which are alike.
#[derive(Clone, PartialEq, Message)]
pub struct TagStreamRequest {
    #[prost(string, tag = "1")]
    pub tag_spec: String,
    #[prost(string, tag = "2")]
    pub namespace: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct TagList {
    #[prost(message, repeated, tag = "1")]
    pub tags: Vec<Tag>,
}

/// `InsertTag` and `RemoveTag`, which are alike; so is our own `PushTag`.
#[derive(Clone, PartialEq, Message)]
pub struct TagRequest {
    #[prost(message, optional, tag = "1")]
    pub tag: Option<Tag>,
    #[prost(string, tag = "2")]
    pub namespace: String,
}

/// Every request that names one digest in field 1.
#[derive(Clone, PartialEq, Message)]
pub struct DigestRequest {
    #[prost(message, optional, tag = "1")]
    pub digest: Option<Digest>,
}

#[derive(Clone, PartialEq, Message)]
pub struct HasObjectResponse {
    #[prost(bool, tag = "1")]
    pub exists: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct HasPayloadResponse {
    #[prost(bool, tag = "3")]
    pub exists: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct FindDigestsRequest {
    #[prost(message, optional, tag = "1")]
    pub search_criteria: Option<Criteria>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Criteria {
    #[prost(oneof = "Criterion", tags = "1, 2")]
    pub criteria: Option<Criterion>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum Criterion {
    #[prost(message, tag = "1")]
    All(Ok),
    #[prost(message, tag = "2")]
    StartsWith(Digest),
}

#[derive(Clone, PartialEq, Message)]
pub struct WriteObjectRequest {
    #[prost(message, optional, tag = "1")]
    pub object: Option<Object>,
}

#[derive(Clone, PartialEq, Message)]
pub struct RemoveIfOlderRequest {
    #[prost(message, optional, tag = "1")]
    pub older_than: Option<DateTime>,
    #[prost(message, optional, tag = "2")]
    pub digest: Option<Digest>,
}

#[derive(Clone, PartialEq, Message)]
pub struct UploadOption {
    #[prost(string, tag = "1")]
    pub url: String,
}

/// Where a payload is to be had.
#[derive(Clone, PartialEq, Message)]
pub struct DownloadOption {
    #[prost(string, repeated, tag = "1")]
    pub locations: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct UploadResult {
    #[prost(message, optional, tag = "1")]
    pub digest: Option<Digest>,
    #[prost(uint64, tag = "2")]
    pub size: u64,
}

/// Our own: which of many digests are missing; each a concatenation of 32-byte digests.
#[derive(Clone, PartialEq, Message)]
pub struct Digests {
    #[prost(bytes = "bytes", tag = "1")]
    pub objects: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub payloads: Bytes,
    /// How many bytes the answer may have, where content is asked for; as many as the server likes, if it is 0.
    #[prost(uint32, tag = "3")]
    pub most: u32,
}

/// Our own: objects with their wire form, in the order that was asked for; fewer than that if they are large.
#[derive(Clone, PartialEq, Message)]
pub struct Objects {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub buffers: Vec<Bytes>,
}

/// Our own: payloads, in the order that was asked for; fewer than that if they are large, none if the first is too
/// large to be sent this way.
#[derive(Clone, PartialEq, Message)]
pub struct Payloads {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub contents: Vec<Bytes>,
}

/// Our own: small payloads, then objects, for an open batch.
#[derive(Clone, PartialEq, Message)]
pub struct Pack {
    /// The name of the batch (16 bytes), and the number of the pack in it (8 bytes, big-endian).
    #[prost(bytes = "bytes", tag = "1")]
    pub batch: Bytes,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub payloads: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "3")]
    pub objects: Vec<Bytes>,
}

/// Our own: the name of an open batch, 16 bytes.
#[derive(Clone, PartialEq, Message)]
pub struct BatchId {
    #[prost(bytes = "bytes", tag = "1")]
    pub id: Bytes,
}
