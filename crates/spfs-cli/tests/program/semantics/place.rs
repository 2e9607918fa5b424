//! The directory whose semantics are looked at, from inside, and what the checks need for that.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::tree::slug;

/// What a regular file of [`Place::own`] holds.
pub const BELOW: &str = "from below\n";

/// The directory that is looked at: `/spfs`, or another for comparison.
pub struct Place {
    pub root: PathBuf,
}

/// The directory `edit/NAME` that one check has for itself; [`super::tree`] says what is in it.
pub struct Own(PathBuf);

impl Place {
    /// A path in it.
    pub fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// What belongs to the check `name` alone.
    #[track_caller]
    pub fn own(&self, name: &str) -> Own {
        Own(self.root.join("edit").join(slug(name)))
    }

    /// Every path in it, the top included, sorted; what cannot be listed is left out.
    pub fn walk(&self) -> Vec<PathBuf> {
        let mut found = vec![self.root.clone()];
        let mut next = 0;
        while next < found.len() {
            if lstat(&found[next]).is_dir()
                && let Ok(entries) = fs::read_dir(&found[next])
            {
                found.extend(entries.map(|entry| entry.unwrap().path()));
            }
            next += 1;
        }
        found.sort();
        found
    }
}

impl Own {
    /// A path in it.
    pub fn at(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }
}

/// Whether the checks run as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The attributes of `path` itself.
#[track_caller]
pub fn lstat(path: impl AsRef<Path>) -> Metadata {
    fs::symlink_metadata(&path).unwrap_or_else(|err| panic!("{}: {err}", path.as_ref().display()))
}

/// The permission bits of `path`.
#[track_caller]
pub fn mode(path: impl AsRef<Path>) -> u32 {
    lstat(path).mode() & 0o7777
}

/// Device and inode of `path`.
#[track_caller]
pub fn identity(path: impl AsRef<Path>) -> (u64, u64) {
    let meta = lstat(path);
    (meta.dev(), meta.ino())
}

/// The names in a directory, sorted.
#[track_caller]
pub fn names(dir: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(&dir).unwrap_or_else(|err| panic!("{}: {err}", dir.as_ref().display()));
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The text of a file.
#[track_caller]
pub fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.as_ref().display()))
}

/// All that can still be read from an open file.
pub fn rest(mut file: &File) -> String {
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    text
}

/// Opens for reading and writing, neither creating nor cutting.
#[track_caller]
pub fn open_rw(path: impl AsRef<Path>) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap_or_else(|err| panic!("{}: {err}", path.as_ref().display()))
}

/// Opens for appending.
#[track_caller]
pub fn open_append(path: impl AsRef<Path>) -> File {
    OpenOptions::new().append(true).open(&path).unwrap_or_else(|err| panic!("{}: {err}", path.as_ref().display()))
}

/// Opens for reading with more `O_*` flags.
pub fn open_with(path: impl AsRef<Path>, flags: rustix::fs::OFlags) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)
}

/// The error number of what must fail.
#[track_caller]
pub fn errno<T>(result: io::Result<T>) -> Errno {
    match result {
        Ok(_) => panic!("this should have failed"),
        Err(err) => Errno::from_io_error(&err).unwrap_or_else(|| panic!("not the kernel's error: {err}")),
    }
}

/// Runs a program and takes what it printed; it must succeed.
#[track_caller]
pub fn run(program: impl AsRef<Path>, arguments: &[&str]) -> String {
    let output = output(program.as_ref(), arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} ended with {}: {said}", program.as_ref().display(), output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Runs Python, which can map files and lock parts of them without `unsafe` here; `arguments` are its `sys.argv[1:]`.
#[track_caller]
pub fn python(code: &str, arguments: &[&Path]) -> String {
    let mut words = vec!["-I", "-c", code];
    words.extend(arguments.iter().map(|path| path.to_str().unwrap()));
    run("/usr/bin/python3", &words)
}

/// Runs a program. One that was just written may still be open for writing in a child that another thread is forking.
#[track_caller]
fn output(program: &Path, arguments: &[&str]) -> Output {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        match Command::new(program).args(arguments).output() {
            Err(err) if err.kind() == io::ErrorKind::ExecutableFileBusy && Instant::now() < end => {}
            result => return result.unwrap_or_else(|err| panic!("{}: {err}", program.display())),
        }
    }
}

/// Every path below `root` with all that a commit keeps, one a line: for comparison.
pub fn snapshot(root: &Path) -> String {
    let mut lines = Vec::new();
    for path in (Place { root: root.to_owned() }).walk() {
        let meta = lstat(&path);
        let kind = meta.file_type();
        let holds = if kind.is_symlink() {
            fs::read_link(&path).unwrap().to_str().unwrap().to_owned()
        } else if kind.is_file() {
            let sum = fs::File::open(&path).map(checksum).unwrap_or_default();
            format!("{} {sum:016x}", meta.len())
        } else {
            assert!(!kind.is_fifo() && !kind.is_socket(), "{} cannot be committed", path.display());
            String::new()
        };
        let name = path.strip_prefix(root).unwrap();
        lines.push(format!("entry: {:06o} {name:?} {holds}", meta.mode()));
    }
    lines.join("\n")
}

/// FNV-1a over the blocks of the content that are not all zeros, and where they are: holes are jumped over.
fn checksum(file: File) -> u64 {
    const BLOCK: u64 = 65536;
    let mut buffer = vec![0; BLOCK as usize];
    let mut sum: u64 = 0xcbf2_9ce4_8422_2325;
    let mut at = 0;
    while let Ok(data) = rustix::fs::seek(&file, SeekFrom::Data(at)) {
        at = data / BLOCK * BLOCK;
        let count = file.read_at(&mut buffer, at).unwrap();
        if buffer[..count].iter().any(|byte| *byte != 0) {
            for byte in at.to_le_bytes().iter().chain(&buffer[..count]) {
                sum = (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
            }
        }
        at += BLOCK;
    }
    sum
}
