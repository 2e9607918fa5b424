//! Points in time as people type them: `~2weeks`, `@2020-06-15`, `@14:45`, `@2020-06-15T08:00:00Z`.
//!
//! The grammar is that of `docs/format.md`, time specs; a clock time is one of the caller's own day and place.

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

use crate::error::{Error, Result};

/// The units of relative times, in seconds.
const UNITS: &[(&[&str], i64)] = &[
    (&["y", "year", "years"], 365 * 24 * 3600),
    (&["w", "week", "weeks"], 7 * 24 * 3600),
    (&["d", "day", "days"], 24 * 3600),
    (&["h", "hour", "hours"], 3600),
    (&["m", "minute", "minutes"], 60),
    (&["s", "second", "seconds"], 1),
];

/// The instant that `text` means to somebody in `zone` for whom it is `now`.
///
/// Errors: a text that is neither `~` with a number and a unit, nor `@` with a date, a clock time or both.
pub fn parse(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp> {
    let wrong = |reason: &str| Error::invalid("time", text, reason);
    if let Some(ago) = text.strip_prefix('~') {
        return before(ago, now).ok_or_else(|| wrong("after ~ come a number and y, w, d, h, m or s, as in ~2weeks"));
    }
    // A date without the @ is in the documentation of existing SPFS.
    let at = text.strip_prefix('@').unwrap_or(text);
    let found = if at.contains('T') {
        at.parse().ok()
    } else if let Ok(date) = at.parse::<Date>() {
        date.to_zoned(zone.clone()).ok().map(|midnight| midnight.timestamp())
    } else if text.starts_with('@') {
        clock(at).and_then(|time| today_at(time, now, zone))
    } else {
        None
    };
    found.ok_or_else(|| wrong("write ~2weeks, @2020-06-15, @14:45, @9am or @2020-06-15T08:00:00Z"))
}

fn before(ago: &str, now: Timestamp) -> Option<Timestamp> {
    let unit = ago.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: i64 = ago[..ago.len() - unit.len()].parse().ok()?;
    let (_, seconds) = UNITS.iter().find(|(names, _)| names.contains(&unit))?;
    now.checked_sub(SignedDuration::from_secs(number.checked_mul(*seconds)?)).ok()
}

/// `9am`, `9:30pm`, `14:45`.
fn clock(text: &str) -> Option<Time> {
    let lower = text.to_ascii_lowercase();
    let (text, half) = match (lower.strip_suffix("am"), lower.strip_suffix("pm")) {
        (Some(text), _) => (text, Some(0)),
        (_, Some(text)) => (text, Some(12)),
        _ => (&*lower, None),
    };
    let (hour, minute) = match text.split_once(':') {
        Some((hour, minute)) => (hour, minute),
        None => (half.map(|_| text)?, "0"),
    };
    let hour: i8 = hour.parse().ok()?;
    let hour = match half {
        Some(noon) if (1..=12).contains(&hour) => hour % 12 + noon,
        Some(_) => return None,
        None => hour,
    };
    Time::new(hour, minute.parse().ok()?, 0, 0).ok()
}

fn today_at(time: Time, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let today: Zoned = now.to_zoned(zone.clone());
    Some(today.date().to_datetime(time).to_zoned(zone.clone()).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_form() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let now: Timestamp = "2020-06-20T10:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("~2weeks", "2020-06-06T10:00:00Z"),
            ("~1y", "2019-06-21T10:00:00Z"),
            ("~90s", "2020-06-20T09:58:30Z"),
            ("~0d", "2020-06-20T10:00:00Z"),
            ("@2020-06-15", "2020-06-14T22:00:00Z"),
            ("2020-06-15", "2020-06-14T22:00:00Z"),
            ("@2020-06-15T08:00:00+02:00", "2020-06-15T06:00:00Z"),
            ("@2020-06-15T08:00:00.125Z", "2020-06-15T08:00:00.125Z"),
            ("@9am", "2020-06-20T07:00:00Z"),
            ("@12am", "2020-06-19T22:00:00Z"),
            ("@9:30pm", "2020-06-20T19:30:00Z"),
            ("@14:45", "2020-06-20T12:45:00Z"),
        ] {
            assert_eq!(parse(text, now, &zone).unwrap().to_string(), expected, "{text}");
        }
        for text in
            ["", "~", "~2", "~x", "~2fortnights", "~-1d", "@", "@x", "@13pm", "@0am", "@25:00", "14", "9am", "é"]
        {
            assert!(parse(text, now, &zone).is_err(), "{text:?}");
        }
        assert!(parse("~99999999999999y", now, &zone).is_err());
    }
}
