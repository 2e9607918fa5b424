//! How a metadata file says where its data is: the two extended attributes that overlayfs reads.
//!
//! Under `userxattr` overlayfs takes them from the `user.` namespace; the redirect is a path from the root of the
//! data-only layer, here the payload directory (kernel: `Documentation/filesystems/overlayfs.rst`, "Data-only lower
//! layers").

use std::io::Write;

use spfs_repo::Digest;

/// Says "metadata only"; without a value.
pub(crate) const METACOPY: &str = "user.overlay.metacopy";
/// Says where the data is.
pub(crate) const REDIRECT: &str = "user.overlay.redirect";
/// Length of the value of [`REDIRECT`]: `/`, two characters, `/`, the other 54 of the digest's text.
pub(crate) const REDIRECT_LEN: usize = 58;

/// The value of [`REDIRECT`] for a payload, as in `/QU/77SN…====`.
pub(crate) fn redirect(digest: &Digest) -> [u8; REDIRECT_LEN] {
    let mut path = [b'/'; REDIRECT_LEN];
    // The text has 56 characters: it fills all but the first two bytes, and cannot fail to.
    let _ = write!(&mut path[2..], "{digest}");
    path[1] = path[2];
    path[2] = path[3];
    path[3] = b'/';
    path
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn redirect_is_the_payload_path() {
        let digest = "QU77SN3CUBW5X5ZCYTV6TXOWNWHWHXNOVF7VEHB6ZQQNU7EXMAQA====".parse().unwrap();
        let expected = "/QU/77SN3CUBW5X5ZCYTV6TXOWNWHWHXNOVF7VEHB6ZQQNU7EXMAQA====";
        assert_eq!(std::str::from_utf8(&redirect(&digest)).unwrap(), expected);
    }
}
