//! A command on a terminal: what is typed, and what the screen shows.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::holds_within;

/// A command that runs on a terminal of its own; hung up when this is dropped.
pub struct Pty {
    child: Child,
    master: Option<File>,
    screen: Arc<Mutex<Vec<u8>>>,
    /// What fills the screen; it ends with the last process on the terminal.
    reader: JoinHandle<()>,
    looked: usize,
    command: String,
    limit: Duration,
}

impl Pty {
    pub(super) fn start(command: &mut Command, shown: String, limit: Duration) -> io::Result<Pty> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let name = std::ffi::OsStr::from_bytes(name.to_bytes());
        let slave = OpenOptions::new().read(true).write(true).open(name)?;
        let dup = |file: &File| file.as_fd().try_clone_to_owned();
        command.stdin(dup(&slave)?).stdout(dup(&slave)?).stderr(dup(&slave)?);
        let child = command.spawn()?;
        let master = File::from(master);
        let screen = Arc::new(Mutex::new(Vec::new()));
        let (mut from, into) = (master.try_clone()?, Arc::clone(&screen));
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The end of the last process on the terminal shows as EIO.
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                into.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        Ok(Pty { child, master: Some(master), screen, reader, looked: 0, command: shown, limit })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Types text as it is; control characters too (`"\x03"` is Ctrl-C).
    #[track_caller]
    pub fn keys(&mut self, text: &str) {
        self.master.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Types a line.
    #[track_caller]
    pub fn line(&mut self, text: &str) {
        self.keys(&format!("{text}\n"));
    }

    /// Waits until `text` appears on the screen after what was expected last; returns everything up to its end.
    /// Mind that the terminal echoes what is typed: expect something that the typed line does not contain.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> String {
        let from = self.looked;
        let find = |screen: &str| screen.get(from..).and_then(|rest| rest.find(text)).map(|at| from + at + text.len());
        let mut end = None;
        holds_within(self.limit, || {
            end = find(&self.screen());
            end.is_some()
        });
        let screen = self.screen();
        let Some(end) = end else {
            panic!("`{}`: {text:?} did not appear on the screen:\n{screen}\n----", self.command)
        };
        self.looked = end;
        screen[from..end].to_owned()
    }

    /// Everything that was on the screen so far.
    pub fn screen(&self) -> String {
        // One character a byte, so that positions stay true when a multi-byte character has only half arrived.
        let bytes = self.screen.lock().unwrap();
        match std::str::from_utf8(&bytes) {
            Ok(text) => text.to_owned(),
            Err(err) => String::from_utf8_lossy(&bytes[..err.valid_up_to()]).into_owned(),
        }
    }

    /// Waits for the end of the command.
    #[track_caller]
    pub fn finish(mut self) -> (ExitStatus, String) {
        let ended = holds_within(self.limit, || self.child.try_wait().unwrap().is_some());
        assert!(ended, "`{}` did not end within {:?}; its screen:\n{}\n----", self.command, self.limit, self.screen());
        // The reader may be behind; and somebody else may be on the terminal still, who is not waited for as long.
        holds_within(Duration::from_secs(5), || self.reader.is_finished());
        (self.child.wait().unwrap(), self.screen())
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        self.master = None;
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
