//! YAML with limits, and errors that say where.

use serde::de::DeserializeOwned;
use std::path::Path;

use crate::error::{Error, Place, Result};

/// Reads `text`, which is the content of `path`; `what` is what it should be, for the error.
pub(crate) fn parse<T: DeserializeOwned>(what: &'static str, path: &Path, text: &str) -> Result<T> {
    serde_saphyr::from_str(text).map_err(|error| {
        let (position, reason) = explain(&error);
        Error::SpecFile { what, place: Place { source: path.to_owned(), position }, reason }
    })
}

/// Line and column (from 1), and the bare message.
pub(crate) fn explain(error: &serde_saphyr::Error) -> (Option<(u64, u64)>, String) {
    let position = error.location().map(|at| (at.line(), at.column())).filter(|(line, _)| *line > 0);
    let message = error.without_snippet().to_string();
    // The position is told once, by the caller.
    let lines = message.lines().next().unwrap_or_default();
    let end = lines.rfind(" at line ").unwrap_or(lines.len());
    (position, lines[..end].to_owned())
}
