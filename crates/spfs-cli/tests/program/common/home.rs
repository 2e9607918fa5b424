//! A throw-away home directory with a hermetic environment, for one caller on one host.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use super::caller::is_root;
use super::leaks::{self, Allowed};
use super::watch::Watch;
use super::{Caller, Cmd, Host, Pty};

/// A throw-away home. Dropping it fails the test if anything of it is still running, mounted, recorded or locked.
pub struct Home {
    dir: PathBuf,
    caller: Caller,
    host: Host,
    env: RefCell<BTreeMap<String, String>>,
    allowed: RefCell<Allowed>,
    mounts: Vec<String>,
    _watch: Watch,
}

impl Home {
    /// A home for `caller` on this machine as it is.
    pub fn new(caller: Caller) -> Home {
        Home::on(caller, Host::as_it_is())
    }

    /// A home for `caller` on `host`.
    pub fn on(caller: Caller, host: Host) -> Home {
        let dir = tempfile::Builder::new().rand_bytes(8).prefix("").tempdir_in(base()).unwrap().keep();
        let home = Home {
            env: RefCell::default(),
            allowed: RefCell::default(),
            mounts: leaks::mounts(&host),
            _watch: Watch::start(),
            dir,
            caller,
            host,
        };
        // The tests reach into the homes of other users as root; others may not look into this one.
        home.own(&home.dir, 0o700);
        for (name, mode) in [("home", 0o755), ("run", 0o700), ("work", 0o755)] {
            fs::create_dir(home.dir.join(name)).unwrap();
            home.own(&home.dir.join(name), mode);
        }
        *home.env.borrow_mut() = home.first_environment();
        home.env.borrow_mut().extend(settings_of_the_run());
        home
    }

    /// The environment of a fresh login, with every directory inside this home.
    fn first_environment(&self) -> BTreeMap<String, String> {
        let inside = |path: &str| self.dir.join(path).to_str().unwrap().to_owned();
        let path = format!(
            "{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            binary().parent().unwrap().display()
        );
        BTreeMap::from([
            ("HOME".into(), inside("home")),
            ("XDG_DATA_HOME".into(), inside("home/.local/share")),
            ("XDG_CACHE_HOME".into(), inside("home/.cache")),
            ("XDG_CONFIG_HOME".into(), inside("home/.config")),
            ("XDG_RUNTIME_DIR".into(), inside("run")),
            ("USER".into(), self.caller.name().into()),
            ("LOGNAME".into(), self.caller.name().into()),
            ("SHELL".into(), "/bin/sh".into()),
            ("LANG".into(), "C.UTF-8".into()),
            ("TERM".into(), "dumb".into()),
            ("PATH".into(), path),
        ])
    }

    /// Gives a path to the caller, with these permission bits.
    pub fn own(&self, path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        if is_root() {
            chown(path, Some(self.caller.uid()), Some(self.caller.gid())).unwrap();
        }
    }

    /// The caller.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// A path below the directory in which commands start: a place for trees to commit and for output.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join("work").join(name)
    }

    /// `$HOME`.
    pub fn home_dir(&self) -> PathBuf {
        self.dir.join("home")
    }

    /// `$XDG_RUNTIME_DIR`.
    pub fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// `$XDG_CACHE_HOME/spfs`.
    pub fn cache(&self) -> PathBuf {
        self.dir.join("home/.cache/spfs")
    }

    /// The repository that is used when nothing is configured.
    pub fn repository(&self) -> PathBuf {
        self.dir.join("home/.local/share/spfs")
    }

    /// Writes a file that belongs to the caller, and the directories above it. `path` is relative to [`Home::path`].
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let file = self.path(path);
        let mut missing: Vec<&Path> = file.ancestors().skip(1).take_while(|above| !above.exists()).collect();
        while let Some(above) = missing.pop() {
            fs::create_dir(above).unwrap();
            self.own(above, 0o755);
        }
        fs::write(&file, content).unwrap();
        self.own(&file, 0o644);
        file
    }

    /// The variables of every command.
    pub fn environment(&self) -> BTreeMap<String, String> {
        self.env.borrow().clone()
    }

    /// Sets a variable for every later command.
    pub fn set(&self, name: &str, value: impl AsRef<str>) {
        self.env.borrow_mut().insert(name.into(), value.as_ref().into());
    }

    /// Removes a variable for every later command.
    pub fn unset(&self, name: &str) {
        self.env.borrow_mut().remove(name);
    }

    /// `spfs` with these arguments.
    pub fn spfs<A: AsRef<str>>(&self, args: impl IntoIterator<Item = A>) -> Cmd {
        let mut argv = vec![binary().to_str().unwrap().to_owned()];
        argv.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self.command(argv)
    }

    /// `spfs` with the words of `line`, split at spaces.
    pub fn spfs_line(&self, line: &str) -> Cmd {
        self.spfs(line.split_whitespace())
    }

    /// `spfs run REFERENCE -- sh -c CODE`. `reference` may hold options too: `"base --edit"`.
    pub fn script(&self, reference: &str, code: &str) -> Cmd {
        let words = ["run"].into_iter().chain(reference.split_whitespace()).chain(["--", "sh", "-c", code]);
        self.spfs(words)
    }

    /// `sh -c CODE` on the host, outside any runtime, with `spfs` on its PATH.
    pub fn sh(&self, code: &str) -> Cmd {
        self.command(vec!["sh".into(), "-c".into(), code.into()])
    }

    /// The same on a machine that refuses system calls: `rules` as `refuse.py` takes them, with spaces between them.
    pub fn refused(&self, rules: &str, code: &str) -> Cmd {
        let words = ["/usr/bin/python3", "-c", include_str!("refuse.py")].into_iter().chain(rules.split_whitespace());
        let command = self.command(words.chain(["--", "sh", "-c", code]).map(str::to_owned).collect());
        command.shown_as(format!("[{rules}] {code}"))
    }

    /// Any command, run as the caller on the host with the environment of this home.
    pub fn command(&self, argv: Vec<String>) -> Cmd {
        let mut words = self.host.prefix();
        let elsewhere = !words.is_empty();
        words.extend(self.caller.prefix());
        let cwd = self.path("");
        if elsewhere {
            // nsenter leaves a process in the new root; env takes it back by path.
            words.extend(["env".into(), "-C".into(), cwd.to_str().unwrap().into()]);
        }
        let shown = argv.join(" ");
        words.extend(argv);
        Cmd::new(shown, words, self.env.borrow().clone(), cwd)
    }

    /// `spfs` with these arguments on a terminal of its own.
    pub fn pty<A: AsRef<str>>(&self, args: impl IntoIterator<Item = A>) -> Pty {
        self.spfs(args).on_a_terminal()
    }

    /// Says that records of live runtimes, or temporary files and locks in the repository, may be left at the end:
    /// for tests that kill things and do not run another command.
    pub fn allow_remains(&self) {
        self.allowed.borrow_mut().remains = true;
    }

    /// Says that a process of this home may outlive it; it is killed when the home is dropped.
    pub fn allow_processes(&self) {
        self.allowed.borrow_mut().processes = true;
    }

    /// Waits less than usual for the end of what belongs to this home, for tests that know that it will not come.
    pub fn impatient(&self) {
        self.allowed.borrow_mut().patience = Duration::from_millis(100);
    }

    /// The living processes that carry the environment of this home, as pid and command line.
    pub fn processes(&self) -> Vec<(i32, String)> {
        leaks::processes(&self.home_dir())
    }

    /// Names of the records of live runtimes.
    pub fn records(&self) -> Vec<String> {
        leaks::records(&self.run_dir())
    }

    /// Waits until every process of this home has ended; fails the test, naming them, if they do not.
    pub fn wait_for_the_end(&self) {
        leaks::wait_for_the_end(&self.home_dir());
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let found = if std::thread::panicking() {
            Vec::new()
        } else {
            leaks::find(
                &self.home_dir(),
                &self.run_dir(),
                &self.repository(),
                &self.host,
                &self.mounts,
                &self.allowed.borrow(),
            )
        };
        leaks::kill_all(&self.home_dir());
        remove(&self.dir);
        assert!(found.is_empty(), "a home of {} was not left clean:\n  {}", self.caller, found.join("\n  "));
    }
}

/// The settings of the file system that the whole run of the tests is made with, as in
/// `SPFS_FILESYSTEM_SHARE=true cargo test`. Nothing is kept warm but by tests that ask for it: homes must end clean.
fn settings_of_the_run() -> impl Iterator<Item = (String, String)> {
    let given = std::env::vars().filter(|(name, _)| name.starts_with("SPFS_FILESYSTEM_"));
    [("SPFS_FILESYSTEM_WARM_SECONDS".to_owned(), "0".to_owned())].into_iter().chain(given)
}

/// Removes a tree, directories without permissions included.
fn remove(dir: &Path) {
    if fs::remove_dir_all(dir).is_err() {
        let _ = Command::new("chmod").args(["-R", "u+rwX"]).arg(dir).output();
        let _ = fs::remove_dir_all(dir);
    }
}

/// The directory for everything that tests make: on a disk where the system has one, and open to every user.
/// `SPFS_TEST_DIR` names another. (Not `$TMPDIR`: an image cannot be mounted from a file on tmpfs.)
fn base() -> &'static Path {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    BASE.get_or_init(|| {
        let default = || PathBuf::from(format!("/var/tmp/spfs-test-{}", rustix::process::getuid().as_raw()));
        let base = std::env::var_os("SPFS_TEST_DIR").map_or_else(default, PathBuf::from);
        make_dir(&base, 0o755).unwrap_or_else(|err| panic!("cannot make {}: {err}", base.display()));
        remove_old(&base);
        base
    })
}

/// Removes what killed tests and earlier builds left there, when it is a day old: tests of now may use the rest.
fn remove_old(base: &Path) {
    let day = Duration::from_secs(24 * 3600);
    for entry in fs::read_dir(base).unwrap().flatten() {
        let modified = entry.metadata().and_then(|meta| meta.modified());
        if modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > day)) {
            remove(&entry.path());
        }
    }
}

fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    match fs::create_dir(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(err) => Err(err),
    }
}

/// The program under test, where every user can execute it: `target/` may lie in a home that only its owner may enter.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let built =
            std::env::var_os("SPFS_TEST_BINARY").map_or(PathBuf::from(env!("CARGO_BIN_EXE_spfs")), PathBuf::from);
        let meta = fs::metadata(&built).unwrap_or_else(|err| panic!("{}: {err}", built.display()));
        // Named after the build, so that all test processes share one copy and a new build gets a new one.
        let dir = base().join(format!("bin-{:x}-{:x}{:x}", meta.ino(), meta.mtime(), meta.mtime_nsec()));
        make_dir(&dir, 0o755).unwrap();
        let copy = dir.join("spfs");
        if !copy.exists() {
            let temporary = dir.join(format!("spfs.{}", std::process::id()));
            fs::copy(&built, &temporary).unwrap();
            fs::set_permissions(&temporary, fs::Permissions::from_mode(0o755)).unwrap();
            fs::rename(&temporary, &copy).unwrap();
        }
        copy
    })
}
