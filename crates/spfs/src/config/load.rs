//! Where settings come from: the files in their order, then the variables.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use super::files::{self, Syntax};
use super::keys::{self, Holds, Key, REMOTE_KEYS};
use super::value::Value;
use super::{Env, Origin};
use crate::error::{Error, Place, Result, Warning};
use crate::similar::nearest;

/// Formats in the order in which the first that is there is taken.
const FORMATS: &[(&str, Syntax)] = &[
    ("toml", Syntax::Toml),
    ("json", Syntax::Json),
    ("yaml", Syntax::Yaml),
    ("yml", Syntax::Yaml),
    ("ini", Syntax::Ini),
];

/// Formats that the existing program also reads. Their files are named, so that nobody wonders.
const FOREIGN: &[&str] = &["ron", "json5"];

/// What has been read so far; a later setting replaces an earlier one.
#[derive(Default)]
pub(super) struct Loaded {
    pub settings: BTreeMap<String, (Value, Origin)>,
    pub warnings: Vec<Warning>,
    /// The files that were read, weakest first.
    pub files: Vec<PathBuf>,
    /// Where errors go, if reading is to go on behind them.
    pub errors: Option<Vec<Error>>,
}

impl Loaded {
    /// The system's files, then the user's.
    pub fn read_files(&mut self, env: &Env) -> Result<()> {
        self.read_directory(&env.etc)?;
        match env.xdg("XDG_CONFIG_HOME", ".config") {
            // One look instead of one for each name: most people have no configuration of their own.
            Some(dir) if dir.join("spfs").is_dir() => self.read_directory(&dir.join("spfs")),
            _ => Ok(()),
        }
    }

    /// `spfs.conf`, then the first `spfs.<format>`.
    fn read_directory(&mut self, dir: &Path) -> Result<()> {
        self.read_file(dir.join("spfs.conf"), Syntax::Ini)?;
        let mut taken = None;
        for (extension, syntax) in FORMATS {
            let path = dir.join(format!("spfs.{extension}"));
            match &taken {
                None if self.read_file(path.clone(), *syntax)? => taken = Some(path),
                Some(first) if path.exists() => {
                    let reason = format!("{} comes first", first.display());
                    self.warnings.push(Warning::UnreadFile { file: path, reason });
                }
                _ => {}
            }
        }
        for extension in FOREIGN {
            let file = dir.join(format!("spfs.{extension}"));
            if file.exists() {
                let reason = "this format is not supported; write spfs.toml".to_owned();
                self.warnings.push(Warning::UnreadFile { file, reason });
            }
        }
        Ok(())
    }

    /// Whether the file is there.
    fn read_file(&mut self, path: PathBuf, syntax: Syntax) -> Result<bool> {
        let text = match files::read(&path) {
            Ok(Some(text)) => text,
            Ok(None) => return Ok(false),
            Err(error) => return self.wrong(error).map(|()| true),
        };
        self.files.push(path.clone());
        let contents = match files::parse(&path, &text, syntax) {
            Ok(contents) => contents,
            Err(error) => return self.wrong(error).map(|()| true),
        };
        for (name, value) in contents.settings {
            self.settings.insert(name, (value, Origin::File(path.clone())));
        }
        for key in contents.unknown {
            let similar = similar_key(&key);
            self.warnings.push(Warning::UnknownKey { file: path.clone(), key, similar });
        }
        Ok(true)
    }

    /// Fails, unless errors are gathered.
    fn wrong(&mut self, error: Error) -> Result<()> {
        match &mut self.errors {
            None => Err(error),
            Some(errors) => {
                errors.push(error);
                Ok(())
            }
        }
    }

    /// The variables: first those with `__`, then those with `_`, which are stronger.
    pub fn read_variables(&mut self, env: &Env) -> Result<()> {
        let mut stronger = Vec::new();
        let from = Bound::Included(OsStr::new("SPFS_"));
        let ours = env.vars.range::<OsStr, _>((from, Bound::Unbounded));
        for (variable, value) in ours.take_while(|(name, _)| name.as_encoded_bytes().starts_with(b"SPFS_")) {
            let Some(variable) = variable.to_str().filter(|name| !keys::is_other_variable(name)) else { continue };
            if value.is_empty() {
                continue;
            }
            match self.find_variable(variable) {
                Some((name, key, true)) => self.set_variable(variable, name, key, value)?,
                Some((name, key, false)) => stronger.push((variable, name, key, value)),
                None => self.warn_of_variable(variable),
            }
        }
        stronger.into_iter().try_for_each(|(variable, name, key, value)| self.set_variable(variable, name, key, value))
    }

    fn set_variable(&mut self, variable: &str, name: String, key: &'static Key, value: &OsStr) -> Result<()> {
        let read = match (key.holds, value.to_str()) {
            (Holds::Path, _) => Ok(Value::Path(PathBuf::from(value))),
            (_, Some(text)) => Value::from_text(key, text),
            (_, None) => Err("it is not UTF-8".to_owned()),
        };
        let place = || Place::whole(variable);
        match read {
            Ok(value) => drop(self.settings.insert(name, (value, Origin::Variable(variable.to_owned())))),
            Err(reason) => self.wrong(Error::Config { place: place(), reason })?,
        }
        Ok(())
    }

    /// The key that a variable sets, with its whole name, and whether it is spelled with `__`.
    fn find_variable(&self, variable: &str) -> Option<(String, &'static Key, bool)> {
        if let Some(rest) = variable.strip_prefix("SPFS_REMOTE_") {
            return self.find_remote_variable(rest);
        }
        keys::KEYS.iter().find_map(|key| {
            let [double, single] = keys::variables(key.name);
            (variable == single || variable == double).then(|| (key.name.to_owned(), key, variable == double))
        })
    }

    /// `_ORIGIN__ADDRESS` or `ORIGIN_ADDRESS`: the name is one that the files know, whatever the case, else in lower case.
    fn find_remote_variable(&self, rest: &str) -> Option<(String, &'static Key, bool)> {
        let double = rest.starts_with('_');
        let separator = if double { "__" } else { "_" };
        let (key, name) = REMOTE_KEYS
            .iter()
            .filter_map(|key| {
                let name = rest.strip_suffix(&key.name.to_ascii_uppercase())?.strip_suffix(separator)?;
                Some((key, name.strip_prefix('_').unwrap_or(name)))
            })
            .find(|(_, name)| !name.is_empty())?;
        let configured = self.settings.keys().find_map(|known| {
            let (known, _) = known.strip_prefix("remote.")?.rsplit_once('.')?;
            known.replace(['-', '.'], "_").eq_ignore_ascii_case(name).then(|| known.to_owned())
        });
        let name = configured.unwrap_or_else(|| name.to_ascii_lowercase());
        Some((format!("remote.{name}.{}", key.name), key, double))
    }

    fn warn_of_variable(&mut self, variable: &str) {
        let known: Vec<String> = keys::KEYS.iter().flat_map(|key| keys::variables(key.name)).collect();
        let names = known.iter().map(String::as_str).chain(keys::OTHER_VARIABLES.iter().copied());
        let similar = nearest(variable, names.filter(|name| !name.ends_with('*'))).map(str::to_owned);
        self.warnings.push(Warning::UnknownVariable { name: variable.to_owned(), similar });
    }
}

/// The known key that is nearest to `key`, below the same remote if it is one of a remote.
fn similar_key(key: &str) -> Option<String> {
    if let Some((name, last)) = key.strip_prefix("remote.").and_then(|rest| rest.rsplit_once('.')) {
        return nearest(last, REMOTE_KEYS.iter().map(|key| key.name)).map(|near| format!("remote.{name}.{near}"));
    }
    nearest(key, keys::KEYS.iter().map(|key| key.name)).map(str::to_owned)
}
