//! The trees that are measured: the Rust toolchain, a node_modules, and one of a million files.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bench::Result;

/// A tree on disk.
#[derive(Clone, Debug)]
pub struct Tree {
    pub name: String,
    pub path: PathBuf,
    pub files: u64,
    pub directories: u64,
    pub bytes: u64,
}

impl Tree {
    /// Mean size of a file, in bytes.
    pub fn mean(&self) -> u64 {
        self.bytes / self.files.max(1)
    }

    /// Measures a tree.
    fn look(name: &str, path: PathBuf) -> Result<Tree> {
        let mut tree = Tree { name: name.into(), path, files: 0, directories: 0, bytes: 0 };
        let mut directories = vec![tree.path.clone()];
        while let Some(directory) = directories.pop() {
            tree.directories += 1;
            for entry in fs::read_dir(&directory).map_err(|err| format!("{}: {err}", directory.display()))?.flatten() {
                let meta = entry.metadata().map_err(|err| format!("{}: {err}", entry.path().display()))?;
                if meta.is_dir() {
                    directories.push(entry.path());
                } else if meta.is_file() {
                    tree.files += 1;
                    tree.bytes += meta.len();
                }
            }
        }
        Ok(tree)
    }
}

/// Names in the order of their sizes; the last only in a full run.
pub const NAMES: [&str; 4] = ["toolchain", "node_modules", "toolchain+docs", "million"];

/// Packages with many files, when npm is there.
const PACKAGES: [&str; 7] = ["@mui/icons-material", "date-fns", "aws-sdk", "webpack", "lodash", "typescript", "eslint"];

/// The names that are wanted, smallest first; that of the million only in a full run.
pub fn wanted(names: &[&str], full: bool) -> Vec<&'static str> {
    NAMES[..if full { 4 } else { 3 }].iter().copied().filter(|name| names.contains(name)).collect()
}

/// Trees that have been made.
pub fn all(parent: &Path, names: &[&str]) -> Result<Vec<Tree>> {
    names.iter().map(|name| Tree::look(name, parent.join(name))).collect()
}

/// Makes the trees that are not there yet; each appears under its name only when it is complete.
pub fn make_all(parent: &Path, names: &[&str], say: impl Fn(&str)) -> Result<()> {
    for name in names {
        let path = parent.join(name);
        if path.exists() {
            continue;
        }
        say(&format!("making the tree {name}"));
        let temporary = parent.join(format!("{name}.new"));
        let _ = fs::remove_dir_all(&temporary);
        match *name {
            "toolchain" => toolchain(&temporary, false)?,
            "toolchain+docs" => toolchain(&temporary, true)?,
            "node_modules" => node_modules(&temporary)?,
            _ => made(&temporary, 1_000_000, 100)?,
        }
        fs::rename(&temporary, &path).map_err(|err| format!("{}: {err}", path.display()))?;
    }
    Ok(())
}

/// A million names below `parent`, which is to be in memory: hard links to 200 small files, a hundred in a directory.
pub fn million(parent: PathBuf) -> Result<PathBuf> {
    let _ = fs::remove_dir_all(&parent);
    let tree = parent.join("tree");
    make(&parent)?;
    for number in 0..200 {
        fs::write(parent.join(number.to_string()), bytes(number))
            .map_err(|err| format!("{}: {err}", parent.display()))?;
    }
    for number in 0..1_000_000 {
        let directory = tree.join(format!("{:02}/{:05}", number / 10_000, number / 100));
        if number % 100 == 0 {
            make(&directory)?;
        }
        let file = directory.join(format!("module-{number:07}.js"));
        fs::hard_link(parent.join((number % 200).to_string()), &file)
            .map_err(|err| format!("{}: {err}", file.display()))?;
    }
    Ok(tree)
}

/// `files` files below `parent`, each with a content of its own of 64 to 2112 bytes; made once.
pub fn different(parent: &Path, files: u64) -> Result<Tree> {
    let name = format!("different-{files}");
    let path = parent.join(&name);
    if !path.exists() {
        let temporary = parent.join(format!("{name}.new"));
        let _ = fs::remove_dir_all(&temporary);
        for number in 0..files {
            let directory = temporary.join(format!("{:02}/{:05}", number / 10_000, number / 100));
            if number % 100 == 0 {
                make(&directory)?;
            }
            let mut content = bytes(number);
            content.truncate(64 + content[0] as usize * 8);
            content.extend(number.to_le_bytes());
            let file = directory.join(format!("module-{number:07}.js"));
            fs::write(&file, content).map_err(|err| format!("{}: {err}", file.display()))?;
        }
        fs::rename(&temporary, &path).map_err(|err| format!("{}: {err}", path.display()))?;
    }
    Tree::look(&name, path)
}

fn toolchain(to: &Path, docs: bool) -> Result<()> {
    let out = Command::new("rustc").args(["--print", "sysroot"]).output().map_err(|err| format!("rustc: {err}"))?;
    let sysroot = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    command("cp", &["-a", &sysroot, text(to)?])?;
    // The user of the second half must be able to read it.
    command("chmod", &["-R", "a+rX", text(to)?])?;
    if !docs {
        let _ = fs::remove_dir_all(to.join("share/doc"));
    }
    Ok(())
}

/// What npm makes of some packages; a tree of the same shape where npm is not to be had.
fn node_modules(to: &Path) -> Result<()> {
    make(to)?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", "--prefix"]).arg(to).args(PACKAGES);
    if npm.status().is_ok_and(|status| status.success()) {
        return command("chmod", &["-R", "a+rX", text(to)?]);
    }
    made(to, 40_000, 12)
}

/// `files` small files, `per_directory` in each directory, with as many different contents as a fiftieth of them.
fn made(to: &Path, files: u64, per_directory: u64) -> Result<()> {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let distinct = (files / 50).max(1);
    for number in 0..files {
        let directory = number / per_directory;
        let path = to.join(format!("{:02}", directory % 100)).join(format!("{directory:05}"));
        if number % per_directory == 0 {
            make(&path)?;
        }
        let path = path.join(format!("module-{number:07}.js"));
        let content = random.next() % distinct;
        let mut file = File::create(&path).map_err(|err| format!("{}: {err}", path.display()))?;
        file.write_all(&bytes(content)).map_err(|err| format!("{}: {err}", path.display()))?;
    }
    Ok(())
}

/// Content number `seed`: 1 to 8 KiB.
fn bytes(seed: u64) -> Vec<u8> {
    let mut random = Random(seed.wrapping_mul(0x2545_F491_4F6C_DD1D) | 1);
    let length = 128 + random.next() % 896;
    (0..length).flat_map(|_| random.next().to_le_bytes()).collect()
}

/// xorshift: the same trees on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn make(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|err| format!("{}: {err}", path.display()))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or(format!("{} is not UTF-8", path.display()))
}

fn command(program: &str, args: &[&str]) -> Result<()> {
    match Command::new(program).args(args).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program} {args:?}: {status}")),
        Err(err) => Err(format!("{program}: {err}")),
    }
}
