//! Trying what works with a remote: for each part of a chain, whether it answers, what it lets us do, and how fast.

use std::time::{Duration, Instant};

use serde::Serialize;
use spfs_repo::{Digest, Repository};

use super::address::{Address, Kind, scheme};
use super::open::{Opener, check_cycle, unknown};
use crate::error::{Error, Result};
use crate::graph;
use crate::spfs::Spfs;

/// What was found out about one repository.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Part {
    /// The place in the remote: empty for the whole, else `primary`, `secondary[0]`, and so on down, joined by dots.
    pub part: String,
    /// Its name or address, as it was given.
    pub repository: String,
    /// Its address, once it is open.
    pub address: Option<String>,
    /// Whether it could be opened and answers.
    pub reachable: bool,
    /// Whether its tags can be listed.
    pub readable: bool,
    /// Whether content can be written to it; nothing that was not there before is left there.
    pub writable: bool,
    /// Its `VERSION`, of a directory.
    pub version: Option<String>,
    /// How long an answer takes, in milliseconds.
    pub latency_ms: Option<f64>,
    /// Why something of this does not work.
    pub problems: Vec<String>,
}

/// Tries the repository that `name` means, and each part of it. Wrong configuration is an error; what does not work is
/// said in the parts.
pub fn probe(spfs: &Spfs, name: &str) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    walk(spfs, name, String::new(), &mut Vec::new(), &mut parts)?;
    Ok(parts)
}

/// Tries `text`: the parts of a chain instead of the chain itself.
fn walk(spfs: &Spfs, text: &str, place: String, names: &mut Vec<String>, parts: &mut Vec<Part>) -> Result<()> {
    let address = match spfs.config.remotes.get(text) {
        Some(remote) => {
            names.push(text.to_owned());
            check_cycle(names)?;
            Address::configured(text, remote)?
        }
        None if scheme(text).is_some() || text.contains('/') => Address::parse(text)?,
        None => return Err(unknown(&spfs.config, text)),
    };
    match &address.kind {
        Kind::Chain { primary, secondaries, .. } => {
            let below = |name: String| if place.is_empty() { name } else { format!("{place}.{name}") };
            walk(spfs, primary, below("primary".to_owned()), names, parts)?;
            for (number, secondary) in secondaries.iter().enumerate() {
                walk(spfs, secondary, below(format!("secondary[{number}]")), names, parts)?;
            }
        }
        kind => {
            let served = matches!(kind, Kind::Server { .. });
            parts.push(try_one(spfs, text, place, served, address.when.is_some()));
        }
    }
    if spfs.config.remotes.contains_key(text) {
        names.pop();
    }
    Ok(())
}

fn try_one(spfs: &Spfs, text: &str, part: String, served: bool, pinned: bool) -> Part {
    let mut found = Part {
        part,
        repository: text.to_owned(),
        address: None,
        reachable: false,
        readable: false,
        writable: false,
        version: None,
        latency_ms: None,
        problems: Vec::new(),
    };
    let started = Instant::now();
    let ask = |repository: &dyn Repository| Ok(repository.missing(&[Digest::NULL]).map(drop)?);
    let opened = Opener::new(spfs).open(text, false).and_then(|repository| ask(&*repository).map(|()| repository));
    let repository = match opened {
        Ok(repository) => repository,
        Err(error) => {
            found.problems.push(said(&error));
            return found;
        }
    };
    found.reachable = true;
    found.address = Some(repository.address());
    found.version = repository.as_directory().and_then(|directory| {
        let text = std::fs::read_to_string(directory.root().join("VERSION")).ok()?;
        Some(text.trim().to_owned())
    });
    // The second answer: the first one has made the connection.
    let again = Instant::now();
    let latency = ask(&*repository).map_or(started.elapsed(), |()| again.elapsed());
    found.latency_ms = Some(milliseconds(latency));
    match repository.list_tags("") {
        Ok(_) => found.readable = true,
        Err(error) => found.problems.push(format!("its tags cannot be read: {}", graph::chain(&error))),
    }
    match write(&*repository, served) {
        Ok(()) if pinned => {
            found.problems.push("its tags are those of an earlier time, and cannot be changed".to_owned())
        }
        Ok(()) => found.writable = true,
        Err(error) => found.problems.push(format!("it cannot be written to: {}", said(&error))),
    }
    found
}

/// Writes something that is thrown away. A server gets the empty payload, which is of no use and in no way.
fn write(repository: &dyn Repository, served: bool) -> Result<()> {
    let batch = repository.begin()?;
    batch.add_payload(&mut std::io::empty(), None)?;
    if served {
        batch.finish()?;
        return Ok(());
    }
    // Where the empty payload is already, nothing was written yet.
    batch.add_payload(&mut &spfs_repo::unique().into_bytes()[..], None)?;
    drop(batch);
    match repository.as_directory() {
        Some(directory) => tags_are_writable(directory.root()),
        None => Ok(()),
    }
}

/// Whether tags can be made below `root`.
fn tags_are_writable(root: &std::path::Path) -> Result<()> {
    use rustix::fs::Access;
    let tags = root.join("tags");
    let place = if tags.exists() { &tags } else { root };
    rustix::fs::access(place, Access::WRITE_OK | Access::EXEC_OK).map_err(Error::io("write to", place))
}

fn said(error: &Error) -> String {
    graph::chain(error)
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e5).round() / 100.0
}
