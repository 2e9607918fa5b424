//! One configured value, and how a text becomes one.

use std::path::PathBuf;

use super::keys::{Holds, Key};

/// The value of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// Text, a choice in its proper spelling, or the size of an in-memory file system.
    Text(String),
    /// A path, `~` expanded.
    Path(PathBuf),
    /// Yes or no.
    Bool(bool),
    /// A number, or bytes.
    Number(u64),
    /// Texts.
    List(Vec<String>),
}

impl Value {
    /// Reads what `key` holds from a text. The error says what is wrong, without naming the key.
    pub fn from_text(key: &Key, text: &str) -> Result<Value, String> {
        match key.holds {
            Holds::Text => Ok(Value::Text(text.to_owned())),
            Holds::Path => Ok(Value::Path(PathBuf::from(text))),
            Holds::Bool => parse_bool(text).map(Value::Bool),
            Holds::Count(least) => {
                let number = text.trim().parse().map_err(|_| format!("{text:?} is no whole number"))?;
                Value::from_number(key, number).map_err(|_| format!("{text} is less than {least}"))
            }
            Holds::Size => parse_size(text).map(Value::Number),
            Holds::TmpfsSize => check_tmpfs_size(text).map(Value::Text),
            Holds::List => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Ok(Value::List(items.map(str::to_owned).collect()))
            }
            Holds::Choice(choices) => match choices.iter().find(|choice| choice.eq_ignore_ascii_case(text.trim())) {
                Some(choice) => Ok(Value::Text((*choice).to_owned())),
                None => Err(format!("{text:?} is not one of {}", choices.join(", "))),
            },
        }
    }

    /// The same from a number in a file.
    pub fn from_number(key: &Key, number: u64) -> Result<Value, String> {
        match key.holds {
            Holds::Count(least) if number < least => Err(format!("{number} is less than {least}")),
            Holds::Count(_) => Ok(Value::Number(number)),
            _ => Value::from_text(key, &number.to_string()),
        }
    }

    /// The same from a `true` or `false` in a file.
    pub fn from_bool(key: &Key, yes: bool) -> Result<Value, String> {
        Value::from_text(key, if yes { "true" } else { "false" })
    }

    /// The same from a list in a file.
    pub fn from_list(key: &Key, items: Vec<String>) -> Result<Value, String> {
        match key.holds {
            Holds::List => Ok(Value::List(items)),
            _ => Err("a list is given where one value is wanted".to_owned()),
        }
    }

    /// The value in the form of the effective JSON.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Value::Text(text) => text.as_str().into(),
            Value::Path(path) => path.to_string_lossy().into(),
            Value::Bool(yes) => (*yes).into(),
            Value::Number(number) => (*number).into(),
            Value::List(items) => items.clone().into(),
        }
    }
}

fn parse_bool(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

/// Bytes from `8G`, `512M`, `10k`, `10KiB`, `1024`; the units are powers of 1024.
fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size; write 8G, 512M or a number of bytes");
    let digits = text.trim().trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text.trim()[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.trim_end().parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} is too large"))
}

/// The text that tmpfs takes: the kernel knows `k m g t` and `%`, and would take 0 for "no limit".
fn check_tmpfs_size(text: &str) -> Result<String, String> {
    let trimmed = text.trim();
    if let Some(percent) = trimmed.strip_suffix('%') {
        return match percent.parse::<u8>() {
            Ok(1..=100) => Ok(trimmed.to_owned()),
            _ => Err(format!("{text:?} is no part of the memory; write 1% to 100%")),
        };
    }
    let as_is = trimmed.trim_end_matches(['k', 'K', 'm', 'M', 'g', 'G', 't', 'T']);
    match parse_size(trimmed)? {
        0 => Err("0 would mean no limit at all".to_owned()),
        _ if trimmed.len() <= as_is.len() + 1 && as_is.bytes().all(|b| b.is_ascii_digit()) => Ok(trimmed.to_owned()),
        bytes => Ok(bytes.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::keys::find;

    #[test]
    fn sizes() {
        for (text, expected) in
            [("0", 0), ("10", 10), ("1k", 1024), ("2 M", 2 << 20), ("8GiB", 8 << 30), ("1TB", 1 << 40)]
        {
            assert_eq!(parse_size(text), Ok(expected), "{text}");
        }
        for text in ["", "G", "-1", "1.5G", "1X", "99999999T"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tmpfs_sizes() {
        for (text, expected) in [("10G", "10G"), ("512m", "512m"), ("50%", "50%"), ("1KiB", "1024")] {
            assert_eq!(check_tmpfs_size(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["0", "0%", "101%", "ten", "%", ""] {
            assert!(check_tmpfs_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn texts_become_what_the_key_holds() {
        let read = |name: &str, text: &str| Value::from_text(find(name).unwrap(), text);
        assert_eq!(read("storage.encoding_format", "flatbuffers"), Ok(Value::Text("FlatBuffers".to_owned())));
        assert!(read("storage.encoding_format", "xml").unwrap_err().contains("Legacy, FlatBuffers"));
        assert_eq!(read("filesystem.use_mount_syscalls", "On"), Ok(Value::Bool(true)));
        assert!(read("filesystem.use_mount_syscalls", "maybe").is_err());
        assert_eq!(read("fuse.worker_threads", "3"), Ok(Value::Number(3)));
        assert!(read("fuse.worker_threads", "0").is_err());
        let list = Value::List(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(read("filesystem.secondary_repositories", "a, b,"), Ok(list));
    }
}
