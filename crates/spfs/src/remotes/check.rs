//! Whether remotes make sense, without opening any.

use super::address::{Address, Kind, scheme};
use super::open::{check_cycle, unknown};
use crate::config::Config;
use crate::error::{Error, Place, Result};

/// What is wrong with the remotes of `config`, each with the place where it was said.
pub(crate) fn problems(config: &Config) -> Vec<Error> {
    let mut found = Vec::new();
    for name in config.remotes.keys() {
        if let Err(error) = examine(config, name, &mut Vec::new()) {
            let source = config.remote_origin(name).map(|origin| origin.to_string()).unwrap_or_default();
            let reason = format!("remote.{name}: {error}");
            found.push(Error::Config { place: Place::whole(source), reason });
        }
    }
    for name in &config.filesystem.secondary_repositories {
        // `origin` is the default, whether there is one or not.
        if name != "origin" && !name.contains([':', '/']) && !config.remotes.contains_key(name) {
            let key = "filesystem.secondary_repositories";
            let source = config.origin(key).map(|origin| origin.to_string()).unwrap_or_default();
            let reason = format!("{key}: {}", unknown(config, name));
            found.push(Error::Config { place: Place::whole(source), reason });
        }
    }
    found
}

/// Checks what `text` means, and the parts of it.
fn examine(config: &Config, text: &str, names: &mut Vec<String>) -> Result<()> {
    let address = match config.remotes.get(text) {
        Some(remote) => {
            names.push(text.to_owned());
            check_cycle(names)?;
            Address::configured(text, remote)?
        }
        None if scheme(text).is_some() || text.contains('/') => Address::parse(text)?,
        None => return Err(unknown(config, text)),
    };
    if let Kind::Chain { primary, secondaries, .. } = &address.kind {
        for part in std::iter::once(primary).chain(secondaries) {
            examine(config, part, names)?;
        }
    }
    if config.remotes.contains_key(text) {
        names.pop();
    }
    Ok(())
}
