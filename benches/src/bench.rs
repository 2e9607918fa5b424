//! The place where everything is measured: directories, the program, and how commands are run there.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::Options;
use crate::report::Row;
use crate::tree::{self, Tree};

/// A problem in words: the benchmark is a program for developers, and nobody takes its errors apart.
pub type Result<T> = std::result::Result<T, String>;

/// The user whom `./test setup` makes.
const USER: &str = "spfs-test";

/// One run of the benchmark as one user.
pub struct Bench {
    /// Of this user's own, removed at the end.
    pub dir: PathBuf,
    /// The program under test, where everyone can execute it.
    pub spfs: PathBuf,
    /// This program, likewise.
    pub own: PathBuf,
    pub is_root: bool,
    pub rounds: usize,
    pub full: bool,
    /// Whether this is a host without `/spfs`, see `host.rs`.
    pub no_spfs: bool,
    rows_only: bool,
    trees: PathBuf,
    /// The trees that are wanted.
    names: Vec<&'static str>,
}

impl Bench {
    /// Builds the program, makes those of the `trees` that are missing, and an empty home.
    pub fn prepare(options: &Options, names: &[&str]) -> Result<Bench> {
        let is_root = rustix::process::geteuid().is_root();
        let trees = options.dir.join("trees");
        let dir = run_dir(options, rustix::process::getuid().as_raw(), options.no_spfs);
        let own = std::env::current_exe().map_err(|err| format!("this program: {err}"))?;
        let mut bench = Bench {
            spfs: options.spfs.clone().unwrap_or_default(),
            own,
            is_root,
            rounds: options.rounds,
            full: options.full,
            no_spfs: options.no_spfs,
            rows_only: options.rows_only,
            trees,
            names: tree::wanted(names, options.full),
            dir,
        };
        make(&options.dir)?;
        make(&bench.trees)?;
        bench.clean_up();
        make(&bench.dir)?;
        if !options.rows_only {
            let spfs = match &options.spfs {
                Some(spfs) => spfs.clone(),
                None => build()?,
            };
            // Everyone must be able to execute them: target/ may lie in a closed home.
            bench.spfs = copy(&spfs, &options.dir.join("spfs"))?;
            bench.own = copy(&bench.own, &options.dir.join("spfs-bench"))?;
            tree::make_all(&bench.trees, &bench.names, |text| bench.say(text))?;
        }
        Ok(bench)
    }

    /// Says something to whoever waits.
    pub fn say(&self, text: &str) {
        eprintln!("[{}] {text}", if self.is_root { "root" } else { "user" });
    }

    /// Who measures, in words.
    pub fn who(&self) -> &'static str {
        if self.is_root { "root" } else { "user" }
    }

    /// The trees that are wanted, smallest first.
    pub fn trees(&self) -> Result<Vec<Tree>> {
        tree::all(&self.trees, &self.names)
    }

    /// A tree of files of which no two are the same: a million in a full run. Never among [`Bench::trees`]: it takes
    /// 4 GB, and a repository of it twice as much.
    pub fn different(&self) -> Result<Tree> {
        tree::different(&self.trees, if self.full { 1_000_000 } else { 20_000 })
    }

    /// The tree with the most files.
    pub fn largest_tree(&self) -> Result<Tree> {
        self.trees()?.into_iter().max_by_key(|tree| tree.files).ok_or("there are no trees".into())
    }

    /// `spfs` with the words of `line`, with the home `home` below this run's directory. Runtimes share nothing.
    pub fn spfs(&self, home: &str, line: &str) -> Command {
        let mut command = self.command(home, &self.spfs);
        command.args(line.split_whitespace()).env("SPFS_FILESYSTEM_SHARE", "false");
        command
    }

    /// The same, with runtimes that share what the kernel knows of their view.
    pub fn sharing(&self, home: &str, line: &str) -> Command {
        let mut command = self.spfs(home, line);
        command.env("SPFS_FILESYSTEM_SHARE", "true");
        command
    }

    /// The way of showing a view that is taken when none is asked for.
    pub fn best_backend(&self) -> &'static str {
        if self.is_root { "image" } else { "server" }
    }

    /// A directory in memory, of this user's own.
    pub fn shm(&self) -> PathBuf {
        self.memory("tree")
    }

    /// The trees of the programs that are measured (`programs.rs`), made once.
    pub fn programs(&self) -> PathBuf {
        self.trees.join("programs")
    }

    /// Any program in that home, silent.
    pub fn command(&self, home: &str, program: impl AsRef<Path>) -> Command {
        let home = self.home(home);
        let mut command = Command::new(program.as_ref());
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LANG", "C.UTF-8")
            .env("HOME", &home)
            .env("XDG_RUNTIME_DIR", self.run(&home))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// A home directory, made when it is not there.
    pub fn home(&self, name: &str) -> PathBuf {
        let home = self.dir.join(name);
        // Made before anything is timed; a failure shows in the first command.
        let run = self.run(&home);
        let _ = fs::create_dir_all(&home).and_then(|()| fs::create_dir_all(&run));
        let _ = fs::set_permissions(&run, std::os::unix::fs::PermissionsExt::from_mode(0o700));
        home
    }

    /// The runtime directory that belongs to a home: in memory, as every login gets one.
    fn run(&self, home: &Path) -> PathBuf {
        let home = home.file_name().unwrap_or_default();
        self.memory("run").join(if self.no_spfs { "without-spfs" } else { "with-spfs" }).join(home)
    }

    fn memory(&self, what: &str) -> PathBuf {
        PathBuf::from(format!("/dev/shm/spfs-bench-{what}-{}", rustix::process::getuid().as_raw()))
    }

    /// Runs to the end and returns what was printed.
    pub fn output(&self, mut command: Command) -> Result<String> {
        let out = command.stdout(Stdio::piped()).output().map_err(|err| format!("{command:?}: {err}"))?;
        if !out.status.success() {
            return Err(format!("{command:?}: {}\n{}", out.status, String::from_utf8_lossy(&out.stderr)));
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// Measures the same as the ordinary user, or on a host without `/spfs`, in a process of its own so that nobody pays
    /// for the change.
    pub fn elsewhere(&self, options: &Options, user: bool, no_spfs: bool) -> Result<Vec<Row>> {
        let mut words: Vec<String> = Vec::new();
        if no_spfs {
            words.extend([self.own.display().to_string(), "without-spfs".into()]);
        }
        if user {
            words.extend(["setpriv", "--reuid", USER, "--regid", USER, "--init-groups", "--"].map(String::from));
            let run = run_dir(options, user_id()?, no_spfs);
            make(&run)?;
            std::os::unix::fs::chown(&run, Some(user_id()?), None)
                .map_err(|err| format!("{}: {err}", run.display()))?;
        }
        words.push(self.own.display().to_string());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["--rows-only", "--only", &options.only]);
        command.arg("--rounds").arg(options.rounds.to_string());
        command.arg("--spfs").arg(&self.spfs).arg("--dir").arg(&options.dir);
        command.args(options.full.then_some("--full")).args(no_spfs.then_some("--no-spfs"));
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        self.hear(child.map_err(|err| format!("{}: {err}", words[0]))?)
    }

    /// The rows that another process prints; it may ask for what only root can do.
    fn hear(&self, mut child: Child) -> Result<Vec<Row>> {
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (mut stdin, stdout) = stdin.zip(stdout).ok_or("no pipes")?;
        let mut rows = Vec::new();
        for line in BufReader::new(stdout).lines() {
            let line = line.map_err(|err| format!("hearing from the other process: {err}"))?;
            if line == DROP {
                self.drop_inodes()?;
                stdin.write_all(b"\n").map_err(|err| format!("answering the other process: {err}"))?;
            } else {
                rows.push(Row::from_line(&line)?);
            }
        }
        let status = child.wait().map_err(|err| format!("waiting for the other process: {err}"))?;
        if status.success() { Ok(rows) } else { Err(format!("measuring in another process failed: {status}")) }
    }

    /// Lets the kernel forget all names and inodes that are not in use. What is not root asks the process that is.
    pub fn drop_inodes(&self) -> Result<()> {
        if self.is_root {
            let path = "/proc/sys/vm/drop_caches";
            return fs::write(path, "2").map_err(|err| format!("{path}: {err}"));
        }
        if !self.rows_only {
            return Err("only root can make the kernel forget inodes: run the benchmark as root".into());
        }
        println!("{DROP}");
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).map(drop).map_err(|err| format!("standard input: {err}"))
    }

    /// Removes what this run made; the trees stay for the next one, and so do repositories whose making is not measured:
    /// to commit all of it again, and above all to remove it, takes longer than what is measured.
    pub fn clean_up(&self) {
        // The directory itself may belong to root.
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if !KEPT.iter().any(|kept| entry.file_name() == *kept) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let _ = fs::remove_dir_all(self.memory("run"));
    }
}

/// Homes that stay.
const KEPT: [&str; 5] = ["start", "touch", "reading", "programs", "thousand"];

/// What a process that is not root prints where the kernel is to forget names and inodes.
const DROP: &str = "drop";

fn run_dir(options: &Options, uid: u32, no_spfs: bool) -> PathBuf {
    options.dir.join(format!("run-{uid}{}", if no_spfs { "-no-spfs" } else { "" }))
}

fn user_id() -> Result<u32> {
    let out = Command::new("id").args(["-u", USER]).output().map_err(|err| format!("id: {err}"))?;
    String::from_utf8_lossy(&out.stdout).trim().parse().map_err(|_| format!("no user {USER}: run `./test setup`"))
}

/// A directory that everyone may enter.
fn make(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|err| format!("{}: {err}", path.display()))
}

fn copy(from: &Path, to: &Path) -> Result<PathBuf> {
    // A running program cannot be written to, but replaced.
    let _ = fs::remove_file(to);
    fs::copy(from, to).map_err(|err| format!("copying {} to {}: {err}", from.display(), to.display()))?;
    Ok(to.to_owned())
}

/// Builds the release: the static program.
fn build() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let status = Command::new("cargo").arg("static").current_dir(&root).status();
    match status {
        Ok(status) if status.success() => Ok(root.join("target/x86_64-unknown-linux-gnu/release/spfs")),
        Ok(status) => Err(format!("cargo static: {status}")),
        Err(err) => Err(format!("cargo static: {err}")),
    }
}
