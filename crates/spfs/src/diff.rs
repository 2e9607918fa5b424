//! Differences.
use serde::{Deserialize, Serialize};
use std::fmt;

/// One path that differs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Change {
    /// Relative to /spfs, without a leading slash.
    pub path: String,
    /// How it differs.
    #[serde(flatten)]
    pub kind: ChangeKind,
}

/// How a path differs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "lowercase")]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is there in both, and not the same.
    Changed(Difference),
}

/// What is not the same about a path that is there in both trees; at least one of the three.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Difference {
    /// The full `st_mode` before and after, where it differs; a change of type shows here too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<(u32, u32)>,
    /// Whether the content differs. A directory's content is told by the paths below it.
    pub content: bool,
    /// Bytes before and after, where they differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<(u64, u64)>,
}

impl ChangeKind {
    /// The sign it is printed with: `+`, `-` or `~`.
    pub const fn sign(&self) -> char {
        match self {
            ChangeKind::Added => '+',
            ChangeKind::Removed => '-',
            ChangeKind::Changed(_) => '~',
        }
    }
}

impl fmt::Display for Change {
    /// `+/spfs/path`, `-/spfs/path`, `~/spfs/path [mode {100644=>100755}, content, size {2=>4}]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/spfs/{}", self.kind.sign(), self.path)?;
        match &self.kind {
            ChangeKind::Changed(difference) => write!(f, " [{difference}]"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = self.mode.map(|(old, new)| format!("mode {{{old:06o}=>{new:06o}}}"));
        let content = self.content.then(|| "content".to_owned());
        let size = self.size.map(|(old, new)| format!("size {{{old}=>{new}}}"));
        let parts: Vec<String> = [mode, content, size].into_iter().flatten().collect();
        f.write_str(&parts.join(", "))
    }
}
