//! Fork, exec, unshare, signals and descriptors: what a monitor needs to leave its caller behind.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::Mode;
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

/// Forks a child that is an orphan from the start. The pid is that of its parent, which has ended and is to be waited
/// for. Every signal is blocked in the child ([`reset_signals`]): one meant for the caller cannot end it before it has
/// left the caller's process group.
pub fn fork_orphan() -> io::Result<Fork> {
    debug_assert!(is_alone(), "fork from a process with threads");
    let before = block_signals();
    let forked = fork_through_another();
    if !matches!(forked, Ok(Fork::Child)) {
        // SAFETY: the set was filled by the kernel.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut()) };
    }
    forked
}

fn block_signals() -> libc::sigset_t {
    // SAFETY: sigset is plain data, filled before it is read.
    unsafe {
        let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        before
    }
}

/// The process in between shares this one's memory (`CLONE_VM | CLONE_VFORK`), so that only one copy is made of it, and
/// this process sleeps until it has ended.
#[cfg(target_arch = "x86_64")]
fn fork_through_another() -> io::Result<Fork> {
    let flags = (libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD) as i64;
    let (outer, inner): (i64, i64);
    // SAFETY: both clones keep the stack pointer, and the process in between, which runs on this one's stack while this
    // one sleeps, neither calls nor returns: it only forks and ends, in registers. With one thread, and every signal
    // blocked, the last child is as free as after a fork.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov eax, {clone}",
            "mov edi, {sigchld}",
            "xor esi, esi",
            "syscall",
            "test rax, rax",
            "jz 3f",
            "xor edi, edi",
            "sar rax, 63",
            "sub edi, eax",
            "mov eax, {exit}",
            "syscall",
            "ud2",
            "3:",
            "mov r12, 1",
            "xor eax, eax",
            "2:",
            clone = const libc::SYS_clone,
            sigchld = const libc::SIGCHLD,
            exit = const libc::SYS_exit,
            inlateout("rax") libc::SYS_clone => outer,
            inlateout("rdi") flags => _,
            inlateout("rsi") 0i64 => _,
            in("rdx") 0i64,
            in("r10") 0i64,
            in("r8") 0i64,
            inlateout("r12") 0i64 => inner,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    match (outer, inner) {
        (0, 1) => Ok(Fork::Child),
        (error, _) if error < 0 => Err(io::Error::from_raw_os_error(-error as i32)),
        (pid, _) => forked(pid as libc::pid_t),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn fork_through_another() -> io::Result<Fork> {
    match fork()? {
        Fork::Parent(child) => Ok(Fork::Parent(child)),
        Fork::Child => match fork() {
            Ok(Fork::Child) => Ok(Fork::Child),
            Ok(Fork::Parent(_)) => exit_now(0),
            Err(_) => exit_now(1),
        },
    }
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

/// How long threads that have been joined may take to end: no time at all, if the machine is not very busy.
const JOINED: Duration = Duration::from_secs(5);

/// Whether this is the only thread of its process, as far as `/proc` tells. One that has been joined counts until it has
/// run once more: it is waited for.
pub fn is_alone() -> bool {
    let deadline = Instant::now() + JOINED;
    loop {
        let alone = thread_count().is_none_or(|count| count == 1);
        if alone || Instant::now() > deadline {
            return alone;
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// How many threads this process has, if `/proc` can tell.
fn thread_count() -> Option<usize> {
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

/// From now on this thread runs only while nobody else wants its processor (`SCHED_IDLE`, `sched(7)`). An ordinary user cannot
/// take it back.
pub fn give_way() -> io::Result<()> {
    let none = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameters are plain data that the call only reads; 0 is the calling thread.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const none) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Ignores a signal: a monitor must outlive the closed pipes and hang-ups of those it serves.
pub fn ignore_signal(signal: i32) {
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// The umask that this process was started with, where [`keep_own_permissions`] has changed it; else all ones.
static STARTED_UMASK: AtomicU32 = AtomicU32::new(u32::MAX);

/// Sees to it that this process may use what it makes: a umask that takes permissions from the owner too is given to
/// what this process becomes ([`exec_as_started`]), and not obeyed here. For the beginning of a program.
pub fn keep_own_permissions() {
    const OWN: u32 = 0o700;
    let started = rustix::process::umask(Mode::from_raw_mode(0o077)).as_raw_mode();
    rustix::process::umask(Mode::from_raw_mode(started & !OWN));
    if started & OWN != 0 {
        STARTED_UMASK.store(started, Ordering::Relaxed);
    }
}

/// Becomes the program of `command` with the umask, the signal mask and the SIGPIPE disposition that this process was started
/// with: Rust's runtime ignores SIGPIPE, and its `exec` clears both. Returns only if that fails.
pub fn exec_as_started(command: &mut Command) -> io::Error {
    // SAFETY: the closure runs in this process just before execve and makes three system calls, no allocation.
    unsafe {
        let mut mask: libc::sigset_t = std::mem::zeroed();
        libc::sigprocmask(libc::SIG_SETMASK, std::ptr::null(), &raw mut mask);
        command.pre_exec(move || {
            libc::sigprocmask(libc::SIG_SETMASK, &raw const mask, std::ptr::null_mut());
            if STARTED_WITHOUT_SIGPIPE.load(Ordering::Relaxed) {
                libc::signal(libc::SIGPIPE, libc::SIG_IGN);
            }
            let umask = STARTED_UMASK.load(Ordering::Relaxed);
            if umask != u32::MAX {
                libc::umask(umask);
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
