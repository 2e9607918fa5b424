//! Changing what files hold and how they are described: the copy that overlayfs makes must not show.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, lchown};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, FallocateFlags, SeekFrom, Timespec, Timestamps};
use rustix::io::Errno;

use super::TIME;
use super::place::{
    BELOW, Own, Place, errno, identity, is_root, lstat, mode, names, open_append, open_rw, rest, run, text,
};
use crate::common::holds_within;

/// Appending, overwriting and cutting change this file alone, and nothing of it but content, size and time.
pub fn changed_content(place: &Place) {
    let own = place.own("changed content");
    let before = lstat(own.at("file"));
    open_append(own.at("file")).write_all(b"more\n").unwrap();
    assert_eq!(text(own.at("file")), format!("{BELOW}more\n"));
    let file = open_rw(own.at("file"));
    file.write_all_at(b"FROM", 0).unwrap();
    assert_eq!(text(own.at("file")), "FROM below\nmore\n");
    file.set_len(4).unwrap();
    assert_eq!((text(own.at("file")), lstat(own.at("file")).len()), ("FROM".into(), 4));
    let after = lstat(own.at("file"));
    assert_eq!((after.mode(), after.uid(), after.gid()), (before.mode(), before.uid(), before.gid()));
    assert!(after.mtime() > TIME, "a changed file has the time of the change");
    assert_eq!(text(own.at("same")), BELOW);
    assert_eq!(text(own.at("fixed")), BELOW);
    fs::write(own.at("link"), "through the link\n").unwrap();
    assert_eq!(text(own.at("file")), "through the link\n");
    OpenOptions::new().write(true).truncate(true).open(own.at("same")).unwrap();
    assert_eq!(lstat(own.at("same")).len(), 0);
}

/// A file keeps inode, device and link count when it is changed.
pub fn same_file(place: &Place) {
    let own = place.own("the same file after a change");
    let open = File::open(own.at("file")).unwrap();
    let before = [own.at("file"), own.at("dir"), own.at("dir/inner")].map(identity);
    open_append(own.at("file")).write_all(b"x").unwrap();
    fs::set_permissions(own.at("dir"), Permissions::from_mode(0o750)).unwrap();
    File::create(own.at("dir/new")).unwrap();
    assert_eq!(lstat(own.at("file")).nlink(), 1);
    assert_eq!([own.at("file"), own.at("dir"), own.at("dir/inner")].map(identity), before);
    let meta = open.metadata().unwrap();
    assert_eq!((meta.dev(), meta.ino()), before[0]);
}

/// Whoever has a file open sees what others write to it.
pub fn open_files(place: &Place) {
    let own = place.own("open files");
    let early = File::open(own.at("file")).unwrap();
    open_rw(own.at("file")).write_all_at(b"FROM", 0).unwrap();
    assert_eq!(rest(&early), "FROM below\n");
    let meta = early.metadata().unwrap();
    open_append(own.at("file")).write_all(b"more").unwrap();
    assert_eq!(early.metadata().unwrap().len(), meta.len() + 4);
}

/// Modes change, of files and directories, and content stays.
pub fn changed_modes(place: &Place) {
    let own = place.own("changed modes");
    for bits in [0o600, 0o755, 0o4711, 0o444] {
        fs::set_permissions(own.at("file"), Permissions::from_mode(bits)).unwrap();
        assert_eq!(mode(own.at("file")), bits);
    }
    assert_eq!(text(own.at("file")), BELOW);
    let refused = OpenOptions::new().append(true).open(own.at("fixed"));
    assert_eq!(refused.is_ok(), is_root());
    fs::set_permissions(own.at("fixed"), Permissions::from_mode(0o644)).unwrap();
    open_append(own.at("fixed")).write_all(b"x").unwrap();
    assert_eq!(text(own.at("same")), BELOW);
    assert_eq!(mode(own.at("same")), 0o644);
    fs::set_permissions(own.at("program"), Permissions::from_mode(0o644)).unwrap();
    assert_eq!(errno(Command::new(own.at("program")).output()), Errno::ACCESS);
    fs::set_permissions(own.at("program"), Permissions::from_mode(0o755)).unwrap();
    assert_eq!(run(own.at("program"), &[]), "runs\n");
    fs::set_permissions(own.at("dir"), Permissions::from_mode(0o1777)).unwrap();
    assert_eq!(mode(own.at("dir")), 0o1777);
    // A new file's mode counts for who opens it next, not for who has made it.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(own.at("object")).unwrap();
    file.write_all(b"x").unwrap();
    assert_eq!(mode(own.at("object")), 0o400);
}

/// Owners: to oneself always, to others for root alone.
pub fn changed_owners(place: &Place) {
    let own = place.own("changed owners");
    let meta = lstat(own.at("file"));
    chown(own.at("file"), Some(meta.uid()), Some(meta.gid())).unwrap();
    chown(own.at("dir"), Some(meta.uid()), None).unwrap();
    lchown(own.at("link"), None, Some(meta.gid())).unwrap();
    let given = chown(own.at("same"), Some(4711), Some(4712));
    if is_root() {
        given.unwrap();
        assert_eq!((lstat(own.at("same")).uid(), lstat(own.at("same")).gid()), (4711, 4712));
    } else {
        assert!([Errno::PERM, Errno::INVAL].contains(&errno(given)));
    }
    assert_eq!(text(own.at("same")), BELOW);
}

/// Times can be set to the nanosecond, and move by themselves when something changes.
pub fn changed_times(place: &Place) {
    let own = place.own("changed times");
    let at = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    let wanted = Timestamps { last_access: at(1_234_567_890, 123_456_789), last_modification: at(987_654_321, 1) };
    for (path, flags) in [("file", AtFlags::empty()), ("dir", AtFlags::empty()), ("link", AtFlags::SYMLINK_NOFOLLOW)] {
        rustix::fs::utimensat(CWD, own.at(path), &wanted, flags).unwrap();
        let meta = lstat(own.at(path));
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (987_654_321, 1), "{path}");
        assert_eq!((meta.atime(), meta.atime_nsec()), (1_234_567_890, 123_456_789), "{path}");
    }
    let recent = |path| {
        let age = SystemTime::now().duration_since(lstat(path).modified().unwrap()).unwrap_or_default();
        assert!(age < Duration::from_secs(60), "{age:?}");
    };
    File::create(own.at("dir/new")).unwrap();
    recent(own.at("dir"));
    recent(own.at("dir/new"));
    fs::remove_file(own.at("other/../dir/new")).unwrap();
    open_append(own.at("file")).write_all(b"x").unwrap();
    recent(own.at("file"));
    assert!(lstat(own.at("file")).modified().unwrap() > lstat(own.at("same")).modified().unwrap(), "newer than below");
    let found =
        run("find", &[own.at("").to_str().unwrap(), "-name", "same", "-newer", own.at("file").to_str().unwrap()]);
    assert_eq!(found, "");
}

/// One byte of a huge file from below changes; its holes stay holes.
pub fn huge_files(place: &Place) {
    let file = open_rw(place.at("huge"));
    let size = file.metadata().unwrap().len();
    file.write_all_at(b"edited", size / 4).unwrap();
    let mut around = [1; 8];
    file.read_exact_at(&mut around, size / 4 - 1).unwrap();
    assert_eq!(&around, b"\0edited\0");
    file.read_exact_at(&mut around[..1], size / 2).unwrap();
    assert_eq!(around[0], b'x');
    assert_eq!(file.metadata().unwrap().len(), size);
    assert!(file.metadata().unwrap().blocks() * 512 < size / 16, "{} blocks", file.metadata().unwrap().blocks());
}

/// New files can be sparse, can be filled ahead, and can get holes.
pub fn sparse_files(place: &Place) {
    let own = place.own("sparse files");
    let file = File::create_new(own.at("sparse")).unwrap();
    file.set_len(1 << 33).unwrap();
    file.write_all_at(b"end", (1 << 33) - 3).unwrap();
    assert!(file.metadata().unwrap().blocks() * 512 < 1 << 20);
    assert!(rustix::fs::seek(&file, SeekFrom::Data(0)).unwrap() > 1 << 32);
    fs::remove_file(own.at("sparse")).unwrap();
    let file = open_rw(own.at("file"));
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 1 << 16).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 1 << 16);
    file.write_all_at(&[b'y'; 1 << 16], 0).unwrap();
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, punch, 4096, 8192).unwrap();
    let mut byte = [1];
    file.read_exact_at(&mut byte, 5000).unwrap();
    assert_eq!(byte, [0]);
    assert_eq!(rustix::fs::seek(&file, SeekFrom::Hole(0)).unwrap(), 4096);
    file.set_len(0).unwrap();
}

/// Appends of many writers at once are all there, none torn.
pub fn appending_together(place: &Place) {
    let own = place.own("appending together");
    fs::write(own.at("file"), "").unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let path = own.at("file");
            scope.spawn(move || {
                let mut file = open_append(path);
                (0..250).for_each(|_| file.write_all(format!("{writer}\n").repeat(20).as_bytes()).unwrap());
            });
        }
    });
    let written = text(own.at("file"));
    let lines: Vec<&str> = written.lines().collect();
    assert_eq!(lines.len(), 4 * 250 * 20);
    assert!(lines.chunks(20).all(|chunk| chunk.iter().all(|line| *line == chunk[0])));
    fs::write(own.at("file"), "done\n").unwrap();
}

/// The first changes of many at once, of one file in every way, are all made.
pub fn changing_together(place: &Place) {
    let own = place.own("first changes of many at once");
    let start = std::sync::Barrier::new(6);
    std::thread::scope(|scope| {
        let each = |change: fn(&Own)| {
            let (own, start) = (&own, &start);
            scope.spawn(move || {
                start.wait();
                change(own);
            });
        };
        each(|own| open_append(own.at("file")).write_all(b"one\n").unwrap());
        each(|own| open_append(own.at("file")).write_all(b"two\n").unwrap());
        each(|own| fs::set_permissions(own.at("file"), Permissions::from_mode(0o640)).unwrap());
        each(|own| fs::hard_link(own.at("file"), own.at("dir/sub/linked")).unwrap());
        each(|own| fs::write(own.at("dir/sub/new"), "new").unwrap());
        each(|own| fs::rename(own.at("dir/inner"), own.at("dir/sub/moved")).unwrap());
    });
    let mut lines: Vec<String> = text(own.at("file")).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["from below", "one", "two"]);
    assert_eq!((mode(own.at("file")), lstat(own.at("file")).nlink()), (0o640, 2));
    assert_eq!(text(own.at("dir/sub/linked")), text(own.at("file")));
    assert_eq!(names(own.at("dir/sub")), ["deep", "linked", "moved", "new"]);
    fs::write(own.at("file"), "the same in the end\n").unwrap();
}

/// A file that was removed lives on for who has it open.
pub fn removed_open_files(place: &Place) {
    let own = place.own("removed open files");
    for (name, content) in [("file", BELOW), ("new", "new\n")] {
        if name == "new" {
            fs::write(own.at(name), content).unwrap();
        }
        let mut open = open_rw(own.at(name));
        fs::remove_file(own.at(name)).unwrap();
        assert_eq!(rest(&open), content);
        open.write_all(b"late").unwrap();
        let mut all = vec![0; content.len() + 4];
        open.read_exact_at(&mut all, 0).unwrap();
        assert!(all.ends_with(b"late"));
        assert!(!own.at(name).exists());
    }
    // Opened for reading only, so that it was never copied up.
    let mut open = File::open(own.at("same")).unwrap();
    fs::remove_file(own.at("same")).unwrap();
    let mut read = String::new();
    open.read_to_string(&mut read).unwrap();
    assert_eq!(read, BELOW);
}

/// A removed or replaced file that is still open has no link left.
pub fn removed_link_counts(place: &Place) {
    let own = place.own("link counts of removed files");
    fs::write(own.at("new"), "").unwrap();
    let [new, changed, removed, replaced] =
        ["new", "fixed", "file", "same"].map(|name| File::open(own.at(name)).unwrap());
    fs::set_permissions(own.at("fixed"), Permissions::from_mode(0o600)).unwrap();
    for name in ["new", "fixed", "file"] {
        fs::remove_file(own.at(name)).unwrap();
    }
    fs::rename(own.at("program"), own.at("same")).unwrap();
    assert_eq!(new.metadata().unwrap().nlink(), 0);
    assert_eq!(changed.metadata().unwrap().nlink(), 0);
    assert_eq!(replaced.metadata().unwrap().nlink(), 0, "of a replaced file from below");
    assert_eq!(removed.metadata().unwrap().nlink(), 0, "of a removed file from below");
}

/// Everything can be asked to reach the disk.
pub fn syncing(place: &Place) {
    let own = place.own("syncing");
    let mut file = open_rw(own.at("file"));
    file.write_all(b"x").unwrap();
    file.sync_all().unwrap();
    file.sync_data().unwrap();
    File::open(own.at("dir")).unwrap().sync_all().unwrap();
    File::open(own.at("same")).unwrap().sync_all().unwrap();
    rustix::fs::syncfs(&file).unwrap();
}

/// A program cannot be overwritten while it runs.
pub fn running_programs(place: &Place) {
    let program = place.own("running programs").at("sleep");
    fs::copy(place.at("bin/sleep"), &program).unwrap();
    assert_eq!(errno(written_while_running(&program)), Errno::TXTBSY);
    fs::remove_file(program).unwrap();
}

/// Nor can one that came from below and was never changed.
pub fn running_programs_from_below(place: &Place) {
    assert_eq!(errno(written_while_running(&place.at("bin/sleep"))), Errno::TXTBSY);
}

/// Opens a program for writing while it runs.
fn written_while_running(program: &Path) -> io::Result<()> {
    let mut child = Command::new(program).arg("1000").spawn().unwrap();
    let exe = format!("/proc/{}/exe", child.id());
    let runs = holds_within(Duration::from_secs(60), || fs::read_link(&exe).is_ok_and(|path| path == program));
    let opened = OpenOptions::new().write(true).open(program).map(drop);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(runs);
    opened
}
