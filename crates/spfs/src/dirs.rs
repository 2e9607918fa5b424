//! Where things are that are not in a repository: caches, live runtimes, durable edits.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Stat};

use crate::config::{Config, Env};
use crate::error::{Error, Result};

/// The directories beside the repository. They are made when first asked for, with mode 0700.
#[derive(Clone, Debug)]
pub struct Dirs {
    /// Views, images, stat caches: `$XDG_CACHE_HOME/spfs`, else `~/.cache/spfs`; `None` without a home directory.
    pub cache: Option<PathBuf>,
    /// Records and sockets of live runtimes: `$XDG_RUNTIME_DIR/spfs` where that directory is the caller's, else
    /// `/tmp/spfs-UID`.
    pub run: PathBuf,
    /// Records and changes of durable runtimes: `storage.durable_dir`, else `<storage root>/durable_edits`.
    pub durable: Option<PathBuf>,
    /// The caller.
    uid: u32,
}

impl Dirs {
    /// The places for these surroundings. Nothing is made yet.
    pub fn new(env: &Env, config: &Config) -> Self {
        let runtime = env.absolute("XDG_RUNTIME_DIR").filter(|dir| is_own_dir(dir, env.uid));
        let edits = || Some(config.storage.root.as_ref()?.join("durable_edits"));
        Dirs {
            cache: env.xdg("XDG_CACHE_HOME", ".cache").map(|dir| dir.join("spfs")),
            run: runtime.map_or_else(|| PathBuf::from(format!("/tmp/spfs-{}", env.uid)), |dir| dir.join("spfs")),
            durable: config.storage.durable_dir.clone().or_else(edits),
            uid: env.uid,
        }
    }

    /// The directory of live runtimes, made if it is missing.
    ///
    /// Errors: [`Error::Records`], also where it is somebody else's, open to others, or no directory.
    pub fn run(&self) -> Result<&Path> {
        secure(&self.run, self.uid).map_err(|error| Error::Records(Box::new(error)))?;
        Ok(&self.run)
    }

    /// A directory below [`Dirs::run`], made if it is missing.
    pub fn run_sub(&self, name: &str) -> Result<PathBuf> {
        let path = self.run()?.join(name);
        secure(&path, self.uid)?;
        Ok(path)
    }

    /// A directory below the cache, made if it is missing; `None` if there is none that is the caller's alone. Nothing
    /// may depend on it.
    pub fn cache_sub(&self, name: &str) -> Option<PathBuf> {
        let cache = self.cache.as_ref()?;
        let path = cache.join(name);
        // Nearly always both are there; then one look is enough.
        if let Err(Error::Io { source, .. }) = check(&path, self.uid) {
            if source.kind() != io::ErrorKind::NotFound {
                return None;
            }
            make_parents(cache).ok()?;
            secure(cache, self.uid).ok()?;
            secure(&path, self.uid).ok()?;
            return Some(path);
        }
        check(&path, self.uid).and_then(|()| check(cache, self.uid)).ok().map(|()| path)
    }
}

/// Makes the directory if it is missing, for the caller alone, and makes sure that it is.
pub(crate) fn secure(path: &Path, uid: u32) -> Result<()> {
    match rustix::fs::mkdir(path, Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => check(path, uid),
        Err(rustix::io::Errno::NOENT) => {
            make_parents(path)?;
            rustix::fs::mkdir(path, Mode::RWXU).map_err(Error::io("create", path))?;
            check(path, uid)
        }
        // On a read-only file system it may be there all the same.
        Err(e) => check(path, uid).map_err(|_| Error::io("create", path)(e)),
    }
}

/// Makes what is missing above `path`; what is there may belong to anybody (it is `path` that is checked).
fn make_parents(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    std::fs::create_dir_all(parent).map_err(Error::io("create", parent))
}

/// Refuses what is not a real directory, not the caller's, or open to others.
fn check(path: &Path, uid: u32) -> Result<()> {
    let stat = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).map_err(Error::io("look at", path))?;
    let refuse = |reason: String| Err(Error::Unsafe { path: path.to_owned(), reason });
    if !is_dir(&stat) {
        return refuse("it is not a directory".to_owned());
    }
    if stat.st_uid != uid {
        return refuse(format!("it belongs to user {} and not to user {uid}", stat.st_uid));
    }
    if stat.st_mode & 0o077 != 0 {
        return refuse(format!("its mode {:04o} lets others in; it must be 0700", stat.st_mode & 0o7777));
    }
    Ok(())
}

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode).is_dir()
}

/// Whether `path` is a directory of `uid` that nobody else may write to.
fn is_own_dir(path: &Path, uid: u32) -> bool {
    rustix::fs::stat(path).is_ok_and(|stat| is_dir(&stat) && stat.st_uid == uid && stat.st_mode & 0o022 == 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn dirs(env: &Env) -> Dirs {
        Dirs::new(env, &Config::load(env).unwrap())
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn places_follow_the_surroundings() {
        let home = tempfile::tempdir().unwrap();
        let env = Env::bare(home.path());
        let plain = dirs(&env);
        assert_eq!(plain.cache, Some(home.path().join(".cache/spfs")));
        assert_eq!(plain.run, PathBuf::from(format!("/tmp/spfs-{}", env.uid)));
        assert_eq!(plain.durable, Some(home.path().join(".local/share/spfs/durable_edits")));
        let run = home.path().join("run");
        fs::create_dir(&run).unwrap();
        fs::set_permissions(&run, fs::Permissions::from_mode(0o700)).unwrap();
        let env = env.with_var("XDG_RUNTIME_DIR", &run).with_var("SPFS_STORAGE_DURABLE_DIR", "~/d");
        assert_eq!(dirs(&env).run, run.join("spfs"));
        assert_eq!(dirs(&env).durable, Some(home.path().join("d")));
        let other = Env { uid: env.uid + 1, ..env };
        assert_eq!(dirs(&other).run, PathBuf::from(format!("/tmp/spfs-{}", other.uid)));
    }

    #[test]
    fn what_is_made_is_private() {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs { run: home.path().join("a/run"), ..dirs(&Env::bare(home.path())) };
        let sub = dirs.run_sub("runtimes").unwrap();
        assert_eq!((mode(&dirs.run), mode(&sub)), (0o700, 0o700));
        let views = dirs.cache_sub("views").unwrap();
        assert_eq!((mode(dirs.cache.as_ref().unwrap()), mode(&views)), (0o700, 0o700));
        assert_eq!(dirs.cache_sub("views"), Some(views));
    }

    #[test]
    fn what_others_prepared_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs { run: home.path().join("run"), ..dirs(&Env::bare(home.path())) };
        symlink(home.path(), &dirs.run).unwrap();
        assert!(dirs.run().unwrap_err().to_string().contains("not a directory"));
        fs::remove_file(&dirs.run).unwrap();
        fs::create_dir(&dirs.run).unwrap();
        fs::set_permissions(&dirs.run, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(dirs.run().unwrap_err().to_string().contains("must be 0700"));
        let other = Dirs { uid: dirs.uid + 1, ..dirs };
        assert!(other.run().unwrap_err().to_string().contains("belongs to user"));
        let cache = home.path().join(".cache/spfs");
        fs::create_dir_all(cache.join("views")).unwrap();
        fs::set_permissions(&cache, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(other.cache_sub("views"), None);
    }
}
