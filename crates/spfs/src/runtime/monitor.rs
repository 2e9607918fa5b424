//! The monitor: the small process that belongs to one runtime, serves its members, and ends with it.
//!
//! The supervisor stays single-threaded and keeps what must not be lost: the `/dev/fuse` descriptors, the upper
//! directory (`O_PATH`, which does not keep the overlay alive), the lock. All work is done by children: *servers*
//! answer the kernel and are forked again when they die, *jobs* carry out one request each. The kernel tells the end,
//! through a server (`ENODEV`) or an inotify watch; nothing is polled by time.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, WaitOptions, getegid, geteuid};
use spfs_mount::enter::MonitorLinks;
use spfs_mount::link::{Link, Message};
use spfs_mount::server;
use spfs_mount::share::Keeper;
use spfs_mount::sys::process::{self, Fork};
use spfs_mount::view::{self, View};
use spfs_repo::manifest::Dir;

use super::dir::{AliveLock, RuntimeDir};
use super::jobs::{self, Mounts};
use super::warm::{self, Warm};
use super::{durable, registry, reset};
use crate::Spfs;
use crate::config::{Config, Env};
use crate::lazy::{Fetcher, Use};

/// What a monitor is started with.
pub struct Monitor {
    /// The runtime.
    pub dir: RuntimeDir,
    /// The lock that says that it lives.
    pub alive: AliveLock,
    /// The lock on the directory of a durable runtime, against a second entry.
    pub durable: Option<AliveLock>,
    /// Where its members call.
    pub listener: UnixListener,
    /// Where its overlay is shared with others, if it may be.
    pub share: Option<PathBuf>,
    /// The payloads that the overlay lies over.
    pub payloads: PathBuf,
    /// The remotes from which payloads are fetched that are not there.
    pub lazy: Vec<String>,
    /// What says that it uses what is here only in part.
    pub in_use: Option<Arc<Use>>,
    /// What the network library needs for that; see [`crate::lazy::network_descriptors`].
    pub network: Vec<RawFd>,
    /// The surroundings and settings of whoever started it.
    pub env: Env,
    /// See `env`.
    pub config: Config,
}

/// A child process.
struct Child {
    pid: Pid,
    /// Closed by the kernel when the child ends, however it ends.
    life: OwnedFd,
}

/// A child that answers the kernel for one metadata mount.
struct Server {
    child: Child,
    mount: ServedMount,
    deaths: u32,
}

/// A mount that is served, and what it shows.
struct ServedMount {
    fuse: OwnedFd,
    view: Option<OwnedFd>,
    payloads: Option<OwnedFd>,
    /// What is missing is fetched.
    fetch: bool,
    /// It may outlive the runtime: others use what it serves.
    shared: bool,
}

/// A child that carries out one request.
struct Job {
    pid: Pid,
    link: Link,
    /// Locks on what it is about to show.
    held: Vec<OwnedFd>,
}

/// What tells the end of an overlay.
struct Watch {
    inotify: OwnedFd,
    /// Locks on what it shows.
    _held: Vec<OwnedFd>,
}

/// What the supervisor waits for.
enum Source {
    Launcher,
    Listener,
    Job(usize),
    Server(usize),
    Watch(usize),
}

struct Supervisor {
    monitor: Monitor,
    launcher: Option<Link>,
    /// A server that the launcher tells itself what to serve.
    waiting: Option<Child>,
    mounts: Option<Mounts>,
    servers: Vec<Server>,
    watches: Vec<Watch>,
    /// Locks on what is shown as long as the runtime lives.
    held: Vec<OwnedFd>,
    jobs: Vec<Job>,
    /// A clone of the overlay that is not published yet.
    kept: Option<OwnedFd>,
    keeper: Option<Keeper>,
}

impl Monitor {
    /// The descriptors that it needs across [`spfs_mount::enter::enter`].
    pub fn descriptors(&self) -> Vec<RawFd> {
        let locks = [&self.alive].into_iter().chain(&self.durable).map(|lock| lock.0.as_raw_fd());
        locks.chain([self.listener.as_raw_fd()]).chain(self.for_fetching()).collect()
    }

    /// Those that servers need to fetch.
    fn for_fetching(&self) -> impl Iterator<Item = RawFd> {
        self.network.iter().copied().chain(self.in_use.iter().map(|in_use| in_use.descriptor()))
    }

    /// Supervises until the runtime has ended. The result is the exit status.
    pub fn run(self, links: MonitorLinks) -> i32 {
        let _ = rustix::thread::set_name(c"spfs-monitor");
        let mut supervisor = Supervisor {
            monitor: self,
            launcher: Some(links.launcher),
            waiting: None,
            mounts: None,
            servers: Vec::new(),
            watches: Vec::new(),
            held: Vec::new(),
            jobs: Vec::new(),
            kept: None,
            keeper: None,
        };
        supervisor.waiting = links.server.and_then(|link| supervisor.fork_waiting_server(&link));
        while !supervisor.has_ended() {
            let sources = supervisor.wait();
            for source in sources.into_iter().rev() {
                supervisor.handle(source);
            }
        }
        let status = supervisor.finish();
        supervisor.keep_warm();
        status
    }
}

impl Supervisor {
    fn has_ended(&self) -> bool {
        let mounting = self.mounts.is_none() && self.launcher.is_some();
        !mounting
            && self.servers.iter().all(|server| server.mount.shared)
            && self.watches.is_empty()
            && self.jobs.is_empty()
    }

    /// Sleeps until something happens; the sources in the order of their indexes.
    fn wait(&self) -> Vec<Source> {
        let mut waited: Vec<(Source, BorrowedFd<'_>)> = Vec::new();
        if let Some(link) = &self.launcher {
            waited.push((Source::Launcher, link.as_fd()));
        }
        if self.mounts.is_some() {
            waited.push((Source::Listener, self.monitor.listener.as_fd()));
        }
        waited.extend(self.jobs.iter().enumerate().map(|(i, job)| (Source::Job(i), job.link.as_fd())));
        waited
            .extend(self.servers.iter().enumerate().map(|(i, server)| (Source::Server(i), server.child.life.as_fd())));
        waited.extend(self.watches.iter().enumerate().map(|(i, watch)| (Source::Watch(i), watch.inotify.as_fd())));
        let mut fds: Vec<PollFd<'_>> =
            waited.iter().map(|(_, fd)| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        if rustix::event::poll(&mut fds, None).is_err() {
            return Vec::new();
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        waited.into_iter().zip(ready).filter_map(|((source, _), ready)| ready.then_some(source)).collect()
    }

    fn handle(&mut self, source: Source) {
        match source {
            Source::Launcher => self.hear_launcher(),
            Source::Listener => self.accept(),
            Source::Job(index) => self.hear_job(index),
            Source::Server(index) => self.bury_server(index),
            Source::Watch(index) => self.read_watch(index),
        }
    }

    fn hear_launcher(&mut self) {
        let Some(link) = &self.launcher else { return };
        match link.receive() {
            Ok(Message::Serve { fuse, view, payloads, fetch }) => {
                let shared = self.monitor.share.is_some() && view.is_some() && payloads.is_none();
                self.start_server(ServedMount { fuse, view, payloads, fetch, shared });
            }
            Ok(Message::Keep(mount)) => self.kept = Some(mount),
            Ok(Message::Hold(fd)) => self.held.push(fd),
            Ok(Message::Mounted { namespace, upper, watch }) => {
                self.watches.extend(watch.map(|inotify| Watch { inotify, _held: Vec::new() }));
                self.mounts = Some(Mounts { namespace, upper });
                // The record comes after the word: the command need not wait for it, and members lock it. Not so with
                // a durable runtime: were we killed in between, nothing would say that its changes are in use.
                if self.monitor.durable.is_some() {
                    self.record_mounts();
                    self.send_ready();
                } else {
                    self.send_ready();
                    self.record_mounts();
                }
                let place = self.monitor.share.as_deref();
                self.keeper = place.zip(self.kept.take()).and_then(|(place, mount)| Keeper::publish(place, mount));
                self.bury_the_dead();
            }
            _ => self.launcher = None,
        }
    }

    fn send_ready(&self) {
        // A launcher that is gone is heard of next.
        let _ = self.launcher.as_ref().map(Link::send_ready);
    }

    fn record_mounts(&self) {
        let (Some(mounts), dir) = (&self.mounts, &self.monitor.dir) else { return };
        let update = || -> crate::Result<()> {
            let _lock = dir.lock_changes()?;
            let mut record = dir.load()?;
            record.status.monitor = Some(rustix::process::getpid().as_raw_nonzero().get());
            record.config.mount_namespace = Some(format!("mnt:[{}]", mounts.namespace));
            dir.save(&record)
        };
        // Without it `join` by name does not find its way; everything else still works.
        let _ = update();
    }

    /// Removes what killed monitors have left behind, in a child: it may take a moment, and the command does not wait.
    fn bury_the_dead(&mut self) {
        if !registry::has_dead(&self.monitor.dir) {
            return;
        }
        let Ok((ours, theirs)) = Link::pair() else { return };
        match process::fork() {
            Ok(Fork::Parent(pid)) => self.jobs.push(Job { pid, link: ours, held: Vec::new() }),
            Ok(Fork::Child) => {
                drop(ours);
                let Monitor { env, config, .. } = &self.monitor;
                let swept = Spfs::open(env.clone(), config.clone()).and_then(|spfs| registry::list(&spfs));
                drop(theirs);
                process::exit_now(i32::from(swept.is_err()))
            }
            Err(_) => {}
        }
    }

    fn accept(&mut self) {
        let Ok((stream, _)) = self.monitor.listener.accept() else { return };
        let (Ok((ours, theirs)), Some(mounts)) = (Link::pair(), &self.mounts) else { return };
        match process::fork() {
            Ok(Fork::Parent(pid)) => self.jobs.push(Job { pid, link: ours, held: Vec::new() }),
            Ok(Fork::Child) => {
                drop(ours);
                let _ = rustix::thread::set_name(c"spfs-job");
                let Monitor { dir, env, config, .. } = &self.monitor;
                process::exit_now(serve_member(&stream, |peer| jobs::serve(peer, dir, env, config, mounts, &theirs)))
            }
            Err(_) => {}
        }
    }

    fn hear_job(&mut self, index: usize) {
        match self.jobs[index].link.receive() {
            Ok(Message::Serve { fuse, view, payloads, fetch }) => {
                self.start_server(ServedMount { fuse, view, payloads, fetch, shared: false });
            }
            Ok(Message::Hold(fd)) => self.jobs[index].held.push(fd),
            Ok(Message::Mounted { namespace, upper, watch }) => {
                let held = std::mem::take(&mut self.jobs[index].held);
                match watch {
                    Some(inotify) => self.watches.push(Watch { inotify, _held: held }),
                    None => self.held.extend(held),
                }
                self.mounts = Some(Mounts { namespace, upper });
            }
            Ok(Message::Ready | Message::Keep(_)) => {}
            Ok(Message::Closed) | Err(_) => {
                let job = self.jobs.remove(index);
                // One that was killed may have mounted what it could not tell of.
                self.held.extend(job.held);
                let _ = rustix::process::waitpid(Some(job.pid), WaitOptions::empty());
            }
        }
    }

    fn start_server(&mut self, mount: ServedMount) {
        // A mount that cannot be served must end at once rather than hang its users: the descriptor closes here.
        let child = self.waiting.take().or_else(|| self.fork_server(&mount, 0));
        self.servers.extend(child.map(|child| Server { child, mount, deaths: 0 }));
    }

    fn fork_server(&self, mount: &ServedMount, deaths: u32) -> Option<Child> {
        let fds = [&mount.fuse].into_iter().chain(&mount.view).chain(&mount.payloads);
        self.fork_child(fds.map(AsRawFd::as_raw_fd).collect(), || serve(mount, deaths, &self.monitor))
    }

    /// Forks the first server before there is anything to serve, so that the launcher need not wait for a fork.
    fn fork_waiting_server(&self, link: &Link) -> Option<Child> {
        self.fork_child(vec![link.as_fd().as_raw_fd()], || match link.receive() {
            Ok(Message::Serve { fuse, view, payloads, fetch }) => {
                serve(&ServedMount { fuse, view, payloads, fetch, shared: false }, 0, &self.monitor)
            }
            _ => 0,
        })
    }

    /// Forks a server. It keeps the lock of a durable runtime: as long as the mount is served, its changes are in use.
    /// What says that there is a monitor ends with the monitor: were its socket held here, members would wait for ever.
    fn fork_child(&self, mut keep: Vec<RawFd>, work: impl FnOnce() -> i32) -> Option<Child> {
        let (life, held) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).ok()?;
        match process::fork().ok()? {
            Fork::Parent(pid) => Some(Child { pid, life }),
            Fork::Child => {
                let _ = rustix::thread::set_name(c"spfs-server");
                keep.extend(self.monitor.durable.iter().map(|lock| lock.0.as_raw_fd()));
                keep.push(held.as_raw_fd());
                keep.extend(self.monitor.for_fetching());
                process::close_descriptors_except(&keep);
                process::exit_now(work())
            }
        }
    }

    /// A server has ended: because its mount has, or because something killed it.
    fn bury_server(&mut self, index: usize) {
        let server = self.servers.remove(index);
        let status = rustix::process::waitpid(Some(server.child.pid), WaitOptions::empty()).ok().flatten();
        if status.is_some_and(|(_, status)| status.exit_status() == Some(0)) {
            return;
        }
        let deaths = server.deaths + 1;
        if deaths > 10 {
            std::thread::sleep(Duration::from_millis(u64::from(deaths.min(100)) * 10));
        }
        let child = self.fork_server(&server.mount, deaths);
        self.servers.extend(child.map(|child| Server { child, mount: server.mount, deaths }));
    }

    fn read_watch(&mut self, index: usize) {
        use rustix::fs::inotify::{ReadFlags, Reader};
        let mut buffer = [std::mem::MaybeUninit::uninit(); 1024];
        let mut reader = Reader::new(&self.watches[index].inotify, &mut buffer);
        let over = match reader.next() {
            Ok(event) => event.events().intersects(ReadFlags::UNMOUNT | ReadFlags::IGNORED),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => false,
            Err(_) => true,
        };
        if over {
            self.watches.remove(index);
        }
    }

    /// Keeps what is shared for a while, and serves it as long as anybody uses it.
    fn keep_warm(&mut self) {
        // A launcher that was killed had handed it over, and nobody will use it: its server waits for its end.
        self.kept = None;
        let Monitor { env, config, payloads, share, .. } = &self.monitor;
        if let (Some(keeper), Some(place)) = (self.keeper.take(), share) {
            let patience = warm::patience(env, config.filesystem.warm_seconds, payloads);
            let mut warm = Warm::new(keeper, patience, place);
            loop {
                let lives: Vec<&OwnedFd> = self.servers.iter().map(|server| &server.child.life).collect();
                let Some(ready) = warm.wait(&lives) else { break };
                ready.into_iter().rev().for_each(|index| self.bury_server(index));
            }
            warm.end();
        }
        self.watches.clear();
        while !self.servers.is_empty() {
            // Only servers are left: this waits for one of them to end.
            let mut fds: Vec<PollFd<'_>> =
                self.servers.iter().map(|server| PollFd::new(&server.child.life, PollFlags::IN)).collect();
            let _ = rustix::event::poll(&mut fds, None);
            if let Some(index) = fds.iter().position(|fd| !fd.revents().is_empty()) {
                self.bury_server(index);
            }
        }
    }

    /// Removes the changes that were on disk for want of a tmpfs that could hold them.
    fn remove_spare(&self) {
        let dirs = crate::Dirs::new(&self.monitor.env, &self.monitor.config);
        let name = self.monitor.dir.path.file_name().and_then(|name| name.to_str());
        if let Some(spare) = name.and_then(|name| super::shown::spare(&dirs, name)).filter(|spare| spare.exists()) {
            let _ = super::dir::remove_tree(&spare);
        }
    }

    /// Removes the tag that a runtime has in a shared repository.
    fn forget(&self, name: &str) {
        let root = self.monitor.config.storage.root.as_ref().and_then(|root| std::fs::metadata(root).ok());
        // Asked first, because opening it costs more.
        if root.is_some_and(|root| root.mode() & 0o022 != 0)
            && let Ok(spfs) = Spfs::open(self.monitor.env.clone(), self.monitor.config.clone())
        {
            durable::forget_ended(&spfs, name);
        }
    }

    /// Removes the record, or keeps that of a durable runtime.
    fn finish(&self) -> i32 {
        let dir = &self.monitor.dir;
        self.remove_spare();
        let end = || -> crate::Result<()> {
            let _lock = dir.lock_changes()?;
            let mut record = dir.load()?;
            if record.config.durable {
                record.stopped();
                dir.save(&record)?;
                reset::tidy(&record);
            } else {
                self.forget(&record.name);
            }
            dir.remove()
        };
        self.monitor.in_use.iter().for_each(|in_use| in_use.end());
        i32::from(end().is_err())
    }
}

/// The server's process: the exit status is 0 when the mount has gone.
fn serve(mount: &ServedMount, deaths: u32, monitor: &Monitor) -> i32 {
    let served = || -> io::Result<()> {
        let view = match &mount.view {
            Some(fd) => View::open(
                Path::new(&format!("/proc/self/fd/{}", fd.as_raw_fd())),
                &monitor.env.boot().map_err(io::Error::other)?,
            ),
            None => view::build(&Dir::default(), |_| Ok(Vec::new())).and_then(View::from_bytes),
        };
        let view = view.map_err(io::Error::other)?;
        if deaths > 0 {
            // What the dead one had taken and not answered is asked again (Linux 6.9).
            let _ = server::resend(mount.fuse.as_fd());
        }
        let (device, uid, gid) = (mount.fuse.as_fd(), geteuid().as_raw(), getegid().as_raw());
        let fetcher = || -> io::Result<Fetcher> {
            let spfs = Spfs::open(monitor.env.clone(), monitor.config.clone()).map_err(io::Error::other)?;
            Ok(Fetcher::new(spfs, &monitor.lazy, &monitor.dir.path))
        };
        let fetcher = if mount.fetch { Some(fetcher()?) } else { None };
        match (&mount.payloads, fetcher) {
            (Some(payloads), fetcher) => {
                let fetch = fetcher.as_ref().map(|fetcher| fetcher as &dyn server::Fetch);
                server::serve_with_data(&view, device, uid, gid, payloads.as_fd(), fetch)
            }
            (None, Some(fetcher)) => server::serve_fetches(Arc::new(view), device, uid, gid, Arc::new(fetcher)),
            (None, None) => server::serve(&view, device, uid, gid),
        }
    };
    i32::from(served().is_err())
}

/// Lets only the runtime's own user, and root, in.
fn serve_member(stream: &UnixStream, job: impl FnOnce(&UnixStream) -> i32) -> i32 {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
    match rustix::net::sockopt::socket_peercred(stream) {
        Ok(peer) if peer.uid == geteuid() || peer.uid.is_root() => job(stream),
        _ => 1,
    }
}
