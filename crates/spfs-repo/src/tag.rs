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
