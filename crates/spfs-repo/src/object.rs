//! The nodes of the object graph, as plain structs. Their bytes are in [`crate::codec`].

use std::fmt;

use crate::digest::Digest;
use crate::manifest::Manifest;

/// The kind of a stored object; the value is the kind number of the stored header and of the salted digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    /// One payload.
    Blob = 0,
    /// One directory tree.
    Manifest = 1,
    /// One manifest and annotations.
    Layer = 2,
    /// A stack of layers.
    Platform = 3,
}

impl Kind {
    /// The kind's name, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Blob => "blob",
            Kind::Manifest => "manifest",
            Kind::Layer => "layer",
            Kind::Platform => "platform",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What is hashed to make an object's digest; stored in its header, so that a digest never changes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum Strategy {
    /// SHA-256 of the bare body: what old objects use.
    Legacy = 0,
    /// SHA-256 of a salt, the kind and the body: what new objects use.
    #[default]
    WithKindAndSalt = 1,
}

/// How an object's body is written; it has no influence on the digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum Encoding {
    /// The bytes that are hashed; cannot hold annotations.
    Legacy = 0,
    /// FlatBuffers: what new objects use.
    #[default]
    FlatBuffers = 1,
}

/// The two choices in an object's header. The default is what new objects get.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Format {
    /// How the digest is made.
    pub strategy: Strategy,
    /// How the body is written.
    pub encoding: Encoding,
}

/// One object with the format that it was, or will be, stored in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Object {
    /// Its header's choices. An object that is copied keeps them.
    pub format: Format,
    /// What it holds.
    pub body: ObjectBody,
}

/// What an object holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ObjectBody {
    /// One payload.
    Blob(Blob),
    /// One directory tree.
    Manifest(Manifest),
    /// One manifest and annotations.
    Layer(Layer),
    /// A stack of layers.
    Platform(Platform),
}

/// The object that stands for one payload, and shares its digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Blob {
    /// Digest of the payload.
    pub payload: Digest,
    /// Bytes in the payload.
    pub size: u64,
}

/// One manifest plus annotations; at least one of the two.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Layer {
    /// The tree that the layer adds, if any.
    pub manifest: Option<Digest>,
    /// Notes, in stored order; keys may repeat.
    pub annotations: Vec<Annotation>,
}

/// A key with a text, or with a text kept apart as a blob because it is long.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Annotation {
    /// The key.
    pub key: String,
    /// The value.
    pub value: AnnotationValue,
}

/// The value of an annotation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AnnotationValue {
    /// The text itself.
    Text(String),
    /// The digest of the blob that holds the text.
    Blob(Digest),
}

/// A stack of layers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Platform {
    /// Layers (or platforms), **bottom-most first**. Digests, legacy bytes and everything printed are top-down.
    pub stack: Vec<Digest>,
}

impl Object {
    /// `body` in the format of new objects.
    pub fn new(body: impl Into<ObjectBody>) -> Self {
        Object { format: Format::default(), body: body.into() }
    }

    /// Which kind it is.
    pub fn kind(&self) -> Kind {
        match self.body {
            ObjectBody::Blob(_) => Kind::Blob,
            ObjectBody::Manifest(_) => Kind::Manifest,
            ObjectBody::Layer(_) => Kind::Layer,
            ObjectBody::Platform(_) => Kind::Platform,
        }
    }

    /// The objects that this one refers to, without repetition, in stored order. A blob has none.
    pub fn children(&self) -> Vec<Digest> {
        match &self.body {
            ObjectBody::Blob(_) => Vec::new(),
            ObjectBody::Manifest(manifest) => manifest.blobs(),
            ObjectBody::Layer(layer) => layer.children(),
            ObjectBody::Platform(platform) => {
                let mut seen = std::collections::HashSet::new();
                platform.stack.iter().copied().filter(|d| seen.insert(*d)).collect()
            }
        }
    }
}

impl Layer {
    /// The manifest, if any, and the blobs of long annotations.
    pub fn children(&self) -> Vec<Digest> {
        let blobs = self.annotations.iter().filter_map(|a| match a.value {
            AnnotationValue::Blob(digest) => Some(digest),
            AnnotationValue::Text(_) => None,
        });
        self.manifest.into_iter().chain(blobs).collect()
    }
}

impl From<Blob> for ObjectBody {
    fn from(blob: Blob) -> Self {
        ObjectBody::Blob(blob)
    }
}
impl From<Manifest> for ObjectBody {
    fn from(manifest: Manifest) -> Self {
        ObjectBody::Manifest(manifest)
    }
}
impl From<Layer> for ObjectBody {
    fn from(layer: Layer) -> Self {
        ObjectBody::Layer(layer)
    }
}
impl From<Platform> for ObjectBody {
    fn from(platform: Platform) -> Self {
        ObjectBody::Platform(platform)
    }
}
