//! Paths in JSON, without losing any: a path is bytes, JSON is Unicode.
//!
//! A path is the text that it is; each byte of it that is no UTF-8 becomes the character U+0000, which no path has, and
//! two hexadecimal digits. For `#[serde(with = …)]`.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What stands before a byte that is no UTF-8.
const ESCAPE: char = '\0';

fn text(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("{ESCAPE}{byte:02x}")));
    }
    text
}

fn path(text: &str) -> PathBuf {
    let mut parts = text.split(ESCAPE);
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..2).map(|digits| u8::from_str_radix(digits, 16)) {
            Some(Ok(byte)) => {
                bytes.push(byte);
                bytes.extend_from_slice(&part.as_bytes()[2..]);
            }
            // Nothing that we wrote.
            _ => bytes.extend_from_slice(part.as_bytes()),
        }
    }
    OsString::from_vec(bytes).into()
}

/// Writes a path.
pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(path))
}

/// Reads a path.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    String::deserialize(deserializer).map(|text| path(&text))
}

/// The same for paths that may be missing.
pub mod option {
    use super::*;

    /// Writes a path or `null`.
    pub fn serialize<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
        path.as_deref().map(text).serialize(serializer)
    }

    /// Reads a path or `null`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
        Ok(Option::<String>::deserialize(deserializer)?.map(|text| path(&text)))
    }
}

/// The same for lists of paths, which are only written.
pub mod list {
    use super::*;

    /// Writes paths.
    pub fn serialize<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(paths.iter().map(|path| text(path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_comes_back() {
        for (bytes, written) in [
            (&b"/home/a b/\xc3\xa4"[..], "/home/a b/ä"),
            (b"/n\xff\xfe/x", "/n\0ff\0fe/x"),
            (b"\xc3", "\0c3"),
            (b"", ""),
        ] {
            let given = PathBuf::from(OsString::from_vec(bytes.to_vec()));
            assert_eq!(text(&given), written);
            assert_eq!(path(written), given);
        }
    }

    #[test]
    fn odd_texts_are_some_path() {
        for (odd, bytes) in [("a\0", &b"a"[..]), ("a\0f", b"af"), ("\0ä", "ä".as_bytes())] {
            assert_eq!(path(odd).as_os_str().as_bytes(), bytes, "{odd:?}");
        }
    }
}
