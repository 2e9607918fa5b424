//! What a test left behind: processes, mounts, records of runtimes, locks and temporary files.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{Host, holds_within};

/// How long the monitors may take to notice that their runtime is over; the kernel tells them within milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a test said may be left, and how long to wait for the end of the rest.
pub(super) struct Allowed {
    pub processes: bool,
    pub remains: bool,
    pub patience: Duration,
}

impl Default for Allowed {
    fn default() -> Self {
        Allowed { processes: false, remains: false, patience: PATIENCE }
    }
}

/// Everything that is left of a home, in words; empty when it is clean.
pub(super) fn find(
    home: &Path,
    run: &Path,
    repository: &Path,
    host: &Host,
    before: &[String],
    allowed: &Allowed,
) -> Vec<String> {
    let mut found = Vec::new();
    if !allowed.processes {
        holds_within(allowed.patience, || processes(home).is_empty());
        found.extend(processes(home).into_iter().map(|(pid, line)| format!("process {pid}: {line}")));
    }
    found.extend(
        mounts(host).into_iter().filter(|mount| !before.contains(mount)).map(|mount| format!("mount: {mount}")),
    );
    if !allowed.remains && !allowed.processes {
        holds_within(allowed.patience, || records(run).is_empty());
        found.extend(records(run).into_iter().map(|name| format!("record of the runtime {name}")));
        found.extend(
            unfinished(repository).into_iter().map(|path| format!("unfinished in the repository: {}", path.display())),
        );
    }
    found
}

/// The living processes whose HOME is `home`, as pid and command line. Zombies hold nothing and do not count.
pub(super) fn processes(home: &Path) -> Vec<(i32, String)> {
    let mark = [b"HOME=", home.as_os_str().as_bytes()].concat();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // An unreadable or vanished process is somebody else's.
        let Ok(environ) = fs::read(entry.path().join("environ")) else { continue };
        if environ.split(|byte| *byte == 0).any(|variable| variable == mark) {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let state = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let state = state.rsplit(')').next().unwrap_or_default().trim_start().chars().next().unwrap_or('?');
            found.push((pid, format!("[{state}] {}", String::from_utf8_lossy(&line).replace('\0', " "))));
        }
    }
    found
}

/// The mounts of the host that could be ours: at or below /spfs, of our kinds, or below a directory of the tests.
pub(super) fn mounts(host: &Host) -> Vec<String> {
    let ours = |line: &&str| {
        let point = line.split(' ').nth(4).unwrap_or_default();
        point == "/spfs"
            || point.starts_with("/spfs/")
            || point.contains("/spfs-test-")
            || point.starts_with("/var/tmp/st-")
            || line.contains(" spfs ")
    };
    host.mountinfo().lines().filter(ours).map(str::to_owned).collect()
}

/// Names of the records of live runtimes below a runtime directory.
pub(super) fn records(run: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(run.join("spfs/runtimes")) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    // What a killed start was still making is no record; it goes once it is surely abandoned.
    names.filter(|name| !name.starts_with(".new-")).collect()
}

/// Temporary files and locks of a directory repository (formats.md, sections 2 and 8).
pub(super) fn unfinished(repository: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for place in ["objects/work", "payloads/work", "renders/work"] {
        let Ok(entries) = fs::read_dir(repository.join(place)) else { continue };
        found.extend(entries.flatten().map(|entry| entry.path()));
    }
    let mut directories = vec![repository.join("tags")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                _ if path.is_dir() => directories.push(path),
                Some("lock" | "work") => found.push(path),
                _ => {}
            }
        }
    }
    found
}

/// Waits for the end of every process of a home; panics with their names if they stay.
#[track_caller]
pub(super) fn wait_for_the_end(home: &Path) {
    holds_within(PATIENCE, || processes(home).is_empty());
    let left = processes(home);
    assert!(left.is_empty(), "still running: {left:?}");
}

/// Kills every process of a home, until there is none.
pub(super) fn kill_all(home: &Path) {
    holds_within(PATIENCE, || {
        let left = processes(home);
        for (pid, _) in &left {
            if let Some(pid) = Pid::from_raw(*pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        left.is_empty()
    });
}
