//! What stands in one configuration file, whatever its format.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::keys;
use super::value::Value;
use crate::error::{Error, Place, Result};

/// The formats that are read, by the file name's extension.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Syntax {
    Toml,
    Json,
    Yaml,
    Ini,
}

/// What one file says.
#[derive(Default, PartialEq, Debug)]
pub(super) struct Contents {
    /// Values by whole name.
    pub settings: BTreeMap<String, Value>,
    /// Names that mean nothing.
    pub unknown: Vec<String>,
}

/// The longest file that makes sense, in bytes.
const LONGEST: u64 = 1 << 20;

/// The text of the file at `path`; `None` if it is not there. A link to `/dev/null` in its place is an empty file.
pub(super) fn read(path: &Path) -> Result<Option<String>> {
    if std::fs::read_link(path).is_ok_and(|target| target == Path::new("/dev/null")) {
        return Ok(Some(String::new()));
    }
    let bytes = match spfs_repo::read_regular(path, LONGEST) {
        Ok(bytes) => bytes,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        Err(e) => return Err(failed(path, None, &e.to_string())),
    };
    String::from_utf8(bytes).map(Some).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let place = position(&String::from_utf8_lossy(good), good.len());
        failed(path, Some(place), "it is not UTF-8 text")
    })
}

/// Reads the text of the file at `path`. Errors name the file, the line and the column.
pub(super) fn parse(path: &Path, text: &str, syntax: Syntax) -> Result<Contents> {
    let mut contents = Contents::default();
    if text.trim().is_empty() {
        return Ok(contents);
    }
    let walk = Walk { path: &[], contents: &mut contents };
    match syntax {
        Syntax::Toml => toml::Deserializer::parse(text)
            .and_then(|document| walk.deserialize(document))
            .map_err(|e| failed(path, e.span().map(|span| position(text, span.start)), e.message()))?,
        Syntax::Json => {
            let mut document = serde_json::Deserializer::from_str(text);
            walk.deserialize(&mut document).and_then(|()| document.end()).map_err(|e| {
                let place = (e.line() as u64, e.column() as u64);
                let message = e.to_string();
                let end = message.rfind(" at line ").unwrap_or(message.len());
                failed(path, Some(place), &message[..end])
            })?;
        }
        Syntax::Yaml => {
            serde_saphyr::with_deserializer_from_str(text, |document| walk.deserialize(document)).map_err(|e| {
                let (place, reason) = crate::yaml::explain(&e);
                failed(path, place, &reason)
            })?;
        }
        Syntax::Ini => parse_ini(path, text, &mut contents)?,
    }
    Ok(contents)
}

fn failed(path: &Path, position: Option<(u64, u64)>, reason: &str) -> Error {
    Error::Config { place: Place { source: path.to_owned(), position }, reason: reason.to_owned() }
}

/// Line and column, from 1, of the byte at `offset`.
fn position(text: &str, offset: usize) -> (u64, u64) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() as u64 + 1;
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) as u64 + 1;
    (line, column)
}

/// Walks any self-describing document, checks each value against the table of keys as it comes (so that the format's
/// own reader knows the position of what is wrong), and collects them.
struct Walk<'a> {
    path: &'a [String],
    contents: &'a mut Contents,
}

impl Walk<'_> {
    fn add<E: serde::de::Error>(self, value: impl FnOnce(&keys::Key) -> Result<Value, String>) -> Result<(), E> {
        let name = self.path.join(".");
        let Some(key) = keys::find(&name) else {
            return Err(E::custom(format!("{} is a table, not a value", shown(&name))));
        };
        let value = value(key).map_err(|reason| E::custom(format!("{name}: {reason}")))?;
        self.contents.settings.insert(name, value);
        Ok(())
    }
}

fn shown(name: &str) -> &str {
    if name.is_empty() { "the document" } else { name }
}

/// Whether keys are below `path`.
fn is_table(path: &[String]) -> bool {
    match path {
        [] => true,
        [first, rest @ ..] if first == "remote" => rest.len() < 2,
        _ => {
            let prefix = path.join(".") + ".";
            keys::KEYS.iter().any(|key| key.name.starts_with(&prefix))
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a configuration value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if !is_table(self.path) {
            // How the reader of TOML shows a date that stands without quotes.
            if map.next_key::<String>()?.as_deref() == Some("$__toml_private_datetime") {
                let date = map.next_value::<String>()?;
                return self.add(|key| Value::from_text(key, &date));
            }
            return Err(A::Error::custom(format!("{} is a value, not a table", self.path.join("."))));
        }
        while let Some(name) = map.next_key::<String>()? {
            let mut path = self.path.to_vec();
            path.push(name);
            let whole = path.join(".");
            if is_table(&path) || keys::find(&whole).is_some() {
                map.next_value_seed(Walk { path: &path, contents: self.contents })?;
            } else {
                self.contents.unknown.push(whole);
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<String>()? {
            items.push(item);
        }
        self.add(|key| Value::from_list(key, items))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.add(|key| Value::from_text(key, text))
    }

    fn visit_bool<E: serde::de::Error>(self, yes: bool) -> Result<(), E> {
        self.add(|key| Value::from_bool(key, yes))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<(), E> {
        self.add(|key| Value::from_number(key, number))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<(), E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => self.visit_str(&number.to_string()),
        }
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<(), E> {
        self.visit_str(&number.to_string())
    }

    /// `null`, and a YAML key with nothing behind it, leave the key as it was.
    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.deserialize(deserializer)
    }
}

/// `[table]` lines, `key = value` lines, comments behind `#` or `;` at the start of a line, values bare or quoted.
fn parse_ini(path: &Path, text: &str, contents: &mut Contents) -> Result<()> {
    let mut table = String::new();
    for (number, line) in text.lines().enumerate() {
        let wrong = |reason: &str| {
            let column = line.len() - line.trim_start().len() + 1;
            failed(path, Some((number as u64 + 1, column as u64)), reason)
        };
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(rest) = line.strip_prefix('[') {
            let name = rest.strip_suffix(']').ok_or_else(|| wrong("a ']' is missing"))?;
            table = name.trim().to_owned();
            continue;
        }
        let (key, value) = line.split_once('=').ok_or_else(|| wrong("expected [table] or key = value"))?;
        let value = value.trim();
        let quoted = ['"', '\''].iter().find_map(|q| value.strip_prefix(*q)?.strip_suffix(*q));
        let name = if table.is_empty() { key.trim().to_owned() } else { format!("{table}.{}", key.trim()) };
        match keys::find(&name) {
            None => contents.unknown.push(name),
            Some(key) => {
                let value = Value::from_text(key, quoted.unwrap_or(value));
                let value = value.map_err(|reason| wrong(&format!("{name}: {reason}")))?;
                contents.settings.insert(name, value);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn text(name: &str, text: &str) -> (String, Value) {
        (name.to_owned(), Value::Text(text.to_owned()))
    }

    const TOML: &str = "colour = 1\n[storage]\ntag_namespace = \"x\"\n[remote.origin]\naddress = \"file:/r\"\nlazy = true\n\
                        [filesystem]\nannotation_size_limit = 7\nsecondary_repositories = [\"a\", \"b\"]\n";
    const JSON: &str = r#"{"colour": 1, "storage": {"tag_namespace": "x"}, "remote": {"origin": {"address": "file:/r", "lazy": true}},
        "filesystem": {"annotation_size_limit": 7, "secondary_repositories": ["a", "b"], "tmpfs_size": null}}"#;
    const YAML: &str = "colour: 1\nstorage:\n  tag_namespace: x\nremote:\n  origin:\n    address: file:/r\n    lazy: true\n\
                        filesystem:\n  annotation_size_limit: 7\n  secondary_repositories: [a, b]\n  tmpfs_size:\n";
    const INI: &str = "; hello\ncolour = 1\n[storage]\n tag_namespace = \"x\"\n[remote.origin]\naddress=file:/r\nlazy = on\n\
                       [filesystem]\nannotation_size_limit = 7\n# and\nsecondary_repositories = a, b\n";

    #[test]
    fn four_formats_say_the_same() {
        let expected = Contents {
            settings: BTreeMap::from([
                text("storage.tag_namespace", "x"),
                text("remote.origin.address", "file:/r"),
                ("remote.origin.lazy".to_owned(), Value::Bool(true)),
                ("filesystem.annotation_size_limit".to_owned(), Value::Number(7)),
                ("filesystem.secondary_repositories".to_owned(), Value::List(vec!["a".to_owned(), "b".to_owned()])),
            ]),
            unknown: vec!["colour".to_owned()],
        };
        for (syntax, document) in [(Syntax::Toml, TOML), (Syntax::Json, JSON), (Syntax::Yaml, YAML), (Syntax::Ini, INI)]
        {
            assert_eq!(parse(Path::new("f"), document, syntax).unwrap(), expected, "{syntax:?}");
            assert_eq!(parse(Path::new("f"), " \n", syntax).unwrap(), Contents::default(), "{syntax:?}");
        }
    }

    #[test]
    fn errors_name_line_and_column() {
        for (syntax, document, at, reason) in [
            (Syntax::Toml, "[storage]\nroot == 3\n", "f:2:7", ""),
            (Syntax::Toml, "[filesystem]\nannotation_size_limit = \"many\"\n", "f:2:25", "no whole number"),
            (Syntax::Toml, "storage = 3\n", "f:1:11", "storage is a table"),
            (Syntax::Json, "{\"storage\": {\n \"root\": }}", "f:2:10", "expected value"),
            (Syntax::Json, "{\"fuse\": {\n \"worker_threads\": 0}}", "f:2:20", "less than 1"),
            (Syntax::Yaml, "storage:\n  root: [\n", "f:2:9", "unclosed"),
            (Syntax::Yaml, "filesystem:\n  use_mount_syscalls: maybe\n", "f:2:23", "neither true nor false"),
            (Syntax::Ini, "[storage]\n  what\n", "f:2:3", "expected"),
            (Syntax::Ini, "[storage\n", "f:1:1", "']' is missing"),
            (Syntax::Ini, "[fuse]\nworker_threads = x\n", "f:2:1", "no whole number"),
        ] {
            let error = parse(Path::new("f"), document, syntax).unwrap_err().to_string();
            assert!(error.contains(&format!("in {at}: ")) && error.contains(reason), "{document:?}: {error}");
        }
    }
}
