//! Run specs: files that list references.

use std::path::Path;

use serde::Deserialize;
use serde_saphyr::Spanned;
use spfs_repo::reference::Reference;

use crate::error::{Place, Result};
use crate::spec_file::{place_of, wrong};

/// What a run-spec file is called in errors.
pub(crate) const WHAT: &str = "run spec";

/// The file as written (`docs/format.md`, run specs).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RunSpec {
    #[serde(rename = "api")]
    _api: String,
    layers: Vec<Spanned<String>>,
}

/// The references in the run spec at `file`, bottom-most first, each with where it stands. Relative paths are made
/// relative to the file's directory.
pub(crate) fn parse(file: &Path, text: &str) -> Result<Vec<(Reference, Place)>> {
    let spec: RunSpec = crate::yaml::parse(WHAT, file, text)?;
    let dir = file.parent().unwrap_or(Path::new("/"));
    let items = spec.layers.into_iter().map(|layer| {
        let place = place_of(file, &layer);
        match layer.value.parse::<Reference>() {
            Ok(Reference::Path(path)) => Ok((Reference::Path(dir.join(path)), place)),
            Ok(reference) => Ok((reference, place)),
            Err(error) => Err(wrong(WHAT, place, error.to_string())),
        }
    });
    items.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn references_are_read_with_their_places() {
        let file = Path::new("/d/x.spfs.yaml");
        let items = parse(file, "api: spfs/v0/runspec\nlayers: [a/b~1, ./c,\n  /e]\n").unwrap();
        let texts: Vec<String> = items.iter().map(|(item, place)| format!("{item} {place}")).collect();
        assert_eq!(texts, ["a/b~1 /d/x.spfs.yaml:2:10", "/d/./c /d/x.spfs.yaml:2:17", "/e /d/x.spfs.yaml:3:3"]);
    }

    #[test]
    fn wrong_references_are_named() {
        let file = Path::new("/d/x.spfs.yaml");
        for (text, at) in [("layers: [a b]\n", "2:10"), ("layers: [a+b]\n", "2:10"), ("layer: []\n", "2:1")] {
            let error = parse(file, &format!("api: spfs/v0/runspec\n{text}")).unwrap_err().to_string();
            assert!(error.starts_with(&format!("invalid run spec /d/x.spfs.yaml:{at}: ")), "{error}");
        }
    }
}
