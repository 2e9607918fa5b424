//! Standard output: results and nothing else; buffered, and quiet when the reader has gone.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::process::ExitCode;

use crate::errors::Result;

/// Standard output of a command. End with [`Output::finish`], or what fails at the end is not noticed.
pub struct Output {
    inner: BufWriter<Box<dyn Write>>,
    terminal: bool,
}

impl Output {
    /// For text: styles are taken out where colours are not wanted.
    pub fn text() -> Self {
        Self::over(Box::new(anstream::stdout().lock()))
    }

    /// For bytes that are somebody else's: nothing is taken out.
    pub fn raw() -> Self {
        Self::over(Box::new(io::stdout().lock()))
    }

    fn over(inner: Box<dyn Write>) -> Self {
        Output { inner: BufWriter::with_capacity(64 * 1024, inner), terminal: io::stdout().is_terminal() }
    }

    /// A name as it may be printed: on a terminal, control characters in it are shown as escapes, not obeyed.
    pub fn name<'a>(&self, name: &'a str) -> Cow<'a, str> {
        if self.terminal { printable(name) } else { Cow::Borrowed(name) }
    }

    /// Writes `value` as indented JSON and a newline.
    pub fn json(&mut self, value: &impl serde::Serialize) -> Result<()> {
        serde_json::to_writer_pretty(&mut *self, value).map_err(io::Error::from)?;
        writeln!(self)?;
        Ok(())
    }

    /// Writes what is still in the buffer; the usual end of a command that succeeded.
    pub fn finish(mut self) -> Result<ExitCode> {
        self.flush()?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes).map_err(stdout_error)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush().map_err(stdout_error)
    }
}

/// Standard output takes no more.
#[derive(Debug)]
pub enum StdoutError {
    /// Whoever read it has gone: nothing to talk about.
    Closed,
    /// Anything else, such as a full disk.
    Failed(io::Error),
}

impl fmt::Display for StdoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("could not write to standard output")
    }
}

impl std::error::Error for StdoutError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StdoutError::Closed => None,
            StdoutError::Failed(error) => Some(error),
        }
    }
}

/// Marks an error of *our* output, so that a closed pipe is not taken for one of a socket or of a child.
pub fn stdout_error(error: io::Error) -> io::Error {
    let kind = error.kind();
    let inner = if kind == io::ErrorKind::BrokenPipe { StdoutError::Closed } else { StdoutError::Failed(error) };
    io::Error::new(kind, inner)
}

/// `text` with its control characters escaped.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if c.is_control() { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    Cow::Owned(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("plain ü"), "plain ü");
        assert_eq!(printable("a\x1b[31m\nb"), "a\\u{1b}[31m\\nb");
    }

    #[test]
    fn only_a_broken_pipe_is_a_closed_pipe() {
        let is_closed = |kind: io::ErrorKind| {
            let error = stdout_error(kind.into());
            matches!(error.get_ref().and_then(|e| e.downcast_ref()), Some(StdoutError::Closed))
        };
        assert!(is_closed(io::ErrorKind::BrokenPipe));
        assert!(!is_closed(io::ErrorKind::StorageFull));
    }
}
