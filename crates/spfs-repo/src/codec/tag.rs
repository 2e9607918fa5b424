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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn tag(time: &str) -> Tag {
        let (name, user) = ("a".parse().unwrap(), "u".to_owned());
        Tag { name, target: Digest::NULL, parent: Digest::NULL, user, time: time.parse().unwrap() }
    }

    fn record(org: &str, name: &str, time: &str) -> Vec<u8> {
        let zeros = [0; 32];
        let texts = [org, "\0", name, "\0"].concat().into_bytes();
        [&texts, &zeros[..], b"u\0", time.as_bytes(), b"\0", &zeros].concat()
    }

    #[test]
    fn times_are_written_in_groups_of_three() {
        for (time, wanted) in [
            ("2020-01-02T03:04:05Z", "2020-01-02T03:04:05+00:00"),
            ("2020-01-02T03:04:05.1Z", "2020-01-02T03:04:05.100+00:00"),
            ("2020-01-02T03:04:05.000001Z", "2020-01-02T03:04:05.000001+00:00"),
            ("2020-01-02T03:04:05.000000001Z", "2020-01-02T03:04:05.000000001+00:00"),
            ("1960-01-02T03:04:05.25Z", "1960-01-02T03:04:05.250+00:00"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+00:00"),
        ] {
            assert_eq!(format_time(time.parse().unwrap()), wanted);
            // A record that the existing program wrote keeps its bytes, and so its digest.
            let bytes = record("", "a", wanted);
            assert_eq!(encode(&decode(&bytes).unwrap()), bytes);
        }
    }

    #[test]
    fn any_rfc_3339_time_is_read() {
        for (text, wanted) in [
            ("2020-01-02T03:04:05Z", "2020-01-02T03:04:05Z"),
            ("2020-01-02T05:04:05+02:00", "2020-01-02T03:04:05Z"),
            ("2020-01-01T22:04:05.5-05:00", "2020-01-02T03:04:05.5Z"),
            ("2020-01-02t03:04:05z", "2020-01-02T03:04:05Z"),
            ("2020-01-02 03:04:05+00:00", "2020-01-02T03:04:05Z"),
            ("2020-01-02T03:04:05.1234567891234+00:00", "2020-01-02T03:04:05.123456789Z"),
        ] {
            assert_eq!(decode(&record("", "a", text)).unwrap(), tag(wanted), "{text}");
        }
        for text in
            ["", "now", "2020-01-02", "2020-01-02T03:04:05", "2020-13-02T03:04:05Z", "2020-01-02T03:04:05.Z", "é"]
        {
            assert!(decode(&record("", "a", text)).is_err(), "{text}");
        }
    }

    #[test]
    fn names_of_old_records_are_kept() {
        for (org, name) in [("", "a"), ("a", "b"), ("a/b", "c.d"), ("a/", "b"), ("a//b", "c")] {
            let bytes = record(org, name, "2020-01-02T03:04:05+00:00");
            let tag = decode(&bytes).unwrap();
            assert_eq!((tag.name.org(), tag.name.name()), (org, name));
            assert_eq!(encode(&tag), bytes);
        }
        for (org, name) in
            [("", ""), ("a", ""), ("/", "a"), ("/etc", "a"), ("..", "a"), ("a", ".."), ("", "a/b"), ("", "é")]
        {
            assert!(decode(&record(org, name, "2020-01-02T03:04:05+00:00")).is_err(), "{org:?} {name:?}");
        }
    }

    #[test]
    fn records_are_exactly_as_long_as_they_say() {
        let bytes = encode(&tag("2020-01-02T03:04:05Z"));
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err());
        }
        assert!(decode(&[&bytes[..], b"x"].concat()).is_err());
        let stream = encode_stream(&[tag("2020-01-02T03:04:05Z"), tag("2020-01-02T03:04:06Z")]);
        for len in 1..stream.len() {
            // A cut between two records cannot be seen.
            assert_eq!(decode_stream(&stream[..len]).is_err(), len != stream.len() / 2, "{len}");
        }
        assert_eq!(decode_stream(b"").unwrap(), []);
        assert!(decode_stream(&(-1_i64).to_be_bytes()).is_err());
    }
}
