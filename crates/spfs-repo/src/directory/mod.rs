//! The directory repository: objects, payloads and tags as files below one root.

/// A repository in a directory.
pub struct Directory;
