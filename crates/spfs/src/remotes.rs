//! Opening the repository that a name or an address means, and finding things in it.

use std::path::PathBuf;
use std::sync::Arc;

use spfs_net::client::{Client, Options};
use spfs_repo::reference::{Reference, Resolved};
use spfs_repo::{Archive, Directory, Error as RepoError, Repository};

use crate::config::{Remote, Value};
use crate::error::{Error, Result};
use crate::resolve::near_tags;
use crate::similar;
use crate::spfs::Spfs;

/// The schemes of repositories behind a server.
const SERVERS: [&str; 2] = ["grpc", "http2"];

/// Opens the repository that `name` means: the local one if nothing is given, else a configured remote, a URL, or a
/// path with a `/` in it.
pub fn open(spfs: &Spfs, name: Option<&str>) -> Result<Arc<dyn Repository>> {
    let Some(name) = name else { return Ok(Arc::new(spfs.local.clone())) };
    if let Some(remote) = spfs.config.remotes.get(name) {
        return open_configured(name, remote);
    }
    match scheme(name) {
        Some((scheme, rest)) => open_url(name, scheme, rest),
        None if name.contains('/') => open_url(name, "file", name),
        None => {
            let near = similar::near(name, spfs.config.remotes.keys().map(String::as_str));
            let mut reason = "no remote of this name is configured".to_owned();
            if let Some(nearest) = near.first() {
                reason.push_str(&format!("; did you mean {nearest}?"));
            }
            Err(Error::invalid("remote", name, reason))
        }
    }
}

/// Splits `scheme:rest`, if the text begins with a scheme.
fn scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let valid = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    (valid && scheme.starts_with(|c: char| c.is_ascii_alphabetic())).then_some((scheme, rest))
}

fn open_configured(name: &str, remote: &Remote) -> Result<Arc<dyn Repository>> {
    if let Some(address) = &remote.address {
        return match scheme(address) {
            Some((scheme, rest)) => open_url(address, scheme, rest),
            None => open_url(address, "file", address),
        };
    }
    let text = |key: &str| match remote.options.get(key) {
        Some(Value::Text(text)) => Some(text.as_str()),
        _ => None,
    };
    match (remote.scheme.as_deref(), remote.options.get("path")) {
        (Some("fs"), Some(Value::Path(path))) => {
            let create = matches!(remote.options.get("create"), Some(Value::Bool(true)));
            open_directory(path.clone(), create, text("tag_namespace"))
        }
        (Some("tar"), Some(Value::Path(path))) => {
            Ok(Arc::new(Archive::create(path)?.with_namespace(text("tag_namespace"))?))
        }
        (Some("grpc"), _) => Err(Error::invalid("remote", name, "give its address: grpc://HOST:PORT")),
        (Some("fs" | "tar"), _) => Err(Error::invalid("remote", name, "it has neither an address nor a path")),
        (Some(other), _) => Err(unsupported(name, other)),
        (None, _) => Err(Error::invalid("remote", name, "it has neither an address nor a scheme")),
    }
}

/// Opens `rest`, what follows the scheme of the URL `whole`. As upstream does, a path is taken as it stands, without
/// percent-decoding (`docs/format.md`, addresses).
fn open_url(whole: &str, scheme: &str, rest: &str) -> Result<Arc<dyn Repository>> {
    if SERVERS.contains(&scheme) {
        return Ok(Arc::new(Client::new(whole, Options::default())?));
    }
    if scheme != "file" && scheme != "tar" {
        return Err(unsupported(whole, scheme));
    }
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = match path.strip_prefix("//") {
        Some(path) if path.starts_with('/') => path,
        Some(_) => return Err(Error::invalid("address", whole, "a file: address has no host; write file:///PATH")),
        None => path,
    };
    if path.is_empty() {
        return Err(Error::invalid("address", whole, "it has no path"));
    }
    let (mut create, mut namespace) = (false, None);
    for option in query.split('&').filter(|option| !option.is_empty()) {
        match option.split_once('=').unwrap_or((option, "")) {
            ("create", value) => create = value == "true",
            ("tag_namespace", value) => namespace = Some(value),
            // A view of the past that is silently the present would be worse than none.
            ("when", _) => {
                let reason = "this version cannot open repositories as they were in the past";
                return Err(Error::Unsupported { what: format!("`when` in {whole}"), reason: reason.to_owned() });
            }
            _ => {}
        }
    }
    match scheme {
        // Existing SPFS makes an archive that is not there, too.
        "tar" => Ok(Arc::new(Archive::create(path)?.with_namespace(namespace)?)),
        _ => open_directory(PathBuf::from(path), create, namespace),
    }
}

fn open_directory(path: PathBuf, create: bool, namespace: Option<&str>) -> Result<Arc<dyn Repository>> {
    let directory = if create { Directory::create(path)? } else { Directory::open(path)? };
    Ok(Arc::new(directory.with_namespace(namespace)?))
}

fn unsupported(whole: &str, scheme: &str) -> Error {
    let known = "directories (file:PATH), archives (tar:PATH) and servers (grpc://HOST:PORT)";
    let reason = format!("this version opens {known}, not `{scheme}`");
    Error::Unsupported { what: format!("the repository {whole}"), reason }
}

/// Finds what `reference` names in `repository`; if that is unknown, the error knows tags with near names.
pub fn resolve(repository: &dyn Repository, reference: &Reference) -> Result<Resolved> {
    reference.resolve(repository).map_err(|error| with_similar(repository, error).into())
}

/// Adds the tags with near names to an error about an unknown reference.
pub fn with_similar(repository: &dyn Repository, error: RepoError) -> RepoError {
    match error {
        RepoError::UnknownReference { reference, searched, .. } => {
            let similar = near_tags(&[repository], &reference);
            RepoError::UnknownReference { reference, searched, similar }
        }
        other => other,
    }
}
