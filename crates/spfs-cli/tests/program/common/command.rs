//! One command: how it is built, and what it said.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use super::{Pty, Running};

/// How long any command may take unless the test says otherwise.
const LIMIT: Duration = Duration::from_secs(180);

/// A command to be run; every one has a time limit, and its own process group that is killed when the limit is over.
pub struct Cmd {
    shown: String,
    words: Vec<String>,
    env: BTreeMap<String, String>,
    cwd: PathBuf,
    stdin: Vec<u8>,
    stdin_open: bool,
    limit: Duration,
}

impl Cmd {
    pub(super) fn new(shown: String, words: Vec<String>, env: BTreeMap<String, String>, cwd: PathBuf) -> Cmd {
        Cmd { shown, words, env, cwd, stdin: Vec::new(), stdin_open: false, limit: LIMIT }
    }

    /// What failures call it, where its words say too much.
    pub fn shown_as(mut self, shown: String) -> Cmd {
        self.shown = shown;
        self
    }

    /// Sets a variable for this command.
    pub fn env(mut self, name: &str, value: impl AsRef<str>) -> Cmd {
        self.env.insert(name.into(), value.as_ref().into());
        self
    }

    /// Removes a variable for this command.
    pub fn env_remove(mut self, name: &str) -> Cmd {
        self.env.remove(name);
        self
    }

    /// The directory it starts in (on a host of its own: only what that host shows at the same path).
    pub fn cwd(mut self, dir: impl AsRef<Path>) -> Cmd {
        if let Some(at) = self.words.iter().position(|word| word == "-C") {
            self.words[at + 1] = dir.as_ref().to_str().unwrap().into();
        }
        self.cwd = dir.as_ref().into();
        self
    }

    /// What it reads; then its input ends. Without this the input is empty.
    pub fn stdin(mut self, input: impl AsRef<[u8]>) -> Cmd {
        self.stdin = input.as_ref().into();
        self
    }

    /// Keeps the input open, for [`Running::send`].
    pub fn stdin_open(mut self) -> Cmd {
        self.stdin_open = true;
        self
    }

    /// How long it may take.
    pub fn limit(mut self, limit: Duration) -> Cmd {
        self.limit = limit;
        self
    }

    /// Runs it to its end, and to the end of its output: who keeps a pipe open (a monitor, say) makes this fail.
    #[track_caller]
    pub fn run(self) -> Output {
        self.spawn().finish()
    }

    /// Starts it and goes on.
    #[track_caller]
    pub fn spawn(self) -> Running {
        let mut command = self.prepare();
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap_or_else(|err| self.cannot_start(&err));
        Running::new(child, self.shown, self.stdin, self.stdin_open, self.limit)
    }

    /// Starts it on a new terminal, in a session of its own.
    #[track_caller]
    pub fn on_a_terminal(self) -> Pty {
        // setsid (util-linux) makes standard input the controlling terminal, then becomes the command.
        let cmd = Cmd { words: ["setsid".into(), "--ctty".into()].into_iter().chain(self.words).collect(), ..self };
        let mut command = cmd.prepare();
        Pty::start(&mut command, cmd.shown.clone(), cmd.limit).unwrap_or_else(|err| cmd.cannot_start(&err))
    }

    fn prepare(&self) -> Command {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).env_clear().envs(&self.env).current_dir(&self.cwd);
        command
    }

    #[track_caller]
    fn cannot_start(&self, err: &std::io::Error) -> ! {
        panic!("`{}` cannot be started through `{}` ({err}); does `./test setup` help?", self.shown, self.words[0])
    }
}

/// What a command said, and how it ended. The assertions show all of it when they fail, and return it for more.
#[derive(Clone)]
pub struct Output {
    pub command: String,
    pub pid: u32,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub stdout_bytes: Vec<u8>,
    pub time: Duration,
}

impl Output {
    /// It succeeded.
    #[track_caller]
    pub fn ok(&self) -> &Output {
        assert!(self.status.success(), "should have succeeded: {self}");
        self
    }

    /// It ended with this exit code.
    #[track_caller]
    pub fn code(&self, code: i32) -> &Output {
        assert!(self.status.code() == Some(code), "should have ended with {code}: {self}");
        self
    }

    /// It failed with an exit code of its own, neither by a signal nor by a panic of ours (101).
    #[track_caller]
    pub fn fails(&self) -> &Output {
        assert!(self.status.code().is_some_and(|code| code != 0 && code != 101), "should have failed cleanly: {self}");
        self
    }

    /// It was killed by this signal.
    #[track_caller]
    pub fn killed_by(&self, signal: rustix::process::Signal) -> &Output {
        assert!(self.status.signal() == Some(signal.as_raw()), "should have been killed by {signal:?}: {self}");
        self
    }

    /// Standard output is exactly this; one newline at the end of it does not count.
    #[track_caller]
    pub fn stdout_is(&self, expected: &str) -> &Output {
        let cut = |text: &str| text.strip_suffix('\n').unwrap_or(text).to_owned();
        assert!(cut(&self.stdout) == cut(expected), "stdout should have been\n{expected}\n{self}");
        self
    }

    /// Standard output contains this.
    #[track_caller]
    pub fn stdout_has(&self, part: &str) -> &Output {
        assert!(self.stdout.contains(part), "stdout should contain {part:?}: {self}");
        self
    }

    /// Standard output does not contain this.
    #[track_caller]
    pub fn stdout_lacks(&self, part: &str) -> &Output {
        assert!(!self.stdout.contains(part), "stdout should not contain {part:?}: {self}");
        self
    }

    /// Standard error is exactly this; one newline at the end of it does not count.
    #[track_caller]
    pub fn stderr_is(&self, expected: &str) -> &Output {
        let cut = |text: &str| text.strip_suffix('\n').unwrap_or(text).to_owned();
        assert!(cut(&self.stderr) == cut(expected), "stderr should have been\n{expected}\n{self}");
        self
    }

    /// Standard error contains this.
    #[track_caller]
    pub fn stderr_has(&self, part: &str) -> &Output {
        assert!(self.stderr.contains(part), "stderr should contain {part:?}: {self}");
        self
    }

    /// Standard error does not contain this.
    #[track_caller]
    pub fn stderr_lacks(&self, part: &str) -> &Output {
        assert!(!self.stderr.contains(part), "stderr should not contain {part:?}: {self}");
        self
    }

    /// Standard output without the newline at its end: what `$(…)` would give.
    pub fn text(&self) -> &str {
        self.stdout.trim_end_matches('\n')
    }

    /// The lines of standard output.
    pub fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "`{}` ended with {} after {:.1?}", self.command, self.status, self.time)?;
        write!(f, "---- stdout\n{}---- stderr\n{}----", ended(&self.stdout), ended(&self.stderr))
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn ended(text: &str) -> String {
    if text.is_empty() || text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
}
