//! One way to fail, and one way to show it: `error:`, its causes, and a `hint:` with what to type next.

use std::error::Error;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;

use crate::output::{StdoutError, printable};
use crate::{hints, style};

/// What a command returns.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// What a shell shows for a process that SIGPIPE ended; a closed pipe ends us as it ends git.
const CLOSED_PIPE: u8 = 128 + 13;

/// The exit code of most errors.
const ERROR: u8 = 1;

/// The exit code of a command line that makes no sense, and of a question answered with no.
pub const USAGE: u8 = 2;

/// Why a command ends without its result. Any error turns into one with `?`; what to type next is found by its kind.
#[derive(Debug)]
pub struct Failure {
    cause: Box<dyn Error + Send + Sync>,
    hints: Vec<String>,
    code: u8,
}

impl Failure {
    /// A failure in the program's own words: a lowercase fragment.
    pub fn new(message: impl Into<String>) -> Self {
        Failure { cause: message.into().into(), hints: Vec::new(), code: ERROR }
    }

    /// A failure of the operating system that the program itself met, as in "could not *write* PATH".
    pub fn io(action: &'static str, path: &std::path::Path, source: io::Error) -> Self {
        Failure::from(spfs::Error::Io { action, path: path.to_owned(), source })
    }

    /// The same with a hint: what to type next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The same with another exit code.
    pub fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// Prints it to standard error and gives the exit code; says nothing if it is only that our reader has gone.
    pub fn report(&self) -> ExitCode {
        if self.is_closed_pipe() {
            return ExitCode::from(CLOSED_PIPE);
        }
        tell(&self.render());
        ExitCode::from(self.code)
    }

    fn is_closed_pipe(&self) -> bool {
        let io_error = self.cause.downcast_ref::<io::Error>();
        matches!(
            io_error.and_then(io::Error::get_ref).and_then(|inner| inner.downcast_ref()),
            Some(StdoutError::Closed)
        )
    }

    /// What [`Failure::report`] prints.
    fn render(&self) -> String {
        let mut text = String::new();
        let end = style::END;
        let _ = writeln!(text, "{}error:{end} {}", style::ERROR, safe(&self.cause.to_string()));
        let mut shown = self.cause.to_string();
        for cause in chain(self.cause.as_ref()).skip(1) {
            let message = cause.to_string();
            // A wrapper that repeats its cause's words has said it already.
            if !shown.ends_with(&message) {
                let _ = writeln!(text, "  caused by: {}", safe(&message));
            }
            shown = message;
        }
        if let Some(spfs::Error::Monitor(failure)) = self.cause.downcast_ref() {
            for cause in &failure.causes {
                let _ = writeln!(text, "  caused by: {}", safe(cause));
            }
        }
        for hint in self.hints.iter().chain(&hints::of(self.cause.as_ref())) {
            let _ = writeln!(text, "{}hint:{end} {hint}", style::HINT);
        }
        text
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words: Vec<String> = chain(self.cause.as_ref()).map(ToString::to_string).collect();
        f.write_str(&words.join(": "))
    }
}

/// An error and its causes, outermost first.
pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let current = next?;
        next = current.source();
        Some(current)
    })
}

/// Characters of a message that are shown at most: what was typed may be as long as the kernel allows.
const LONGEST: usize = 4000;

/// A message with its control characters shown, line by line; of an absurdly long one the beginning and the end.
fn safe(message: &str) -> String {
    shortened(message.lines().map(printable).collect::<Vec<_>>().join("\n    "))
}

/// Of an absurdly long text the beginning and the end.
fn shortened(text: String) -> String {
    let mut starts = text.char_indices().map(|(at, _)| at);
    let count = starts.clone().count();
    if count <= LONGEST {
        return text;
    }
    let (first, last) = (starts.nth(LONGEST / 2), starts.nth(count - LONGEST - 1));
    let (first, last) = (first.unwrap_or(text.len()), last.unwrap_or(text.len()));
    format!("{} […] {}", &text[..first], &text[last..])
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure { cause: Box::new(error), hints: Vec::new(), code: ERROR }
    }
}

/// Prints a warning to standard error: something is odd, and we go on.
pub fn warn(message: &str) {
    tell(&format!("{}warning:{} {}\n", style::WARNING, style::END, safe(message)));
}

/// Prints what clap has against a command line, and what to type instead.
pub fn refuse(refusal: String, hint: Option<String>) {
    let end = style::END;
    let hint = hint.map_or_else(String::new, |hint| format!("\n{}hint:{end} {}\n", style::HINT, safe(&hint)));
    tell(&(shortened(refusal) + &hint));
}

/// What `--log-file` and `--timestamp` ask for.
struct Log {
    file: Option<File>,
    timestamp: bool,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// From here on, what is told is written to `file`, too, always with the time; with `timestamp` it is told with the time.
pub fn log_to(file: Option<&Path>, timestamp: bool) {
    let opened = file.map(File::create).transpose();
    let failed = opened.as_ref().err().map(ToString::to_string);
    // The command line is read once.
    let _ = LOG.set(Log { file: opened.unwrap_or_default(), timestamp });
    if let (Some(file), Some(failed)) = (file, failed) {
        warn(&format!("nothing is written to the log file {}: {failed}", file.display()));
    }
}

/// Writes to standard error, all at once. If that takes nothing there is nobody left to tell, which is no reason to fail.
pub fn tell(text: &str) {
    let log = LOG.get();
    let stamped = log.filter(|log| log.timestamp || log.file.is_some()).map(|_| stamped(text));
    if let (Some(mut file), Some(text)) = (log.and_then(|log| log.file.as_ref()), &stamped) {
        let _ = file.write_all(anstream::adapter::strip_str(text).to_string().as_bytes());
    }
    let text = stamped.as_deref().filter(|_| log.is_some_and(|log| log.timestamp)).unwrap_or(text);
    let _ = anstream::stderr().lock().write_all(text.as_bytes());
}

/// The same lines, each with the time before it.
fn stamped(text: &str) -> String {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    text.lines().map(|line| format!("{now} {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_message_both_ends_are_shown() {
        assert_eq!(safe("a\x1b\nb"), "a\\u{1b}\n    b");
        assert_eq!(safe(&"ä".repeat(LONGEST)), "ä".repeat(LONGEST));
        let long = safe(&format!("<{}>", "ä".repeat(100_000)));
        assert!(long.starts_with("<ä") && long.contains("ä […] ä") && long.ends_with("ä>"), "{long}");
        assert_eq!(long.chars().count(), LONGEST + " […] ".chars().count());
    }
}
