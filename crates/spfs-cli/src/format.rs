//! How sizes, modes and times are printed.

use std::borrow::Cow;

use spfs::repo::TagSpec;

/// Bytes with one decimal and a unit: `3.0 B`, `1.5 Ki`, `2.0 Gi`.
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let mut value = bytes as f64;
    let mut unit = 0;
    // What would be rounded to 1024.0 belongs to the next unit.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Bytes as a number, or for people.
pub fn size(bytes: u64, for_people: bool) -> String {
    if for_people { human(bytes) } else { bytes.to_string() }
}

/// A full `st_mode` as `ls -l` shows it: `drwxr-xr-x`.
pub fn mode(mode: u32) -> String {
    let kind = match mode & 0o170000 {
        0o040000 => 'd',
        0o120000 => 'l',
        0o020000 => 'c',
        _ => '-',
    };
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// A name with the tags that point there: `XY64NZFA -> a -> b`.
pub fn with_tags(name: &str, tags: &[TagSpec]) -> String {
    let tags = tags.iter().map(|tag| Cow::Owned(tag.to_string()));
    std::iter::once(Cow::Borrowed(name)).chain(tags).collect::<Vec<_>>().join(" -> ")
}

/// `1 file`, `2 files`.
pub fn count(number: u64, singular: &str) -> String {
    format!("{number} {singular}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        for (bytes, text) in [
            (0, "0.0 B"),
            (3, "3.0 B"),
            (1023, "1023.0 B"),
            (1024, "1.0 Ki"),
            (1536, "1.5 Ki"),
            (1 << 20, "1.0 Mi"),
            ((1 << 20) - 1, "1.0 Mi"),
            (u64::MAX, "16.0 Ei"),
        ] {
            assert_eq!(human(bytes), text);
        }
        assert_eq!((size(2048, false).as_str(), size(2048, true).as_str()), ("2048", "2.0 Ki"));
    }

    #[test]
    fn modes_as_ls_shows_them() {
        for (bits, text) in [
            (0o040755, "drwxr-xr-x"),
            (0o100644, "-rw-r--r--"),
            (0o120777, "lrwxrwxrwx"),
            (0o104755, "-rwsr-xr-x"),
            (0o102640, "-rw-r-S---"),
            (0o041777, "drwxrwxrwt"),
            (0o020000, "c---------"),
        ] {
            assert_eq!(mode(bits), text, "{bits:o}");
        }
    }

    #[test]
    fn tags_follow_their_object() {
        let tags: Vec<TagSpec> = ["a", "b~2"].iter().filter_map(|tag| tag.parse().ok()).collect();
        assert_eq!(with_tags("XY64NZFA", &tags), "XY64NZFA -> a -> b~2");
        assert_eq!(with_tags("XY64NZFA", &[]), "XY64NZFA");
    }
}
