//! Making, linking, renaming and removing names.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::place::{BELOW, Place, errno, identity, is_root, lstat, mode, names, open_append, open_rw, rest, run, text};
use super::tree::MANY;

/// Hard links: one file under several names, from below or new.
pub fn hard_links(place: &Place) {
    let own = place.own("hard links");
    fs::hard_link(own.at("file"), own.at("dir/second")).unwrap();
    assert_eq!((lstat(own.at("file")).nlink(), lstat(own.at("dir/second")).nlink()), (2, 2));
    open_append(own.at("dir/second")).write_all(b"more\n").unwrap();
    assert_eq!(text(own.at("file")), format!("{BELOW}more\n"));
    assert_eq!(text(own.at("same")), BELOW);
    fs::remove_file(own.at("file")).unwrap();
    assert_eq!(lstat(own.at("dir/second")).nlink(), 1);
    fs::write(own.at("new"), "new").unwrap();
    fs::hard_link(own.at("new"), own.at("newer")).unwrap();
    fs::hard_link(own.at("new"), own.at("newest")).unwrap();
    assert_eq!(lstat(own.at("newer")).nlink(), 3);
    assert_eq!(identity(own.at("new")), identity(own.at("newest")));
    assert_eq!(errno(fs::hard_link(own.at("new"), own.at("same"))), Errno::EXIST);
    // Renaming one name of a file to another of the same file does nothing.
    fs::rename(own.at("new"), own.at("newer")).unwrap();
    assert_eq!(lstat(own.at("newer")).nlink(), 3);
    fs::hard_link(own.at("link"), own.at("link2")).unwrap();
    assert_eq!(lstat(own.at("link2")).nlink(), 2);
    assert!([Errno::PERM, Errno::XDEV].contains(&errno(fs::hard_link(own.at("dir"), own.at("dir2")))));
}

/// All names of a file from below have its inode number.
pub fn linked_inodes(place: &Place) {
    let own = place.own("inodes of hard links to files from below");
    fs::hard_link(own.at("file"), own.at("dir/second")).unwrap();
    assert_eq!(identity(own.at("file")), identity(own.at("dir/second")));
}

/// Between two names of one file from below a rename does nothing.
pub fn renamed_links(place: &Place) {
    let own = place.own("renames between hard links to files from below");
    fs::hard_link(own.at("file"), own.at("second")).unwrap();
    fs::rename(own.at("file"), own.at("second")).unwrap();
    assert_eq!((text(own.at("file")), lstat(own.at("second")).nlink()), (BELOW.into(), 2));
}

/// Removing and making again, of files and of whole directories.
pub fn removal(place: &Place) {
    let own = place.own("removal");
    fs::remove_file(own.at("file")).unwrap();
    assert_eq!(errno(File::open(own.at("file"))), Errno::NOENT);
    assert_eq!(errno(fs::remove_file(own.at("file"))), Errno::NOENT);
    assert!(!names(own.at("")).contains(&"file".to_owned()));
    File::create_new(own.at("file")).unwrap().write_all(b"again").unwrap();
    assert_eq!(text(own.at("file")), "again");
    assert_eq!(errno(File::create_new(own.at("same"))), Errno::EXIST);
    assert_eq!(errno(fs::create_dir(own.at("dir"))), Errno::EXIST);
    assert_eq!(errno(fs::remove_dir(own.at("dir"))), Errno::NOTEMPTY);
    assert_eq!(errno(fs::remove_dir(own.at("same"))), Errno::NOTDIR);
    fs::remove_dir_all(own.at("dir")).unwrap();
    fs::create_dir(own.at("dir")).unwrap();
    assert_eq!(names(own.at("dir")), <[&str; 0]>::default());
    fs::write(own.at("dir/inner"), "mine").unwrap();
    assert_eq!(names(own.at("dir")), ["inner"]);
    fs::remove_file(own.at("link")).unwrap();
    fs::create_dir(own.at("link")).unwrap();
    fs::remove_dir(own.at("other")).unwrap();
    symlink("dir", own.at("other")).unwrap();
    assert_eq!(text(own.at("other/inner")), "mine");
}

/// Removing names while the listing goes on, as `rm -r` does, misses none.
pub fn removal_while_listing(place: &Place) {
    let mut removed = 0;
    for entry in fs::read_dir(place.at("many")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
        removed += 1;
    }
    assert_eq!((removed, names(place.at("many")).len()), (MANY, 0));
    (0..10).for_each(|number| fs::write(place.at(&format!("many/new{number}")), "").unwrap());
    assert_eq!(names(place.at("many")).len(), 10);
}

/// Files move: to new names, over files from below, to other directories; they stay the same files.
pub fn renamed_files(place: &Place) {
    let own = place.own("renamed files");
    let replaced = File::open(own.at("fixed")).unwrap();
    fs::rename(own.at("file"), own.at("dir/moved")).unwrap();
    assert_eq!(text(own.at("dir/moved")), BELOW);
    assert_eq!(errno(File::open(own.at("file"))), Errno::NOENT);
    fs::rename(own.at("same"), own.at("fixed")).unwrap();
    assert_eq!(mode(own.at("fixed")), 0o644);
    assert_eq!(rest(&replaced), BELOW);
    fs::rename(own.at("link"), own.at("dir/link")).unwrap();
    assert_eq!(fs::read_link(own.at("dir/link")).unwrap(), Path::new("file"));
    assert_eq!(names(own.at("")), ["dir", "fixed", "other", "program"]);
    assert_eq!(names(own.at("dir")), ["inner", "link", "moved", "sub"]);
    assert_eq!(errno(fs::rename(own.at("fixed"), own.at("dir"))), Errno::ISDIR);
    // As programs save: a new file takes the place of the one from below.
    fs::write(own.at("temporary"), "saved").unwrap();
    fs::rename(own.at("temporary"), own.at("program")).unwrap();
    assert_eq!(text(own.at("program")), "saved");
}

/// `RENAME_NOREPLACE` and `RENAME_EXCHANGE`.
pub fn careful_renames(place: &Place) {
    let own = place.own("careful renames");
    let rename = |from: &str, to: &str, flags| renameat_with(CWD, own.at(from), CWD, own.at(to), flags);
    assert_eq!(rename("file", "same", RenameFlags::NOREPLACE), Err(Errno::EXIST));
    rename("file", "free", RenameFlags::NOREPLACE).unwrap();
    assert_eq!(text(own.at("free")), BELOW);
    rename("free", "program", RenameFlags::EXCHANGE).unwrap();
    assert_eq!((text(own.at("program")), run(own.at("free"), &[])), (BELOW.into(), "runs\n".into()));
}

/// A renamed file is the same file.
pub fn renamed_inodes(place: &Place) {
    let own = place.own("inodes of renamed files");
    let before = ["file", "same", "program", "link"].map(|name| identity(own.at(name)));
    fs::rename(own.at("file"), own.at("dir/moved")).unwrap();
    fs::rename(own.at("same"), own.at("fixed")).unwrap();
    fs::rename(own.at("link"), own.at("dir/link")).unwrap();
    renameat_with(CWD, own.at("program"), CWD, own.at("fixed"), RenameFlags::EXCHANGE).unwrap();
    assert_eq!(["dir/moved", "program", "fixed", "dir/link"].map(|name| identity(own.at(name))), before);
}

/// New directories move with all that is in them, and over empty ones.
pub fn renamed_new_directories(place: &Place) {
    let own = place.own("renamed new directories");
    fs::create_dir_all(own.at("new/deep")).unwrap();
    fs::rename(own.at("file"), own.at("new/deep/file")).unwrap();
    fs::rename(own.at("new"), own.at("other/moved")).unwrap();
    assert_eq!(text(own.at("other/moved/deep/file")), BELOW);
    fs::create_dir(own.at("vacant")).unwrap();
    fs::rename(own.at("other/moved"), own.at("vacant")).unwrap();
    assert_eq!(names(own.at("vacant")), ["deep"]);
    fs::create_dir(own.at("again")).unwrap();
    assert_eq!(errno(fs::rename(own.at("again"), own.at("vacant"))), Errno::NOTEMPTY);
    assert_eq!(errno(fs::rename(own.at("vacant"), own.at("vacant/deep/in"))), Errno::INVAL);
    // A directory that stands where one from below was removed shows nothing of that one, also elsewhere.
    fs::remove_dir_all(own.at("dir")).unwrap();
    fs::create_dir(own.at("dir")).unwrap();
    fs::rename(own.at("dir"), own.at("elsewhere")).unwrap();
    assert_eq!(names(own.at("elsewhere")), <[&str; 0]>::default());
    fs::rename(own.at("vacant"), own.at("dir")).unwrap();
    assert_eq!(names(own.at("dir")), ["deep"]);
}

/// Directories from below move in one step.
pub fn renamed_directories(place: &Place) {
    let own = place.own("renamed directories from below");
    let before = identity(own.at("dir"));
    fs::rename(own.at("dir"), own.at("moved")).unwrap();
    assert_eq!(identity(own.at("moved")), before);
    assert_eq!(text(own.at("moved/inner")), BELOW);
}

/// `mv` moves directories from below, in as many steps as it takes.
pub fn moved_directories(place: &Place) {
    let own = place.own("moved directories from below");
    run("mv", &[own.at("dir").to_str().unwrap(), own.at("moved").to_str().unwrap()]);
    assert_eq!(names(own.at("moved")), ["inner", "sub"]);
    assert_eq!(text(own.at("moved/sub/deep")), BELOW);
    assert!(!own.at("dir").exists());
    run("mv", &[own.at("moved").to_str().unwrap(), own.at("other/").to_str().unwrap()]);
    assert_eq!(text(own.at("other/moved/inner")), BELOW);
}

/// The working directory is known by its name after the directory above it has moved, and when it was removed.
pub fn moving_working_directory(place: &Place) {
    let own = place.own("moving working directory");
    let before = std::env::current_dir().unwrap();
    fs::create_dir_all(own.at("new/deep")).unwrap();
    std::env::set_current_dir(own.at("new/deep")).unwrap();
    fs::rename(own.at("new"), own.at("moved")).unwrap();
    let moved = std::env::current_dir();
    fs::remove_dir(own.at("moved/deep")).unwrap();
    let gone = std::env::current_dir();
    let link = fs::read_link("/proc/self/cwd");
    std::env::set_current_dir(own.at("dir/sub")).unwrap();
    fs::remove_dir_all(own.at("dir")).unwrap();
    let gone_below = std::env::current_dir();
    std::env::set_current_dir(before).unwrap();
    assert_eq!(moved.unwrap(), own.at("moved/deep"));
    assert_eq!((errno(gone), errno(gone_below)), (Errno::NOENT, Errno::NOENT));
    assert!(link.unwrap().as_os_str().as_bytes().ends_with(b"moved/deep (deleted)"));
}

/// Symbolic links are made, replaced and removed.
pub fn new_symlinks(place: &Place) {
    let own = place.own("new symbolic links");
    symlink("dir/inner", own.at("new")).unwrap();
    assert_eq!(text(own.at("new")), BELOW);
    assert_eq!(errno(symlink("x", own.at("link"))), Errno::EXIST);
    symlink("same", own.at("temporary")).unwrap();
    fs::rename(own.at("temporary"), own.at("link")).unwrap();
    assert_eq!(fs::read_link(own.at("link")).unwrap(), Path::new("same"));
    fs::remove_file(own.at("file")).unwrap();
    symlink("link", own.at("file")).unwrap();
    assert_eq!(text(own.at("file")), BELOW);
    assert!(lstat(own.at("same")).is_file());
}

/// Fifos and sockets work; devices are for root to make.
pub fn special_files(place: &Place) {
    let own = place.own("special files");
    rustix::fs::mkfifoat(CWD, own.at("fifo"), Mode::from_raw_mode(0o600)).unwrap();
    assert!(lstat(own.at("fifo")).file_type().is_fifo());
    let path = own.at("fifo");
    let writer = std::thread::spawn(move || fs::write(path, "through").unwrap());
    assert_eq!(text(own.at("fifo")), "through");
    writer.join().unwrap();
    let listener = UnixListener::bind(own.at("socket")).unwrap();
    assert!(lstat(own.at("socket")).file_type().is_socket());
    let mut client = UnixStream::connect(own.at("socket")).unwrap();
    client.write_all(b"x").unwrap();
    drop(listener.accept().unwrap());
    let device = rustix::fs::makedev(1, 3);
    let made = rustix::fs::mknodat(CWD, own.at("device"), FileType::CharacterDevice, Mode::RUSR, device);
    if is_root() {
        made.unwrap();
        fs::remove_file(own.at("device")).unwrap();
    } else {
        assert_eq!(made, Err(Errno::PERM));
    }
    fs::remove_file(own.at("fifo")).unwrap();
    fs::remove_file(own.at("socket")).unwrap();
}

/// A file without a name gets one.
pub fn nameless_files(place: &Place) {
    let own = place.own("nameless files");
    let nameless = rustix::fs::open(own.at("dir"), OFlags::TMPFILE | OFlags::RDWR, Mode::from_raw_mode(0o640)).unwrap();
    let mut file = File::from(nameless);
    file.write_all(b"named late").unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, path, CWD, own.at("dir/named"), AtFlags::SYMLINK_FOLLOW).unwrap();
    assert_eq!(text(own.at("dir/named")), "named late");
    assert_eq!(file.metadata().unwrap().nlink(), 1);
}

/// A listing after changes has what there is, once.
pub fn changed_listings(place: &Place) {
    let own = place.own("changed listings");
    open_rw(own.at("file")).write_all(b"x").unwrap();
    fs::write(own.at("new"), "").unwrap();
    fs::remove_file(own.at("link")).unwrap();
    fs::write(own.at("dir/inner"), "changed").unwrap();
    assert_eq!(names(own.at("")), ["dir", "file", "fixed", "new", "other", "program", "same"]);
    assert_eq!(names(own.at("dir")), ["inner", "sub"]);
    // An open directory, too.
    let mut dir = rustix::fs::Dir::read_from(File::open(own.at("dir")).unwrap()).unwrap();
    while dir.read().is_some() {}
    fs::write(own.at("dir/later"), "").unwrap();
    dir.rewind();
    let listed = std::iter::from_fn(|| dir.read()).filter(|entry| entry.as_ref().unwrap().file_name() == c"later");
    assert_eq!(listed.count(), 1);
}

/// New entries take the group and the bit of a set-group-id directory; the umask counts.
pub fn inheritance(place: &Place) {
    let own = place.own("inheritance");
    fs::set_permissions(own.at("dir"), fs::Permissions::from_mode(0o2775)).unwrap();
    fs::create_dir(own.at("dir/new")).unwrap();
    fs::write(own.at("dir/file"), "").unwrap();
    assert_eq!(mode(own.at("dir/new")) & 0o2000, 0o2000);
    assert_eq!(lstat(own.at("dir/file")).gid(), lstat(own.at("dir")).gid());
    let umask = rustix::process::umask(Mode::from_raw_mode(0o027));
    fs::write(own.at("private"), "").unwrap();
    rustix::process::umask(umask);
    assert_eq!(mode(own.at("private")), 0o640);
}
