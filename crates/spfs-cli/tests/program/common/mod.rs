//! The harness of the tests that run the real `spfs`: hermetic homes, callers, hosts, and a look for what was left behind.
//!
//! ```ignore
//! mod common; // in main.rs
//! use crate::common::{Home, every_caller};
//!
//! #[test]
//! fn a_new_environment_is_empty() {
//!     every_caller(|home| home.script("-", "ls -A /spfs").run().ok().stdout_is(""));
//! }
//! ```
//!
//! * [`Caller`]: root, and an ordinary user with a supplementary group. [`every_caller`] runs a test as each.
//! * [`Host`]: a machine with a directory `/spfs` and one without. [`everywhere`] runs a test for each caller on each.
//! * [`Home`]: a throw-away home directory; nothing of the real environment gets in. When it is dropped it waits for
//!   the end of every process that belongs to it and fails the test if a process, a mount, a record or a lock is left.
//! * [`Gate`]: a way to a server that can be shut, so that transfers stop in the middle.
//! * [`Cmd`], [`Output`], [`Running`], [`Pty`]: commands, all with a time limit, what they said, and what is still running.
//!
//! A test that hangs all the same ends the run after five minutes, with its name.
//!
//! A missing user, device or program fails the test with the command that provides it (`./test setup`).
//!
//! A test that takes more than about two seconds or writes a big tree comes in two sizes: [`full`] chooses. The small one
//! always runs and looks for the same things; the big one runs with `SPFS_TEST_FULL=1`.
//!
//! ```ignore
//! const STARTS: usize = 100;
//! let starts = if full() { 10 * STARTS } else { STARTS };
//! ```
//!
//! Where only the number differs, as here, it is one test. A test of its own that has no small size (a soak of ten
//! minutes) begins with `if !full() { return; }` and names in its comment the small one that stands for it.
#![allow(dead_code, unused_imports, clippy::unwrap_used)]

mod caller;
mod command;
mod gate;
mod home;
mod host;
mod leaks;
mod pty;
mod running;
mod sound;
mod watch;

pub use caller::{Caller, is_root};
pub use command::{Cmd, Output};
pub use gate::Gate;
pub use home::{Home, binary};
pub use host::Host;
pub use pty::Pty;
pub use running::Running;
pub use sound::{DAMAGES, Damage};

use std::time::{Duration, Instant};

/// Whether the long sizes of the tests were asked for: `SPFS_TEST_FULL=1`.
pub fn full() -> bool {
    std::env::var_os("SPFS_TEST_FULL").is_some_and(|value| value == "1")
}

/// Runs a test once for every kind of caller that this process can be, each in a new home on the host as it is.
pub fn every_caller(test: impl Fn(&Home)) {
    for caller in Caller::all() {
        eprintln!("-- as {caller}");
        test(&Home::new(caller));
    }
}

/// Runs a test for every caller on a host with a directory `/spfs` and on a host without.
pub fn everywhere(test: impl Fn(&Home)) {
    for caller in Caller::all() {
        for host in Host::all() {
            eprintln!("-- as {caller} on a host {host}");
            test(&Home::on(caller.clone(), host));
        }
    }
}

/// Runs a test for every caller with every way of showing /spfs that this caller has (`--backend`), each in a new home.
pub fn every_strategy(test: impl Fn(&Home)) {
    for caller in Caller::all() {
        for backend in strategies(&caller) {
            eprintln!("-- as {caller} with the backend {backend}");
            let home = Home::new(caller.clone());
            home.set("SPFS_FILESYSTEM_BACKEND", backend);
            test(&home);
        }
    }
}

/// The names of the ways in which `caller` can be shown /spfs.
pub fn strategies(caller: &Caller) -> &'static [&'static str] {
    if caller.uid() == 0 { &["image", "server", "render", "fuse"] } else { &["server", "render", "fuse"] }
}

/// Waits until `condition` holds; fails the test, naming `what`, when it does not within a minute: however busy the machine is.
#[track_caller]
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    assert!(holds_within(Duration::from_secs(60), condition), "waited a minute for this in vain: {what}");
}

/// Whether `condition` comes true within `limit`; looks every two milliseconds.
pub fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
