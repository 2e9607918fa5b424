//! From what a person types to a stack.

use std::path::PathBuf;

use spfs_repo::reference::{Reference, Resolved};
use spfs_repo::{Digest, Error as RepoError, Kind, Progress, Repository};

use crate::Spfs;
use crate::env_spec::EnvSpec;
use crate::error::{Error, Place, Result, Warning};
use crate::fetch::{self, Brought};
use crate::spec_file::{self, SpecFile};
use crate::stack::{Stack, wrong_kind};
use crate::sync::{Options, Policy};
use crate::{live, similar};

/// References that one environment may have, nested run specs included; more is a mistake, or an attack.
const MOST_ITEMS: usize = 10_000;

/// Finds what `spec` means.
///
/// Each reference is looked for in the local repository. Spec files are read here: their live layers and references
/// take the place of their path.
///
/// Errors: unknown and ambiguous references; a blob; spec files that are wrong, or contain themselves.
pub fn resolve(spfs: &Spfs, spec: &EnvSpec) -> Result<Stack> {
    resolve_with(spfs, spec, None)
}

/// Where and how what is not here is fetched.
pub struct Fetch<'a> {
    /// Only from this remote; by default from the first that has it.
    pub from: Option<&'a str>,
    /// How; with more than [`Policy::MissingOnly`] the remotes are asked first.
    pub options: Options,
    /// Whether files may stay where they are until they are first opened ([`crate::lazy`]).
    pub lazy: bool,
    /// Who hears of it.
    pub progress: &'a dyn Progress,
}

/// As [`resolve`], and with `fetch` looks in the remotes for what is not here, and brings it.
pub fn resolve_with(spfs: &Spfs, spec: &EnvSpec, fetch: Option<&Fetch<'_>>) -> Result<Stack> {
    let mut resolver = Resolver { spfs, fetch, stack: Stack::default(), chain: Vec::new(), items: 0 };
    spec.items.iter().try_for_each(|item| resolver.item(item))?;
    live::check(&resolver.stack.live)?;
    Ok(resolver.stack)
}

/// Finds the object that one reference means, of whatever kind.
///
/// Errors: as [`Reference::resolve`]; an unknown reference says which repositories were searched, and near tags.
pub fn resolve_one(spfs: &Spfs, reference: &Reference) -> Result<Resolved> {
    let repositories = repositories(spfs);
    let mut searched = Vec::new();
    for repository in &repositories {
        match reference.resolve(*repository) {
            Err(RepoError::UnknownReference { searched: address, .. }) => searched.extend(address),
            found => return Ok(found?),
        }
    }
    let reference = reference.to_string();
    let similar = near_tags(&repositories, &reference);
    Err(RepoError::UnknownReference { reference, searched, similar }.into())
}

/// The repositories that are asked for a reference, in this order. Remotes come with networking.
fn repositories(spfs: &Spfs) -> Vec<&dyn Repository> {
    vec![&spfs.local]
}

/// Tags whose names are near `text`. A repository that cannot list its tags has none: this is for a hint only.
pub(crate) fn near_tags(repositories: &[&dyn Repository], text: &str) -> Vec<String> {
    let names: Vec<_> = repositories.iter().flat_map(|repository| repository.tag_names().unwrap_or_default()).collect();
    let wanted = text.split('~').next().unwrap_or(text);
    // With a version that is not there, the tag itself is what was meant.
    if let Some(name) = names.iter().find(|name| name.as_str() == wanted) {
        return vec![name.to_string()];
    }
    similar::near(wanted, names.iter().map(|name| name.as_str())).into_iter().map(str::to_owned).collect()
}

struct Resolver<'a> {
    spfs: &'a Spfs,
    fetch: Option<&'a Fetch<'a>>,
    stack: Stack,
    /// The spec files that are being read, outermost first.
    chain: Vec<PathBuf>,
    items: usize,
}

impl Resolver<'_> {
    fn item(&mut self, reference: &Reference) -> Result<()> {
        self.items += 1;
        if self.items > MOST_ITEMS {
            let reason = format!("it has more than {MOST_ITEMS} items");
            return Err(Error::invalid("environment", reference.to_string(), reason));
        }
        match reference {
            Reference::Path(path) => self.file(&self.spfs.env.cwd.join(path)),
            _ => self.object(reference),
        }
    }

    fn find(&mut self, reference: &Reference) -> Result<Resolved> {
        let Some(fetch) = self.fetch else { return resolve_one(self.spfs, reference) };
        let remotes = fetch.from.is_some() || !self.spfs.config.remotes.is_empty();
        let ask_first = fetch.from.is_some() || fetch.options.policy > Policy::MissingOnly;
        if !(ask_first && remotes) {
            match resolve_one(self.spfs, reference) {
                Err(Error::Repo(RepoError::UnknownReference { .. })) if remotes => {}
                result => return result,
            }
        }
        let brought = fetch::bring(self.spfs, reference, fetch);
        let Brought { found, remark, lazy } = match brought {
            // What is only here need not be there.
            Err(Error::Repo(RepoError::UnknownReference { .. })) if ask_first && fetch.from.is_none() => {
                return resolve_one(self.spfs, reference);
            }
            other => other?,
        };
        let new = lazy.into_iter().filter(|name| !self.stack.lazy.contains(name)).collect::<Vec<_>>();
        self.stack.lazy.extend(new);
        self.stack.remarks.extend(Some(remark).filter(|remark| !remark.is_empty()));
        Ok(found)
    }

    fn kind(&self, digest: &Digest) -> Result<Kind> {
        match kind(&self.spfs.local, digest) {
            Err(Error::Repo(RepoError::UnknownObject(_))) if self.fetch.is_some_and(|fetch| fetch.lazy) => {
                kind(&*self.spfs.shown()?, digest)
            }
            found => found,
        }
    }

    fn object(&mut self, reference: &Reference) -> Result<()> {
        let found = self.find(reference)?;
        if self.kind(&found.digest)? == Kind::Blob {
            return Err(wrong_kind(found.digest));
        }
        if !found.shadowed.is_empty() {
            let name = reference.to_string();
            self.stack.warnings.push(Warning::ShadowedDigests { name, digests: found.shadowed });
        }
        self.stack.push(found.digest);
        Ok(())
    }

    fn file(&mut self, path: &std::path::Path) -> Result<()> {
        let file = spec_file::locate(path)?;
        if let Some(first) = self.chain.iter().position(|open| *open == file) {
            let files: Vec<String> = self.chain[first..].iter().map(|file| file.display().to_string()).collect();
            let reason = format!("it contains itself: {} -> {}", files.join(" -> "), file.display());
            return Err(Error::SpecFile { what: "run spec", place: Place::whole(file), reason });
        }
        match spec_file::read(&file)? {
            SpecFile::Live(binds) => self.stack.live.extend(binds),
            SpecFile::Run(items) => {
                self.chain.push(file);
                for (reference, place) in items {
                    self.item(&reference).map_err(|source| within(place, source))?;
                }
                self.chain.pop();
            }
        }
        Ok(())
    }
}

/// The error with the place in the run spec that led to it; only the innermost, which is nearest to the mistake.
fn within(place: Place, source: Error) -> Error {
    match source {
        Error::Within { .. } | Error::SpecFile { .. } => source,
        source => Error::Within { place, source: Box::new(source) },
    }
}

/// The kind of an object, from its header alone where that can be had: a manifest may be large.
pub(crate) fn kind(repository: &dyn Repository, digest: &Digest) -> Result<Kind> {
    use std::io::Read;
    let mut header = [0; spfs_repo::codec::HEADER_LEN];
    let file = repository.as_directory().and_then(|directory| std::fs::File::open(directory.object_path(digest)).ok());
    let read = file.and_then(|mut file| file.read_exact(&mut header).ok());
    match read.and_then(|()| spfs_repo::codec::decode_header(&header).ok()) {
        Some((kind, ..)) => Ok(kind),
        // Missing, cut short or damaged: the full reader says it properly.
        None => Ok(repository.read_object(digest)?.kind()),
    }
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
