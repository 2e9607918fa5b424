//! What every verb works on: the surroundings, the configuration, the directories and the local repository.

use std::io;
use std::path::Path;
use std::sync::Arc;

use spfs_repo::{Directory, Repository};

use crate::config::{Config, Env};
use crate::dirs::Dirs;
use crate::error::{Result, Warning};
use crate::{lazy, user};

/// An opened spfs: what every verb takes.
pub struct Spfs {
    /// The surroundings.
    pub env: Env,
    /// The configuration.
    pub config: Config,
    /// The directories beside the repository.
    pub dirs: Dirs,
    /// The local repository, in its configured tag namespace.
    pub local: Directory,
    /// Hears of what is odd while something else is done, such as a repair. Nobody, unless it is set.
    pub warn: fn(&Warning),
    /// Keeps what is here in part as it is while a lazy runtime is being started.
    pub gate: lazy::Gate,
}

impl Spfs {
    /// Opens the local repository, which is made if it is not there.
    pub fn open(env: Env, config: Config) -> Result<Self> {
        let dirs = Dirs::new(&env, &config);
        let root = config.storage_root()?;
        let local = match Directory::open(root) {
            Err(spfs_repo::Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Directory::create(root)?
            }
            Err(spfs_repo::Error::Invalid { .. }) if is_unfinished(root) => Directory::create(root)?,
            opened => opened?,
        };
        let local = local.with_namespace(config.storage.tag_namespace.as_deref())?;
        Ok(Spfs { env, config, dirs, local, warn: |_| {}, gate: lazy::Gate::default() })
    }

    /// What runtimes show: the local repository, and behind it the objects of what is here only in part
    /// ([`crate::lazy`]). To be read from, and never asked whether something is here.
    pub fn shown(&self) -> Result<Arc<dyn Repository>> {
        lazy::with_partial(&self.local)
    }

    /// Who makes tags here: `name@domain`.
    pub fn user(&self) -> String {
        user::identity(&self.env, &self.config)
    }
}

/// Whether `root` has nothing in it but parts of a repository: another process is making it just now, or was killed
/// while it did; or somebody made an empty directory for it.
fn is_unfinished(root: &Path) -> bool {
    let is_part =
        |name: &[u8]| matches!(name, b"objects" | b"payloads" | b"tags" | b"VERSION") || name.starts_with(b".VERSION.");
    std::fs::read_dir(root).is_ok_and(|entries| {
        entries.into_iter().all(|entry| entry.is_ok_and(|entry| is_part(entry.file_name().as_encoded_bytes())))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_repository_whose_maker_was_killed_is_finished() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join(".local/share/spfs");
        let env = Env::bare(home.path());
        let open = || Spfs::open(env.clone(), Config::load(&env).unwrap()).map(drop);
        std::fs::create_dir_all(root.join("objects")).unwrap();
        open().unwrap();
        std::fs::remove_dir(root.join("payloads")).unwrap();
        std::fs::write(root.join("something"), "").unwrap();
        assert!(open().unwrap_err().to_string().contains("it has no directory \"payloads\""));
        assert!(!root.join("payloads").exists());
    }

    #[test]
    fn the_local_repository_is_made_on_first_use() {
        let home = tempfile::tempdir().unwrap();
        let env = Env::bare(home.path()).with_var("SPFS_STORAGE_TAG_NAMESPACE", "ns").with_var("SPFS_USER_NAME", "me");
        for _ in 0..2 {
            let config = Config::load(&env).unwrap();
            let spfs = Spfs::open(env.clone(), config).unwrap();
            assert_eq!(spfs.local.root(), std::fs::canonicalize(home.path()).unwrap().join(".local/share/spfs"));
            assert_eq!(spfs.local.namespace(), Some("ns"));
            assert_eq!(spfs.user(), "me@localhost");
        }
    }
}
