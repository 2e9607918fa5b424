//! Addresses of repositories, and the same from configuration: taken apart, and nothing opened yet.

use std::path::{Path, PathBuf};

use spfs_repo::query;

use crate::config::{Remote, Value};
use crate::error::{Error, Result};

/// A repository as it was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Address {
    pub kind: Kind,
    /// The tag namespace.
    pub namespace: Option<String>,
    /// The time at which its tags are looked at.
    pub when: Option<String>,
}

/// What kind of repository it is, and what that needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Directory {
        path: PathBuf,
        create: bool,
        lazy: bool,
    },
    Archive {
        path: PathBuf,
    },
    /// The address as the network client reads it: without `when` and `tag_namespace`.
    Server {
        address: String,
    },
    Chain {
        primary: String,
        secondaries: Vec<String>,
        secondary_tags: bool,
        repair: bool,
    },
}

/// Parameters in the order given; of equal ones the first counts.
type Parameters = Vec<(String, String)>;

/// The schemes of servers.
const SERVERS: &[&str] = &["grpc", "grpcs", "http2", "ssh"];
const SCHEMES: &[&str] = &["file", "tar", "grpc", "grpcs", "http2", "ssh", "proxy", "fallback"];

/// Splits `scheme:rest`, if the text begins with a scheme.
pub(super) fn scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let valid = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    (valid && scheme.starts_with(|c: char| c.is_ascii_alphabetic())).then_some((scheme, rest))
}

impl Address {
    /// Reads a URL.
    pub fn parse(text: &str) -> Result<Self> {
        let (scheme, rest) = scheme(text).unwrap_or(("file", text));
        Self::build(text, scheme, rest, Vec::new())
    }

    /// What a configured remote says. Its other keys count where its address says nothing of the same name.
    pub fn configured(name: &str, remote: &Remote) -> Result<Self> {
        let parameters = parameters_of(remote);
        let wrong = |reason: &str| Error::invalid("remote", name, reason);
        let option = |key: &str| parameters.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
        let address = match (&remote.address, remote.scheme.as_deref()) {
            // Existing files write grpc as a scheme, and where as the rest of an address.
            (Some(address), Some("grpc")) if !scheme(address).is_some_and(|(s, _)| SCHEMES.contains(&s)) => {
                let rest = address.split_once("://").map_or(address.as_str(), |(_, rest)| rest);
                return Self::build(&format!("grpc://{rest}"), "grpc", &format!("//{rest}"), parameters);
            }
            (Some(address), _) => address,
            (None, Some("fs" | "tar")) => {
                let path = option("path").ok_or_else(|| wrong("it has neither an address nor a path"))?;
                let scheme = if remote.scheme.as_deref() == Some("tar") { "tar" } else { "file" };
                return Self::of_path(scheme, path, &parameters, name);
            }
            (None, Some("grpc")) => return Err(wrong("it has a scheme and no address")),
            (None, Some(scheme)) => return Self::build(name, scheme, "", parameters),
            (None, None) => return Err(wrong("it has neither an address nor a scheme")),
        };
        let (scheme, rest) = scheme(address).unwrap_or(("file", address));
        let built = Self::build(address, scheme, rest, parameters)?;
        if let Kind::Directory { path, .. } | Kind::Archive { path } = &built.kind
            && path.is_relative()
        {
            // Relative to what? To whatever directory one happens to be in is never meant.
            let reason = "the path of a configured remote must be absolute; for one in your home directory write \
                          scheme = \"fs\" and path = \"~/…\"";
            return Err(Error::invalid("address", address, reason));
        }
        Ok(built)
    }

    /// Reads `rest`, what follows the scheme of the URL `whole`. `more` are parameters from elsewhere, which are weaker.
    fn build(whole: &str, scheme: &str, rest: &str, more: Parameters) -> Result<Self> {
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut parameters = query::parameters(query).map_err(|reason| Error::invalid("address", whole, reason))?;
        parameters.extend(more);
        match scheme {
            "file" | "tar" => Self::of_path(scheme, local_path(whole, path)?, &parameters, whole),
            "proxy" | "fallback" => Self::chain(whole, scheme == "fallback", &parameters),
            _ if SERVERS.contains(&scheme) => Ok(Self::server(scheme, path, parameters)),
            "http" | "https" => {
                let reason = "a server is at grpc://HOST:PORT; http: is only how payloads travel".to_owned();
                Err(Error::Unsupported { what: format!("the repository {whole}"), reason })
            }
            other => {
                let known = SCHEMES.join(":, ");
                let reason = format!("{other}: is none of {known}:");
                Err(Error::Unsupported { what: format!("the repository {whole}"), reason })
            }
        }
    }

    fn of_path(scheme: &str, path: impl Into<PathBuf>, parameters: &Parameters, whole: &str) -> Result<Self> {
        let path = path.into();
        let kind = match scheme {
            "tar" => Kind::Archive { path },
            _ => {
                let create = flag(parameters, "create", false, whole)?;
                Kind::Directory { path, create, lazy: flag(parameters, "lazy", false, whole)? }
            }
        };
        Ok(Self::with(kind, parameters))
    }

    fn chain(whole: &str, repair: bool, parameters: &Parameters) -> Result<Self> {
        let value = |key: &str| parameters.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
        let primary = value("primary").filter(|primary| !primary.is_empty());
        let primary = primary.ok_or_else(|| Error::invalid("address", whole, "it has no primary=REPOSITORY"))?;
        let secondaries: Vec<String> = (0..).map_while(|number| value(&format!("secondary[{number}]"))).collect();
        let count = parameters.iter().filter(|(name, _)| name.starts_with("secondary[")).count();
        if secondaries.len() != count {
            let reason = "its secondaries are not numbered secondary[0], secondary[1], …, each once";
            return Err(Error::invalid("address", whole, reason));
        }
        let secondary_tags = flag(parameters, "include_secondary_tags", true, whole)?;
        Ok(Self::with(Kind::Chain { primary, secondaries, secondary_tags, repair }, parameters))
    }

    fn server(scheme: &str, authority: &str, parameters: Parameters) -> Self {
        let known = Self::with(Kind::Server { address: String::new() }, &parameters);
        let own = parameters.iter().filter(|(name, _)| !matches!(name.as_str(), "when" | "tag_namespace" | "lazy"));
        let query = query::query(own.map(|(name, value)| (name.as_str(), value.as_str())));
        let mark = if query.is_empty() { "" } else { "?" };
        Address { kind: Kind::Server { address: format!("{scheme}:{authority}{mark}{query}") }, ..known }
    }

    fn with(kind: Kind, parameters: &Parameters) -> Self {
        let value = |key: &str| parameters.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
        Address { kind, namespace: value("tag_namespace"), when: value("when") }
    }
}

/// The address in `text` with a relative path made absolute from `cwd`.
pub(super) fn absolute(text: &str, cwd: &Path) -> Result<String> {
    let address = Address::parse(text)?;
    let (Kind::Directory { path, .. } | Kind::Archive { path }) = &address.kind else { return Ok(text.to_owned()) };
    let (scheme, rest) = scheme(text).unwrap_or(("file", text));
    let query = rest.split_once('?').map(|(_, query)| format!("?{query}")).unwrap_or_default();
    // Without the `.` of `./here`.
    let path: PathBuf = cwd.join(path).components().collect();
    let path = path.to_str().ok_or_else(|| Error::invalid("address", text, "it is not UTF-8"))?;
    Ok(format!("{scheme}:{path}{query}"))
}

/// The keys of a configured remote, in the form of a query.
fn parameters_of(remote: &Remote) -> Parameters {
    let mut parameters = Vec::new();
    for (key, value) in &remote.options {
        match value {
            Value::Text(text) => parameters.push((key.clone(), text.clone())),
            Value::Path(path) => parameters.push((key.clone(), path.display().to_string())),
            Value::Bool(yes) => parameters.push((key.clone(), yes.to_string())),
            Value::Number(number) => parameters.push((key.clone(), number.to_string())),
            Value::List(items) => {
                let numbered =
                    items.iter().enumerate().map(|(number, item)| (format!("{key}[{number}]"), item.clone()));
                parameters.extend(numbered);
            }
        }
    }
    parameters
}

/// The path in a `file:` or `tar:` URL. As in existing SPFS it stands as it is, without percent-decoding
/// (`docs/format.md`, addresses).
fn local_path(whole: &str, path: &str) -> Result<PathBuf> {
    let path = match path.strip_prefix("//") {
        Some(path) if path.starts_with('/') => path,
        Some(_) => return Err(Error::invalid("address", whole, "a file: address has no host; write file:///PATH")),
        None => path,
    };
    if path.is_empty() {
        return Err(Error::invalid("address", whole, "it has no path"));
    }
    Ok(PathBuf::from(path))
}

fn flag(parameters: &Parameters, key: &str, default: bool, whole: &str) -> Result<bool> {
    match parameters.iter().find(|(name, _)| name == key).map(|(_, value)| value.to_ascii_lowercase()).as_deref() {
        None => Ok(default),
        Some("true" | "yes" | "on" | "1") => Ok(true),
        Some("false" | "no" | "off" | "0") => Ok(false),
        Some(other) => Err(Error::invalid("address", whole, format!("{key}={other} is neither true nor false"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use super::*;

    fn directory(path: &str, create: bool, lazy: bool) -> Kind {
        Kind::Directory { path: path.into(), create, lazy }
    }

    #[test]
    fn urls() {
        let chain = |primary: &str, secondaries: &[&str], secondary_tags, repair| Kind::Chain {
            primary: primary.to_owned(),
            secondaries: secondaries.iter().map(|&text| text.to_owned()).collect(),
            secondary_tags,
            repair,
        };
        for (text, kind) in [
            ("/a/b", directory("/a/b", false, false)),
            ("file:/a%20b", directory("/a%20b", false, false)),
            ("file:///a/?create=true&unknown=1", directory("/a/", true, false)),
            ("file:a?lazy=yes", directory("a", false, true)),
            ("tar:/a.tar", Kind::Archive { path: "/a.tar".into() }),
            ("grpc://host:1?timeout_ms=5&lazy=true", plain("grpc://host:1?timeout_ms=5")),
            ("grpcs://h?ca=/a%26b+c%25", plain("grpcs://h?ca=/a%26b%20c%25")),
            ("ssh://host/path", plain("ssh://host/path")),
            (
                "proxy:?primary=origin&secondary[0]=b&secondary[1]=file:/c",
                chain("origin", &["b", "file:/c"], true, false),
            ),
            (
                "fallback:?primary=file:/a%3Ftag_namespace%3Dx&include_secondary_tags=false",
                chain("file:/a?tag_namespace=x", &[], false, true),
            ),
            ("proxy:?primary=a+b%2Bc", chain("a b+c", &[], true, false)),
        ] {
            let expected = Address { kind, namespace: None, when: None };
            assert_eq!(Address::parse(text).unwrap(), expected, "{text}");
        }
        let both = Address::parse("file:/a?when=@2020-06-15&tag_namespace=n").unwrap();
        assert_eq!((both.when.as_deref(), both.namespace.as_deref()), (Some("@2020-06-15"), Some("n")));
        let server = Address::parse("http2://h?tag_namespace=n").unwrap();
        assert_eq!((server.kind, server.namespace.as_deref()), (plain("http2://h"), Some("n")));
    }

    fn plain(address: &str) -> Kind {
        Kind::Server { address: address.to_owned() }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, reason) in [
            ("file:", "has no path"),
            ("file://host/a", "has no host"),
            ("file:/a?create=perhaps", "neither true nor false"),
            ("proxy:", "has no primary"),
            ("proxy:?primary=a&secondary[1]=b", "not numbered"),
            ("proxy:?primary=a&secondary[0]=b&secondary[0]=c", "not numbered"),
            ("proxy:?primary=%4", "two hexadecimal digits"),
            ("proxy:?primary=%FF", "not UTF-8"),
            ("http://host", "grpc://HOST:PORT"),
            ("s3:/bucket", "none of file:"),
        ] {
            let error = Address::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn configured_ones() {
        let remote = |address: Option<&str>, scheme: Option<&str>, options: &[(&str, Value)]| Remote {
            address: address.map(str::to_owned),
            scheme: scheme.map(str::to_owned),
            options: options.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect::<BTreeMap<_, _>>(),
        };
        let text = |text: &str| Value::Text(text.to_owned());
        let read = |remote: &Remote| Address::configured("r", remote).unwrap();
        let options = [("when", text("~1d")), ("tag_namespace", text("n"))];
        let url = read(&remote(Some("file:/a?tag_namespace=m"), None, &options));
        assert_eq!((url.namespace.as_deref(), url.when.as_deref()), (Some("m"), Some("~1d")));
        let fs = read(&remote(None, Some("fs"), &[("path", Value::Path("/p".into())), ("create", Value::Bool(true))]));
        assert_eq!(fs.kind, directory("/p", true, false));
        let list = Value::List(vec!["a".to_owned(), "b".to_owned()]);
        let chain = read(&remote(None, Some("proxy"), &[("primary", text("origin")), ("secondary", list)]));
        assert!(matches!(chain.kind, Kind::Chain { ref secondaries, .. } if *secondaries == ["a", "b"]));
        for address in ["http://host:1", "host:1", "grpc://host:1"] {
            let server = read(&remote(Some(address), Some("grpc"), &[("timeout_ms", Value::Number(7))]));
            assert_eq!(server.kind, plain("grpc://host:1?timeout_ms=7"), "{address}");
        }
        for (broken, reason) in [
            (remote(Some("file:~/a"), None, &[]), "must be absolute"),
            (remote(None, Some("tar"), &[]), "neither an address nor a path"),
            (remote(None, Some("grpc"), &[]), "no address"),
            (remote(None, Some("proxy"), &[]), "no primary"),
        ] {
            let error = Address::configured("r", &broken).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
