//! The hidden program that walks over a tree inside a runtime or beside it, on request, and says how long it took.

use std::fs::{self, File};
use std::io::{BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};

use crate::bench::Result;

/// `walker DIRECTORY`: reads `stat`, `list` or `read` from standard input and answers each with nanoseconds.
pub fn run(words: &[String]) -> Result<()> {
    let [directory] = words else { return Err("walker: DIRECTORY".into()) };
    let walk = Walk::of(Path::new(directory))?;
    println!("{} files", walk.files.len());
    for line in std::io::stdin().lock().lines() {
        let time = match line.map_err(|err| format!("standard input: {err}"))?.as_str() {
            "stat" => walk.stat()?,
            "list" => walk.list()?,
            "read" => walk.read()?,
            other => return Err(format!("walker: {other}?")),
        };
        println!("{}", time.as_nanos());
        std::io::stdout().flush().map_err(|err| format!("standard output: {err}"))?;
    }
    Ok(())
}

/// Every path of a tree.
struct Walk {
    files: Vec<PathBuf>,
    directories: Vec<PathBuf>,
}

impl Walk {
    fn of(root: &Path) -> Result<Walk> {
        let mut walk = Walk { files: Vec::new(), directories: vec![root.to_owned()] };
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
