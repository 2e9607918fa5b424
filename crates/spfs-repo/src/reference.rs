//! References: what a person types to name a layer, a platform, a blob or a manifest.
//!
//! One rule everywhere (`docs/format.md`, references): a file path (starts with `/`, `./` or `../`), then a full
//! digest, then an exact tag, then a digest prefix. If a tag and a prefix both match, the tag wins and the
//! resolution says so.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::digest::{Digest, DigestPrefix};
use crate::error::{Error, Result};
use crate::repository::Repository;
use crate::tag::TagSpec;

/// One reference, as typed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reference {
    /// A spec file or a directory with a `layer.spfs.yaml`.
    Path(PathBuf),
    /// A full digest.
    Digest(Digest),
    /// A tag, a digest prefix, or whichever exists. At least one of the two.
    Name {
        /// As typed.
        text: String,
        /// The text as a tag.
        tag: Option<TagSpec>,
        /// The text as the beginning of a digest.
        prefix: Option<DigestPrefix>,
    },
}

/// What a reference meant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resolved {
    /// The object.
    pub digest: Digest,
    /// The tag that was followed, if it was one.
    pub tag: Option<TagSpec>,
    /// Objects that the text also names as a digest prefix; the tag won. Worth a warning.
    pub shadowed: Vec<Digest>,
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.starts_with('/') || text.starts_with("./") || text.starts_with("../") {
            return Ok(Reference::Path(PathBuf::from(text)));
        }
        if let Ok(digest) = text.parse() {
            return Ok(Reference::Digest(digest));
        }
        let prefix = text.parse::<DigestPrefix>().ok();
        match (text.parse::<TagSpec>(), prefix) {
            (Err(error), None) => Err(error),
            (tag, prefix) => Ok(Reference::Name { text: text.to_owned(), tag: tag.ok(), prefix }),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Path(path) => write!(f, "{}", path.display()),
            Reference::Digest(digest) => write!(f, "{digest}"),
            Reference::Name { text, .. } => f.write_str(text),
        }
    }
}

impl Reference {
    /// Finds the object that this names in `repository`. A path is not looked up here: it is an error.
    ///
    /// Errors: [`Error::UnknownReference`], [`Error::AmbiguousReference`], and whatever the repository says.
    pub fn resolve(&self, repository: &dyn Repository) -> Result<Resolved> {
        match self {
            Reference::Path(path) => {
                Err(Error::invalid("reference", path.display().to_string(), "a file path names no object"))
            }
            Reference::Digest(digest) => {
                if repository.missing(&[*digest])?.is_empty() {
                    return Ok(Resolved { digest: *digest, tag: None, shadowed: Vec::new() });
                }
                Err(unknown(&digest.to_string(), repository))
            }
            Reference::Name { text, tag, prefix } => resolve_name(repository, text, tag.as_ref(), prefix.as_ref()),
        }
    }
}

/// Prefixes shorter than this are not looked up to warn about a tag that hides them: every short tag would warn.
const SHADOW_LEN: usize = 4;

fn resolve_name(
    repository: &dyn Repository,
    text: &str,
    tag: Option<&TagSpec>,
    prefix: Option<&DigestPrefix>,
) -> Result<Resolved> {
    if let Some(spec) = tag {
        let history = repository.history(&spec.name)?;
        if let Some(record) = usize::try_from(spec.version).ok().and_then(|n| history.get(n)) {
            let long = prefix.filter(|p| p.as_str().len() >= SHADOW_LEN);
            let shadowed = long.map_or(Ok(Vec::new()), |p| repository.find(p))?;
            return Ok(Resolved { digest: record.target, tag: Some(spec.clone()), shadowed });
        }
    }
    let found = prefix.map_or(Ok(Vec::new()), |p| repository.find(p))?;
    match found[..] {
        [] => Err(unknown(text, repository)),
        [digest] => Ok(Resolved { digest, tag: None, shadowed: Vec::new() }),
        _ => Err(Error::AmbiguousReference { reference: text.to_owned(), candidates: found }),
    }
}

fn unknown(text: &str, repository: &dyn Repository) -> Error {
    Error::UnknownReference { reference: text.to_owned(), searched: vec![repository.address()], similar: Vec::new() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_a_text_may_mean() {
        let full = "4OYMIQUY7QOBJGX36TEJS35ZEQT24QPEMSNZGTFESWMRW6CSXBKQ====";
        assert!(matches!(full.parse().unwrap(), Reference::Digest(_)));
        for path in ["/a/b.spfs.yaml", "./a", "../a", "/", "./é"] {
            assert_eq!(path.parse::<Reference>().unwrap(), Reference::Path(PathBuf::from(path)));
        }
        for (text, is_tag, is_prefix) in [
            ("RW", true, true),
            ("TEST", true, true),
            ("test", true, false),
            ("V2~1", true, false),
            ("vfx/2019", true, false),
            ("4OYM====", false, true),
            (&full[..52], true, true),
        ] {
            let Reference::Name { tag, prefix, text: kept } = text.parse().unwrap() else { panic!("{text}") };
            assert_eq!((tag.is_some(), prefix.is_some(), &*kept), (is_tag, is_prefix, text));
        }
        for text in ["", "=", "a b", "é", "a//b", "a~", ".", "..", "a:b"] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
    }
}
