//! Annotations: notes on a runtime's stack, given as `K=V`, `K:V`, YAML maps and files, kept as layers.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use spfs_repo::{
    Annotation, AnnotationValue, Batch, Blob, Digest, Encoding, Error as RepoError, Format, Layer, Object, Repository,
};

use crate::Spfs;
use crate::error::{Error, Result};
use crate::{stack, yaml};

/// What an annotation is called in errors.
const WHAT: &str = "annotation";

/// A key with its value.
pub type Pair = (String, String);

/// The pairs of one command-line option: `K=V` (split at the first `=`), else `K:V` (at the first `:`), or a map in YAML
/// or JSON, which starts with `{`.
pub fn parse(text: &str) -> Result<Vec<Pair>> {
    if text.trim_start().starts_with('{') {
        return parse_map(Path::new("--annotation"), text);
    }
    match text.split_once('=').or_else(|| text.split_once(':')) {
        Some(("", _)) => Err(Error::invalid(WHAT, text, "the key is empty")),
        Some((key, value)) => Ok(vec![(key.to_owned(), value.to_owned())]),
        None => Err(Error::invalid(WHAT, text, "write KEY=VALUE, KEY:VALUE or '{KEY: VALUE, ...}'")),
    }
}

/// The pairs of a map of texts in YAML or JSON, sorted by key; `path` is for errors.
fn parse_map(path: &Path, text: &str) -> Result<Vec<Pair>> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let map: BTreeMap<String, String> = yaml::parse(WHAT, path, text)?;
    if map.contains_key("") {
        return Err(Error::invalid(WHAT, path.display().to_string(), "a key is empty"));
    }
    Ok(map.into_iter().collect())
}

/// All pairs of a command line, the strongest last: those of `files` (`-` is `stdin`) in their order, then those of
/// `options` in theirs.
pub fn collect(files: &[PathBuf], options: &[String], stdin: &mut dyn Read) -> Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    for path in files {
        let text = match path.as_os_str() == "-" {
            true => read_text(stdin),
            false => std::fs::File::open(path).and_then(|mut file| read_text(&mut file)),
        };
        pairs.extend(parse_map(path, &text.map_err(Error::io("read", path))?)?);
    }
    for option in options {
        pairs.extend(parse(option)?);
    }
    Ok(pairs)
}

/// The longest file of annotations that makes sense, in bytes.
const LONGEST: u64 = 64 << 20;

fn read_text(file: &mut dyn Read) -> std::io::Result<String> {
    let mut text = String::new();
    match file.take(LONGEST + 1).read_to_string(&mut text)? as u64 > LONGEST {
        true => Err(std::io::Error::other("it is larger than 64 MiB")),
        false => Ok(text),
    }
}

/// Stores each pair as a layer of its own, without a tree. The layers are to be pushed on a stack in the given order:
/// then the last given lies on top and wins. Values longer than `filesystem.annotation_size_limit` become blobs.
///
/// Errors: the legacy encoding is configured, which cannot hold annotations; what the repository says.
pub fn store(spfs: &Spfs, pairs: &[Pair]) -> Result<Vec<Digest>> {
    if pairs.is_empty() {
        return Ok(Vec::new());
    }
    let format = spfs.config.storage.format;
    if format.encoding == Encoding::Legacy {
        return Err(Error::Unsupported {
            what: "annotations".to_owned(),
            reason: "storage.encoding_format is Legacy, which cannot hold them".to_owned(),
        });
    }
    let batch = spfs.local.begin()?;
    let limit = spfs.config.filesystem.annotation_size_limit;
    let layers = pairs.iter().map(|(key, value)| {
        let value = match value.len() as u64 > limit {
            true => AnnotationValue::Blob(add_blob(&*batch, format, value)?),
            false => AnnotationValue::Text(value.clone()),
        };
        let layer = Layer { manifest: None, annotations: vec![Annotation { key: key.clone(), value }] };
        Ok(batch.add_object(&Object { format, body: layer.into() })?)
    });
    let layers = layers.collect::<Result<_>>()?;
    batch.finish()?;
    Ok(layers)
}

fn add_blob(batch: &dyn Batch, format: Format, value: &str) -> Result<Digest> {
    let (payload, size) = batch.add_payload(&mut value.as_bytes(), None)?;
    batch.add_object(&Object { format, body: Blob { payload, size }.into() })?;
    Ok(payload)
}

/// The value of `key` in `stack` (bottom-most first). Of several the topmost wins, and in one layer the last.
pub fn get(repository: &dyn Repository, stack: &[Digest], key: &str) -> Result<Option<String>> {
    let found = strongest(repository, stack)?.remove(key);
    found.map(|value| read(repository, value)).transpose()
}

/// Every key in `stack` (bottom-most first) with the value that [`get`] gives.
pub fn get_all(repository: &dyn Repository, stack: &[Digest]) -> Result<BTreeMap<String, String>> {
    let all = strongest(repository, stack)?;
    all.into_iter().map(|(key, value)| Ok((key, read(repository, value)?))).collect()
}

/// For each key the value that wins.
fn strongest(repository: &dyn Repository, stack: &[Digest]) -> Result<BTreeMap<String, AnnotationValue>> {
    let members = stack::members(repository, stack)?;
    let bottom_up = members.into_iter().flat_map(|member| member.annotations);
    Ok(bottom_up.map(|annotation| (annotation.key, annotation.value)).collect())
}

/// The text of a value, wherever it is kept.
pub fn read(repository: &dyn Repository, value: AnnotationValue) -> Result<String> {
    let digest = match value {
        AnnotationValue::Text(text) => return Ok(text),
        AnnotationValue::Blob(digest) => digest,
    };
    let mut text = String::new();
    let read = repository.open_payload(&digest)?.read_to_string(&mut text);
    let corrupt = |e: std::io::Error| RepoError::corrupt(format!("annotation value {digest}"), e.to_string());
    read.map_err(corrupt)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use spfs_repo::Platform;

    use super::*;
    use crate::testing::{Home, note};

    fn pairs(list: &[(&str, &str)]) -> Vec<Pair> {
        list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn options_have_three_forms() {
        for (text, expected) in [
            ("k=v", &[("k", "v")][..]),
            ("k:v", &[("k", "v")]),
            ("k=a=b:c", &[("k", "a=b:c")]),
            ("k:a=b", &[("k:a", "b")]),
            ("k=", &[("k", "")]),
            ("{b: x, a: 'y z'}", &[("a", "y z"), ("b", "x")]),
            ("{\"a\": \"1\", \"b\": \"{c}\"}", &[("a", "1"), ("b", "{c}")]),
            ("{n: 1.10, t: true}", &[("n", "1.10"), ("t", "true")]),
            ("{}", &[]),
        ] {
            assert_eq!(parse(text).unwrap(), pairs(expected), "{text}");
        }
        for text in ["", "k", "=v", ":v", "{k}", "{k: [1]}", "{k: {a: b}}", "{a: b", "{'': x}", "{a: 1, a: 2}"] {
            assert!(parse(text).is_err(), "{text}: {:?}", parse(text));
        }
    }

    #[test]
    fn options_are_stronger_than_files_and_later_than_earlier() {
        let home = Home::new();
        let (a, b) = (home.path().join("a.yaml"), home.path().join("b.json"));
        fs::write(&a, "k: from a\nonly: a\n").unwrap();
        fs::write(&b, "{\"k\": \"from b\"}").unwrap();
        let files = [a.clone(), "-".into(), b];
        let mut stdin: &[u8] = b"k: from stdin\n";
        let found = collect(&files, &["k=1".to_owned(), "k=2".to_owned()], &mut stdin).unwrap();
        let keys = [("k", "from a"), ("only", "a"), ("k", "from stdin"), ("k", "from b"), ("k", "1"), ("k", "2")];
        assert_eq!(found, pairs(&keys));
        fs::write(&a, "- x\n- y\n").unwrap();
        let error = collect(std::slice::from_ref(&a), &[], &mut &b""[..]).unwrap_err().to_string();
        assert!(error.starts_with(&format!("invalid annotation {}:1:1: ", a.display())), "{error}");
        assert!(collect(&[home.path().join("none")], &[], &mut &b""[..]).is_err());
    }

    #[test]
    fn values_come_back_and_the_last_wins_everywhere() {
        let mut home = Home::new();
        home.spfs.config.filesystem.annotation_size_limit = 4;
        let given = pairs(&[("k", "1"), ("long", "12345"), ("k", "2"), ("four", "1234")]);
        let layers = store(&home.spfs, &given).unwrap();
        assert_eq!(layers.len(), 4);
        let local = &home.spfs.local;
        assert!(local.payload_path(&Digest::of(b"12345")).exists());
        assert!(!local.payload_path(&Digest::of(b"1234")).exists());
        let mut stack = Vec::new();
        layers.iter().for_each(|layer| stack::push(&mut stack, *layer));
        let nested = vec![home.object(Platform { stack: stack.clone() }), home.layer(&[("f", "1")])];
        for stack in [stack, nested] {
            let all = get_all(local, &stack).unwrap();
            assert_eq!(all.into_iter().collect::<Vec<_>>(), pairs(&[("four", "1234"), ("k", "2"), ("long", "12345")]));
            for (key, value) in [("k", Some("2")), ("long", Some("12345")), ("none", None)] {
                assert_eq!(get(local, &stack, key).unwrap().as_deref(), value);
            }
        }
        let both = home.object(Layer { manifest: None, annotations: vec![note("k", "a"), note("k", "b")] });
        assert_eq!(get(local, &[both], "k").unwrap().as_deref(), Some("b"));
        assert_eq!(get_all(local, &[layers[2], both, layers[0]]).unwrap()["k"], "1");
    }

    #[test]
    fn annotations_of_layers_with_equal_trees_are_all_seen() {
        let home = Home::new();
        let manifest = home.object(home.manifest(&[("f", "1")]));
        let layer = |value| home.object(Layer { manifest: Some(manifest), annotations: vec![note("k", value)] });
        assert_eq!(get(&home.spfs.local, &[layer("1"), layer("2")], "k").unwrap().as_deref(), Some("2"));
    }

    #[test]
    fn the_legacy_encoding_holds_none() {
        let mut home = Home::new();
        home.spfs.config.storage.format.encoding = Encoding::Legacy;
        assert!(store(&home.spfs, &pairs(&[("k", "v")])).unwrap_err().to_string().contains("Legacy"));
        assert_eq!(store(&home.spfs, &[]).unwrap(), []);
    }
}
