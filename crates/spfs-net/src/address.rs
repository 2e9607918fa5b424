//! Addresses of repositories behind a server, taken apart: `grpc://host:port`, `grpcs://host:port`, `ssh://host/path`.

use std::path::PathBuf;
use std::time::Duration;

use spfs_repo::{Error, Result, query};

/// Where a server is and how it is spoken to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    /// As given, for messages, and to open it again.
    pub text: String,
    /// How to get there.
    pub way: Way,
    /// How long an answer may take; nothing but silence is limited, if nothing is said.
    pub timeout: Option<Duration>,
    /// The tag namespace.
    pub namespace: Option<String>,
    /// The file that holds the token.
    pub token_file: Option<PathBuf>,
    /// The largest message that is read, and sent.
    pub max_decode: usize,
    /// The largest message that is sent.
    pub max_encode: usize,
    /// Whether what is sent is made smaller; by default unless the server is on this machine.
    pub compress: bool,
    /// Whether our own exchange may be used.
    pub exchange: bool,
}

/// How to get to a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Way {
    /// Over TCP, perhaps in TLS.
    Tcp {
        /// A name or an address, an IPv6 one without brackets.
        host: String,
        /// The port.
        port: u16,
        /// In TLS, if this is there.
        tls: Option<Tls>,
    },
    /// Over the standard streams of a program started by ssh.
    Ssh {
        /// `host` or `user@host`.
        target: String,
        /// If it is not ssh's own.
        port: Option<u16>,
        /// The repository; the other side's own if empty. Relative to the home directory there without a `/` before it.
        path: String,
        /// The `spfs` over there.
        program: String,
    },
}

/// Whom to trust.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tls {
    /// Certificates instead of those of this system.
    pub ca: Option<PathBuf>,
}

/// The largest message that is read, unless the address says otherwise: a manifest of some five million files.
const LARGEST: usize = 512 << 20;

impl Address {
    /// Reads an address. Without a port it is 80, as for the existing program; 443 with TLS.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |reason: &str| Error::invalid("address", text, reason);
        let (scheme, rest) = text.split_once("://").ok_or_else(|| invalid("write grpc://HOST:PORT"))?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let parameters = query::parameters(query).map_err(|reason| invalid(&reason))?;
        let value = |wanted: &'static str| {
            let found = parameters.iter().find(|(name, value)| name == wanted && !value.is_empty());
            found.map(|(_, value)| value.as_str())
        };
        let way = match scheme {
            "grpc" | "http2" => tcp(place, None).ok_or_else(|| invalid("write grpc://HOST:PORT"))?,
            "grpcs" => {
                let tls = Tls { ca: value("ca").map(PathBuf::from) };
                tcp(place, Some(tls)).ok_or_else(|| invalid("write grpcs://HOST:PORT"))?
            }
            "ssh" => ssh(place, value("program")).map_err(invalid)?,
            _ => return Err(invalid("a server's address begins with grpc://, grpcs://, http2:// or ssh://")),
        };
        let number = |name: &'static str| match value(name).map(str::parse::<u64>) {
            None => Ok(None),
            Some(Ok(number)) => Ok(Some(number)),
            Some(Err(_)) => Err(invalid(&format!("{name} is a number"))),
        };
        let size = |name: &'static str, default| {
            Ok(number(name)?.map_or(default, |n| usize::try_from(n).unwrap_or(usize::MAX)))
        };
        let flag = |name: &'static str, default| match value(name) {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(_) => Err(invalid(&format!("{name} is true or false"))),
        };
        let near = matches!(&way, Way::Tcp { host, .. } if is_loopback(host));
        Ok(Address {
            text: text.to_owned(),
            timeout: number("timeout_ms")?.map(Duration::from_millis),
            namespace: value("tag_namespace").map(str::to_owned),
            token_file: value("token_file").map(PathBuf::from),
            max_decode: size("max_decode_message_size_bytes", LARGEST)?,
            max_encode: size("max_encode_message_size_bytes", usize::MAX)?,
            compress: flag("compress", !near)?,
            exchange: flag("exchange", true)?,
            way,
        })
    }

    /// `host:port` as requests name it.
    pub fn authority(&self) -> String {
        match &self.way {
            Way::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Way::Tcp { host, port, .. } => format!("{host}:{port}"),
            Way::Ssh { .. } => "spfs".to_owned(),
        }
    }

    /// Whether nobody can listen on the way.
    pub fn is_private(&self) -> bool {
        match &self.way {
            Way::Tcp { host, tls, .. } => tls.is_some() || is_loopback(host),
            Way::Ssh { .. } => true,
        }
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn tcp(place: &str, tls: Option<Tls>) -> Option<Way> {
    let authority: http::uri::Authority = place.trim_end_matches('/').parse().ok()?;
    let host = authority.host();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = match authority.as_str().strip_prefix(authority.host())? {
        "" => {
            if tls.is_some() {
                443
            } else {
                80
            }
        }
        port => port.strip_prefix(':')?.parse().ok()?,
    };
    (!host.is_empty()).then(|| Way::Tcp { host: host.to_owned(), port, tls })
}

/// `[user@]host[:port][/path]`; `/~/path` is relative to the home directory over there, as for git.
fn ssh(place: &str, program: Option<&str>) -> std::result::Result<Way, &'static str> {
    let (target, path) = place.split_at(place.find('/').unwrap_or(place.len()));
    let (user, host) = match target.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, target),
    };
    let (host, port) = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => host.split_once(':').map_or((host, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map(|port| port.parse().map_err(|_| "its port is not a number")).transpose()?;
    // ssh would take it for an option.
    if host.is_empty() || host.starts_with('-') || user.is_some_and(|user| user.is_empty() || user.starts_with('-')) {
        return Err("write ssh://HOST/PATH or ssh://USER@HOST:PORT/PATH");
    }
    let path = match path {
        "" | "/" => "",
        path => path.strip_prefix("/~/").unwrap_or(path),
    };
    let target = user.map_or_else(|| host.to_owned(), |user| format!("{user}@{host}"));
    Ok(Way::Ssh { target, port, path: path.to_owned(), program: program.unwrap_or("spfs").to_owned() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn way(text: &str) -> String {
        match Address::parse(text).unwrap().way {
            Way::Tcp { host, port, tls } => format!("{host} {port} {}", tls.is_some()),
            Way::Ssh { target, port, path, program } => format!("{target} {port:?} {path} {program}"),
        }
    }

    #[test]
    fn addresses_are_taken_apart() {
        for (text, expected) in [
            ("grpc://h:7737", "h 7737 false"),
            ("http2://h", "h 80 false"),
            ("grpc://[::1]:7737/?lazy=true", "::1 7737 false"),
            ("grpcs://h?ca=/f", "h 443 true"),
            ("ssh://h", "h None  spfs"),
            ("ssh://me@h:22/a/b", "me@h Some(22) /a/b spfs"),
            ("ssh://[::1]:22/~/a?program=/opt/spfs", "::1 Some(22) a /opt/spfs"),
        ] {
            assert_eq!(way(text), expected, "{text}");
        }
        for text in
            ["grpc:h", "grpc://", "grpc://:7", "grpc://a@h", "grpc://h:x", "ssh://-oProxyCommand=x/", "ssh:///p"]
        {
            assert!(Address::parse(text).is_err(), "{text}");
        }
        assert!(Address::parse("grpc://h?timeout_ms=x").is_err());
        let address = Address::parse("grpc://h?timeout_ms=5&tag_namespace=n&compress=false&other").unwrap();
        assert_eq!(address.timeout, Some(Duration::from_millis(5)));
        assert_eq!((address.namespace.as_deref(), address.compress), (Some("n"), false));
        assert!(!Address::parse("grpc://127.0.0.1:1").unwrap().compress);
        let odd = Address::parse("grpc://h?token_file=/a%26b%3Dc+d%25").unwrap();
        assert_eq!(odd.token_file, Some(PathBuf::from("/a&b=c d%")));
        assert!(Address::parse("grpc://h?token_file=%4").is_err());
    }
}
