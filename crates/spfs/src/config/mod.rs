//! Configuration: files, then variables, each value with where it came from.
//!
//! Sources, each stronger than the one before: the defaults of [`keys`]; `/etc/spfs.conf`; the first of
//! `/etc/spfs.{toml,json,yaml,yml,ini}`; the same two below `$XDG_CONFIG_HOME/spfs/` (else `~/.config/spfs/`);
//! variables with `__` between levels (`SPFS_STORAGE__ROOT`); variables with `_` (`SPFS_STORAGE_ROOT`). Both forms work
//! for every key. An empty variable is an unset one.

mod backend;
pub mod edit;
mod env;
mod files;
pub mod keys;
mod load;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use spfs_repo::{Encoding, Format, Strategy};

pub use backend::Backend;
pub use env::Env;
pub use value::Value;

use crate::error::{Error, Place, Result, Warning};
use crate::{remotes, user};

/// The effective configuration.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// Who makes tags.
    pub user: User,
    /// Where things are kept, and in which form.
    pub storage: Storage,
    /// How /spfs is made.
    pub filesystem: Filesystem,
    /// Limits of the caches.
    pub cache: Cache,
    /// The repositories that are not the local one, by name.
    pub remotes: BTreeMap<String, Remote>,
    /// What a person should hear of.
    pub warnings: Vec<Warning>,
    settings: BTreeMap<String, (Value, Origin)>,
}

/// `user.*`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct User {
    /// Instead of the login name.
    pub name: Option<String>,
    /// Instead of the host name.
    pub domain: Option<String>,
}

/// `storage.*`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Storage {
    /// The local repository: as configured, else `$XDG_DATA_HOME/spfs`, else `~/.local/share/spfs`. `None` if there is
    /// no home directory either: see [`Config::storage_root`].
    pub root: Option<PathBuf>,
    /// Where durable runtimes keep their changes, if not in `<root>/durable_edits`.
    pub durable_dir: Option<PathBuf>,
    /// The tag namespace of the local repository.
    pub tag_namespace: Option<String>,
    /// The format of new objects.
    pub format: Format,
}

/// `filesystem.*`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filesystem {
    /// How /spfs is shown.
    pub backend: Backend,
    /// Names of the remotes that are asked after the local repository.
    pub secondary_repositories: Vec<String>,
    /// Longer annotation values become blobs; bytes.
    pub annotation_size_limit: u64,
    /// Whether files of a remote are fetched when they are first opened.
    pub lazy: bool,
    /// Whether what is near such a file is fetched behind it.
    pub fetch_ahead: bool,
    /// Whether runtimes that nobody may change share one mount of their view.
    pub share: bool,
    /// How long what runtimes of a view share is kept after the last of them; seconds.
    pub warm_seconds: u64,
    /// Limit of the changes in memory, in the form that tmpfs takes: `10G`, `50%`.
    pub tmpfs_size: Option<String>,
}

/// `cache.*`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cache {
    /// How large the caches may grow, in bytes, if that is configured: see [`crate::cache::limit`].
    pub max_size: Option<u64>,
}

/// One `[remote.NAME]`: an address, or a scheme with its options. Where both are given the address counts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Remote {
    /// A URL.
    pub address: Option<String>,
    /// `fs`, `tar`, `grpc`, `proxy` or `fallback`.
    pub scheme: Option<String>,
    /// The other keys.
    pub options: BTreeMap<String, Value>,
}

/// What [`Config::check`] found.
#[derive(Debug)]
pub struct Checked {
    /// The files that were read, weakest first.
    pub files: Vec<PathBuf>,
    /// What cannot be used.
    pub errors: Vec<Error>,
    /// What is odd, and does nothing.
    pub warnings: Vec<Warning>,
}

/// Where a value came from.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Origin {
    /// The program's own default.
    Default,
    /// A configuration file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
}

/// One line of the detailed configuration.
#[derive(Clone, PartialEq, Debug)]
pub struct Setting {
    /// The whole name.
    pub key: String,
    /// The value, or `None` where nothing is set and nothing is the default.
    pub value: Option<Value>,
    /// Where it came from.
    pub origin: Origin,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Variable(name) => f.write_str(name),
        }
    }
}

impl Config {
    /// Reads files and variables.
    ///
    /// Errors: a file that is there and cannot be read, or says something wrong: named with line and column; a
    /// variable with a wrong value. What is merely unknown becomes one of [`Config::warnings`].
    pub fn load(env: &Env) -> Result<Self> {
        let mut loaded = load::Loaded::default();
        loaded.read_files(env)?;
        loaded.read_variables(env)?;
        Self::settle(env, loaded)
    }

    /// Reads all there is and says everything that is wrong with it, instead of only the first.
    pub fn check(env: &Env) -> Checked {
        let mut loaded = load::Loaded { errors: Some(Vec::new()), ..load::Loaded::default() };
        let read = loaded.read_files(env).and_then(|()| loaded.read_variables(env));
        let files = loaded.files.clone();
        let mut errors = loaded.errors.take().unwrap_or_default();
        errors.extend(read.err());
        let mut warnings = loaded.warnings.clone();
        match Self::settle(env, loaded) {
            Ok(config) => {
                errors.extend(remotes::problems(&config));
                warnings.clone_from(&config.warnings);
            }
            Err(error) => errors.push(error),
        }
        Checked { files, errors, warnings }
    }

    /// `origin` becomes a chain: the repository in the directory `outer`, made if it is missing, before what was the
    /// origin, which is called `remoteorigin` then.
    pub fn wrap_origin(&mut self, outer: &Path) -> Result<()> {
        let Some(origin) = self.remotes.remove("origin") else {
            return Err(Error::invalid("remote", "origin", "none is configured, so there is none to wrap"));
        };
        let scheme = |name: &str| Some(name.to_owned());
        let options = [("path", Value::Path(outer.to_owned())), ("create", Value::Bool(true))];
        let outer = Remote { scheme: scheme("fs"), options: owned(options), address: None };
        let options = [
            ("primary", Value::Text("outerrepo".to_owned())),
            ("secondary", Value::List(vec!["remoteorigin".to_owned()])),
        ];
        let chain = Remote { scheme: scheme("proxy"), options: owned(options), address: None };
        self.remotes.extend(
            [("remoteorigin", origin), ("outerrepo", outer), ("origin", chain)].map(|(k, v)| (k.to_owned(), v)),
        );
        Ok(())
    }

    fn settle(env: &Env, mut loaded: load::Loaded) -> Result<Self> {
        for (name, (value, origin)) in &mut loaded.settings {
            if let Value::Path(path) = value {
                *path = env.expand(path);
                // Relative to what? A repository in whatever directory one happens to be in is never meant.
                let ours = name.starts_with("storage.") || name.starts_with("remote.");
                if ours && path.is_relative() {
                    let reason = format!("{name} = {path:?} must be an absolute path, or begin with ~/");
                    return Err(Error::Config { place: Place::whole(origin.to_string()), reason });
                }
            }
        }
        Ok(Self::build(env, loaded))
    }

    fn build(env: &Env, loaded: load::Loaded) -> Self {
        let load::Loaded { settings, mut warnings, .. } = loaded;
        let get = |name: &str| settings.get(name).map(|(value, _)| value);
        let text = |name: &str| match get(name) {
            Some(Value::Text(text)) if !text.is_empty() => Some(text.clone()),
            _ => None,
        };
        let path = |name: &str| match get(name) {
            Some(Value::Path(path)) => Some(path.clone()),
            _ => None,
        };
        let number = |name: &str| match get(name).cloned().or_else(|| default(name)) {
            Some(Value::Number(number)) => number,
            _ => 0,
        };
        let list = |name: &str| match get(name).cloned().or_else(|| default(name)) {
            Some(Value::List(items)) => items,
            _ => Vec::new(),
        };
        Config {
            user: User { name: text("user.name"), domain: text("user.domain") },
            storage: Storage {
                root: path("storage.root").or_else(|| Some(env.xdg("XDG_DATA_HOME", ".local/share")?.join("spfs"))),
                durable_dir: path("storage.durable_dir"),
                tag_namespace: text("storage.tag_namespace"),
                format: format(text("storage.digest_strategy"), text("storage.encoding_format")),
            },
            filesystem: Filesystem {
                backend: text("filesystem.backend").and_then(|name| Backend::of(&name)).unwrap_or_default(),
                secondary_repositories: list("filesystem.secondary_repositories"),
                annotation_size_limit: number("filesystem.annotation_size_limit"),
                lazy: matches!(get("filesystem.lazy"), Some(Value::Bool(true))),
                fetch_ahead: !matches!(get("filesystem.fetch_ahead"), Some(Value::Bool(false))),
                share: !matches!(get("filesystem.share"), Some(Value::Bool(false))),
                warm_seconds: number("filesystem.warm_seconds"),
                tmpfs_size: text("filesystem.tmpfs_size"),
            },
            cache: Cache {
                max_size: match get("cache.max_size") {
                    Some(Value::Number(bytes)) => Some(*bytes),
                    _ => None,
                },
            },
            remotes: read_remotes(&settings, &mut warnings),
            warnings,
            settings,
        }
    }

    /// Where the local repository is.
    ///
    /// Errors: nothing is configured, and there is no home directory to put it in. A place in /tmp, which others could
    /// prepare, is never taken.
    pub fn storage_root(&self) -> Result<&Path> {
        self.storage.root.as_deref().ok_or_else(|| Error::Unsupported {
            what: "a local repository without a home directory".to_owned(),
            reason: "neither HOME nor SPFS_STORAGE_ROOT is set".to_owned(),
        })
    }

    /// Where the value of a key came from; `None` if it is the default.
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        self.settings.get(key).map(|(_, origin)| origin)
    }

    /// Where a remote was configured: the strongest place that says anything of it.
    pub fn remote_origin(&self, name: &str) -> Option<&Origin> {
        let of_it = |key: &str| {
            key.strip_prefix("remote.").and_then(|rest| rest.rsplit_once('.')).is_some_and(|(n, _)| n == name)
        };
        self.settings.iter().filter(|(key, _)| of_it(key)).map(|(_, (_, origin))| origin).max()
    }

    /// Every key with its value and where that came from, sorted by name; defaults included.
    pub fn settings(&self, env: &Env) -> Vec<Setting> {
        let mut all: BTreeMap<String, Setting> = BTreeMap::new();
        for key in keys::KEYS {
            let value = default(key.name).or_else(|| self.surrounding_default(env, key.name));
            all.insert(key.name.to_owned(), Setting { key: key.name.to_owned(), value, origin: Origin::Default });
        }
        for (key, (value, origin)) in &self.settings {
            let setting = Setting { key: key.clone(), value: Some(value.clone()), origin: origin.clone() };
            all.insert(key.clone(), setting);
        }
        all.into_values().collect()
    }

    /// The defaults that depend on the surroundings.
    fn surrounding_default(&self, env: &Env, key: &str) -> Option<Value> {
        match key {
            "storage.root" => self.storage.root.clone().map(Value::Path),
            "storage.durable_dir" => Some(Value::Path(self.storage.root.as_ref()?.join("durable_edits"))),
            "user.name" => Some(Value::Text(user::name(env))),
            "user.domain" => Some(Value::Text(env.hostname.clone())),
            _ => None,
        }
    }

    /// The effective configuration as nested tables, every key included; `null` where nothing is set.
    pub fn to_json(&self, env: &Env) -> serde_json::Value {
        let mut root = serde_json::Map::new();
        for setting in self.settings(env) {
            let value = setting.value.map_or(serde_json::Value::Null, |value| value.to_json());
            // A remote's name may hold dots of its own.
            let levels: Vec<&str> = match setting.key.strip_prefix("remote.").and_then(|rest| rest.rsplit_once('.')) {
                Some((name, key)) => vec!["remote", name, key],
                None => setting.key.split('.').collect(),
            };
            insert(&mut root, &levels, value);
        }
        root.entry("remote").or_insert_with(|| serde_json::Map::new().into());
        root.into()
    }
}

fn insert(table: &mut serde_json::Map<String, serde_json::Value>, levels: &[&str], value: serde_json::Value) {
    match levels {
        [] => {}
        [last] => drop(table.insert((*last).to_owned(), value)),
        [first, rest @ ..] => {
            let below = table.entry(*first).or_insert_with(|| serde_json::Map::new().into());
            if let Some(below) = below.as_object_mut() {
                insert(below, rest, value);
            }
        }
    }
}

/// The fixed default of a key.
fn default(name: &str) -> Option<Value> {
    let key = keys::find(name).filter(|key| !key.default.is_empty() || key.holds == keys::Holds::List)?;
    Value::from_text(key, key.default).ok()
}

fn format(strategy: Option<String>, encoding: Option<String>) -> Format {
    Format {
        strategy: match strategy.as_deref() {
            Some("Legacy") => Strategy::Legacy,
            _ => Strategy::default(),
        },
        encoding: match encoding.as_deref() {
            Some("Legacy") => Encoding::Legacy,
            _ => Encoding::default(),
        },
    }
}

fn owned<const N: usize>(options: [(&str, Value); N]) -> BTreeMap<String, Value> {
    options.map(|(key, value)| (key.to_owned(), value)).into()
}

fn read_remotes(settings: &BTreeMap<String, (Value, Origin)>, warnings: &mut Vec<Warning>) -> BTreeMap<String, Remote> {
    let mut remotes: BTreeMap<String, Remote> = BTreeMap::new();
    for (whole, (value, _)) in settings {
        let Some((name, key)) = whole.strip_prefix("remote.").and_then(|rest| rest.rsplit_once('.')) else { continue };
        let remote = remotes.entry(name.to_owned()).or_default();
        match (key, value) {
            ("address", Value::Text(text)) => remote.address = Some(text.clone()),
            ("scheme", Value::Text(text)) => remote.scheme = Some(text.clone()),
            _ => drop(remote.options.insert(key.to_owned(), value.clone())),
        }
    }
    remotes.retain(|name, remote| {
        let complete = remote.address.is_some() || remote.scheme.is_some();
        if !complete {
            warnings.push(Warning::IncompleteRemote { name: name.clone() });
        }
        complete
    });
    remotes
}

#[cfg(test)]
mod tests;
