//! What a tree looks like to those who only read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, RawDir, ResolveFlags, SeekFrom as Seeking};
use rustix::io::Errno;

use super::TIME;
use super::place::{Place, errno, identity, is_root, lstat, mode, names, open_with, python, rest, run, text};
use super::tree::{DIRECTORY_MODES, MANY, MODES, SIZES};

/// Each file and directory has the mode of its own entry, whatever else has the same content.
pub fn modes(place: &Place) {
    for expected in MODES {
        assert_eq!(mode(place.at(&format!("modes/{expected:o}"))), expected);
    }
    for expected in DIRECTORY_MODES {
        assert_eq!(mode(place.at(&format!("dirs/{expected:o}"))), expected);
    }
    assert_eq!(mode(&place.root), 0o755);
    assert_eq!(mode(place.at("links/relative")), 0o777);
}

/// What a mode forbids is forbidden.
pub fn access(place: &Place) {
    let may = |path: &str, access| rustix::fs::accessat(CWD, place.at(path), access, AtFlags::empty()).is_ok();
    for (path, read, execute) in [("644", true, false), ("755", true, true), ("000", false, false)] {
        let path = &format!("modes/{}", path.trim_start_matches("00"));
        assert_eq!(may(path, Access::READ_OK), read || is_root(), "{path}");
        assert_eq!(may(path, Access::EXEC_OK), execute, "{path}");
        assert_eq!(File::open(place.at(path)).is_ok(), read || is_root(), "{path}");
    }
    assert_eq!(text(place.at("dirs/700/file")), "inside\n");
}

/// Programs and scripts run from their own path, and only where the mode says so.
pub fn execution(place: &Place) {
    assert_eq!(run(place.at("modes/755"), &[]), "same\n");
    let refused = std::process::Command::new(place.at("modes/644")).output();
    assert_eq!(errno(refused), Errno::ACCESS);
    run(place.at("bin/true"), &[]);
    let program = place.at("bin/readlink");
    assert_eq!(run(&program, &["/proc/self/exe"]).trim_end(), program.to_str().unwrap());
    let open = open_with(&program, OFlags::PATH).unwrap();
    let again = run(format!("/proc/self/fd/{}", open.as_raw_fd()), &["/proc/self/exe"]);
    assert_eq!(again.trim_end(), program.to_str().unwrap());
}

/// Whoever entered owns everything.
pub fn owners(place: &Place) {
    let me = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    for path in place.walk() {
        let meta = lstat(&path);
        assert_eq!((meta.uid(), meta.gid()), me, "{}", path.display());
    }
}

/// Sizes are the entries' own, and content ends there.
pub fn sizes(place: &Place) {
    for size in SIZES {
        let path = place.at(&format!("sizes/{size}"));
        assert_eq!(lstat(&path).len(), size);
        let content = fs::read(&path).unwrap();
        assert_eq!(content.len() as u64, size);
        assert!(content.iter().all(|byte| *byte == b'x'));
        assert_eq!(File::open(&path).unwrap().read_at(&mut [0; 8], size).unwrap(), 0);
    }
    let mut huge = File::open(place.at("huge")).unwrap();
    let size = huge.metadata().unwrap().len();
    assert_eq!(huge.seek(SeekFrom::End(0)).unwrap(), size);
    let mut byte = [0];
    huge.read_exact_at(&mut byte, size / 2).unwrap();
    assert_eq!(&byte, b"x");
    huge.read_exact_at(&mut byte, size - 1).unwrap();
    assert_eq!(byte, [0]);
}

/// Block counts are what the size takes, so that `du` adds up.
pub fn blocks(place: &Place) {
    for size in SIZES {
        let meta = lstat(place.at(&format!("sizes/{size}")));
        assert!(meta.blocks() * 512 >= size && meta.blocks() * 512 < size + 4096, "{size}: {}", meta.blocks());
    }
    let du = run("du", &["-s", "--block-size=1", place.at("sizes").to_str().unwrap()]);
    let bytes: u64 = du.split_whitespace().next().unwrap().parse().unwrap();
    let sum: u64 = SIZES.iter().sum();
    assert!((sum..sum + 64 * 1024).contains(&bytes), "du says {bytes}, the files have {sum}");
}

/// Symbolic links keep their targets, of any length, and are followed as such.
pub fn symlinks(place: &Place) {
    let target = |path: &str| fs::read_link(place.at(path)).unwrap();
    assert_eq!(target("links/relative"), Path::new("../sizes/1"));
    assert_eq!(lstat(place.at("links/relative")).len(), 10);
    assert_eq!(text(place.at("links/relative")), "x");
    assert_eq!(text(place.at("links/directory/755/file")), "inside\n");
    assert_eq!(target("links/long").as_os_str().len(), 4000);
    assert_eq!(lstat(place.at("links/long")).len(), 4000);
    assert_eq!(errno(File::open(place.at("links/dangling"))), Errno::NOENT);
    assert_eq!(errno(File::open(place.at("links/loop"))), Errno::LOOP);
    assert_eq!(errno(open_with(place.at("links/relative"), OFlags::NOFOLLOW)), Errno::LOOP);
    assert!(text(place.at("links/outside")).contains("Pid:"));
    assert!(lstat(place.at("links/relative")).is_symlink());
}

/// Empty directories are there and are empty.
pub fn empty_directories(place: &Place) {
    assert_eq!(names(place.at("empty")), ["in"]);
    assert_eq!(names(place.at("empty/in")), ["side"]);
    assert_eq!(names(place.at("empty/in/side")), <[&str; 0]>::default());
}

/// What a higher layer removed is gone, and what it put back is new.
pub fn masks(place: &Place) {
    assert_eq!(names(place.at("masks")), ["back", "dir", "kept", "tree"]);
    assert_eq!(errno(fs::symlink_metadata(place.at("masks/gone"))), Errno::NOENT);
    assert_eq!(errno(fs::symlink_metadata(place.at("masks/link"))), Errno::NOENT);
    assert_eq!(text(place.at("masks/back")), "3\n");
    assert_eq!(text(place.at("masks/kept")), "1\n");
    assert_eq!(names(place.at("masks/dir")), ["c"]);
    assert_eq!(errno(File::open(place.at("masks/dir/deeper/b"))), Errno::NOENT);
    assert_eq!(names(place.at("masks/tree")), <[&str; 0]>::default());
}

/// A file in the place of a directory, and back, shows nothing of what was there.
pub fn replacements(place: &Place) {
    assert_eq!(names(place.at("swap")), ["dir", "file", "link"]);
    assert_eq!(text(place.at("swap/file")), "3\n");
    assert_eq!(errno(File::open(place.at("swap/file/inner"))), Errno::NOTDIR);
    assert_eq!(names(place.at("swap/dir")), ["other"]);
    assert_eq!(fs::read_link(place.at("swap/link")).unwrap(), Path::new("dir"));
    assert_eq!(names(place.at("swap/link")), ["other"]);
}

/// A file has one link, and a directory either one or one for each directory in it: what `find` and `tar` go by.
pub fn link_counts(place: &Place) {
    for path in place.walk() {
        let meta = lstat(&path);
        if meta.is_dir() {
            let inside = fs::read_dir(&path).map_or(0, |all| {
                all.filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_dir()).count() as u64
            });
            assert!([1, inside + 2].contains(&meta.nlink()), "{} has {} links", path.display(), meta.nlink());
        } else {
            assert_eq!(meta.nlink(), 1, "{}", path.display());
        }
    }
}

/// No two entries share an inode number.
pub fn inodes(place: &Place) {
    let mut seen = BTreeMap::<(u64, u64), PathBuf>::new();
    for path in place.walk() {
        if let Some(other) = seen.insert(identity(&path), path.clone()) {
            panic!("{} is {}", path.display(), other.display());
        }
    }
}

/// Inode numbers do not change while one looks, reads and lists.
pub fn stable_inodes(place: &Place) {
    let before: Vec<_> = place.walk().into_iter().map(|path| (identity(&path), path)).collect();
    for (_, path) in &before {
        if lstat(path).is_file() {
            drop(File::open(path).map(|file| file.read_at(&mut [0; 4096], 0).unwrap()));
        }
    }
    if is_root() && crate::common::full() {
        fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
    }
    for (identity_before, path) in before {
        assert_eq!(identity(&path), identity_before, "{}", path.display());
        if lstat(&path).is_file()
            && let Ok(open) = File::open(&path)
        {
            let meta = open.metadata().unwrap();
            assert_eq!((meta.dev(), meta.ino()), identity_before, "{}", path.display());
        }
    }
}

/// A listing gives the inode numbers that stat gives.
pub fn listed_inodes(place: &Place) {
    for dir in place.walk().into_iter().filter(|path| lstat(path).is_dir()) {
        let Ok(open) = File::open(&dir) else { continue };
        let mut buffer = vec![MaybeUninit::uninit(); 8192];
        let mut entries = RawDir::new(open, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.unwrap();
            let name = std::ffi::OsStr::from_bytes(entry.file_name().to_bytes());
            let parent_of_all = dir == place.root && name == "..";
            if !parent_of_all {
                assert_eq!(entry.ino(), lstat(dir.join(name)).ino(), "{} in {}", name.display(), dir.display());
            }
        }
    }
}

/// Everything is on one device: nothing is taken for a mount point, by `find -xdev` or `rm --one-file-system`.
pub fn one_device(place: &Place) {
    let devices: BTreeSet<u64> = place.walk().iter().map(|path| lstat(path).dev()).collect();
    assert_eq!(devices.len(), 1, "{devices:?}");
}

/// Every entry but the top has the documented time.
pub fn times(place: &Place) {
    for path in place.walk().into_iter().skip(1) {
        let meta = lstat(&path);
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (TIME, 0), "{}", path.display());
    }
}

/// The times of the last access and of the last change of attributes are the documented one too.
pub fn other_times(place: &Place) {
    for path in place.walk().into_iter().skip(1) {
        let meta = lstat(&path);
        assert_eq!((meta.ctime(), meta.atime()), (TIME, TIME), "{}", path.display());
    }
}

/// A listing has every name once, with its kind, in one go, in pieces, and again from the start.
pub fn listings(place: &Place) {
    let expected: BTreeSet<String> = (1..=MANY).map(|number| number.to_string()).collect();
    let mut dir = rustix::fs::Dir::read_from(File::open(place.at("many")).unwrap()).unwrap();
    for _ in 0..2 {
        let mut seen = BTreeSet::new();
        while let Some(entry) = dir.read() {
            let entry = entry.unwrap();
            let name = entry.file_name().to_str().unwrap().to_owned();
            assert!(seen.insert(name.clone()), "{name} is listed twice");
        }
        assert!(seen.remove(".") && seen.remove(".."));
        assert_eq!(seen, expected);
        dir.rewind();
    }
    for path in place.walk() {
        for entry in fs::read_dir(&path).into_iter().flatten() {
            let entry = entry.unwrap();
            assert_eq!(entry.file_type().unwrap(), lstat(entry.path()).file_type(), "{}", entry.path().display());
            assert!(!entry.file_type().unwrap().is_char_device(), "{} is a mark of overlayfs", entry.path().display());
        }
    }
}

/// A listing can be left at any name and taken up there.
pub fn seeking_in_listings(place: &Place) {
    let mut all = Vec::new();
    let open = File::open(place.at("many")).unwrap();
    let mut buffer = vec![MaybeUninit::uninit(); 65536];
    let mut entries = RawDir::new(&open, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry.unwrap();
        all.push((entry.file_name().to_owned(), entry.next_entry_cookie()));
    }
    for at in [0, 1, MANY / 2, MANY] {
        let dir = File::open(place.at("many")).unwrap();
        rustix::fs::seek(&dir, Seeking::Start(all[at].1)).unwrap();
        let mut buffer = vec![MaybeUninit::uninit(); 8192];
        let next = RawDir::new(&dir, &mut buffer).next().map(|entry| entry.unwrap().file_name().to_owned());
        assert_eq!(next.as_ref(), all.get(at + 1).map(|(name, _)| name));
    }
}

/// Names of every shape are found by exactly those bytes.
pub fn odd_names(place: &Place) {
    let listed = names(place.at("names"));
    assert_eq!(listed.len(), 9, "{listed:?}");
    for name in &listed {
        assert_eq!(lstat(place.at("names").join(name)).len(), 0, "{name}");
    }
    assert_eq!(errno(File::open(place.at("names/Upper"))), Errno::NOENT);
    assert_eq!(errno(File::open(place.at(&format!("names/{}", "n".repeat(256))))), Errno::NAMETOOLONG);
    assert_eq!(errno(File::open(place.at(&format!("names/{}", "n".repeat(254))))), Errno::NOENT);
    assert_eq!(errno(File::open(place.at("names/upper/"))), Errno::NOTDIR);
    assert_eq!(rustix::fs::statvfs(&place.root).unwrap().f_namemax, 255);
}

/// The way back to a path: `getcwd`, `/proc/self/cwd`, the names of open files.
pub fn paths(place: &Place) {
    let before = std::env::current_dir().unwrap();
    let deep = place.at("empty/in/side");
    std::env::set_current_dir(&deep).unwrap();
    let found = (std::env::current_dir(), fs::read_link("/proc/self/cwd"), fs::canonicalize("../../../sizes/1"));
    std::env::set_current_dir(before).unwrap();
    assert_eq!(found.0.unwrap(), deep);
    assert_eq!(found.1.unwrap(), deep);
    assert_eq!(found.2.unwrap(), place.at("sizes/1"));
    let open = File::open(place.at("sizes/512")).unwrap();
    assert_eq!(fs::read_link(format!("/proc/self/fd/{}", open.as_raw_fd())).unwrap(), place.at("sizes/512"));
    assert_eq!(fs::canonicalize(place.at("links/relative")).unwrap(), place.at("sizes/1"));
}

/// Without access time, by descriptor alone, again by descriptor, and with limits on where a path may lead.
pub fn opening(place: &Place) {
    assert_eq!(rest(&open_with(place.at("equal/a"), OFlags::NOATIME).unwrap()), "equal\n");
    let path = open_with(place.at("equal/a"), OFlags::PATH).unwrap();
    assert_eq!((path.metadata().unwrap().dev(), path.metadata().unwrap().ino()), identity(place.at("equal/a")));
    assert_eq!(errno((&path).read(&mut [0; 8])), Errno::BADF);
    assert_eq!(text(format!("/proc/self/fd/{}", path.as_raw_fd())), "equal\n");
    let top = File::open(&place.root).unwrap();
    let once =
        |path: &str, resolve| rustix::fs::openat2(&top, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty(), resolve);
    // EAGAIN: something was renamed or mounted somewhere while the kernel followed a `..` (openat2(2)).
    let open = |path: &str, resolve| {
        (0..1000).map(|_| once(path, resolve)).find(|opened| !matches!(opened, Err(Errno::AGAIN))).unwrap()
    };
    open("empty/in/side", ResolveFlags::NO_XDEV | ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS).unwrap();
    open("links/relative", ResolveFlags::BENEATH).unwrap();
    assert_eq!(open("links/relative", ResolveFlags::NO_SYMLINKS).unwrap_err(), Errno::LOOP);
    assert_eq!(open("../etc", ResolveFlags::BENEATH).unwrap_err(), Errno::XDEV);
}

/// Mapped, shared or private, a file is what it is when read, and shows its path.
pub fn mappings(place: &Place) {
    let code = "import mmap, sys
path = sys.argv[1]
with open(path, 'rb') as file:
    content = file.read()
    for flags in mmap.MAP_SHARED, mmap.MAP_PRIVATE:
        with mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ) as mapped:
            assert mapped[:] == content and len(content) > 1 << 20
            assert path in open('/proc/self/maps').read()
    with mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as mapped:
        mapped[0] = 33
        assert mapped[0] == 33
assert open(path, 'rb').read() == content";
    python(code, &[&place.at("sizes/1048577")]);
}

/// Files can be read past the page cache.
pub fn direct_reading(place: &Place) {
    let file = open_with(place.at("sizes/1048577"), OFlags::DIRECT).unwrap();
    let mut buffer = vec![0; 3 * 65536];
    let skip = buffer.as_ptr().align_offset(65536);
    let aligned = &mut buffer[skip..skip + 65536];
    assert_eq!(file.read_at(aligned, 1_048_576 - 65536).unwrap(), 65536);
    assert!(aligned.iter().all(|byte| *byte == b'x'));
    assert_eq!(file.read_at(aligned, 1_048_576).unwrap(), 1);
}

/// The kernel copies out of a file: into a pipe, a socket, another file.
pub fn copying_out(place: &Place) {
    let file = File::open(place.at("sizes/4097")).unwrap();
    let (mut out, into) = io::pipe().unwrap();
    assert_eq!(rustix::fs::sendfile(&into, &file, Some(&mut 1), 8192).unwrap(), 4096);
    let (socket, mut peer) = std::os::unix::net::UnixStream::pair().unwrap();
    assert_eq!(rustix::fs::sendfile(&socket, &file, Some(&mut 0), 8192).unwrap(), 4097);
    drop((into, socket));
    let mut got = Vec::new();
    out.read_to_end(&mut got).unwrap();
    assert_eq!(got.len(), 4096);
    got.clear();
    peer.read_to_end(&mut got).unwrap();
    assert_eq!(got.len(), 4097);
    // `fs::copy` begins with copy_file_range, which gives EXDEV between file systems, and goes on by other means.
    let outside = tempfile::tempdir().unwrap();
    let copy = outside.path().join("copy");
    assert_eq!(fs::copy(place.at("sizes/1048577"), &copy).unwrap(), 1_048_577);
    assert_eq!(fs::read(&copy).unwrap(), vec![b'x'; 1_048_577]);
}

/// There are no extended attributes, and none of overlayfs shows.
pub fn no_attributes(place: &Place) {
    for path in ["sizes/1", "modes/755", "dirs/755", "masks/dir", "links/relative", "."] {
        let mut list = [0; 4096];
        // A file system without any says that, which programs take for the same.
        let listed = rustix::fs::llistxattr(place.at(path), &mut list[..]);
        assert!(matches!(listed, Ok(0) | Err(Errno::OPNOTSUPP)), "{path}: {listed:?}");
        for name in ["user.overlay.redirect", "user.overlay.metacopy", "user.mine"] {
            let got = rustix::fs::lgetxattr(place.at(path), name, &mut list[..]);
            assert!(matches!(got, Err(Errno::NODATA | Errno::PERM | Errno::OPNOTSUPP)), "{name} of {path}: {got:?}");
        }
    }
}

/// Data can be looked for; the end of the file is a hole.
pub fn holes(place: &Place) {
    let file = File::open(place.at("sizes/4097")).unwrap();
    assert_eq!(rustix::fs::seek(&file, Seeking::Data(0)).unwrap(), 0);
    assert_eq!(rustix::fs::seek(&file, Seeking::Hole(0)).unwrap(), 4097);
    assert_eq!(rustix::fs::seek(&file, Seeking::Data(4097)), Err(Errno::NXIO));
    let huge = File::open(place.at("huge")).unwrap();
    let size = huge.metadata().unwrap().len();
    let data = rustix::fs::seek(&huge, Seeking::Data(0)).unwrap();
    assert!(data <= size / 2 && data + (1 << 16) > size / 2, "the data at {} begins at {data}", size / 2);
}
