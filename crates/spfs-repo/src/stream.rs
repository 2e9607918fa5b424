//! What becomes of a tag stream when a record is added or removed: its records, oldest first, go in and come out.

use std::cmp::Ordering;

use jiff::{SignedDuration, Timestamp};

use crate::codec;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::tag::{Tag, TagName};

/// What a rewrite makes of a stream.
pub(crate) enum Change<T> {
    /// It stays as it is.
    Keep(T),
    /// It becomes these records, oldest first; none removes the stream.
    Write(Vec<Tag>, T),
}

/// Adds `tag` at its place in time.
pub(crate) fn insert(mut tags: Vec<Tag>, tag: &Tag) -> Change<()> {
    if tags.contains(tag) {
        return Change::Keep(());
    }
    // Behind the last record that is not later, so that a stream out of order is not shuffled.
    let place = tags.iter().rposition(|old| order(old, tag).is_lt()).map_or(0, |at| at + 1);
    tags.insert(place, tag.clone());
    Change::Write(tags, ())
}

/// Makes `tag` the newest, unless the newest has its target; it gets its parent here, and a time behind the newest's.
/// Says which record is the newest then.
pub(crate) fn push(mut tags: Vec<Tag>, tag: &Tag) -> Result<Change<Tag>> {
    let mut new = Tag { time: to_microseconds(tag.time), parent: Digest::NULL, ..tag.clone() };
    if let Some(newest) = tags.last() {
        if newest.target == tag.target {
            return Ok(Change::Keep(newest.clone()));
        }
        new.parent = codec::tag::digest(newest);
        if new.time <= newest.time {
            let behind = to_microseconds(newest.time).checked_add(SignedDuration::from_micros(1));
            new.time = behind.map_err(|e| Error::invalid("tag", tag.name.as_str(), e.to_string()))?;
        }
    }
    tags.push(new.clone());
    Ok(Change::Write(tags, new))
}

/// Removes `tag`, if it is there.
pub(crate) fn remove(mut tags: Vec<Tag>, tag: &Tag) -> Option<Change<()>> {
    let at = tags.iter().position(|old| old == tag)?;
    tags.remove(at);
    Some(Change::Write(tags, ()))
}

/// The total order of tags: time first (`docs/format.md`, tag records).
fn order(a: &Tag, b: &Tag) -> Ordering {
    let rest = |tag: &Tag| (tag.name.org().to_owned(), tag.name.name().to_owned(), tag.target, tag.parent);
    a.time.cmp(&b.time).then_with(|| rest(a).cmp(&rest(b))).then_with(|| a.user.cmp(&b.user))
}

fn to_microseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

/// The tag's name, if `file` is a stream file's.
pub(crate) fn stem(file: &str) -> Option<&str> {
    file.strip_suffix(".tag").filter(|stem| stem.parse::<TagName>().is_ok())
}
