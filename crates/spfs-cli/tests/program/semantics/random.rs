//! Random changes, made at once in a place and in a plain directory that began the same: both must give the same answers
//! and end the same.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::place::{Place, identity, snapshot};

/// Numbers that look random and are the same in every run (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }

    /// A path of two to four of few names, so that paths meet often; the first is that of a directory which stays.
    fn path(&mut self) -> PathBuf {
        let name = |number| NAMES[number as usize];
        let top = name(self.below(3));
        [top].into_iter().chain((0..=self.below(3)).map(|_| name(self.below(6)))).collect()
    }
}

/// The names of everything.
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// One change, with all that it needs, so that it can be made twice.
#[derive(Debug)]
enum Change {
    Write(PathBuf, String),
    Append(PathBuf, String),
    Cut(PathBuf, u64),
    Remove(PathBuf),
    RemoveTree(PathBuf),
    Directory(PathBuf),
    RemoveDirectory(PathBuf),
    Rename(PathBuf, PathBuf),
    Exchange(PathBuf, PathBuf),
    Link(PathBuf, PathBuf),
    Symlink(PathBuf, PathBuf),
    Mode(PathBuf, u32),
}

impl Change {
    fn random(random: &mut Random) -> Change {
        let text = |random: &mut Random| random.below(1 << 30).to_string().repeat(random.below(600) as usize);
        match random.below(24) {
            0..6 => Change::Write(random.path(), text(random)),
            6 | 7 => Change::Append(random.path(), text(random)),
            8 => Change::Cut(random.path(), random.below(4000)),
            9 | 10 => Change::Remove(random.path()),
            11 => Change::RemoveTree(random.path()),
            12..16 => Change::Directory(random.path()),
            16 => Change::RemoveDirectory(random.path()),
            17 | 18 => Change::Rename(random.path(), random.path()),
            19 => Change::Exchange(random.path(), random.path()),
            20 => Change::Link(random.path(), random.path()),
            21 => Change::Symlink(random.path(), random.path()),
            _ => Change::Mode(random.path(), [0o644, 0o600, 0o755, 0o700, 0o4711][random.below(5) as usize]),
        }
    }

    /// Whether this renames a file to another name of itself.
    fn renames_same_file(&self, root: &Path) -> bool {
        matches!(self, Change::Rename(from, to) if identity(root.join(from)) == identity(root.join(to)))
    }

    /// Makes the change below `root`.
    fn make(&self, root: &Path) -> io::Result<()> {
        let at = |path: &Path| root.join(path);
        let mut options = OpenOptions::new();
        match self {
            Change::Write(path, text) => fs::write(at(path), text),
            Change::Append(path, text) => options.append(true).open(at(path))?.write_all(text.as_bytes()),
            Change::Cut(path, size) => options.write(true).open(at(path))?.set_len(*size),
            Change::Remove(path) => fs::remove_file(at(path)),
            Change::RemoveTree(path) => fs::remove_dir_all(at(path)),
            Change::Directory(path) => fs::create_dir(at(path)),
            Change::RemoveDirectory(path) => fs::remove_dir(at(path)),
            Change::Rename(from, to) => fs::rename(at(from), at(to)),
            Change::Exchange(from, to) => Ok(renameat_with(CWD, at(from), CWD, at(to), RenameFlags::EXCHANGE)?),
            Change::Link(from, to) => fs::hard_link(at(from), at(to)),
            Change::Symlink(target, path) => symlink(target, at(path)),
            Change::Mode(path, mode) => {
                // Not through symbolic links, and nothing that would lock the owner out of a directory.
                let meta = fs::symlink_metadata(at(path))?;
                let mode = if meta.is_dir() { mode | 0o700 } else { *mode };
                if meta.is_symlink() { Ok(()) } else { fs::set_permissions(at(path), Permissions::from_mode(mode)) }
            }
        }
    }
}

/// Makes `count` changes, which `seed` chooses, in the place and in the directory `plain`.
pub fn changes(place: &Place, plain: &Path, seed: u64, count: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut made = 0;
    for root in [place.root.as_path(), plain] {
        NAMES[..3].iter().for_each(|name| fs::create_dir_all(root.join(name)).unwrap());
    }
    for number in 0..count {
        let change = Change::random(&mut random);
        let here = change.make(&place.root).map_err(|err| Errno::from_io_error(&err));
        // A directory from below cannot be renamed in an overlay; then it is not in the plain one either.
        if here == Err(Some(Errno::XDEV)) && matches!(change, Change::Rename(..) | Change::Exchange(..)) {
            continue;
        }
        // Between two names of one file from below, `rename` has nothing to do, and fails for ordinary users (see the
        // exceptions).
        if here == Err(Some(Errno::STALE)) && change.renames_same_file(plain) {
            continue;
        }
        let there = change.make(plain).map_err(|err| Errno::from_io_error(&err));
        assert_eq!(
            here, there,
            "seed {seed}, change {number}: {change:?} gave this here and that in a plain directory"
        );
        made += u64::from(here.is_ok());
    }
    assert!(made > count / 10, "only {made} of {count} changes could be made");
    assert!(
        snapshot(&place.root) == snapshot(plain),
        "seed {seed}: the trees differ\n{}\n-- plain\n{}",
        snapshot(&place.root),
        snapshot(plain)
    );
}
