//! Trees that are hard to show, private mount namespaces, and the comparison of a mount with a view.
#![allow(dead_code, clippy::unwrap_used, reason = "each test uses its part")]

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir as Listing, Mode, OFlags};
use rustix::mount::{MountAttrFlags, MountPropagationFlags, mount_change};
use rustix::thread::UnshareFlags;
use spfs_mount::sys::mount::{Context, attach};
use spfs_mount::view::{self, NodeId, NodeKind, ROOT, View};
use spfs_mount::{BootId, MTIME};
use spfs_repo::Digest;
use spfs_repo::manifest::{Dir, Node};

/// A boot id for tests.
pub const BOOT: BootId = *b"0123456789abcdef";

/// The owner that files are given; nobody in particular.
pub const UID: u32 = 70_001;
pub const GID: u32 = 70_002;

/// A file whose payload has this content, and any size.
pub fn file(content: &str, mode: u32, size: u64) -> Node {
    Node::Blob { digest: Digest::of(content.as_bytes()), mode: 0o100_000 | mode, size }
}

/// A directory of these entries.
pub fn dir(mode: u32, entries: impl IntoIterator<Item = (String, Node)>) -> Node {
    Node::Dir { mode: 0o040_000 | mode, dir: Dir { entries: entries.into_iter().collect() } }
}

/// Collects a tree, and the targets of its symlinks.
#[derive(Default, Debug)]
pub struct Tree {
    pub root: Dir,
    targets: BTreeMap<Digest, Vec<u8>>,
}

impl Tree {
    pub fn add(&mut self, name: &str, node: Node) {
        self.root.entries.insert(name.to_owned(), node);
    }

    /// A symlink to `target`.
    pub fn link(&mut self, target: String) -> Node {
        let (digest, size) = (Digest::of(target.as_bytes()), target.len() as u64);
        self.targets.insert(digest, target.into_bytes());
        Node::Blob { digest, mode: 0o120_777, size }
    }

    pub fn view(&self) -> View {
        let target = |digest: &Digest| Ok(self.targets[digest].clone());
        View::from_bytes(view::build(&self.root, target).unwrap()).unwrap()
    }

    /// Everything that a format may trip over: names around `.` and `..`, lengths around every limit, modes, sizes.
    pub fn awkward() -> Tree {
        let mut tree = Tree::default();
        let small = |i: usize| (format!("{i:06}"), file(&format!("{}", i % 100), 0o644, 3));
        let around_dots = ["!a", "-", "-a", ".!", ".-", ".a", "..b", "...", ".\u{1}", "+", "0"];
        tree.add("dots", dir(0o755, around_dots.iter().map(|name| ((*name).to_string(), file(name, 0o600, 1)))));
        tree.add(&"n".repeat(255), file("long name", 0o644, 9));
        tree.add("long", dir(0o755, (0..64).map(|i| (format!("{i:03}{}", "é".repeat(126)), file("x", 0o444, 1)))));
        tree.add("empty directory", dir(0o700, []));
        tree.add("empty file", file("", 0o640, 0));
        let modes = [0o000, 0o001, 0o444, 0o755, 0o1777, 0o2755, 0o4755, 0o6711, 0o7777];
        tree.add("modes", dir(0o1777, modes.map(|mode| (format!("{mode:o}"), file("mode", mode, 4)))));
        tree.add("directory modes", dir(0o2750, modes.map(|mode| (format!("{mode:o}"), dir(mode, [small(1)])))));
        let sizes = [1, 511, 512, 513, 4095, 4096, 4097, (1 << 32) - 1, 1 << 32, 1 << 40, 1 << 43];
        tree.add("sizes", dir(0o755, sizes.map(|size| (format!("{size}"), file("size", 0o644, size)))));
        let links = [1, 59, 60, 63, 64, 255, 256, 1000, 2047, 2048, 4030, 4031, 4032, 4033, 4034, 4064, 4094, 4095];
        let links = links.map(|len| (format!("to {len}"), tree.link("t".repeat(len))));
        tree.add("links", dir(0o755, links));
        tree.add("many", dir(0o755, (0..100_000).map(small)));
        // Directories whose entries take every length around the room behind an inode, and around a block.
        let sweep = (3_990..4_110).chain(8_060..8_200).step_by(3);
        tree.add("sweep", dir(0o755, sweep.map(|bytes| (bytes.to_string(), sized_directory(bytes)))));
        let deep = (0..250).fold(dir(0o755, [small(7)]), |inside, _| dir(0o755, [("deep".into(), inside), small(8)]));
        tree.add("deep", deep);
        tree
    }
}

/// A directory whose entries, with `.` and `..`, take this many bytes in an EROFS image, if blocks did not matter.
fn sized_directory(bytes: usize) -> Node {
    let (entry, mut rest) = (12 + 20, bytes - (12 + 1) - (12 + 2));
    let mut entries = Vec::new();
    while rest > 2 * entry {
        entries.push((format!("{:020}", rest), file("x", 0o644, 1)));
        rest -= entry;
    }
    entries.push(("z".repeat(rest - 12), file("x", 0o644, 1)));
    dir(0o755, entries)
}

/// A fresh directory of this test on a real file system; tmpfs could not back an image.
pub fn scratch(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// Gives the calling thread a mount namespace of its own, which ends with it. Needs root.
pub fn own_mounts() {
    spfs_mount::sys::process::unshare(UnshareFlags::NEWNS).expect("these tests make mounts: run them as root");
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).unwrap();
}

/// Runs `work` in a thread with a mount namespace of its own.
pub fn with_own_mounts<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            own_mounts();
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The FUSE device. It can be read once there is a mount.
pub fn open_fuse() -> OwnedFd {
    rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

/// Mounts a FUSE file system of `device` at `at`, writable, so that refusals come from its server.
pub fn mount_fuse(device: &OwnedFd, at: &Path) {
    // The context keeps the file system alive: it must be gone before anybody waits for the end of the mount.
    let context = Context::new("fuse").unwrap();
    for (key, value) in [("source", "spfs"), ("rootmode", "40755"), ("user_id", "70001"), ("group_id", "70002")] {
        context.string(key, value).unwrap();
    }
    context.string("fd", &device.as_raw_fd().to_string()).unwrap();
    context.flag("default_permissions").unwrap();
    context.flag("allow_other").unwrap();
    let mounted = context.mount(MountAttrFlags::empty()).unwrap();
    attach(mounted.as_fd(), at.to_str().unwrap()).unwrap();
}

/// Compares everything below the mount at `root` with `view`: names, `.` and `..`, modes, links, sizes, owners, times,
/// symlinks, attributes. Returns how many names were compared.
pub fn compare(view: &View, root: &Path) -> usize {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY;
    let root = rustix::fs::open(root, flags, Mode::empty()).unwrap();
    compare_directory(view, ROOT, &root)
}

fn compare_directory(view: &View, id: NodeId, directory: &OwnedFd) -> usize {
    let path = view.path(id);
    let mut names: Vec<Vec<u8>> = Vec::new();
    for entry in Listing::read_from(directory).unwrap() {
        names.push(entry.unwrap_or_else(|e| panic!("listing {path:?}: {e}")).file_name().to_bytes().to_vec());
    }
    names.sort();
    let mut expected: Vec<Vec<u8>> = view.children(id).map(|child| view.name(child).to_vec()).collect();
    expected.extend([b".".to_vec(), b"..".to_vec()]);
    expected.sort();
    assert!(names == expected, "the names in {path:?}: {} and {}", names.len(), expected.len());
    let mut count = 0;
    for child in view.children(id) {
        count += 1 + compare_node(view, child, directory);
    }
    let absent = rustix::fs::statat(directory, "no such name", AtFlags::SYMLINK_NOFOLLOW);
    assert_eq!(absent.err(), Some(rustix::io::Errno::NOENT));
    count
}

fn compare_node(view: &View, id: NodeId, directory: &OwnedFd) -> usize {
    let path = view.path(id);
    let name = std::ffi::CString::new(view.name(id)).unwrap();
    let node = view.node(id).unwrap();
    let stat = rustix::fs::statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW)
        .unwrap_or_else(|e| panic!("stat {path:?}: {e}"));
    let times = (stat.st_mtime as u64, stat.st_mtime_nsec);
    assert_eq!((stat.st_mode, stat.st_nlink as u32), (node.mode, node.links()), "mode and links of {path:?}");
    assert_eq!((stat.st_uid, stat.st_gid, times), (UID, GID, (MTIME, 0)), "owner and time of {path:?}");
    match node.kind {
        NodeKind::Directory { .. } => {
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW;
            let below = rustix::fs::openat(directory, &name, flags, Mode::empty()).unwrap();
            return compare_directory(view, id, &below);
        }
        NodeKind::Symlink => {
            let target = rustix::fs::readlinkat(directory, &name, Vec::new()).unwrap();
            assert_eq!(target.as_bytes(), view.target(id).unwrap(), "target of {path:?}");
        }
        _ => compare_attributes(view, id, directory, &name),
    }
    assert_eq!(stat.st_size as u64, node.size, "size of {path:?}");
    0
}

/// The attributes that overlayfs follows. Read by path, because files here cannot be opened for them.
fn compare_attributes(view: &View, id: NodeId, directory: &OwnedFd, name: &CStr) {
    let path = format!("/proc/self/fd/{}/{}", directory.as_raw_fd(), name.to_str().unwrap());
    let read = |name: &str| {
        let mut room = [0u8; 256];
        rustix::fs::lgetxattr(&path, name, &mut room).map(|length| String::from_utf8(room[..length].to_vec()).unwrap())
    };
    let expected = (view.node(id).unwrap().size > 0).then(|| {
        let text = view.digest(id).unwrap().to_string();
        format!("/{}/{}", &text[..2], &text[2..])
    });
    assert_eq!(read("user.overlay.redirect").ok(), expected, "redirect of {}", view.path(id));
    assert_eq!(read("user.overlay.metacopy").ok(), expected.as_ref().map(|_| String::new()));
    let mut list = Vec::with_capacity(256);
    rustix::fs::llistxattr(&path, rustix::buffer::spare_capacity(&mut list)).unwrap();
    let names = if expected.is_some() { "user.overlay.metacopy\0user.overlay.redirect\0" } else { "" };
    assert_eq!(String::from_utf8(list).unwrap(), names);
}
