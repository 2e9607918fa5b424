//! What the kernel does with files that are changed: mapping, direct input and output, copying, locks, events, attributes.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{OFlags, XattrFlags};
use rustix::io::Errno;

use super::place::{BELOW, Place, mode, open_append, open_rw, open_with, python, text};

/// What is written through a shared mapping is in the file; through a private one it is not.
pub fn mapped_writing(place: &Place) {
    let own = place.own("mapped writing");
    let code = "import mmap, sys
for path in sys.argv[1:]:
    with open(path, 'r+b') as file:
        with mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as mapped:
            mapped[0:4] = b'none'
        assert open(path, 'rb').read() == b'from below\\n'
        with mmap.mmap(file.fileno(), 0) as mapped, mmap.mmap(file.fileno(), 0) as second:
            mapped[0:4] = b'FROM'
            assert second[0:4] == b'FROM'
            assert open(path, 'rb').read() == b'FROM below\\n'
            file.seek(5); file.write(b'B'); file.flush()
            assert mapped[5:6] == b'B'
            mapped.flush()
assert open(sys.argv[1], 'rb').read() == b'FROM Below\\n'";
    fs::copy(own.at("same"), own.at("new")).unwrap();
    python(code, &[&own.at("file"), &own.at("new")]);
    assert_eq!(text(own.at("same")), BELOW);
}

/// A mapping that was made before the first change of a file shows the change.
pub fn early_mappings(place: &Place) {
    let code = "import mmap, sys
with open(sys.argv[1], 'rb') as file:
    mapped = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
    assert mapped[0:4] == b'from'
    with open(sys.argv[1], 'r+b') as again: again.write(b'FROM')
    assert mapped[0:4] == b'FROM', 'the mapping shows the old content'";
    python(code, &[&place.own("early mappings").at("file")]);
}

/// Files are written past the page cache.
pub fn direct_writing(place: &Place) {
    let own = place.own("direct writing");
    let mut buffer = vec![b'd'; 3 * 4096];
    let skip = buffer.as_ptr().align_offset(4096);
    let aligned = &mut buffer[skip..skip + 4096];
    for name in ["file", "new"] {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::DIRECT;
        let file = File::from(rustix::fs::open(own.at(name), flags, rustix::fs::Mode::from_raw_mode(0o644)).unwrap());
        file.set_len(8192).unwrap();
        file.write_all_at(aligned, 4096).unwrap();
        assert_eq!(fs::read(own.at(name)).unwrap()[4096..], *aligned, "{name}");
        aligned.fill(b'e');
        file.read_exact_at(aligned, 0).unwrap();
        assert_eq!(aligned.starts_with(BELOW.as_bytes()), name == "file");
        aligned.fill(b'd');
    }
    let file = open_with(own.at("same"), OFlags::DIRECT).unwrap();
    assert_eq!(file.read_at(aligned, 0).unwrap(), BELOW.len());
}

/// The kernel copies between files: `copy_file_range`, `sendfile`, `splice`.
pub fn copying(place: &Place) {
    let own = place.own("copying in the kernel");
    let from = File::open(own.at("file")).unwrap();
    let changed = open_append(own.at("dir/inner"));
    (&changed).write_all(b"x").unwrap();
    let upper = File::open(own.at("dir/inner")).unwrap();
    for (name, source, expected) in [("of below", &from, BELOW), ("of changed", &upper, "from below\nx")] {
        // A read-only lower file and the top are on different file systems, which the call may say.
        let to = File::create(own.at(&format!("range {name}"))).unwrap();
        match rustix::fs::copy_file_range(source, Some(&mut 0), &to, None, 100) {
            Ok(count) => assert_eq!((count, text(own.at(&format!("range {name}")))), (expected.len(), expected.into())),
            Err(err) => assert_eq!((err, name), (Errno::XDEV, "of below")),
        }
        fs::copy(own.at("file"), own.at(&format!("range {name}"))).unwrap();
        let to = File::create(own.at(&format!("sent {name}"))).unwrap();
        assert_eq!(rustix::fs::sendfile(&to, source, Some(&mut 0), 100).unwrap(), expected.len());
        assert_eq!(text(own.at(&format!("sent {name}"))), expected);
    }
    let (out, mut into) = io::pipe().unwrap();
    into.write_all(b"spliced").unwrap();
    let target = open_rw(own.at("same"));
    let moved = rustix::pipe::splice(&out, None, &target, Some(&mut 0), 7, rustix::pipe::SpliceFlags::empty());
    assert_eq!((moved, text(own.at("same"))), (Ok(7), "splicedlow\n".into()));
    assert_eq!(text(own.at("file")), BELOW);
}

/// Other tests beside this one (`thousand.rs`) use up the 128 that a user may have; they give them back soon.
fn inotify_instance() -> OwnedFd {
    let (mut tries, pause) = (0, Duration::from_millis(20));
    loop {
        match inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK) {
            Err(Errno::MFILE) if tries < 1000 => std::thread::sleep(pause),
            other => return other.unwrap(),
        }
        tries += 1;
    }
}

/// The events in `watched` while `action` runs, as kinds with names.
fn events(watched: &Path, action: impl FnOnce()) -> BTreeSet<(u32, String)> {
    let watch = inotify_instance();
    inotify::add_watch(&watch, watched, WatchFlags::ALL_EVENTS).unwrap();
    action();
    let mut buffer = [MaybeUninit::uninit(); 8192];
    let mut reader = inotify::Reader::new(&watch, &mut buffer);
    let mut seen = BTreeSet::new();
    while let Ok(event) = reader.next() {
        let kind = event.events().difference(ReadFlags::ISDIR).bits();
        seen.insert((kind, event.file_name().map(|name| name.to_str().unwrap().to_owned()).unwrap_or_default()));
    }
    seen
}

/// Readers and writers are seen by who watches a directory.
pub fn watched_directories(place: &Place) {
    let own = place.own("watched directories");
    let has = |seen: &BTreeSet<(u32, String)>, kind: ReadFlags, name: &str| {
        assert!(seen.contains(&(kind.bits(), name.to_owned())), "no {kind:?} of {name} in {seen:?}");
    };
    let seen = events(&own.at(""), || drop(text(own.at("file"))));
    for kind in [ReadFlags::OPEN, ReadFlags::ACCESS, ReadFlags::CLOSE_NOWRITE] {
        has(&seen, kind, "file");
    }
    let seen = events(&own.at(""), || {
        open_append(own.at("file")).write_all(b"x").unwrap();
        fs::write(own.at("new"), "x").unwrap();
        fs::rename(own.at("same"), own.at("moved")).unwrap();
        fs::remove_file(own.at("fixed")).unwrap();
        fs::create_dir(own.at("newer")).unwrap();
        fs::set_permissions(own.at("program"), Permissions::from_mode(0o700)).unwrap();
    });
    for (kind, name) in [
        (ReadFlags::MODIFY, "file"),
        (ReadFlags::CLOSE_WRITE, "file"),
        (ReadFlags::CREATE, "new"),
        (ReadFlags::CLOSE_WRITE, "new"),
        (ReadFlags::MOVED_FROM, "same"),
        (ReadFlags::MOVED_TO, "moved"),
        (ReadFlags::DELETE, "fixed"),
        (ReadFlags::CREATE, "newer"),
        (ReadFlags::ATTRIB, "program"),
    ] {
        has(&seen, kind, name);
    }
}

/// Changes are seen by who watches a file from before its first change.
pub fn watched_files(place: &Place) {
    let own = place.own("watched files");
    let seen = events(&own.at("file"), || {
        open_append(own.at("file")).write_all(b"x").unwrap();
        fs::remove_file(own.at("file")).unwrap();
    });
    let kinds: Vec<u32> = seen.iter().map(|(kind, _)| *kind).collect();
    for kind in [ReadFlags::OPEN, ReadFlags::MODIFY, ReadFlags::CLOSE_WRITE, ReadFlags::DELETE_SELF] {
        assert!(kinds.contains(&kind.bits()), "no {kind:?} in {kinds:?}");
    }
}

/// Locks of whole files (`flock`) hold between openings of a file, also from before its first change.
pub fn flocks(place: &Place) {
    let own = place.own("flock");
    let early = File::open(own.at("file")).unwrap();
    early.lock().unwrap();
    let late = open_append(own.at("file"));
    assert!(matches!(late.try_lock(), Err(TryLockError::WouldBlock)));
    (&late).write_all(b"x").unwrap();
    assert!(matches!(late.try_lock_shared(), Err(TryLockError::WouldBlock)));
    early.unlock().unwrap();
    late.lock_shared().unwrap();
    early.lock_shared().unwrap();
    assert!(matches!(open_rw(own.at("file")).try_lock(), Err(TryLockError::WouldBlock)));
    drop((early, late));
    open_rw(own.at("file")).try_lock().unwrap();
    let same = File::open(own.at("same")).unwrap();
    same.try_lock_shared().unwrap();
    assert!(matches!(File::open(own.at("same")).unwrap().try_lock(), Err(TryLockError::WouldBlock)));
}

/// Locks of parts (POSIX and open file description locks) hold between processes and descriptions.
pub fn record_locks(place: &Place) {
    let own = place.own("record locks");
    let code = "import fcntl, os, struct, subprocess, sys
path = sys.argv[1]
def lock(fd, kind, start, length, command):
    return fcntl.fcntl(fd, command, struct.pack('hhqqi', kind, 0, start, length, 0))
def refused(*arguments):
    try: lock(*arguments)
    except BlockingIOError: return True
early = os.open(path, os.O_RDONLY)
lock(early, fcntl.F_RDLCK, 0, 4, fcntl.F_OFD_SETLK)
late = os.open(path, os.O_RDWR)
os.write(late, b'FROM')
assert refused(late, fcntl.F_WRLCK, 2, 4, fcntl.F_OFD_SETLK)
lock(late, fcntl.F_WRLCK, 4, 4, fcntl.F_OFD_SETLK)
lock(early, fcntl.F_UNLCK, 0, 4, fcntl.F_OFD_SETLK)
lock(late, fcntl.F_WRLCK, 0, 100, fcntl.F_OFD_SETLK)
lock(late, fcntl.F_UNLCK, 0, 100, fcntl.F_OFD_SETLK)
third = os.open(path, os.O_RDWR)
fcntl.lockf(third, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 10)
child = '''import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 0)
try: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 12); sys.exit(1)
except BlockingIOError: pass'''
subprocess.run([sys.executable, '-I', '-c', child, path], check=True)";
    python(code, &[&own.at("file")]);
}

/// `user.*` attributes are set, read, listed and removed, on files and directories, new or from below.
pub fn attributes(place: &Place) {
    let own = place.own("attributes");
    fs::write(own.at("new"), "").unwrap();
    for path in ["file", "dir", "new"] {
        let path = own.at(path);
        rustix::fs::setxattr(&path, "user.mine", b"value", XattrFlags::empty()).unwrap();
        assert_eq!(attribute(&path, "user.mine"), b"value");
        assert_eq!(rustix::fs::setxattr(&path, "user.mine", b"x", XattrFlags::CREATE), Err(Errno::EXIST));
        assert_eq!(rustix::fs::setxattr(&path, "user.none", b"x", XattrFlags::REPLACE), Err(Errno::NODATA));
        rustix::fs::setxattr(&path, "user.mine", b"", XattrFlags::REPLACE).unwrap();
        assert_eq!(attribute(&path, "user.mine"), b"");
        let mut list = [0; 1024];
        let length = rustix::fs::listxattr(&path, &mut list[..]).unwrap();
        assert_eq!(&list[..length], b"user.mine\0");
        rustix::fs::removexattr(&path, "user.mine").unwrap();
        assert_eq!(rustix::fs::removexattr(&path, "user.mine"), Err(Errno::NODATA));
    }
    assert_eq!(text(own.at("file")), BELOW);
    let set = rustix::fs::lsetxattr(own.at("link"), "user.mine", b"x", XattrFlags::empty());
    assert_eq!(set, Err(Errno::PERM));
}

fn attribute(path: &Path, name: &str) -> Vec<u8> {
    let mut value = [0; 64];
    let length = rustix::fs::getxattr(path, name, &mut value[..]).unwrap();
    value[..length].to_vec()
}

/// Access control lists are kept and counted.
pub fn access_lists(place: &Place) {
    let own = place.own("access control lists");
    // Version 2; then tag, permissions and id of: owner rw-, user 4711 rwx, group r--, mask rw-, others ---.
    let entries: [(u16, u16, u32); 5] =
        [(1, 6, u32::MAX), (2, 7, 0), (4, 4, u32::MAX), (0x10, 6, u32::MAX), (0x20, 0, u32::MAX)];
    let me = rustix::process::geteuid().as_raw();
    let mut list = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(if tag == 2 { me } else { id }.to_le_bytes());
    }
    for name in ["file", "dir"] {
        let before = mode(own.at(name));
        rustix::fs::setxattr(own.at(name), "system.posix_acl_access", &list, XattrFlags::empty())
            .unwrap_or_else(|err| panic!("{name}: {err}"));
        assert_eq!(attribute(&own.at(name), "system.posix_acl_access"), list);
        // The mask shows as the group's bits.
        assert_eq!(mode(own.at(name)), 0o660);
        rustix::fs::removexattr(own.at(name), "system.posix_acl_access").unwrap();
        fs::set_permissions(own.at(name), Permissions::from_mode(before)).unwrap();
    }
}
