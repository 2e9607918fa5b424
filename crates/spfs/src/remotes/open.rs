//! Opening what an address means, the parts of chains included.

use std::path::Path;
use std::sync::Arc;

use spfs_net::client::{Client, Options};
use spfs_repo::{Archive, Chain, Directory, Lazy, Pinned, Repository, Result as RepoResult, query};

use super::address::{Address, Kind, scheme};
use crate::config::Config;
use crate::error::{Error, Result, Warning};
use crate::similar;
use crate::spfs::Spfs;
use crate::time_spec;

/// Repositories within repositories, at most: no configuration needs more, and a long address could ask for any depth.
const DEEPEST: usize = 32;

/// Opens repositories for somebody, and knows which remotes it is just opening.
pub(super) struct Opener<'a> {
    spfs: &'a Spfs,
    /// The configured remotes that lead here, outermost first.
    names: Vec<String>,
    depth: usize,
}

impl<'a> Opener<'a> {
    pub fn new(spfs: &'a Spfs) -> Self {
        Opener { spfs, names: Vec::new(), depth: 0 }
    }

    /// Opens what `text` means: a configured remote, a URL, or a path with a `/` in it. A part of a chain that is
    /// `away` may be absent until it is needed.
    pub fn open(&mut self, text: &str, away: bool) -> Result<Arc<dyn Repository>> {
        if self.depth == DEEPEST {
            let reason = format!("repositories are nested more than {DEEPEST} deep");
            return Err(Error::invalid("address", text, reason));
        }
        self.depth += 1;
        let opened = match self.spfs.config.remotes.get(text) {
            Some(remote) => {
                self.names.push(text.to_owned());
                let opened = check_cycle(&self.names).and_then(|()| Address::configured(text, remote));
                let opened = opened.and_then(|address| self.repository(address, away));
                self.names.pop();
                opened
            }
            None if scheme(text).is_some() || text.contains('/') => {
                Address::parse(text).and_then(|address| self.repository(address, away))
            }
            None => Err(unknown(&self.spfs.config, text)),
        };
        self.depth -= 1;
        opened
    }

    fn repository(&mut self, address: Address, away: bool) -> Result<Arc<dyn Repository>> {
        let Address { kind, namespace, when } = address;
        let namespace = namespace.as_deref();
        let opened: Arc<dyn Repository> = match kind {
            Kind::Directory { path, create, lazy } => {
                let path = self.spfs.env.cwd.join(path);
                let name = named("file", &path, namespace);
                let namespace = namespace.map(str::to_owned);
                leaf(name, lazy || away, move || {
                    let directory = if create { Directory::create(&path)? } else { Directory::open(&path)? };
                    Ok(Arc::new(directory.with_namespace(namespace.as_deref())?))
                })?
            }
            // Existing SPFS makes an archive that is not there, too.
            Kind::Archive { path } => {
                let path = self.spfs.env.cwd.join(path);
                let name = named("tar", &path, namespace);
                let namespace = namespace.map(str::to_owned);
                leaf(name, away, move || Ok(Arc::new(Archive::create(&path)?.with_namespace(namespace.as_deref())?)))?
            }
            Kind::Server { address } => server(self.spfs, &address, namespace)?,
            Kind::Chain { primary, secondaries, secondary_tags, repair } => {
                let chain = self.chain(&primary, &secondaries, repair, away)?.with_secondary_tags(secondary_tags);
                match namespace {
                    Some(namespace) => chain.in_namespace(Some(namespace))?.into(),
                    None => Arc::new(chain),
                }
            }
        };
        let Some(when) = when else { return Ok(opened) };
        let env = &self.spfs.env;
        Ok(Arc::new(Pinned::new(opened, time_spec::parse(&when, env.now(), &env.zone())?)))
    }

    fn chain(&mut self, primary: &str, secondaries: &[String], repair: bool, away: bool) -> Result<Chain> {
        let first = self.open(primary, away)?;
        if repair && !away && first.as_directory().is_none() {
            let reason = "the primary of a fallback: takes what is repaired, and must be a directory (file:)";
            return Err(Error::invalid("address", primary, reason));
        }
        let others = secondaries.iter().map(|text| self.open(text, true)).collect::<Result<Vec<_>>>()?;
        let chain = Chain::new(first, others);
        if !repair {
            return Ok(chain);
        }
        let warn = self.spfs.warn;
        Ok(chain.repairing(move |repair| {
            let error = repair.error.as_ref().map(|error| error.to_string());
            let (digest, from) = (repair.digest, repair.from.clone());
            warn(&Warning::Repaired { digest, is_payload: repair.is_payload, from, error });
        }))
    }
}

/// Refuses a remote, the last of `names`, that leads to itself.
pub(super) fn check_cycle(names: &[String]) -> Result<()> {
    let Some((last, before)) = names.split_last() else { return Ok(()) };
    let Some(first) = before.iter().position(|name| name == last) else { return Ok(()) };
    let reason = format!("it contains itself: {}", names[first..].join(" -> "));
    Err(Error::invalid("remote", last, reason))
}

/// The error for a name that is not configured.
pub(super) fn unknown(config: &Config, name: &str) -> Error {
    let near = similar::near(name, config.remotes.keys().map(String::as_str));
    let mut reason = "no remote of this name is configured".to_owned();
    if let Some(nearest) = near.first() {
        reason.push_str(&format!("; did you mean {nearest}?"));
    }
    Error::invalid("remote", name, reason)
}

/// A repository on this machine's file systems; one that may be `lazy` is opened when it is needed.
fn leaf(
    name: String,
    lazy: bool,
    open: impl Fn() -> RepoResult<Arc<dyn Repository>> + Send + Sync + 'static,
) -> Result<Arc<dyn Repository>> {
    if lazy { Ok(Arc::new(Lazy::new(name, open))) } else { Ok(open()?) }
}

/// What a repository that is not open yet is called.
fn named(scheme: &str, path: &Path, namespace: Option<&str>) -> String {
    let namespace = namespace.map(|name| format!("?tag_namespace={name}")).unwrap_or_default();
    format!("{scheme}://{}/{namespace}", path.display().to_string().trim_end_matches('/'))
}

/// A repository behind a server. Nothing is connected before the first question.
fn server(spfs: &Spfs, address: &str, namespace: Option<&str>) -> Result<Arc<dyn Repository>> {
    let ssh_command = spfs.env.var("SPFS_SSH_COMMAND").map(|command| command.to_string_lossy().into_owned());
    let options = Options { namespace: namespace.map(str::to_owned), ssh_command };
    Ok(Arc::new(Client::new(&with_absolute_files(address, &spfs.env.cwd), options)?))
}

/// The address of a server with the files in it named from the root: who opens it again, by the address that it says it
/// has, may be in another directory.
fn with_absolute_files(address: &str, cwd: &Path) -> String {
    let Some((place, text)) = address.split_once('?') else { return address.to_owned() };
    // What is wrong with it is said by whoever opens it.
    let Ok(mut parameters) = query::parameters(text) else { return address.to_owned() };
    for (name, path) in &mut parameters {
        if matches!(name.as_str(), "ca" | "token_file") && !path.is_empty() {
            *path = cwd.join(&*path).display().to_string();
        }
    }
    format!("{place}?{}", query::query(parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()))))
}
