//! Digests: the SHA-256 identity of everything stored, and prefixes of them.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

/// Characters of a full digest in text form: 52 significant ones and `====`.
pub const TEXT_LEN: usize = 56;
/// Significant characters of a full digest, without the padding.
pub const SIGNIFICANT_LEN: usize = 52;

/// SHA-256 of content (32 bytes), printed as RFC 4648 base32, upper case, padded (`docs/format.md`, digests).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Thirty-two zero bytes: the object of a mask, the parent of a first tag.
    pub const NULL: Digest = Digest([0; 32]);

    /// The digest with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Digest(bytes)
    }

    /// The digest of `content`.
    pub fn of(content: &[u8]) -> Self {
        Digest(Sha256::digest(content).into())
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first `n` characters (at most 52) of the text form.
    pub fn short(&self, n: usize) -> String {
        let mut text = self.to_string();
        text.truncate(n.min(SIGNIFICANT_LEN));
        text
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; TEXT_LEN];
        BASE32.encode_mut(&self.0, &mut text);
        f.pad(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Error;

    /// Reads the full, strict form: 56 characters, upper case, padded, unused bits zero.
    fn from_str(text: &str) -> Result<Self> {
        let mut bytes = [0u8; 32];
        let invalid = |reason: String| Error::invalid("digest", text, reason);
        if text.len() != TEXT_LEN {
            return Err(invalid(format!("it has {} characters instead of {TEXT_LEN}", text.len())));
        }
        // decode_mut wants room for the padded length: 35 bytes for 56 characters.
        let mut buffer = [0u8; 35];
        let n = BASE32.decode_mut(text.as_bytes(), &mut buffer).map_err(|e| invalid(e.error.to_string()))?;
        if n != bytes.len() {
            return Err(invalid(format!("it holds {n} bytes instead of 32")));
        }
        bytes.copy_from_slice(&buffer[..n]);
        Ok(Digest(bytes))
    }
}

/// Hashes content that arrives in pieces.
#[derive(Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// A hasher that has seen nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that was added.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// The beginning of a digest's text, matched character by character (`docs/format.md`, partial digests).
///
/// Upstream matches by byte, so its last character may be only partly significant; ours means what was typed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DigestPrefix(String);

impl DigestPrefix {
    /// The prefix that every digest has.
    pub const fn any() -> Self {
        DigestPrefix(String::new())
    }

    /// The characters, without padding.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `digest`'s text begins so.
    pub fn matches(&self, digest: &Digest) -> bool {
        digest.to_string().starts_with(&self.0)
    }
}

impl fmt::Display for DigestPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for DigestPrefix {
    type Err = Error;

    /// Reads 1 to 52 base32 characters, upper case; trailing `=` are dropped.
    fn from_str(text: &str) -> Result<Self> {
        let significant = text.trim_end_matches('=');
        let invalid = |reason: &str| Error::invalid("digest prefix", text, reason);
        if significant.is_empty() {
            return Err(invalid("it is empty"));
        }
        if significant.len() > SIGNIFICANT_LEN {
            return Err(invalid("it is longer than a digest"));
        }
        if !significant.bytes().all(|b| b.is_ascii_uppercase() || (b'2'..=b'7').contains(&b)) {
            return Err(invalid("only A-Z and 2-7 stand in a digest"));
        }
        Ok(DigestPrefix(significant.to_owned()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const EMPTY: &str = "4OYMIQUY7QOBJGX36TEJS35ZEQT24QPEMSNZGTFESWMRW6CSXBKQ====";

    #[test]
    fn text_form() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Digest>().unwrap(), Digest::of(b""));
        assert_eq!(Digest::NULL.to_string(), "A".repeat(52) + "====");
        assert_eq!(Digest::of(b"").short(10), "4OYMIQUY7Q");
        assert_eq!(Digest::of(b"").short(99).len(), 52);
        let mut hasher = Hasher::new();
        hasher.update(b"hello, ");
        hasher.update(b"world\n");
        assert_eq!(hasher.finish(), Digest::of(b"hello, world\n"));
    }

    #[test]
    fn only_the_strict_form_is_a_digest() {
        let lower = EMPTY.to_lowercase();
        // The last character holds one bit of the digest; the other four must be zero: Q is, R is not.
        let loose = EMPTY.replace("Q====", "R====");
        let late = format!("{}=A==", &EMPTY[..52]);
        let inner = format!("{}{}", "=".repeat(8), &EMPTY[8..]);
        let wide = format!("{}é====", &EMPTY[..50]);
        assert_eq!(wide.len(), 56);
        let cases =
            ["", "====", &EMPTY[..52], &EMPTY[1..], &lower, &loose, &late, &inner, &wide, &EMPTY.replace('4', "1")];
        for text in cases {
            assert!(text.parse::<Digest>().is_err(), "{text:?}");
        }
        assert!(format!("{EMPTY}=").parse::<Digest>().is_err());
        assert!("A".repeat(56).parse::<Digest>().is_err(), "35 bytes");
        assert!(format!("{}======", "A".repeat(50)).parse::<Digest>().is_err(), "31 bytes");
    }

    #[test]
    fn prefixes_match_by_character() {
        let digest = Digest::of(b"");
        for n in 1..=56 {
            assert!(EMPTY[..n].parse::<DigestPrefix>().unwrap().matches(&digest), "{n}");
        }
        assert!(DigestPrefix::any().matches(&digest));
        assert!(!"4P".parse::<DigestPrefix>().unwrap().matches(&digest));
        for text in ["", "=", "====", "a", "4O1", "4o", "4O=Y", "4 O", "é", &"A".repeat(53)] {
            assert!(text.parse::<DigestPrefix>().is_err(), "{text:?}");
        }
    }
}
