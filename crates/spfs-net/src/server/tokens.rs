//! Who may do what: bearer tokens with rights per tag prefix, read from a file that holds no secret.
//!
//! ```toml
//! [[token]]
//! name = "farm"                                 # shown in the access log
//! sha256 = "9f86d081884c7d659a2feaa0c55ad015…"  # of the token, 64 digits
//! expires = 2027-01-01T00:00:00Z                # if it ever does
//! rights = [
//!     { tags = "", allow = ["read"] },          # every tag
//!     { tags = "vfx/", allow = ["write", "tag"] },
//! ]
//!
//! [anonymous]                                   # who shows no token; nothing, if this is left out
//! rights = [{ tags = "public/", allow = ["read"] }]
//! ```
//!
//! Content has no name: who may read some tag may read what it knows the digest of, who has `write` anywhere may store
//! content. Listing all content and removing any needs `read` or `delete` for every tag.

use std::path::Path;

use jiff::Timestamp;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use spfs_repo::{Error, Result};
use subtle::ConstantTimeEq;

use crate::LONGEST_FILE;

/// What somebody may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// Read tags, and content.
    Read,
    /// Store content.
    Write,
    /// Add records to tags.
    Tag,
    /// Remove tags, or records of them; for every tag: also content.
    Delete,
}

impl Right {
    fn word(self) -> &'static str {
        match self {
            Right::Read => "read",
            Right::Write => "store content",
            Right::Tag => "tag",
            Right::Delete => "remove",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    token: Vec<Token>,
    #[serde(default)]
    anonymous: Anonymous,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Anonymous {
    #[serde(default)]
    rights: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    name: String,
    sha256: String,
    expires: Option<toml::value::Datetime>,
    #[serde(default)]
    rights: Vec<Rule>,
}

#[derive(Clone, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Rule {
    tags: String,
    allow: Vec<Right>,
}

impl Rule {
    /// Whether it is about the tag, which is written `namespace#ns/org/name` where it is in a namespace.
    ///
    /// `vfx` is the tag `vfx` and all below `vfx/`; `vfx/` only what is below; a `*` at the end is any text.
    fn covers(&self, tag: &str) -> bool {
        if let Some(start) = self.tags.strip_suffix('*') {
            return tag.starts_with(start);
        }
        let Some(rest) = tag.strip_prefix(&*self.tags) else { return false };
        self.tags.is_empty() || self.tags.ends_with('/') || rest.is_empty() || rest.starts_with('/')
    }

    fn covers_everything(&self) -> bool {
        matches!(&*self.tags, "" | "*")
    }
}

/// Somebody who asks, and what is allowed to them.
#[derive(Clone, Debug)]
pub struct Who {
    /// The name of the token, if one was shown.
    pub name: Option<String>,
    rules: Vec<Rule>,
}

/// Why something is not allowed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// Whether a token, or another one, would help.
    pub unauthenticated: bool,
    /// What to say.
    pub reason: String,
}

impl Who {
    /// Whoever connects to a server without tokens: everything is allowed.
    pub fn anybody() -> Self {
        use Right::{Delete, Read, Tag, Write};
        Who { name: None, rules: vec![Rule { tags: String::new(), allow: vec![Read, Write, Tag, Delete] }] }
    }

    /// Checks a right to content, which needs it for some tag.
    pub fn anywhere(&self, right: Right) -> Result<(), Refused> {
        self.check(self.rules.iter().any(|rule| rule.allow.contains(&right)), right.word(), "anything")
    }

    /// Checks that content may be asked for: by those who read, and by those who write and ask what is there already.
    pub fn look(&self) -> Result<(), Refused> {
        let looks = |rule: &Rule| rule.allow.contains(&Right::Read) || rule.allow.contains(&Right::Write);
        self.check(self.rules.iter().any(looks), Right::Read.word(), "anything")
    }

    /// Checks a right to everything.
    pub fn everywhere(&self, right: Right) -> Result<(), Refused> {
        let has = |rule: &Rule| rule.covers_everything() && rule.allow.contains(&right);
        self.check(self.rules.iter().any(has), right.word(), "everything")
    }

    /// Whether the tag, as [`tag_path`] writes it, may be read. Who may change it may read it.
    pub fn reads(&self, tag: &str) -> bool {
        self.rules.iter().any(|rule| rule.covers(tag) && rule.allow.iter().any(|right| *right != Right::Write))
    }

    /// Whether something below the folder, written with a `/` at its end, may be read.
    pub fn reads_below(&self, folder: &str) -> bool {
        self.reads(folder) || self.rules.iter().any(|rule| rule.tags.trim_end_matches('*').starts_with(folder))
    }

    /// Checks a right to one tag, as [`tag_path`] writes it.
    pub fn tag(&self, right: Right, tag: &str) -> Result<(), Refused> {
        let allowed = match right {
            Right::Read => self.reads(tag),
            _ => self.rules.iter().any(|rule| rule.covers(tag) && rule.allow.contains(&right)),
        };
        self.check(allowed, right.word(), tag)
    }

    fn check(&self, allowed: bool, verb: &str, what: &str) -> Result<(), Refused> {
        if allowed {
            return Ok(());
        }
        let who = match &self.name {
            Some(name) => format!("the token {name:?} may not {verb}"),
            None => format!("nobody may {verb}"),
        };
        let what = if verb == Right::Write.word() { String::new() } else { format!(" {what}") };
        let reason = match &self.name {
            Some(_) => format!("{who}{what}"),
            None => format!("{who}{what} without a token"),
        };
        Err(Refused { unauthenticated: self.name.is_none(), reason })
    }
}

/// A tag as rules know it.
pub fn tag_path(namespace: &str, tag: &str) -> String {
    if namespace.is_empty() { tag.to_owned() } else { format!("{namespace}#ns/{tag}") }
}

/// All tokens of a server.
#[derive(Debug)]
pub struct Table {
    tokens: Vec<Known>,
    anonymous: Who,
}

#[derive(Debug)]
struct Known {
    hash: [u8; 32],
    expires: Option<Timestamp>,
    who: Who,
}

impl Table {
    /// Reads a file of tokens.
    ///
    /// Errors: what cannot be read, and everything that is not as it should be, by line.
    pub fn read(path: &Path) -> Result<Self> {
        let text = spfs_repo::read_text(path, LONGEST_FILE).map_err(Error::io("read", path))?;
        Self::parse(&text).map_err(|reason| Error::invalid("file of tokens", path.display().to_string(), reason))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())?;
        let mut tokens = Vec::with_capacity(file.token.len());
        for token in file.token {
            let wrong = |what: &str| format!("the token {:?} {what}", token.name);
            let mut hash = [0; 32];
            data_encoding::HEXLOWER_PERMISSIVE
                .decode(token.sha256.as_bytes())
                .ok()
                .filter(|bytes| bytes.len() == hash.len())
                .map(|bytes| hash.copy_from_slice(&bytes))
                .ok_or_else(|| wrong("has no SHA-256 of 64 hexadecimal digits; `spfs server token` makes one"))?;
            let expires = match token.expires {
                None => None,
                Some(time) => Some(expiry(&time.to_string()).ok_or_else(|| wrong("expires at no time that is one"))?),
            };
            if tokens.iter().any(|known: &Known| known.who.name.as_deref() == Some(&*token.name)) {
                return Err(wrong("is there twice"));
            }
            tokens.push(Known { hash, expires, who: Who { name: Some(token.name), rules: token.rights } });
        }
        Ok(Table { tokens, anonymous: Who { name: None, rules: file.anonymous.rights } })
    }

    /// Who shows `token`. Takes as long for every wrong one.
    pub fn who(&self, token: Option<&str>, now: Timestamp) -> Result<Who, Refused> {
        let Some(token) = token else { return Ok(self.anonymous.clone()) };
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let mut found = None;
        for known in &self.tokens {
            if bool::from(known.hash.ct_eq(&hash)) {
                found = Some(known);
            }
        }
        let refused = |reason: String| Refused { unauthenticated: true, reason };
        let known = found.ok_or_else(|| refused("this token is not known here".to_owned()))?;
        match known.expires {
            Some(end) if end <= now => {
                let name = known.who.name.as_deref().unwrap_or_default();
                Err(refused(format!("the token {name:?} has expired at {end}")))
            }
            _ => Ok(known.who.clone()),
        }
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }
}

/// A time, or a day, which begins at midnight in UTC.
fn expiry(text: &str) -> Option<Timestamp> {
    let whole = if text.len() == "2027-01-01".len() { format!("{text}T00:00:00Z") } else { text.to_owned() };
    whole.parse().ok().or_else(|| format!("{whole}Z").parse().ok())
}

/// The line of a file of tokens that knows `token`: its SHA-256.
pub fn hash(token: &str) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn table(rights: &str) -> Who {
        let hash = hash("secret");
        let table =
            Table::parse(&format!("[[token]]\nname = \"a\"\nsha256 = \"{hash}\"\nrights = [{rights}]")).unwrap();
        table.who(Some("secret"), Timestamp::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn prefixes_end_between_names() {
        for (tags, inside, outside) in [
            ("vfx", &["vfx", "vfx/a", "vfx/a/b"][..], &["vfxsecret", "x", "ns#ns/vfx", "vf"][..]),
            ("vfx/", &["vfx/a"], &["vfx", "vfx2/a"]),
            ("vfx*", &["vfx", "vfx2", "vfx/a"], &["vf", "ns#ns/vfx"]),
            ("", &["a", "a/b", "ns#ns/a"], &[]),
            ("*", &["a", "ns#ns/a"], &[]),
            ("ns#ns/", &["ns#ns/a"], &["ns", "a", "ns/a"]),
        ] {
            let who = table(&format!("{{ tags = \"{tags}\", allow = [\"tag\"] }}"));
            assert!(inside.iter().all(|tag| who.tag(Right::Tag, tag).is_ok()), "{tags}");
            assert!(outside.iter().all(|tag| who.tag(Right::Tag, tag).is_err()), "{tags}");
            assert_eq!(who.everywhere(Right::Tag).is_ok(), outside.is_empty(), "{tags}");
        }
        let who = table("{ tags = \"a/b/c*\", allow = [\"read\"] }");
        assert!(who.reads_below("a/") && who.reads_below("a/b/") && !who.reads_below("b/"));
    }

    #[test]
    fn each_right_is_one_of_its_own() {
        let words = ["read", "write", "tag", "delete"];
        let rights = [Right::Read, Right::Write, Right::Tag, Right::Delete];
        for (at, word) in words.iter().enumerate() {
            let who = table(&format!("{{ tags = \"\", allow = [\"{word}\"] }}"));
            for (other, right) in rights.iter().enumerate() {
                assert_eq!(who.anywhere(*right).is_ok(), at == other, "{word} {right:?}");
                assert_eq!(who.everywhere(*right).is_ok(), at == other, "{word} {right:?}");
                let reads_too = *right == Right::Read && *word != "write";
                assert_eq!(who.tag(*right, "a").is_ok(), at == other || reads_too, "{word} {right:?}");
            }
        }
    }

    #[test]
    fn tokens_are_known_by_their_hash_until_they_expire() {
        let text = format!("[[token]]\nname = \"a\"\nexpires = 2030-01-01\nsha256 = \"{}\"", hash("secret"));
        let table = Table::parse(&text).unwrap();
        let now = "2029-12-31T23:59:59Z".parse().unwrap();
        assert_eq!(table.who(Some("secret"), now).unwrap().name.as_deref(), Some("a"));
        assert!(table.who(Some("secret"), "2030-01-01T00:00:00Z".parse().unwrap()).unwrap_err().unauthenticated);
        assert!(table.who(Some("Secret"), now).is_err());
        let nobody = table.who(None, now).unwrap();
        assert!(nobody.anywhere(Right::Read).unwrap_err().unauthenticated);
    }

    #[test]
    fn a_wrong_file_says_what_is_wrong() {
        for (text, reason) in [
            ("[[token]]\nname = \"a\"\nsha256 = \"abc\"", "no SHA-256"),
            ("[[token]]\nname = \"a\"\ntoken = \"plain\"", "unknown field `token`"),
            ("[[token]]\nname = \"a\"", "missing field `sha256`"),
            ("[anonymous]\nrights = [{ tags = \"\", allow = [\"all\"] }]", "unknown variant `all`"),
            ("token = 1", "line 1"),
        ] {
            let error = Table::parse(text).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
