//! The hidden program that walks over a tree inside a runtime or beside it, on request, and says how long it took; and
//! the side that asks.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};

use crate::bench::Result;
use crate::tree::Tree;

/// How often `exec` starts the program.
pub const EXECS: u32 = 10;

/// `walker DIRECTORY [NAMES]`: reads `stat`, `list`, `read` or `exec NAME` from standard input and answers each with
/// nanoseconds. With a file of names nothing is listed: the first `stat` is the first touch.
pub fn run(words: &[String]) -> Result<()> {
    let walk = match words {
        [directory] => Walk::of(Path::new(directory))?,
        [directory, names] => Walk::by_name(Path::new(directory), Path::new(names))?,
        _ => return Err("walker: DIRECTORY [NAMES]".into()),
    };
    println!("{} files", walk.files.len());
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|err| format!("standard input: {err}"))?;
        let time = match line.split_once(' ').unwrap_or((&line, "")) {
            ("stat", _) => walk.stat()?,
            ("list", _) => walk.list()?,
            ("read", _) => walk.read()?,
            ("exec", name) => exec(&walk.root.join(name))?,
            _ => return Err(format!("walker: {line}?")),
        };
        println!("{}", time.as_nanos());
        std::io::stdout().flush().map_err(|err| format!("standard output: {err}"))?;
    }
    Ok(())
}

/// Every path of a tree.
struct Walk {
    root: PathBuf,
    files: Vec<PathBuf>,
    directories: Vec<PathBuf>,
}

impl Walk {
    fn of(root: &Path) -> Result<Walk> {
        let mut walk = Walk { root: root.to_owned(), files: Vec::new(), directories: vec![root.to_owned()] };
        let mut next = 0;
        while next < walk.directories.len() {
            let directory = walk.directories[next].clone();
            next += 1;
            for entry in fs::read_dir(&directory).map_err(|err| format!("{}: {err}", directory.display()))?.flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => walk.directories.push(entry.path()),
                    Ok(kind) if kind.is_file() => walk.files.push(entry.path()),
                    _ => {}
                }
            }
        }
        // The same order whatever the file system: it decides how well caches work.
        walk.files.sort();
        walk.directories.sort();
        Ok(walk)
    }

    fn by_name(root: &Path, names: &Path) -> Result<Walk> {
        let names = fs::read_to_string(names).map_err(|err| format!("{}: {err}", names.display()))?;
        let files = names.lines().map(|name| root.join(name)).collect();
        Ok(Walk { root: root.to_owned(), files, directories: Vec::new() })
    }

    fn stat(&self) -> Result<Duration> {
        let start = Instant::now();
        for path in &self.files {
            rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)
                .map_err(|err| format!("{}: {err}", path.display()))?;
        }
        Ok(start.elapsed())
    }

    fn list(&self) -> Result<Duration> {
        let start = Instant::now();
        let mut seen = 0;
        for path in &self.directories {
            seen += fs::read_dir(path).map_err(|err| format!("{}: {err}", path.display()))?.count();
        }
        let time = start.elapsed();
        if seen < self.files.len() { Err(format!("only {seen} names were listed")) } else { Ok(time) }
    }

    fn read(&self) -> Result<Duration> {
        let mut buffer = vec![0; 1 << 17];
        let start = Instant::now();
        for path in &self.files {
            let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            let mut file = File::from(file.map_err(|err| format!("{}: {err}", path.display()))?);
            while file.read(&mut buffer).map_err(|err| format!("{}: {err}", path.display()))? > 0 {}
        }
        Ok(start.elapsed())
    }
}

fn exec(program: &Path) -> Result<Duration> {
    let start = Instant::now();
    for _ in 0..EXECS {
        crate::measure::time(Command::new(program).arg("--version").stdout(Stdio::null()).stdin(Stdio::null()))?;
    }
    Ok(start.elapsed())
}

/// A walker that waits for requests.
pub struct Walker {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Walker {
    /// Starts one; it must find all files of `tree`.
    pub fn start(mut command: Command, tree: &Tree) -> Result<Walker> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|err| format!("{command:?}: {err}"))?;
        let answers = child.stdout.take().map(BufReader::new).ok_or("no output")?;
        let mut walker = Walker { child, answers };
        let first = walker.answer()?;
        let expected = format!("{} files", tree.files);
        if first == expected { Ok(walker) } else { Err(format!("{command:?}: {first} instead of {expected}")) }
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(|err| format!("walker: {err}"))?;
        if line.is_empty() { Err("the walker has gone".into()) } else { Ok(line.trim().to_owned()) }
    }

    /// How long one pass takes, or the execs; see [`run`].
    pub fn pass(&mut self, request: &str) -> Result<Duration> {
        let stdin = self.child.stdin.as_mut().ok_or("no input")?;
        writeln!(stdin, "{request}").map_err(|err| format!("walker: {err}"))?;
        self.answer()?.parse().map(Duration::from_nanos).map_err(|err| format!("walker: {err}"))
    }
}

impl Drop for Walker {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
