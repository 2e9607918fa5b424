//! The way into an archive: new members are collected in unnamed files beside it, then the archive is replaced once.
//!
//! Each thread that adds something has a file of its own meanwhile, in which whole members stand one behind the other.
//! Killed, a batch leaves nothing. It takes about 150 bytes of memory for each payload and object.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags};
use tar::EntryType;

use super::index::BLOCK;
use super::write::{Edit, Source, header, member};
use super::{Archive, Snapshot, parent};
use crate::codec;
use crate::content::{SMALL, check_expected, fill, with_first_piece};
use crate::digest::{Digest, Hasher};
use crate::directory::layout::StoreName;
use crate::directory::owner::Owner;
use crate::error::{Error, Result};
use crate::object::{Object, ObjectBody};
use crate::repository::Batch;

/// The mode of payloads and objects, which never change.
const MODE: u32 = 0o444;

/// A batch of an [`Archive`].
pub(super) struct ArchiveBatch<'a> {
    archive: &'a Archive,
    known: Mutex<Known>,
    /// Files that nobody writes to at the moment.
    idle: Mutex<Vec<Fragment>>,
    /// Set by a failed write: what others rely on may be missing.
    broken: AtomicBool,
}

/// What this batch knows to be there: where it waits, or nothing if the archive has it.
#[derive(Default)]
struct Known {
    payloads: HashMap<Digest, Option<Piece>>,
    objects: HashMap<Digest, Option<Piece>>,
    /// Fragments that were ever made.
    fragments: usize,
}

/// A whole member in a fragment.
#[derive(Clone, Copy)]
struct Piece {
    fragment: usize,
    at: u64,
    len: u64,
}

/// A file of whole members, and then perhaps of the remains of one that was given up.
struct Fragment {
    number: usize,
    file: Arc<File>,
    end: u64,
    /// When it was made by the file system's clock, in seconds: the time of its members.
    time: i64,
}

impl<'a> ArchiveBatch<'a> {
    /// An empty batch. Writes nothing yet.
    pub fn new(archive: &'a Archive) -> Self {
        ArchiveBatch { archive, known: Mutex::default(), idle: Mutex::default(), broken: AtomicBool::new(false) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has `write` append one member to a fragment, and returns where it is; nothing if there is none to be kept.
    fn append(&self, write: impl FnOnce(&mut Fragment) -> Result<Option<u64>>) -> Result<Option<Piece>> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut fragment = match idle {
            Some(fragment) => fragment,
            None => self.fragment().inspect_err(|_| self.broken.store(true, Ordering::Relaxed))?,
        };
        let written = write(&mut fragment);
        let piece = match written {
            Ok(Some(len)) => {
                let piece = Piece { fragment: fragment.number, at: fragment.end, len };
                fragment.end += len;
                Some(piece)
            }
            // Also what stands behind the end: holes are relied upon to be empty.
            _ => {
                if fragment.file.set_len(fragment.end).is_err() {
                    self.broken.store(true, Ordering::Relaxed);
                }
                None
            }
        };
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(fragment);
        written.map(|_| piece)
    }

    /// A new unnamed file in the archive's directory.
    fn fragment(&self) -> Result<Fragment> {
        let directory = parent(self.archive.path());
        let mode = Mode::RUSR | Mode::WUSR;
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let fd = rustix::fs::open(directory, flags | OFlags::TMPFILE, mode).or_else(|_| {
            // NFS and others. If we are killed in between, the next writer removes it with its lock.
            let path = directory.join(format!(".{}.work", Owner::current().work_name()));
            let fd = rustix::fs::open(&path, flags | OFlags::CREATE | OFlags::EXCL, mode)?;
            rustix::fs::unlink(&path)?;
            Ok(fd)
        });
        let file = File::from(fd.map_err(|e: rustix::io::Errno| Error::io("create a file in", directory)(e))?);
        let time = file.metadata().map_err(Error::io("create a file in", directory))?.mtime();
        let mut known = self.known();
        known.fragments += 1;
        Ok(Fragment { number: known.fragments - 1, file: Arc::new(file), end: 0, time })
    }

    fn write_failed(&self, e: std::io::Error) -> Error {
        self.broken.store(true, Ordering::Relaxed);
        Error::io("write beside", self.archive.path())(e)
    }

    /// Appends a member whose content is all in memory.
    fn append_bytes(&self, name: &str, content: &[u8]) -> Result<Option<Piece>> {
        self.append(|fragment| {
            let bytes = member(name, content, MODE, fragment.time);
            fragment.file.write_all_at(&bytes, fragment.end).map_err(|e| self.write_failed(e))?;
            Ok(Some(bytes.len() as u64))
        })
    }

    fn add_small(&self, content: &[u8], expected: Option<&Digest>) -> Result<(Digest, u64)> {
        let digest = Digest::of(content);
        check_expected(&digest, expected)?;
        if self.claim_payload(&digest)? {
            let piece = self.append_bytes(&payload_name(&digest), content)?;
            self.known().payloads.insert(digest, piece);
        }
        Ok((digest, content.len() as u64))
    }

    /// Adds content that begins with `piece` and goes on in `content`: first the content, then its header.
    fn add_large(&self, piece: &mut [u8], content: &mut dyn Read, expected: Option<&Digest>) -> Result<(Digest, u64)> {
        let mut result = None;
        let kept = self.append(|fragment| {
            let start = fragment.end + BLOCK;
            let mut at = start;
            let mut hasher = Hasher::new();
            let mut filled = piece.len();
            while filled > 0 {
                hasher.update(&piece[..filled]);
                // Zeros are left out: holes of sparse files stay holes, here at least.
                if piece[..filled].iter().any(|byte| *byte != 0) {
                    fragment.file.write_all_at(&piece[..filled], at).map_err(|e| self.write_failed(e))?;
                }
                at += filled as u64;
                filled = fill(content, piece)?;
            }
            let (digest, size) = (hasher.finish(), at - start);
            check_expected(&digest, expected)?;
            result = Some((digest, size));
            if !self.claim_payload(&digest)? {
                return Ok(None);
            }
            let header = header(&payload_name(&digest), EntryType::Regular, size, MODE, fragment.time);
            let end = start + size.next_multiple_of(BLOCK);
            let written = fragment.file.write_all_at(&header, fragment.end).and_then(|()| fragment.file.set_len(end));
            written.map_err(|e| self.write_failed(e))?;
            Ok(Some(end - fragment.end))
        })?;
        let (digest, size) = result.ok_or_else(|| Error::invalid("payload", "", "it was not read"))?;
        if kept.is_some() {
            self.known().payloads.insert(digest, kept);
        }
        Ok((digest, size))
    }

    /// Whether the caller is the one to write this payload: it is neither in the archive nor anybody else's.
    fn claim_payload(&self, digest: &Digest) -> Result<bool> {
        let present = self.archive.snapshot()?.index.payloads.contains_key(digest);
        Ok(self.known().payloads.insert_new(*digest) && !present)
    }

    /// Refuses an object whose children are neither in the archive nor in this batch.
    fn check_children(&self, snapshot: &Snapshot, object: &Object) -> Result<()> {
        if let ObjectBody::Blob(blob) = &object.body {
            let here = self.known().payloads.contains_key(&blob.payload)
                || snapshot.index.payloads.get(&blob.payload).is_some_and(|member| member.len == blob.size);
            return if here { Ok(()) } else { Err(Error::MissingPayload(blob.payload)) };
        }
        let known = self.known();
        let is_here =
            |digest: &Digest| known.objects.contains_key(digest) || snapshot.index.objects.contains_key(digest);
        match object.children().iter().find(|digest| !is_here(digest)) {
            None => Ok(()),
            Some(child) => Err(Error::UnknownObject(*child)),
        }
    }
}

/// Taking a place in a map for what will be there.
trait InsertNew {
    fn insert_new(&mut self, digest: Digest) -> bool;
}

impl InsertNew for HashMap<Digest, Option<Piece>> {
    fn insert_new(&mut self, digest: Digest) -> bool {
        match self.entry(digest) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(None);
                true
            }
        }
    }
}

impl Batch for ArchiveBatch<'_> {
    fn add_payload(&self, content: &mut dyn Read, expected: Option<&Digest>) -> Result<(Digest, u64)> {
        with_first_piece(content, |piece, filled, rest| match filled < SMALL {
            true => self.add_small(&piece[..filled], expected),
            false => self.add_large(piece, rest, expected),
        })
    }

    fn add_object(&self, object: &Object) -> Result<Digest> {
        let digest = codec::digest(object)?;
        if self.known().objects.contains_key(&digest) {
            return Ok(digest);
        }
        let snapshot = self.archive.snapshot()?;
        if !snapshot.index.objects.contains_key(&digest) {
            self.check_children(&snapshot, object)?;
            let bytes = codec::encode(object)?;
            if self.known().objects.insert_new(digest) {
                let piece = self.append_bytes(&format!("./objects/{}", StoreName::of(&digest).as_str()), &bytes)?;
                self.known().objects.insert(digest, piece);
            }
        }
        Ok(digest)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        if self.broken.load(Ordering::Relaxed) {
            let path = self.archive.path().display().to_string();
            let reason = "an earlier write failed, so it is not complete".to_owned();
            return Err(Error::Invalid { what: "batch", text: path, reason });
        }
        let known = self.known();
        if known.payloads.values().chain(known.objects.values()).all(Option::is_none) {
            return Ok(());
        }
        let mut fragments = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        fragments.sort_by_key(|fragment| fragment.number);
        self.archive.rewrite(|snapshot| {
            // Others may have added the same meanwhile.
            let payloads = known.payloads.iter().filter(|(digest, _)| !snapshot.index.payloads.contains_key(digest));
            let objects = known.objects.iter().filter(|(digest, _)| !snapshot.index.objects.contains_key(digest));
            let mut pieces: Vec<Piece> = payloads.chain(objects).filter_map(|(_, piece)| *piece).collect();
            pieces.sort_unstable_by_key(|piece| (piece.fragment, piece.at));
            let mut add = Vec::new();
            for run in pieces.chunk_by(|a, b| a.fragment == b.fragment && a.at + a.len == b.at) {
                let file = &*fragments[run[0].fragment].file;
                add.push(Source::File { file, at: run[0].at, len: run.iter().map(|piece| piece.len).sum() });
            }
            Ok(((!add.is_empty()).then(|| Edit { drop: Vec::new(), add }), ()))
        })
    }
}

fn payload_name(digest: &Digest) -> String {
    format!("./payloads/{}", StoreName::of(digest).as_str())
}
