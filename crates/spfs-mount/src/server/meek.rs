//! A thread that gives way: it answers while one process asks without a pause and the machine has nothing else to do.
//!
//! Who is woken while its processor is busy with the waker goes to an idle one, where there is one. So each answer would
//! send the client away from the server that has just come beside it (`beside.rs`), and a request would be two interrupts
//! that wake a sleeping processor, 40 microseconds in a virtual machine. But a processor that runs nothing but threads of
//! the class `SCHED_IDLE` counts as idle itself: the client stays, and takes it at once.
//!
//! Such a thread may starve where others want its processor, and nobody may raise it again. So it is a second thread,
//! the *meek* one, that takes turns with the *own* one, which is as any other. The own thread hands over when the last
//! requests came steadily from one process and another processor is idle. The meek one hands back when that is no longer
//! so. Meanwhile the own thread looks after it, every [`TICK`]: if somebody waits and nothing has been answered since the
//! last look, it takes over at once, and has the kernel repeat what the meek one holds (`FUSE_NOTIFY_RESEND`; the
//! late answer is then nobody's, ENOENT). Nobody waits longer than two ticks for a thread that starves. While nothing is
//! asked both sleep, the own one in its `read`.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::{Scope, Thread};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

use super::beside::{Beside, Pace};
use super::protocol::REPLY_MAX;
use super::{Hands, Server, resend, wait};
use crate::sys;
use crate::view::View;

/// How often the own thread looks after the meek one.
const TICK: Duration = Duration::from_millis(10);

/// How long nothing is asked before the meek thread hands back.
const LULL: Duration = Duration::from_millis(5);

/// How long the meek thread is not asked again after it has starved.
const RESPITE: Duration = Duration::from_secs(5);

/// Room on the stack of the meek thread; its buffers are elsewhere.
const STACK: usize = 128 << 10;

/// What the two threads share.
pub(super) struct Meek<'a> {
    view: &'a View,
    /// Whose all files are.
    owner: (u32, u32),
    device: BorrowedFd<'a>,
    /// As many as this process may run on.
    processors: usize,
    /// Whose turn it is.
    its_turn: AtomicBool,
    /// Odd while it may hold a request; counts on with each one.
    beats: AtomicU64,
    ended: AtomicBool,
    /// Something that it needs could not be had.
    unable: AtomicBool,
    own: Thread,
    meek: OnceLock<Thread>,
}

/// How a turn of the meek thread has ended.
#[derive(PartialEq, Eq, Debug)]
enum End {
    HandedBack,
    Starved,
}

impl<'a> Meek<'a> {
    /// Both will answer requests of `device` about `view`, all of whose files belong to `owner` (user and group). The
    /// calling thread is the own one.
    pub fn new(view: &'a View, owner: (u32, u32), device: BorrowedFd<'a>) -> Meek<'a> {
        Meek {
            view,
            owner,
            device,
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            its_turn: AtomicBool::new(false),
            beats: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            unable: AtomicBool::new(false),
            own: std::thread::current(),
            meek: OnceLock::new(),
        }
    }

    /// Whether a client would be sent away: some other processor has nothing to do. To be asked by the only one
    /// that runs, while the client waits.
    fn others_idle(&self) -> bool {
        running().is_some_and(|running| running < self.processors)
    }

    /// Starts the meek thread, if all that it needs is there.
    fn start<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) -> bool {
        let prepare = || {
            // It must be possible to ask again; now there is nothing to be repeated.
            resend(self.device)?;
            // It must not wait for a request in the kernel, where it could not be told that it is no longer its turn.
            let flags = fcntl_getfl(self.device)?;
            Ok::<_, io::Error>(fcntl_setfl(self.device, flags | OFlags::NONBLOCK)?)
        };
        let spawn = || std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || self.work());
        match prepare().and_then(|()| spawn()) {
            Ok(thread) => self.meek.set(thread.thread().clone()).is_ok(),
            Err(_) => false,
        }
    }

    /// What the meek thread does.
    fn work(&self) {
        if sys::process::give_way().is_err() {
            self.unable.store(true, SeqCst);
            self.give_turn(false);
            return;
        }
        let server = Server::new(self.view, self.owner.0, self.owner.1);
        let mut hands = Hands::new(REPLY_MAX);
        while !self.ended.load(SeqCst) {
            if self.its_turn.load(SeqCst) {
                self.answer_until_loose(&server, &mut hands);
                self.give_turn(false);
            }
            std::thread::park();
        }
    }

    /// Answers for as long as it is the meek thread's turn and there is a reason for that.
    fn answer_until_loose(&self, server: &Server<'_>, hands: &mut Hands) {
        let mut beside = Beside::default();
        let mut known = false;
        while self.its_turn.load(SeqCst) {
            self.beats.fetch_add(1, SeqCst);
            let taken = hands.take(self.device);
            let pace = taken.ok().and_then(|pid| beside.request_of(pid));
            let go_on = match pace {
                None => true,
                // Of the first ones it cannot say how fast they came.
                Some(pace) => (pace == Pace::Steady || !std::mem::replace(&mut known, true)) && self.others_idle(),
            };
            if taken.is_ok() {
                hands.answer(server, self.device);
            }
            self.beats.fetch_add(1, SeqCst);
            let go_on = go_on
                && match taken {
                    Ok(_) | Err(Errno::INTR | Errno::NOENT) => true,
                    Err(Errno::AGAIN) => {
                        beside.had_to_wait();
                        wait(self.device, Some(LULL)).unwrap_or(false)
                    }
                    // The end of the mount, which the own thread finds as well.
                    Err(_) => false,
                };
            if !go_on {
                return;
            }
        }
    }

    /// What the own thread does while it is not its turn.
    fn look_after(&self) -> io::Result<End> {
        let mut stuck_at = None;
        loop {
            std::thread::park_timeout(TICK);
            if !self.its_turn.load(SeqCst) || self.unable.load(SeqCst) {
                return Ok(End::HandedBack);
            }
            let beats = self.beats.load(SeqCst);
            if beats.is_multiple_of(2) && !wait(self.device, Some(Duration::ZERO))? {
                stuck_at = None;
            } else if stuck_at.replace(beats) == Some(beats) {
                self.its_turn.store(false, SeqCst);
                // It was possible before; it is not when the mount has gone, as the next read will tell.
                let _ = resend(self.device);
                return Ok(End::Starved);
            }
        }
    }

    fn give_turn(&self, to_meek: bool) {
        self.its_turn.store(to_meek, SeqCst);
        let other = if to_meek { self.meek.get() } else { Some(&self.own) };
        other.inspect(|thread| thread.unpark());
    }
}

/// The own thread's side: when it hands over.
pub(super) struct Turns<'scope, 'env> {
    meek: &'scope Meek<'scope>,
    scope: &'scope Scope<'scope, 'env>,
    /// Not before.
    again: Instant,
}

impl<'scope, 'env> Turns<'scope, 'env> {
    /// The meek thread will be one of `scope`.
    pub fn new(meek: &'scope Meek<'scope>, scope: &'scope Scope<'scope, 'env>) -> Self {
        Turns { meek, scope, again: Instant::now() }
    }

    /// Whether to [`Turns::hand_over`], as one process asks steadily; to be asked while it waits.
    pub fn wanted(&self) -> bool {
        !self.meek.unable.load(SeqCst) && Instant::now() >= self.again && self.meek.others_idle()
    }

    /// Lets the meek thread answer, and comes back when it is this one's turn again.
    pub fn hand_over(&mut self) -> io::Result<()> {
        if self.meek.meek.get().is_none() && !self.meek.start(self.scope) {
            self.meek.unable.store(true, SeqCst);
            return Ok(());
        }
        self.meek.give_turn(true);
        // (One that could not become meek may have handed back before.)
        if self.meek.look_after()? == End::Starved {
            self.again = Instant::now() + RESPITE;
        }
        Ok(())
    }
}

impl Drop for Turns<'_, '_> {
    fn drop(&mut self) {
        self.meek.ended.store(true, SeqCst);
        self.meek.give_turn(false);
        self.meek.meek.get().inspect(|thread| thread.unpark());
    }
}

/// How many threads run on this machine now, or wait for a processor (`proc_loadavg(5)`, the fourth field). Nothing is
/// allocated.
fn running() -> Option<usize> {
    let file = rustix::fs::openat(CWD, c"/proc/loadavg", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut text = [0u8; 128];
    let length = rustix::io::read(&file, &mut text).ok()?;
    let field = text[..length].split(|byte| *byte == b' ').nth(3)?;
    let running = field.split(|byte| *byte == b'/').next()?;
    std::str::from_utf8(running).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::fd::{AsFd, OwnedFd};

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use spfs_repo::manifest::Dir;

    use super::*;
    use crate::server::{answer_all, protocol, reply};
    use crate::view::build;

    /// A kernel's end, and a server's.
    fn device() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    fn view() -> View {
        View::from_bytes(build(&Dir::default(), |_| Ok(Vec::new())).unwrap()).unwrap()
    }

    /// Asks for the attributes of the root in the name of a process.
    fn ask(kernel: &OwnedFd, unique: u64, pid: u32) {
        let mut request = [40 + 16, 3u32].map(u32::to_ne_bytes).concat();
        request.extend([unique, 1].map(u64::to_ne_bytes).concat());
        request.extend([0, 0, pid, 0].map(u32::to_ne_bytes).concat());
        request.extend([0; 16]);
        assert_eq!(rustix::io::write(kernel, &request), Ok(request.len()));
    }

    /// The next answer that is no notification: what it answers.
    fn answered(kernel: &OwnedFd) -> u64 {
        let mut answer = [0; 1000];
        loop {
            let length = rustix::io::read(kernel, &mut answer).unwrap();
            match u64::from_ne_bytes(answer[8..16].try_into().unwrap()) {
                0 => assert_eq!(answer[..length], reply::notification(protocol::NOTIFY_RESEND)),
                unique => return unique,
            }
        }
    }

    fn until(what: &str, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !done() {
            assert!(Instant::now() < deadline, "{what}");
        }
    }

    /// The scheduling classes of this process's threads (`proc_pid_stat(5)`, field 41).
    fn classes() -> Vec<String> {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
        let stats = tasks.filter_map(|task| std::fs::read_to_string(task.join("stat")).ok());
        stats.map(|stat| stat.rsplit(')').next().unwrap().split(' ').nth(41 - 2).unwrap().to_owned()).collect()
    }

    #[test]
    fn the_meek_thread_takes_over_and_hands_back() {
        let (kernel, device) = device();
        // The test looks at what both share.
        let (view, device): (&View, &OwnedFd) = (Box::leak(Box::new(view())), Box::leak(Box::new(device)));
        let own = std::process::id();
        let (sender, receiver) = std::sync::mpsc::channel();
        let server = std::thread::spawn(move || {
            let meek: &Meek<'_> =
                Box::leak(Box::new(Meek { processors: usize::MAX, ..Meek::new(view, (7, 8), device.as_fd()) }));
            sender.send(meek).unwrap();
            std::thread::scope(|scope| {
                answer_all(&Server::new(view, 7, 8), device.as_fd(), REPLY_MAX, Some(Turns::new(meek, scope)))
            })
            .unwrap();
        });
        let meek = receiver.recv().unwrap();
        let mut unique = 0;
        let mut next = |pid| {
            unique += 1;
            ask(&kernel, unique, pid);
            assert_eq!(answered(&kernel), unique);
        };
        // It gives way: on a busy machine its turn may pass before it has run.
        until("one process asks steadily, and the meek thread does not answer", || {
            (0..1000).for_each(|_| next(own));
            meek.beats.load(SeqCst) >= 2
        });
        assert!(classes().contains(&"5".to_owned()));
        // After a pause it is the own one's turn; and no turn of another when two processes ask.
        std::thread::sleep(4 * LULL);
        (0..1000).for_each(|n| next(own + n % 2));
        drop(kernel);
        server.join().unwrap();
    }

    #[test]
    fn who_starves_is_relieved() {
        let (kernel, device) = device();
        let view = view();
        let meek = Meek::new(&view, (7, 8), device.as_fd());
        let relieved = |meek: &Meek<'_>| {
            meek.its_turn.store(true, SeqCst);
            assert_eq!(meek.look_after().unwrap(), End::Starved);
            assert!(!meek.its_turn.load(SeqCst));
            let mut word = [0; 100];
            let length = rustix::io::read(&kernel, &mut word).unwrap();
            assert_eq!(word[..length], reply::notification(protocol::NOTIFY_RESEND), "the kernel is to ask again");
        };
        meek.beats.store(7, SeqCst);
        relieved(&meek);
        meek.beats.store(8, SeqCst);
        ask(&kernel, 1, 1);
        relieved(&meek);
    }

    #[test]
    fn who_has_nothing_to_do_does_not_starve() {
        let (_kernel, device) = device();
        let view = view();
        let meek = Meek::new(&view, (7, 8), device.as_fd());
        meek.its_turn.store(true, SeqCst);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(10 * TICK);
                meek.give_turn(false);
            });
            assert_eq!(meek.look_after().unwrap(), End::HandedBack);
        });
    }

    #[test]
    fn whoever_runs_is_counted() {
        assert!(running().unwrap() >= 1);
    }
}
