//! Fork, exec, unshare, signals and descriptors: what a monitor needs to leave its caller behind.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Pid;
use rustix::thread::UnshareFlags;

/// Which side of a fork this is.
pub enum Fork {
    /// The child.
    Child,
    /// The parent, with the child's pid.
    Parent(Pid),
}

/// Forks. The caller must be the only thread of its process: the child could inherit locks held by others.
pub fn fork() -> io::Result<Fork> {
    debug_assert!(is_alone(), "fork from a process with threads");
    // SAFETY: fork has no memory-safety preconditions of its own; with one thread the child may do anything.
    forked(unsafe { libc::fork() })
}

/// Forks a child that `wait(-1)` does not see and whose end sends no signal (`clone(2)`, no exit signal).
pub fn fork_unseen() -> io::Result<Fork> {
    debug_assert!(is_alone(), "fork from a process with threads");
    // SAFETY: clone without flags and without a stack is fork; all pointers are null.
    let pid = unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) };
    forked(pid as libc::pid_t)
}

fn forked(pid: libc::pid_t) -> io::Result<Fork> {
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Pid::from_raw(pid).map(Fork::Parent).ok_or_else(|| io::Error::other("fork returned no pid")),
    }
}

/// Ends the process at once, without running any exit handler inherited from the caller's program.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit only ends the process.
    unsafe { libc::_exit(status) }
}

/// Moves this single-threaded process into new namespaces.
pub fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: only namespaces are unshared, never the descriptor table that borrowed descriptors rely on.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Whether this is the only thread of its process. One that has just been joined may still count for an instant.
fn is_alone() -> bool {
    (0..1000).any(|_| {
        let alone = thread_count() == Some(1);
        if !alone {
            std::thread::sleep(std::time::Duration::from_micros(100));
        }
        alone
    })
}

/// How many threads this process has, if `/proc` can tell.
pub fn thread_count() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("Threads:"))?.trim().parse().ok()
}

/// Every signal back to its default action and unblocked, as for a program that starts afresh.
pub fn reset_signals() {
    // SAFETY: sigset and sigaction are plain data made valid by the calls; failures (SIGKILL, SIGSTOP) are harmless.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        for signal in 1..65 {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}

/// Ignores a signal: a monitor must outlive the closed pipes and hang-ups of those it serves.
pub fn ignore_signal(signal: i32) {
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Becomes the program of `command` with the signal mask and the SIGPIPE disposition that this process was started
/// with: Rust's runtime ignores SIGPIPE, and its `exec` clears both. Returns only if that fails.
pub fn exec_as_started(command: &mut Command) -> io::Error {
    // SAFETY: the closure runs in this process just before execve and makes two system calls, no allocation.
    unsafe {
        let mut mask: libc::sigset_t = std::mem::zeroed();
        libc::sigprocmask(libc::SIG_SETMASK, std::ptr::null(), &raw mut mask);
        command.pre_exec(move || {
            libc::sigprocmask(libc::SIG_SETMASK, &raw const mask, std::ptr::null_mut());
            if STARTED_WITHOUT_SIGPIPE.load(Ordering::Relaxed) {
                libc::signal(libc::SIGPIPE, libc::SIG_IGN);
            }
            Ok(())
        });
    }
    command.exec()
}

/// Whether SIGPIPE was ignored when this process was started.
static STARTED_WITHOUT_SIGPIPE: AtomicBool = AtomicBool::new(false);

/// Run by the C library before `main`, and so before Rust's runtime changes the disposition.
#[used]
// SAFETY: an `.init_array` entry is a function pointer; the function makes one system call and uses nothing of Rust's runtime.
#[unsafe(link_section = ".init_array")]
static NOTE_SIGPIPE: extern "C" fn() = note_sigpipe;

extern "C" fn note_sigpipe() {
    // SAFETY: sigaction is plain data, filled by the call.
    let ignored = unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGPIPE, std::ptr::null(), &raw mut now) == 0 && now.sa_sigaction == libc::SIG_IGN
    };
    STARTED_WITHOUT_SIGPIPE.store(ignored, Ordering::Relaxed);
}

/// Closes every descriptor from 3 up except those in `keep` (`close_range(2)`).
pub fn close_descriptors_except(keep: &[RawFd]) {
    let mut keep: Vec<RawFd> = keep.iter().copied().filter(|fd| *fd > 2).collect();
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep.into_iter().chain([RawFd::MAX]) {
        if fd > first {
            let last = if fd == RawFd::MAX { u32::MAX } else { (fd - 1) as u32 };
            // SAFETY: the process has just been forked; nothing owned by Rust in it uses these descriptors again.
            unsafe { libc::syscall(libc::SYS_close_range, first as u32, last, 0u32) };
        }
        first = fd.saturating_add(1);
    }
}
