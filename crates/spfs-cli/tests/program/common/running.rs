//! A command that is still running.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::{Output, holds_within};

/// How long output may stay open after the command itself has ended, or as long as the command may take if that is less.
const LATE_OUTPUT: Duration = Duration::from_secs(30);

/// A command that was started; its process group is killed when this is dropped.
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    command: String,
    stdout: Stream,
    stderr: Stream,
    started: Instant,
    limit: Duration,
}

impl Running {
    pub(super) fn new(mut child: Child, command: String, input: Vec<u8>, keep_open: bool, limit: Duration) -> Running {
        let stdout = Stream::read(child.stdout.take().unwrap());
        let stderr = Stream::read(child.stderr.take().unwrap());
        let mut stdin = child.stdin.take();
        if !keep_open {
            // From a thread, so that a command which does not read cannot hold the test up.
            let mut stdin = stdin.take().unwrap();
            std::thread::spawn(move || drop(stdin.write_all(&input)));
        }
        Running { child, stdin, command, stdout, stderr, started: Instant::now(), limit }
    }

    /// Its process id: also that of the program that `spfs run` becomes.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes to its input, which must have been kept open.
    #[track_caller]
    pub fn send(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("the input was kept open with stdin_open()");
        stdin.write_all(text.as_bytes()).unwrap_or_else(|err| panic!("`{}` does not read: {err}", self.command));
    }

    /// Ends its input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits until its standard output contains `text`.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        let seen = holds_within(self.limit, || self.stdout.text().contains(text) || self.stdout.ended());
        assert!(
            seen && self.stdout.text().contains(text),
            "`{}` did not print {text:?}\n---- stdout\n{}---- stderr\n{}----",
            self.command,
            self.stdout.text(),
            self.stderr.text()
        );
    }

    /// Standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Whether it has not ended yet.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends a signal to the command alone.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.raw_pid(), signal).unwrap();
    }

    /// Sends a signal to the command's process group, as Ctrl-C on a terminal does.
    pub fn signal_group(&self, signal: Signal) {
        kill_process_group(self.raw_pid(), signal).unwrap();
    }

    /// Ends its input and waits for its end; fails the test when that takes longer than the limit.
    #[track_caller]
    pub fn finish(mut self) -> Output {
        self.stdin = None;
        let limit = self.limit.saturating_sub(self.started.elapsed());
        let ended = holds_within(limit, || !self.is_alive());
        let time = self.started.elapsed();
        if !ended {
            self.kill();
            panic!(
                "`{}` did not end within {:?}\n---- stdout\n{}---- stderr\n{}----",
                self.command,
                self.limit,
                self.stdout.text(),
                self.stderr.text()
            );
        }
        let closed = holds_within(LATE_OUTPUT.min(self.limit), || self.stdout.ended() && self.stderr.ended());
        assert!(closed, "`{}` has ended, but something that it started keeps its output open", self.command);
        let bytes = self.stdout.bytes.lock().unwrap().clone();
        Output {
            command: self.command.clone(),
            pid: self.pid(),
            status: self.child.wait().unwrap(),
            stdout: self.stdout.text(),
            stderr: self.stderr.text(),
            stdout_bytes: bytes,
            time,
        }
    }

    fn raw_pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn kill(&mut self) {
        let _ = kill_process_group(self.raw_pid(), Signal::KILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Once it has been waited for, its number may belong to somebody else.
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.kill();
        }
    }
}

/// Bytes that a thread collects from a pipe.
struct Stream {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: std::thread::JoinHandle<()>,
}

impl Stream {
    fn read(mut pipe: impl Read + Send + 'static) -> Stream {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&bytes);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 65536];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                into.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        Stream { bytes, reader }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }

    fn ended(&self) -> bool {
        self.reader.is_finished()
    }
}
