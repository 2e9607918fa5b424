//! What is where in a tar file, found in one pass over its headers, which trusts nothing.
//!
//! The pass reads one block for each member and seeks over its content. A member takes about 100 bytes of memory.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use tar::EntryType;

use crate::digest::Digest;
use crate::directory::layout;
use crate::error::{Error, Result};
use crate::regular::LONGEST_OBJECT;

/// Bytes of a header, and what content is padded to.
pub(super) const BLOCK: u64 = 512;
/// The most that names and extensions of one member may take.
const LONGEST_EXTENSION: u64 = 1 << 20;

/// Where one member is: all of it from `start` to `end`, its content of `len` bytes at `at`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub start: u64,
    pub end: u64,
    pub at: u64,
    pub len: u64,
}

/// Everything in an archive that a repository consists of. What else is in there is left alone.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub objects: BTreeMap<Digest, Member>,
    pub payloads: BTreeMap<Digest, Member>,
    /// Tag streams by their path below `tags/`.
    pub tags: BTreeMap<String, Member>,
    /// Where the last member ends.
    pub end: u64,
    has_version: bool,
}

/// Where a member belongs.
enum Place {
    Object(Digest),
    Payload(Digest),
    Tag(String),
    Version,
    /// In a repository's directories, but no part of it: a directory, a work file.
    Nothing,
    /// Renders and what else there may be.
    Elsewhere,
}

impl Index {
    /// Reads the archive `file`, of which `path` is the name in messages.
    pub fn read(file: &File, path: &Path) -> Result<Self> {
        let len = file.metadata().map_err(Error::io("open", path))?.len();
        let damaged = |reason: String| Error::corrupt(format!("archive {}", path.display()), reason);
        let mut index = Index::default();
        if len == 0 {
            return Ok(index);
        }
        refuse_compressed(file, path)?;
        let allowance = Cell::new(LONGEST_EXTENSION);
        let mut archive = tar::Archive::new(Metered { file, allowance: &allowance });
        let fail = |e: io::Error| match e.raw_os_error() {
            Some(_) => Error::io("read", path)(e),
            None => damaged(format!("a header in it cannot be read: {}", printable(&e.to_string()))),
        };
        for entry in archive.entries_with_seek().map_err(fail)? {
            let mut entry = entry.map_err(fail)?;
            allowance.set(LONGEST_EXTENSION);
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let shown = printable(&name);
            let kind = entry.header().entry_type();
            if is_sparse(&mut entry).map_err(fail)? {
                return Err(damaged(format!("{shown} is stored as a sparse file (tar without --sparse)")));
            }
            let (at, size) = (entry.raw_file_position(), entry.size());
            let end = size.checked_next_multiple_of(BLOCK).and_then(|size| at.checked_add(size));
            let Some(end) = end.filter(|end| *end <= len) else {
                return Err(damaged(format!("it is cut short in {shown}")));
            };
            let member = Member { start: index.end, end, at, len: size };
            index.end = end;
            index.add(file, path, &name, kind, member).map_err(|reason| match reason {
                Refusal::Damaged(reason) => damaged(reason),
                Refusal::Error(e) => e,
            })?;
        }
        // Two blocks of zeros by the standard; whoever reads does with one.
        let mut block = [1; BLOCK as usize];
        match file.read_exact_at(&mut block, index.end) {
            Ok(()) if block.iter().all(|byte| *byte == 0) => Ok(index),
            Ok(()) => Err(damaged("there is something behind the last member that is no member".to_owned())),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                Err(damaged("it is cut short: it has no end mark".to_owned()))
            }
            Err(e) => Err(Error::io("read", path)(e)),
        }
    }

    /// Whether there is a VERSION.
    pub fn has_version(&self) -> bool {
        self.has_version
    }

    fn add(&mut self, file: &File, path: &Path, name: &str, kind: EntryType, member: Member) -> Result<(), Refusal> {
        let shown = printable(name);
        if matches!(kind, EntryType::XGlobalHeader | EntryType::XHeader) {
            return Ok(());
        }
        let place = place_of(name)?;
        match (&place, kind) {
            (Place::Elsewhere, _) | (_, EntryType::Directory) => return Ok(()),
            (_, EntryType::Regular | EntryType::Continuous) => {}
            _ => return Err(Refusal::Damaged(format!("{shown} is {}, not a file", kind_name(kind)))),
        }
        let is_new = match place {
            Place::Object(digest) => add_new(self.objects.entry(digest), member),
            Place::Payload(digest) => add_new(self.payloads.entry(digest), member),
            Place::Tag(path) => add_new(self.tags.entry(path), member),
            Place::Version if member.len > BLOCK => {
                return Err(Refusal::Damaged(format!("{shown} is too long for a version")));
            }
            Place::Version => {
                let text = read_all(file, path, member).map_err(Refusal::Error)?;
                let (archive, file) = (format!("archive {}", path.display()), format!("{shown} in {}", path.display()));
                layout::check_version_text(&text, &archive, &file).map_err(Refusal::Error)?;
                !std::mem::replace(&mut self.has_version, true)
            }
            Place::Nothing | Place::Elsewhere => true,
        };
        if is_new { Ok(()) } else { Err(Refusal::Damaged(format!("{shown} is in it twice"))) }
    }
}

/// Why a member is not accepted.
enum Refusal {
    Damaged(String),
    Error(Error),
}

/// A file that the headers are read from, and no more than that.
struct Metered<'a> {
    file: &'a File,
    /// Bytes that may be read before the next member is there: names and extensions are read into memory.
    allowance: &'a Cell<u64>,
}

impl Read for Metered<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        let left = self.allowance.get().checked_sub(n as u64);
        self.allowance.set(left.ok_or_else(|| io::Error::other("a name in it is longer than a name can be"))?);
        Ok(n)
    }
}

impl Seek for Metered<'_> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

/// The content of `member`, all at once.
pub(super) fn read_all(file: &File, path: &Path, member: Member) -> Result<Vec<u8>> {
    // Checked against the file's length, so it is no more than is there; which may be a hole.
    if member.len > LONGEST_OBJECT {
        let reason = format!("a member has {} bytes, and {LONGEST_OBJECT} at most make sense", member.len);
        return Err(Error::corrupt(format!("archive {}", path.display()), reason));
    }
    let mut bytes = vec![0; member.len as usize];
    file.read_exact_at(&mut bytes, member.at).map_err(Error::io("read", path))?;
    Ok(bytes)
}

fn add_new<K: Ord>(entry: Entry<'_, K, Member>, member: Member) -> bool {
    match entry {
        Entry::Vacant(entry) => {
            entry.insert(member);
            true
        }
        Entry::Occupied(_) => false,
    }
}

/// Where the member `name` belongs. A name that leads out of the archive is refused wherever it is.
fn place_of(name: &str) -> Result<Place, Refusal> {
    if name.starts_with('/') || name.split('/').any(|part| part == "..") {
        return Err(Refusal::Damaged(format!("{name:?} leads out of it")));
    }
    let parts: Vec<&str> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let digest = |shard: &str, rest: &str| match shard.len() {
        2 => format!("{shard}{rest}").parse::<Digest>().ok(),
        _ => None,
    };
    Ok(match parts[..] {
        ["VERSION"] => Place::Version,
        ["objects", shard, rest] => digest(shard, rest).map_or(Place::Nothing, Place::Object),
        ["payloads", shard, rest] => digest(shard, rest).map_or(Place::Nothing, Place::Payload),
        ["tags", .., last] if last.ends_with(".tag") => Place::Tag(parts[1..].join("/")),
        ["objects" | "payloads" | "tags", ..] => Place::Nothing,
        _ => Place::Elsewhere,
    })
}

/// A text from the archive as it may be shown: short, and without what would steer a terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

fn is_sparse<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<bool> {
    if entry.header().entry_type() == EntryType::GNUSparse {
        return Ok(true);
    }
    let Some(extensions) = entry.pax_extensions()? else { return Ok(false) };
    for extension in extensions {
        if extension?.key_bytes().starts_with(b"GNU.sparse") {
            return Ok(true);
        }
    }
    Ok(false)
}

fn kind_name(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Link => "a hard link to another member (tar with --hard-dereference)",
        EntryType::Symlink => "a symlink",
        EntryType::Char | EntryType::Block => "a device",
        EntryType::Fifo => "a fifo",
        _ => "something of an unknown kind",
    }
}

/// Says what a compressed archive is, instead of that its first header is wrong.
fn refuse_compressed(file: &File, path: &Path) -> Result<()> {
    let mut magic = [0; 6];
    // Shorter than this it is damaged anyway.
    if file.read_exact_at(&mut magic, 0).is_err() {
        return Ok(());
    }
    const KNOWN: [(&[u8], &str); 4] =
        [(b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2")];
    match KNOWN.iter().find(|(bytes, _)| magic.starts_with(bytes)) {
        None => Ok(()),
        Some((_, name)) => Err(Error::Unsupported {
            what: format!("archive {}", path.display()),
            reason: format!("it is compressed with {name}, and can be read only without"),
        }),
    }
}
