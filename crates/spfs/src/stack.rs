//! Stacks: what an environment is made of, bottom-most first.

use spfs_repo::Digest;

use crate::error::Warning;

/// What an environment spec means: objects, and directories of the host.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stack {
    /// Layers, platforms and manifests as they were named, bottom-most first; none twice.
    pub digests: Vec<Digest>,
    /// What a person should hear of.
    pub warnings: Vec<Warning>,
}

impl Stack {
    /// Puts `digest` on top. One that is in the stack already moves up.
    pub fn push(&mut self, digest: Digest) {
        push(&mut self.digests, digest);
    }
}

/// Puts `digest` on top of `stack` (bottom-most first). One that is there already moves up.
pub fn push(stack: &mut Vec<Digest>, digest: Digest) {
    stack.retain(|other| *other != digest);
    stack.push(digest);
}
