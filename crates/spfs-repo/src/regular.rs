//! Files of places that others write to: never waited for, as opening a fifo would, and never read beyond what fits.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags};

/// The longest object: the offsets in its bytes have 32 bits, one of them for the sign.
pub(crate) const LONGEST_OBJECT: u64 = 2 << 30;

/// The longest tag stream: more than a million records.
pub(crate) const LONGEST_STREAM: u64 = 256 << 20;

/// The longest of the small files: locks, VERSION.
pub(crate) const LONGEST_NOTE: u64 = 4096;

/// Opens a regular file for reading. Anything else that has its name is an error, at once.
pub fn open_regular(path: &Path) -> Result<File> {
    open_regular_at(CWD, path)
}

/// The same for a path that begins in `directory`.
pub(crate) fn open_regular_at(directory: impl AsFd, path: impl rustix::path::Arg) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let fd = rustix::fs::openat(directory, path, flags, Mode::empty())?;
    match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
        FileType::RegularFile => Ok(File::from(fd)),
        _ => Err(Error::other("it is not a regular file")),
    }
}

/// Reads a whole regular file of at most `longest` bytes.
pub fn read_regular(path: &Path, longest: u64) -> Result<Vec<u8>> {
    read_whole(&open_regular(path)?, longest)
}

/// The same for a file of text.
pub fn read_text(path: &Path, longest: u64) -> Result<String> {
    String::from_utf8(read_regular(path, longest)?)
        .map_err(|error| Error::new(ErrorKind::InvalidData, error.utf8_error()))
}

/// Reads what is left of `file`, at most `longest` bytes.
pub(crate) fn read_whole(file: &File, longest: u64) -> Result<Vec<u8>> {
    let length = file.metadata()?.len();
    let mut bytes = Vec::new();
    if length <= longest {
        file.take(longest + 1).read_to_end(&mut bytes)?;
    }
    match length.max(bytes.len() as u64) {
        length if length > longest => {
            Err(Error::other(format!("it has {length} bytes, and {longest} at most make sense")))
        }
        _ => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_regular_files_of_a_sensible_length_are_read() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        let reason = |name: &str| read_regular(&path(name), 3).unwrap_err().to_string();
        std::fs::write(path("three"), "abc").unwrap();
        assert_eq!(read_regular(&path("three"), 3).unwrap(), b"abc");
        assert_eq!(read_text(&path("three"), 3).unwrap(), "abc");
        std::fs::write(path("bytes"), b"a\xff").unwrap();
        assert!(read_text(&path("bytes"), 3).unwrap_err().to_string().contains("invalid utf-8"));
        std::fs::write(path("four"), "abcd").unwrap();
        assert_eq!(reason("four"), "it has 4 bytes, and 3 at most make sense");
        File::create(path("huge")).unwrap().set_len(1 << 40).unwrap();
        assert!(reason("huge").contains("at most make sense"));
        rustix::fs::mknodat(CWD, path("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        std::fs::create_dir(path("directory")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", path("zero")).unwrap();
        for name in ["fifo", "directory", "zero"] {
            assert_eq!(reason(name), "it is not a regular file", "{name}");
        }
        assert_eq!(read_regular(&path("none"), 3).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    }
}
