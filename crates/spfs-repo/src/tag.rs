//! Tags: names with a history.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

use crate::digest::Digest;
use crate::error::{Error, Result};

/// The name of a tag stream: an optional path (`org`) and a name, as in `vfx/2019`.
///
/// Grammar: `docs/format.md`, tag names. No leading, trailing or double `/`, no component `.` or `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TagName(String);

/// A tag name with a version: `name` or `name~N`, where `name~0` is the newest.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TagSpec {
    /// The stream.
    pub name: TagName,
    /// How many records back from the newest.
    pub version: u64,
}

/// One record of a tag stream: what the name meant, since when, and who said so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tag {
    /// The stream.
    pub name: TagName,
    /// What it points to.
    pub target: Digest,
    /// Digest of the record before it, or [`Digest::NULL`]. Informational.
    pub parent: Digest,
    /// Who made it, as `name@domain`.
    pub user: String,
    /// Since when. New records are truncated to microseconds.
    pub time: Timestamp,
}

impl TagName {
    /// The whole name, `org/name`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path before the last `/`, or `""`.
    pub fn org(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(org, _)| org)
    }

    /// What follows the last `/`.
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&*self.0, |(_, name)| name)
    }
}

impl TagName {
    /// The name in a stored record, whose grammar was looser: an empty part inside (`a//b`, whose org is `a/`) is
    /// kept, so that the record keeps its digest. Whatever could lead out of a directory is refused.
    pub(crate) fn from_record(org: &str, name: &str) -> Result<Self> {
        let text = if org.is_empty() { name.to_owned() } else { format!("{org}/{name}") };
        let invalid = |reason: &str| Error::invalid("tag", &*text, reason);
        if name.is_empty() || name.contains('/') {
            return Err(invalid("its last part is no name"));
        }
        if org.starts_with('/') {
            return Err(invalid("it begins with '/'"));
        }
        text.split('/')
            .filter(|part| !part.is_empty())
            .try_for_each(|part| check_part(part).map_err(|r| invalid(&r)))?;
        Ok(TagName(text))
    }
}

/// Checks one part between `/`.
fn check_part(part: &str) -> std::result::Result<(), String> {
    match part {
        "" => return Err("a part between '/' is empty".to_owned()),
        "." | ".." => return Err("'.' and '..' are no names".to_owned()),
        _ => {}
    }
    if let Some(c) = part.chars().find(|c| !c.is_ascii_alphanumeric() && !"-_.".contains(*c)) {
        return Err(format!("{c:?} is not allowed; use A-Z a-z 0-9 - _ . and '/'"));
    }
    if part.len() > 240 {
        return Err("a part is longer than 240 bytes".to_owned());
    }
    Ok(())
}

impl FromStr for TagName {
    type Err = Error;

    /// Reads `org/name`; a single leading `/` is dropped, as upstream does.
    fn from_str(text: &str) -> Result<Self> {
        let invalid = |reason: &str| Error::invalid("tag", text, reason);
        let name = text.strip_prefix('/').unwrap_or(text);
        if name.is_empty() {
            return Err(invalid("it is empty"));
        }
        name.split('/').try_for_each(|part| check_part(part).map_err(|reason| invalid(&reason)))?;
        Ok(TagName(name.to_owned()))
    }
}

/// The order of records: by time, then by org, name, target, parent and user.
impl Ord for Tag {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |tag: &Self| (tag.time, tag.target, tag.parent);
        let names = || (self.name.org(), self.name.name()).cmp(&(other.name.org(), other.name.name()));
        let ((time, target, parent), (time2, target2, parent2)) = (key(self), key(other));
        let time = time.cmp(&time2).then_with(names);
        time.then(target.cmp(&target2)).then(parent.cmp(&parent2)).then_with(|| self.user.cmp(&other.user))
    }
}

impl PartialOrd for Tag {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for TagName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for TagSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, version) = match text.split_once('~') {
            None => (text, 0),
            Some((name, version)) => {
                let digits = !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit());
                let number = if digits { version.parse().ok() } else { None };
                (name, number.ok_or_else(|| Error::invalid("tag", text, "a whole number must follow '~'"))?)
            }
        };
        Ok(TagSpec { name: name.parse()?, version })
    }
}

impl fmt::Display for TagSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            0 => fmt::Display::fmt(&self.name, f),
            n => f.pad(&format!("{}~{n}", self.name)),
        }
    }
}

impl From<TagName> for TagSpec {
    fn from(name: TagName) -> Self {
        TagSpec { name, version: 0 }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn specs() {
        for (text, org, name, version, printed) in [
            ("a", "", "a", 0, "a"),
            ("/a", "", "a", 0, "a"),
            ("-", "", "-", 0, "-"),
            ("vfx/2019", "vfx", "2019", 0, "vfx/2019"),
            ("a/b.c_d-e/F~12", "a/b.c_d-e", "F", 12, "a/b.c_d-e/F~12"),
            ("a~0", "", "a", 0, "a"),
            ("a~18446744073709551615", "", "a", u64::MAX, "a~18446744073709551615"),
        ] {
            let spec: TagSpec = text.parse().unwrap();
            assert_eq!((spec.name.org(), spec.name.name(), spec.version), (org, name, version), "{text}");
            assert_eq!(spec.to_string(), printed);
        }
        for text in [
            "",
            "/",
            "//a",
            "a/",
            "a//b",
            ".",
            "..",
            "../a",
            "a/./b",
            "a/../b",
            "a b",
            "a:b",
            "a#ns/b",
            "a\0b",
            "a\n",
            "é",
            "a~",
            "a~x",
            "a~+1",
            "a~-1",
            "a~1~2",
            "a~1/b",
            "~1",
            "a~18446744073709551616",
            "é~1",
        ] {
            assert!(text.parse::<TagSpec>().is_err(), "{text:?}");
        }
        assert!("a".repeat(240).parse::<TagName>().is_ok());
        assert!("a".repeat(241).parse::<TagName>().is_err());
    }

    #[test]
    fn order_of_records() {
        let tag = |second: i64, name: &str, target: u8, parent: u8, user: &str| Tag {
            name: name.parse().unwrap(),
            target: Digest::from_bytes([target; 32]),
            parent: Digest::from_bytes([parent; 32]),
            user: user.to_owned(),
            time: Timestamp::from_second(second).unwrap(),
        };
        let sorted = [
            tag(1, "z/z", 9, 9, "z"),
            tag(2, "z", 9, 9, "z"),
            tag(2, "a/a", 9, 9, "z"),
            tag(2, "a/b", 8, 9, "z"),
            tag(2, "a/b", 9, 8, "z"),
            tag(2, "a/b", 9, 9, "a"),
            tag(2, "a/b", 9, 9, "b"),
            // As a whole name "a.b/a" is before "a/b", as an org it is behind.
            tag(2, "a.b/a", 9, 9, "b"),
        ];
        assert!(sorted.is_sorted());
        assert!(sorted.windows(2).all(|pair| pair[0] != pair[1] && pair[1] > pair[0]));
    }
}
