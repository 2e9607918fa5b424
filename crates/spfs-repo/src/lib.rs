//! What spfs keeps, and the places that keep it.
//!
//! Plain structs for the object graph ([`Blob`], [`Manifest`], [`Layer`], [`Platform`]) and for [`Tag`]s, their
//! bytes ([`codec`]), the one [`Repository`] trait, and its kinds: the [`directory`], the [`archive`], a
//! [`chain`] of others, another one [`pinned`] to a time, and one that is opened [`lazy`]. This crate is silent and
//! synchronous: it never prints, and never reads the environment, the home directory or the clock.

pub mod archive;
pub mod chain;
pub mod codec;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod content;
pub mod digest;
pub mod directory;
pub mod error;
pub mod ingest;
pub mod lazy;
pub mod manifest;
pub mod object;
pub mod pinned;
pub mod progress;
pub mod query;
pub mod reference;
mod regular;
pub mod repository;
mod stream;
pub mod tag;
mod text;
mod unique;

pub use archive::Archive;
pub use chain::{Chain, Repair};
pub use codec::{Encoded, Given};
pub use digest::{Digest, DigestPrefix, Hasher};
pub use directory::Directory;
pub use error::{Error, NetTrouble, Result};
pub use lazy::Lazy;
pub use manifest::{Dir, Entry, EntryKind, Manifest, Node, Tree};
pub use object::{
    Annotation, AnnotationValue, Blob, Encoding, Format, Kind, Layer, Object, ObjectBody, Platform, Strategy,
};
pub use pinned::Pinned;
pub use progress::{NoProgress, Progress};
pub use regular::{open_regular, read_regular, read_text};
pub use repository::{Batch, EachObject, EachPayload, PayloadReader, Repository, TagListing};
pub use tag::{Tag, TagName, TagSpec};
pub use unique::unique;
