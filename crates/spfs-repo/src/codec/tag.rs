//! Tag records and tag streams as bytes (`docs/format.md`, tags).
//!
//! ```text
//! record  org NUL  name NUL  target(32)  user NUL  time NUL  parent(32)
//! stream  { length(8, big-endian, signed)  record }…   oldest first
//! ```

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::cursor::Cursor;
use crate::digest::Digest;
use crate::error::Result;
use crate::tag::{Tag, TagName};

const WHAT: &str = "tag record";

/// The bytes of one record.
///
/// A NUL in the user's name cannot be written and is left out.
pub fn encode(tag: &Tag) -> Vec<u8> {
    let mut out = Vec::with_capacity(tag.name.as_str().len() + tag.user.len() + 102);
    let mut put_cstr = |text: &str, then: &[u8]| {
        out.extend(text.bytes().filter(|b| *b != 0));
        out.push(0);
        out.extend_from_slice(then);
    };
    put_cstr(tag.name.org(), &[]);
    put_cstr(tag.name.name(), tag.target.as_bytes());
    put_cstr(&tag.user, &[]);
    put_cstr(&format_time(tag.time), tag.parent.as_bytes());
    out
}

/// Reads one record. Errors: [`crate::Error::Corrupt`].
pub fn decode(bytes: &[u8]) -> Result<Tag> {
    let mut cursor = Cursor::new(WHAT, bytes);
    let (org, name) = (cursor.cstr()?, cursor.cstr()?);
    let name = TagName::from_record(org, name).map_err(|e| cursor.corrupt(e.to_string()))?;
    let target = cursor.digest()?;
    let user = cursor.cstr()?.to_owned();
    let time = cursor.cstr()?;
    let time = parse_time(time).ok_or_else(|| cursor.corrupt(format!("{time:?} is no RFC 3339 time")))?;
    let parent = cursor.digest()?;
    cursor.finish()?;
    Ok(Tag { name, target, parent, user, time })
}

/// The digest of a record: plain SHA-256 of its bytes.
pub fn digest(tag: &Tag) -> Digest {
    Digest::of(&encode(tag))
}

/// The bytes of a stream; `tags` are **oldest first**.
pub fn encode_stream(tags: &[Tag]) -> Vec<u8> {
    let mut out = Vec::new();
    for tag in tags {
        let record = encode(tag);
        out.extend_from_slice(&(record.len() as u64).to_be_bytes());
        out.extend_from_slice(&record);
    }
    out
}

/// Reads a stream, **oldest first** as it is stored; no bytes are an empty stream. Errors: [`crate::Error::Corrupt`].
pub fn decode_stream(bytes: &[u8]) -> Result<Vec<Tag>> {
    let mut cursor = Cursor::new("tag stream", bytes);
    let mut tags = Vec::new();
    while cursor.len() > 0 {
        // A negative length is far too large as an unsigned number, and refused with the rest.
        let len = cursor.count(1)?;
        tags.push(decode(cursor.bytes(len)?)?);
    }
    Ok(tags)
}

/// `YYYY-MM-DDTHH:MM:SS[.fff|.ffffff|.fffffffff]+00:00`, with the fewest groups of digits that hold the value.
fn format_time(time: Timestamp) -> String {
    let t = time.to_zoned(TimeZone::UTC).datetime();
    let fraction = match t.subsec_nanosecond() {
        0 => String::new(),
        n if n % 1_000_000 == 0 => format!(".{:03}", n / 1_000_000),
        n if n % 1_000 == 0 => format!(".{:06}", n / 1_000),
        n => format!(".{n:09}"),
    };
    // Four digits, and for a year before 0 a sign before them.
    let (sign, year) = if t.year() < 0 { ("-", -t.year()) } else { ("", t.year()) };
    let (month, day, hour, minute, second) = (t.month(), t.day(), t.hour(), t.minute(), t.second());
    format!("{sign}{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}+00:00")
}

/// Any RFC 3339 time; what is finer than a nanosecond is dropped.
fn parse_time(text: &str) -> Option<Timestamp> {
    if !text.is_ascii() || text.contains('[') {
        return None;
    }
    let (head, rest) = match text.split_once('.') {
        None => (text, ""),
        Some((head, _)) => (head, &text[head.len()..]),
    };
    let digits = rest.bytes().skip(1).take_while(u8::is_ascii_digit).count();
    let (fraction, zone) = rest.split_at(rest.len().min(digits + 1));
    format!("{head}{}{zone}", &fraction[..fraction.len().min(10)]).parse().ok()
}
