//! Whether everything in a repository is there and is what its digest says; and, where not, what that belongs to.

use std::collections::{HashMap, HashSet};
use std::io::Read;

use serde::Serialize;
use spfs_repo::{
    Digest, DigestPrefix, EntryKind, Error as RepoError, Hasher, Kind, Object, ObjectBody, Progress, Repository,
    TagSpec,
};

use crate::error::Result;
use crate::graph::{self, Fault, Graph, Owner, Walker};
use crate::merged;
use crate::parallel;

/// What to check, and how.
#[derive(Clone, Default, Debug)]
pub struct Options {
    /// Only these objects and what is below them; `None` for the whole repository with its tags.
    pub only: Option<Vec<Digest>>,
    /// Test only that things exist, and do not read payloads.
    pub fast: bool,
    /// Threads to use; 0 for one per core.
    pub threads: usize,
}

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Report {
    /// Versions of tags.
    pub tags: Count,
    /// Objects.
    pub objects: Count,
    /// Payloads.
    pub payloads: Count,
    /// Bytes of all payloads that were visited; with `fast`, as the manifests give them.
    pub bytes: u64,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// How many of one sort were looked at, and how they were.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Count {
    /// Looked at.
    pub visited: u64,
    /// Not there.
    pub missing: u64,
    /// There, and unreadable or not what its digest says.
    pub damaged: u64,
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Problem {
    /// What it is.
    pub piece: Piece,
    /// Whether it is missing; otherwise it is damaged.
    pub missing: bool,
    /// What is wrong with it.
    pub reason: String,
    /// What it belongs to, the nearest first; the first owner that was found, if there are several.
    pub belongs_to: Vec<Belongs>,
}

/// A thing that can be wrong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Piece {
    /// A tag stream.
    Tag(String),
    /// An object.
    Object(Digest),
    /// A payload.
    Payload(Digest),
}

/// Something that another thing belongs to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Belongs {
    /// A path below /spfs, without a leading slash.
    Path(String),
    /// An object, with its kind's name.
    Object(&'static str, Digest),
    /// A version of a tag.
    Tag(TagSpec),
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Checks a repository. What is wrong with it is in the report; an error means that the check could not be done.
pub fn check(repository: &dyn Repository, options: &Options, progress: &dyn Progress) -> Result<Report> {
    let threads = if options.threads == 0 { parallel::cores() } else { options.threads };
    let walker = Walker { repository, threads, verify: !options.fast, progress };
    let mut check =
        Check { walker, fast: options.fast, graph: Graph::default(), tags: Vec::new(), report: Report::default() };
    let mut faults = match &options.only {
        Some(digests) => check.walk_objects(digests.iter().copied())?,
        None => {
            let mut faults = check.walk_tags()?;
            faults.extend(check.walk_objects(repository.find(&DigestPrefix::any())?.into_iter())?);
            faults
        }
    };
    faults.sort_by_key(|fault| fault.node);
    check.count_tags(&faults);
    check.report.objects.visited = check.graph.nodes.iter().filter(|node| node.kind.is_some()).count() as u64;
    check.explain(faults, Piece::Object);
    check.blobs()?;
    if options.only.is_none() {
        check.strays()?;
    }
    Ok(check.report)
}

struct Check<'a> {
    walker: Walker<'a>,
    fast: bool,
    graph: Graph,
    /// The roots, and what they point to.
    tags: Vec<(TagSpec, Digest)>,
    report: Report,
}

impl Check<'_> {
    /// Walks from every version of every tag.
    fn walk_tags(&mut self) -> Result<Vec<Fault>> {
        for name in self.walker.repository.tag_names()? {
            match self.walker.repository.history(&name) {
                Ok(records) => {
                    for (version, record) in records.into_iter().enumerate() {
                        let spec = TagSpec { name: name.clone(), version: version as u64 };
                        self.tags.push((spec, record.target));
                    }
                }
                Err(error) => {
                    self.report.tags.damaged += 1;
                    let (piece, reason) = (Piece::Tag(name.to_string()), graph::chain(&error));
                    self.report.problems.push(Problem { piece, missing: false, reason, belongs_to: Vec::new() });
                }
            }
        }
        let mut roots = Vec::new();
        for (root, (_, target)) in self.tags.iter().enumerate() {
            roots.extend(self.graph.add(*target, Owner::Root(root as u32), 0, None));
        }
        self.graph.walk(&self.walker, roots)
    }

    /// Walks from objects that are there, whoever needs them.
    fn walk_objects(&mut self, digests: impl Iterator<Item = Digest>) -> Result<Vec<Fault>> {
        let new: Vec<u32> = digests.filter_map(|digest| self.graph.add(digest, Owner::Nobody, 0, None)).collect();
        self.graph.walk(&self.walker, new)
    }

    fn count_tags(&mut self, faults: &[Fault]) {
        let missing: HashSet<u32> = faults.iter().filter(|fault| fault.missing).map(|fault| fault.node).collect();
        self.report.tags.visited = self.tags.len() as u64;
        let gone = |target: &Digest| self.graph.find(target).is_some_and(|node| missing.contains(&node));
        self.report.tags.missing = self.tags.iter().filter(|(_, target)| gone(target)).count() as u64;
    }

    /// Checks every blob that was reached, and its payload.
    fn blobs(&mut self) -> Result<()> {
        let blobs: Vec<u32> = (0..self.graph.nodes.len() as u32)
            .filter(|&number| self.graph.nodes[number as usize].kind == Some(Kind::Blob))
            .collect();
        let pieces: Vec<&[u32]> = blobs.chunks(if self.fast { 1024 } else { 16 }).collect();
        let total = blobs.iter().map(|&number| self.graph.nodes[number as usize].size).sum();
        self.walker.progress.expect(blobs.len() as u64, total);
        let (mut objects, mut payloads, mut bytes) = (Vec::new(), Vec::new(), 0u64);
        let this = &*self;
        let work = |at: usize| this.piece(pieces[at]);
        parallel::each(self.walker.threads, pieces.len(), work, |_, found: Result<Found>| -> Result<()> {
            let found = found?;
            objects.extend(found.objects);
            payloads.extend(found.payloads);
            bytes += found.bytes;
            Ok(())
        })?;
        self.report.payloads.visited += blobs.len() as u64;
        self.report.bytes += bytes;
        for (mut faults, piece) in [(objects, Piece::Object as fn(Digest) -> Piece), (payloads, Piece::Payload)] {
            faults.sort_by_key(|fault: &Fault| fault.node);
            self.explain(faults, piece);
        }
        Ok(())
    }

    /// Checks a few blobs and their payloads.
    fn piece(&self, numbers: &[u32]) -> Result<Found> {
        let mut found = Found::default();
        if self.fast {
            let digests: Vec<Digest> = numbers.iter().map(|&n| self.graph.nodes[n as usize].digest).collect();
            let repository = self.walker.repository;
            let objects: HashSet<Digest> = repository.missing(&digests)?.into_iter().collect();
            let payloads: HashSet<Digest> = repository.missing_payloads(&digests)?.into_iter().collect();
            let fault = |node: u32| Fault { node, missing: true, reason: GONE.to_owned() };
            for (&node, digest) in numbers.iter().zip(&digests) {
                found.objects.extend(objects.contains(digest).then(|| fault(node)));
                found.payloads.extend(payloads.contains(digest).then(|| fault(node)));
                found.bytes += self.graph.nodes[node as usize].size;
            }
        } else {
            for &node in numbers {
                let digest = self.graph.nodes[node as usize].digest;
                let size = match self.blob(&digest) {
                    Ok(size) => Some(size),
                    Err((missing, reason)) => {
                        found.objects.push(Fault { node, missing, reason });
                        None
                    }
                };
                match self.payload(&digest)? {
                    Ok(bytes) => {
                        found.bytes += bytes;
                        // The payload is what its digest says, so it is the blob that is wrong.
                        if let Some(size) = size.filter(|size| *size != bytes) {
                            let reason = format!("it says that its payload has {size} bytes, and that has {bytes}");
                            found.objects.push(Fault { node, missing: false, reason });
                        }
                    }
                    Err((missing, reason)) => found.payloads.push(Fault { node, missing, reason }),
                }
            }
        }
        self.walker.progress.advance(numbers.len() as u64, 0);
        Ok(found)
    }

    /// The size that a blob gives its payload, or what is wrong with it.
    fn blob(&self, digest: &Digest) -> Result<u64, (bool, String)> {
        match self.walker.repository.read_object(digest) {
            Ok(Object { body: ObjectBody::Blob(blob), .. }) if blob.payload == *digest => Ok(blob.size),
            Ok(Object { body: ObjectBody::Blob(blob), .. }) => {
                Err((false, format!("it is the blob of another payload, {}", blob.payload)))
            }
            Ok(object) => Err((false, format!("it is a {}, not a blob", object.kind()))),
            Err(error) if error.is_unknown() => Err((true, GONE.to_owned())),
            Err(error) => Err((false, graph::chain(&error))),
        }
    }

    /// Reads one payload to its end: its bytes, or what is wrong with it. The outer error is an interruption.
    fn payload(&self, digest: &Digest) -> Result<Result<u64, (bool, String)>> {
        let mut reader = match self.walker.repository.open_payload(digest) {
            Ok(reader) => reader,
            Err(error) if error.is_unknown() => return Ok(Err((true, GONE.to_owned()))),
            Err(error) => return Ok(Err((false, graph::chain(&error)))),
        };
        let (mut hasher, mut total, mut buffer) = (Hasher::new(), 0u64, vec![0; 128 << 10]);
        loop {
            if self.walker.progress.interrupted() {
                return Err(RepoError::Interrupted.into());
            }
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    hasher.update(&buffer[..count]);
                    total += count as u64;
                    self.walker.progress.advance(0, count as u64);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Ok(Err((false, graph::chain(&error)))),
            }
        }
        let found = hasher.finish();
        Ok(match found == *digest {
            true => Ok(total),
            false => Err((false, format!("its content has the digest {found}"))),
        })
    }

    /// Checks the payloads that no blob stands for.
    fn strays(&mut self) -> Result<()> {
        if self.fast {
            return Ok(());
        }
        let all = self.walker.repository.payloads()?;
        let known = |digest: &Digest| {
            let node = self.graph.find(digest).map(|number| &self.graph.nodes[number as usize]);
            node.is_some_and(|node| node.kind == Some(Kind::Blob))
        };
        let strays: Vec<Digest> = all.into_iter().filter(|digest| !known(digest)).collect();
        self.walker.progress.expect(strays.len() as u64, 0);
        let mut found = Vec::new();
        let this = &*self;
        let work = |at: usize| this.payload(&strays[at]);
        parallel::each(self.walker.threads, strays.len(), work, |at, result| -> Result<()> {
            found.push((strays[at], result?));
            self.walker.progress.advance(1, 0);
            Ok(())
        })?;
        found.sort_by_key(|(digest, _)| *digest);
        self.report.payloads.visited += found.len() as u64;
        for (digest, result) in found {
            match result {
                Ok(bytes) => self.report.bytes += bytes,
                // Gone between the listing and the reading, and nobody needs it.
                Err((true, _)) => {}
                Err((false, reason)) => {
                    self.report.payloads.damaged += 1;
                    let piece = Piece::Payload(digest);
                    self.report.problems.push(Problem { piece, missing: false, reason, belongs_to: Vec::new() });
                }
            }
        }
        Ok(())
    }

    /// Adds faults to the report, each with what it belongs to.
    fn explain(&mut self, faults: Vec<Fault>, piece: fn(Digest) -> Piece) {
        let paths = self.paths(&faults);
        for fault in faults {
            let digest = self.graph.nodes[fault.node as usize].digest;
            let count = match piece(digest) {
                Piece::Payload(_) => &mut self.report.payloads,
                _ => &mut self.report.objects,
            };
            *(if fault.missing { &mut count.missing } else { &mut count.damaged }) += 1;
            let mut belongs_to: Vec<Belongs> = paths.get(&fault.node).cloned().map(Belongs::Path).into_iter().collect();
            let (above, root) = self.graph.owners(fault.node);
            for number in above {
                let node = &self.graph.nodes[number as usize];
                belongs_to.push(Belongs::Object(node.kind.map_or("object", Kind::name), node.digest));
            }
            belongs_to
                .extend(root.and_then(|root| self.tags.get(root as usize)).map(|(tag, _)| Belongs::Tag(tag.clone())));
            let Fault { missing, reason, .. } = fault;
            self.report.problems.push(Problem { piece: piece(digest), missing, reason, belongs_to });
        }
    }

    /// For every fault below a manifest, the first path of that manifest that needs it. Each manifest is read once.
    fn paths(&self, faults: &[Fault]) -> HashMap<u32, String> {
        let mut wanted: HashMap<u32, HashMap<Digest, u32>> = HashMap::new();
        for fault in faults {
            let node = &self.graph.nodes[fault.node as usize];
            if let Owner::Node(owner) = node.owner {
                wanted.entry(owner).or_default().insert(node.digest, fault.node);
            }
        }
        let mut paths = HashMap::new();
        for (owner, mut digests) in wanted {
            let node = &self.graph.nodes[owner as usize];
            if node.kind != Some(Kind::Manifest) {
                continue;
            }
            // It could be read a moment ago; if not any more, the digests alone have to do.
            let Ok(manifest) = merged::read_manifest(self.walker.repository, &node.digest) else { continue };
            let _ = merged::walk_manifest(&manifest, |path, entry| {
                if entry.kind == EntryKind::Blob
                    && let Some(number) = digests.remove(&entry.object)
                {
                    paths.insert(number, path.to_owned());
                }
            });
        }
        paths
    }
}

const GONE: &str = "it is not in the repository";

/// What checking a few blobs found.
#[derive(Default)]
struct Found {
    objects: Vec<Fault>,
    payloads: Vec<Fault>,
    bytes: u64,
}
