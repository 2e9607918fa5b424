//! What this machine can do, found out by trying: each thing in a forked child, in namespaces that end with it.
//!
//! The calling process must have one thread. Nothing of a probe outlives it, whatever the kernel does: a child that does
//! not answer within [`PATIENCE`] is killed.

use std::cell::Cell;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::pipe::PipeFlags;
use rustix::process::{Signal, WaitOptions, getegid, geteuid};
use spfs_repo::Digest;

use crate::enter::{self, MonitorLinks};
use crate::error::{Error, Result};
use crate::link::{Announce, Link, Message};
use crate::plan::{Plan, Strategy, Upper};
use crate::redirect::redirect;
use crate::sys::mount::{self, Context};
use crate::sys::process::{self, Fork};
use crate::view::{self, View};
use crate::{BootId, SPFS, changes, image, lower, members, namespace, overlay, server};

/// How long a probe may take before its child is killed.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Something that a runtime needs of the machine, or is better with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Facility {
    /// A user namespace of one's own; root needs none.
    UserNamespace,
    /// A mount namespace of one's own.
    MountNamespace,
    /// A root directory of one's own, where there is no `/spfs`, or within a runtime.
    NewRoot,
    /// `/dev/fuse` can be opened.
    FuseDevice,
    /// A FUSE file system can be mounted.
    FuseMount,
    /// What a server that died had not answered can be asked for again (Linux 6.9).
    FuseResend,
    /// Overlayfs with `userxattr`, by paths.
    Overlay,
    /// Overlayfs with data-only layers, by descriptor (Linux 6.16; with privilege 6.13).
    DataLayers,
    /// A mount can be slipped beneath another (Linux 6.5).
    Beneath,
    /// Another inotify instance, and a watch.
    Inotify,
}

impl Facility {
    /// All of them, those that others need first.
    pub const ALL: [Facility; 10] = [
        Facility::UserNamespace,
        Facility::MountNamespace,
        Facility::NewRoot,
        Facility::FuseDevice,
        Facility::FuseMount,
        Facility::FuseResend,
        Facility::Overlay,
        Facility::DataLayers,
        Facility::Beneath,
        Facility::Inotify,
    ];

    fn attempt(self) -> Result<()> {
        match self {
            Facility::UserNamespace => namespace::unshare_user(),
            Facility::MountNamespace => own_mounts(),
            Facility::NewRoot => own_mounts().and_then(|()| namespace::new_root(namespace::Old::Hidden)),
            Facility::FuseDevice => open_fuse().map(drop),
            Facility::FuseMount => own_mounts().and_then(|()| mount_fuse()).map(drop),
            Facility::FuseResend => {
                own_mounts()?;
                let (_mount, device) = mount_fuse()?;
                server::resend(device.as_fd()).map_err(Error::system("have FUSE requests sent again"))
            }
            Facility::Overlay => own_mounts().and_then(|()| mount_overlay()),
            Facility::DataLayers => own_mounts().and_then(|()| mount_data_layers()),
            Facility::Beneath => own_mounts().and_then(|()| mount_beneath()),
            Facility::Inotify => watch(),
        }
    }
}

/// Why something cannot be done here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The error and its causes, in one line.
    pub message: String,
    /// What the kernel said last, as an error number.
    pub errno: Option<i32>,
}

/// Tries one facility.
pub fn facility(facility: Facility) -> Result<(), Refusal> {
    in_child(|| facility.attempt())
}

/// A tiny environment in files, for trying whole strategies.
pub struct Trial {
    view: PathBuf,
    image: PathBuf,
    payloads: PathBuf,
}

/// The one file of a trial's environment.
const FILE: &str = "doctor";
/// Its content.
const CONTENT: &[u8] = b"this file is read through /spfs\n";

impl Trial {
    /// Makes the environment: its payload in the empty directory `payloads`, view and image in the directory `cache`.
    pub fn make(payloads: &Path, cache: &Path, boot: &BootId) -> Result<Trial> {
        let digest = Digest::of(CONTENT);
        let mut tree = spfs_repo::manifest::Dir::default();
        let node = spfs_repo::manifest::Node::Blob { digest, mode: 0o100_644, size: CONTENT.len() as u64 };
        tree.entries.insert(FILE.to_owned(), node);
        let bytes = view::build(&tree, |digest| Err(spfs_repo::Error::MissingPayload(*digest)))?;
        let relative = String::from_utf8_lossy(&redirect(&digest)).trim_start_matches('/').to_owned();
        let payload = payloads.join(relative);
        let above = payload.parent().unwrap_or(payloads);
        fs::create_dir_all(above).map_err(Error::io("make", above))?;
        fs::write(&payload, CONTENT).map_err(Error::io("write", &payload))?;
        let trial = Trial { view: cache.join("view"), image: cache.join("image"), payloads: payloads.to_owned() };
        view::write(&trial.view, &bytes, boot)?;
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        image::create(&trial.image, &View::from_bytes(bytes)?, uid, gid, boot)?;
        Ok(trial)
    }

    /// The image, for [`Strategy::Image`].
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// Where the plain tree goes, for [`Strategy::Render`].
    pub fn tree(&self) -> PathBuf {
        self.payloads.join("tree")
    }

    /// Enters the environment by this strategy alone, reads its file and, if it is to be `editable`, writes another one.
    pub fn strategy(&self, strategy: Strategy, editable: bool) -> Result<(), Refusal> {
        let plan = Plan {
            name: "doctor".to_owned(),
            source: members::source("doctor", None),
            strategies: vec![strategy],
            view: self.view.clone(),
            payloads: self.payloads.clone(),
            fetch: false,
            upper: Upper::Memory { size: None },
            share: None,
            spare: None,
            editable,
            binds: Vec::new(),
        };
        let tree = |path: &Path| {
            let file = path.join(FILE);
            fs::create_dir_all(path).and_then(|()| fs::write(&file, CONTENT)).map_err(Error::io("write", &file))
        };
        in_child(|| {
            enter::enter(&plan, &tree, &[], monitor)?;
            let path = Path::new(SPFS).join(FILE);
            let read = fs::read(&path).map_err(Error::io("read", &path))?;
            if read != CONTENT {
                return Err(Error::Damaged { path, reason: "it has another content than was put there".to_owned() });
            }
            if !editable {
                return Ok(());
            }
            let path = Path::new(SPFS).join("written");
            fs::write(&path, CONTENT).map_err(Error::io("write", &path))
        })
    }
}

/// Whether changes can be kept in `dir` itself, which must be empty: as the upper directory of an overlay.
pub fn can_hold_changes(dir: &Path) -> Result<(), Refusal> {
    in_child(|| {
        own_mounts()?;
        let mut fds = Vec::new();
        for name in ["lower", "upper", "work"] {
            let path = dir.join(name);
            fs::create_dir_all(&path).map_err(Error::io("make", &path))?;
            fds.push((name, path));
        }
        let context = Context::new("overlay")?;
        context.flag("userxattr")?;
        for (name, path) in fds {
            let text = path.to_str().ok_or_else(|| Error::Limit(format!("{} is not UTF-8", path.display())))?;
            context.string(&format!("{name}dir"), text)?;
        }
        context.mount(overlay::SAFE).map(drop)
    })
}

/// The smallest monitor: a server that ends with the mounts, and a word to the launcher.
fn monitor(links: MonitorLinks) -> i32 {
    if let Some(link) = links.server
        && matches!(process::fork(), Ok(Fork::Child))
    {
        drop(links.launcher);
        let Ok(Message::Serve { fuse, view: Some(view), payloads, .. }) = link.receive() else { return 1 };
        drop(link);
        return i32::from(serve(&fuse, &view, payloads.as_ref()).is_err());
    }
    // A marker's device is held until the mounts are there.
    let mut held = Vec::new();
    loop {
        match links.launcher.receive() {
            Ok(Message::Serve { fuse, .. }) => held.push(fuse),
            Ok(Message::Hold(tree)) => held.push(tree),
            Ok(Message::Mounted { .. }) => return i32::from(links.launcher.send_ready().is_err()),
            _ => return 1,
        }
    }
}

fn serve(fuse: &OwnedFd, view: &OwnedFd, payloads: Option<&OwnedFd>) -> Result<()> {
    use std::os::fd::AsRawFd;
    let mut bytes = Vec::new();
    let path = format!("/proc/self/fd/{}", view.as_raw_fd());
    let mut file = fs::File::open(&path).map_err(Error::io("open", &path))?;
    std::io::Read::read_to_end(&mut file, &mut bytes).map_err(Error::io("read", &path))?;
    let view = View::from_bytes(bytes)?;
    let (device, uid, gid) = (fuse.as_fd(), geteuid().as_raw(), getegid().as_raw());
    match payloads {
        Some(payloads) => server::serve_with_data(&view, device, uid, gid, payloads.as_fd(), None),
        None => server::serve(&view, device, uid, gid),
    }
    .map_err(Error::system("serve"))
}

/// Namespaces of one's own in which one may mount.
fn own_mounts() -> Result<()> {
    if !namespace::is_privileged() {
        namespace::unshare_user()?;
    }
    namespace::unshare_mounts()
}

fn open_fuse() -> Result<OwnedFd> {
    rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::NoFuse { source: e.into() })
}

/// A FUSE mount and its device.
fn mount_fuse() -> Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = Link::pair()?;
    let announce = Announce { monitor: &ours, server: Cell::new(None) };
    let mounted = lower::marker(&announce, &members::source("doctor", None))?;
    match theirs.receive()? {
        Message::Serve { fuse, .. } => Ok((mounted, fuse)),
        _ => Err(Error::MonitorGone),
    }
}

fn tmpfs() -> Result<OwnedFd> {
    let context = Context::new("tmpfs")?;
    context.string("mode", "0700")?;
    context.mount(overlay::SAFE)
}

/// A directory that something may be mounted over, in a namespace that nobody else sees.
fn mount_point() -> Result<&'static str> {
    let any = ["/tmp", "/var", "/mnt", "/home", "/etc", "/usr", "/dev"];
    let found = any.into_iter().find(|path| Path::new(path).is_dir());
    found.ok_or_else(|| Error::Limit("there is no directory to mount on".to_owned()))
}

fn mount_overlay() -> Result<()> {
    let (point, tmpfs) = (mount_point()?, tmpfs()?);
    mount::attach(tmpfs.as_fd(), point)?;
    let context = Context::new("overlay")?;
    context.flag("userxattr")?;
    for name in ["lower", "upper", "work"] {
        changes::make_directory(&tmpfs, name)?;
        context.string(&format!("{name}dir"), &format!("{point}/{name}"))?;
    }
    context.mount(overlay::SAFE).map(drop)
}

fn mount_data_layers() -> Result<()> {
    let (metadata, data) = (tmpfs()?, tmpfs()?);
    let context = Context::new("overlay")?;
    context.flag("userxattr")?;
    let too_old = |missing| overlay::too_old(missing);
    context.fd("lowerdir+", &metadata).map_err(too_old("no layers by descriptor (Linux 6.13)"))?;
    context.fd("datadir+", &data).map_err(too_old("no data-only layers (Linux 6.8)"))?;
    let mounted = context.mount(overlay::SAFE | MountAttrFlags::MOUNT_ATTR_RDONLY);
    mounted.map(drop).map_err(too_old("no unprivileged data-only layers (Linux 6.16)"))
}

fn mount_beneath() -> Result<()> {
    let (point, upper, lower) = (mount_point()?, tmpfs()?, tmpfs()?);
    mount::attach(upper.as_fd(), point)?;
    mount::attach_beneath(lower.as_fd(), point)?;
    mount::detach(point)
}

fn watch() -> Result<()> {
    let inotify = inotify::init(CreateFlags::CLOEXEC).map_err(Error::system("make an inotify instance"))?;
    let watched = inotify::add_watch(&inotify, "/", WatchFlags::DELETE_SELF | WatchFlags::ONLYDIR);
    watched.map(drop).map_err(Error::system("add an inotify watch"))
}

/// Runs `attempt` in a forked child and brings back how it went.
fn in_child(attempt: impl FnOnce() -> Result<()>) -> Result<(), Refusal> {
    let lost = |message: String| Refusal { message, errno: None };
    let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)
        .map_err(|e| Refusal { message: format!("could not make a pipe: {e}"), errno: Some(e.raw_os_error()) })?;
    let child = match process::fork() {
        Ok(Fork::Parent(child)) => child,
        Ok(Fork::Child) => {
            drop(ours);
            let told = match attempt() {
                Ok(()) => "ok".to_owned(),
                Err(error) => format!("{} {}", errno(&error).unwrap_or(0), overlay::chain(&error)),
            };
            let _ = rustix::io::write(&theirs, told.as_bytes());
            process::exit_now(0)
        }
        Err(error) => {
            return Err(Refusal {
                message: format!("could not start a process: {error}"),
                errno: error.raw_os_error(),
            });
        }
    };
    drop(theirs);
    let told = hear(&ours);
    let _ = rustix::process::kill_process(child, Signal::KILL);
    let _ = rustix::process::waitpid(Some(child), WaitOptions::empty());
    match told.as_deref().map(|told| (told, told.split_once(' '))) {
        Some(("ok", _)) => Ok(()),
        Some((_, Some((number, message)))) => {
            let errno = number.parse().ok().filter(|number| *number != 0);
            Err(Refusal { message: message.to_owned(), errno })
        }
        Some(_) => Err(lost("the process that tried it ended without a word".to_owned())),
        None => Err(lost(format!("no answer within {} s", PATIENCE.as_secs()))),
    }
}

/// What the child says, once it has; nothing if it takes too long.
fn hear(pipe: &OwnedFd) -> Option<String> {
    let patience = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    loop {
        match rustix::event::poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&patience)) {
            Err(Errno::INTR) => {}
            Ok(1) => break,
            _ => return None,
        }
    }
    // One message, shorter than a pipe's buffer: one read has all of it.
    let mut buffer = vec![0; 4096];
    let length = rustix::io::read(pipe, &mut buffer).unwrap_or(0);
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// The error number at the end of the chain of causes.
fn errno(error: &Error) -> Option<i32> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut found = None;
    while let Some(error) = cause {
        found = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error).or(found);
        cause = error.source();
    }
    found
}
