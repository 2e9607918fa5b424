//! Names that nobody else has.

use rustix::rand::{GetRandomFlags, getrandom};
use uuid::{Builder, Uuid};

/// A new random UUID (version 4).
///
/// Asks the kernel at every call: the usual crates, linked statically, keep a descriptor of `/dev/urandom`, which a
/// process that closes what it has inherited takes away from under them.
pub fn unique() -> Uuid {
    let mut bytes = [0u8; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(n) => filled += n,
            Err(rustix::io::Errno::INTR) => {}
            // No kernel that can mount a runtime lacks it; a name need not be secret, only new.
            Err(_) => {
                bytes = fallback();
                filled = bytes.len();
            }
        }
    }
    Builder::from_random_bytes(bytes).into_uuid()
}

/// Sixteen bytes from what tells processes and moments apart, mixed by the standard library's seeded hasher.
fn fallback() -> [u8; 16] {
    use std::hash::{BuildHasher, RandomState};
    let half = |salt: u8| RandomState::new().hash_one((salt, std::process::id())).to_le_bytes();
    let mut bytes = [0u8; 16];
    bytes[..8].copy_from_slice(&half(0));
    bytes[8..].copy_from_slice(&half(1));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_random_uuids_and_differ() {
        let (one, other) = (unique(), unique());
        assert_ne!(one, other);
        assert_eq!(one.get_version_num(), 4);
        assert_ne!(fallback(), [0; 16]);
    }
}
