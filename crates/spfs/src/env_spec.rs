//! Environment specs: references joined by `+`, or `-` for nothing.

use std::fmt;
use std::str::FromStr;

use spfs_repo::reference::Reference;

use crate::error::{Error, Result};

/// What a person types to say which layers an environment has. Left is the bottom, right the top.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EnvSpec {
    /// The references, bottom-most first. None for the empty environment.
    pub items: Vec<Reference>,
}

impl EnvSpec {
    /// Whether this is the empty environment.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

impl FromStr for EnvSpec {
    type Err = Error;

    /// Reads `a+b+c`; `-` and the empty text mean the empty environment.
    fn from_str(text: &str) -> Result<Self> {
        if text.is_empty() || text == "-" {
            return Ok(EnvSpec::default());
        }
        let items = text.split('+').map(|item| match item {
            "" => Err(Error::invalid("environment", text, "an item beside a '+' is empty")),
            "-" => Err(Error::invalid("environment", text, "'-' means the empty environment and stands alone")),
            _ => Ok(item.parse::<Reference>()?),
        });
        Ok(EnvSpec { items: items.collect::<Result<_>>()? })
    }
}

impl fmt::Display for EnvSpec {
    /// The items joined by `+`; `-` for the empty environment.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.items.is_empty() {
            return f.write_str("-");
        }
        for (at, item) in self.items.iter().enumerate() {
            let plus = if at == 0 { "" } else { "+" };
            write!(f, "{plus}{item}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn specs_are_read_and_printed() {
        for (text, items, printed) in [
            ("", 0, "-"),
            ("-", 0, "-"),
            ("a", 1, "a"),
            ("a+b/c~2+ABCD", 3, "a+b/c~2+ABCD"),
            ("/a/b.spfs.yaml+./c+../d", 3, "/a/b.spfs.yaml+./c+../d"),
            ("a+a", 2, "a+a"),
        ] {
            let spec: EnvSpec = text.parse().unwrap();
            assert_eq!((spec.items.len(), spec.to_string().as_str()), (items, printed), "{text}");
            assert_eq!(spec.to_string().parse::<EnvSpec>().unwrap(), spec);
            assert_eq!(spec.is_empty(), items == 0);
        }
    }

    #[test]
    fn empty_and_wrong_items_are_errors() {
        for text in ["+", "a+", "+a", "a++b", "a+-", "a b", "a+#"] {
            assert!(text.parse::<EnvSpec>().is_err(), "{text}");
        }
    }
}
