//! Fork, unshare, signals and descriptors: what a monitor needs to leave its caller behind.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::RawFd;

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
    debug_assert_eq!(thread_count(), Some(1), "fork from a process with threads");
    // SAFETY: fork has no memory-safety preconditions of its own; with one thread the child may do anything.
    forked(unsafe { libc::fork() })
}

/// Forks a child that `wait(-1)` does not see and whose end sends no signal (`clone(2)`, no exit signal).
pub fn fork_unseen() -> io::Result<Fork> {
    debug_assert_eq!(thread_count(), Some(1), "fork from a process with threads");
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

/// SIGPIPE back to its default, as C programs expect to inherit it (Rust's runtime ignores it).
pub fn default_sigpipe() {
    // SAFETY: SIG_DFL is a valid disposition.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
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
