//! Real programs that read many files of /spfs, each in a fresh runtime, against the same on the plain tree.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::bench::{Bench, Result};
use crate::measure::{Contender, interleaved, ms, ratio};
use crate::report::Row;

/// A program that works on a tree.
struct Program {
    name: &'static str,
    /// The tree, as it is on disk.
    tree: PathBuf,
    /// What is run, given where the tree is shown and a directory to write to.
    words: Words,
}

type Words = fn(&str, &str) -> Vec<String>;

const NODE: &str = "const from = process.argv[1] + '/node_modules/';
for (const name of ['webpack', 'lodash', 'eslint', 'date-fns', 'typescript']) require(from + name)";

/// What it needs: 12,000 files. Later typescript has nothing to require.
const PACKAGES: [&str; 5] = ["webpack", "lodash", "eslint", "date-fns", "typescript@5"];

/// The programs of which everything is there; a row for each of the others says why it is not.
pub fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let toolchain = bench.trees()?.into_iter().find(|tree| tree.name == "toolchain").map(|tree| tree.path);
    let programs = [
        ("node, five big packages", installed(bench, "node", node), node_words as Words),
        ("python, numpy and pandas", installed(bench, "python", python), python_words),
        ("rustc, hello.rs", toolchain.ok_or("no such tree".to_owned()), rustc_words),
    ];
    let mut rows = Vec::new();
    for (name, tree, words) in programs {
        let ready = tree.map(|tree| Program { name, tree, words }).and_then(|program| program.tried(bench));
        match ready {
            Ok(program) => rows.extend(program.measure(bench)?),
            Err(why) => rows.push(Row::not_run(bench.who(), name, why)),
        }
    }
    Ok(rows)
}

fn node_words(shown: &str, _: &str) -> Vec<String> {
    ["node", "-e", NODE, shown].map(String::from).into()
}

fn python_words(shown: &str, _: &str) -> Vec<String> {
    let path = format!("PYTHONPATH={shown}");
    ["env", &path, "PYTHONDONTWRITEBYTECODE=1", PYTHON, "-c", "import numpy, pandas"].map(String::from).into()
}

fn rustc_words(shown: &str, scratch: &str) -> Vec<String> {
    let output = format!("{scratch}/hello");
    [format!("{shown}/bin/rustc"), "-o".into(), output, format!("{scratch}/hello.rs")].into()
}

impl Program {
    /// Runs it once on the plain tree.
    fn tried(self, bench: &Bench) -> Result<Program> {
        let home = bench.home("programs");
        let source = home.join("hello.rs");
        fs::write(&source, "fn main() { println!(\"hello\"); }")
            .map_err(|err| format!("{}: {err}", source.display()))?;
        let mut command = self.command(bench, bench.command("programs", "env"), &self.tree);
        let out = command.stderr(Stdio::piped()).output().map_err(|err| format!("{}: {err}", self.name))?;
        if out.status.success() {
            return Ok(self);
        }
        let said = String::from_utf8_lossy(&out.stderr);
        Err(format!("does not run here: {}", said.lines().last().unwrap_or("no reason given")))
    }

    fn command(&self, bench: &Bench, mut command: Command, shown: &Path) -> Command {
        command.args((self.words)(&shown.display().to_string(), &bench.home("programs").display().to_string()));
        command
    }

    fn measure(&self, bench: &Bench) -> Result<Vec<Row>> {
        bench.output(bench.spfs("programs", &format!("commit --path {} --tag tree", self.tree.display())))?;
        let inside = |start: Command| self.command(bench, start, Path::new("/spfs"));
        let line = "run tree --";
        let times = interleaved(
            (bench.rounds / 10).clamp(1, 7),
            vec![
                Contender::command("plain", self.command(bench, bench.command("programs", "env"), &self.tree)),
                Contender::command("alone", inside(bench.spfs("programs", line))),
                Contender::command("shared", inside(bench.sharing("programs", line))),
            ],
        )?;
        let [plain, alone, shared] = times[..] else { unreachable!("as many times as contenders") };
        let target = if bench.is_root { 1.05 } else { 1.25 };
        let row = |how: &str, time| {
            let measured = format!("spfs {:.1} ms, plain {:.1} ms", ms(time), ms(plain));
            let work = format!("{} in a fresh runtime, {how}, to the plain tree", self.name);
            Row::ratio(bench.who(), work, ratio(time, plain), Some(target), measured)
        };
        Ok(vec![row("alone", alone), row("shared", shared)])
    }
}

/// The system's, which every user may run.
const PYTHON: &str = "/usr/bin/python3";

/// A tree that `install` makes, the first time.
fn installed(bench: &Bench, name: &str, install: fn(&Path) -> Result<()>) -> Result<PathBuf> {
    let tree = bench.programs().join(name);
    if tree.exists() {
        return Ok(tree);
    }
    bench.say(&format!("installing the packages for {name}"));
    let staged = bench.programs().join(format!("{name}.new"));
    let _ = fs::remove_dir_all(&staged);
    fs::create_dir_all(&staged).map_err(|err| format!("{}: {err}", staged.display()))?;
    install(&staged)?;
    said(Command::new("chmod").args(["-R", "a+rX"]).arg(bench.programs()))?;
    fs::rename(&staged, &tree).map_err(|err| format!("{}: {err}", tree.display()))?;
    Ok(tree)
}

fn node(to: &Path) -> Result<()> {
    let options = ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", "--prefix"];
    said(Command::new("npm").args(options).arg(to).args(PACKAGES)).map(drop)
}

/// Byte code of the common kind carries the time of its source, and what is committed has another one: it is made
/// without (docs/semantics.md).
fn python(to: &Path) -> Result<()> {
    let version = said(Command::new(PYTHON).args(["-c", "import sys; print('%d.%d' % sys.version_info[:2])"]))?;
    let options = ["-m", "pip", "install", "--quiet", "--no-compile", "--only-binary=:all:", "--python-version"];
    let mut pip = Command::new("python3");
    said(pip.args(options).arg(version.trim()).arg("--target").arg(to).args(["numpy", "pandas"]))?;
    let compile = ["-m", "compileall", "-q", "-x", "/tests/", "--invalidation-mode", "checked-hash"];
    // Some packages bring files that are not meant to be compiled.
    let _ = said(Command::new(PYTHON).args(compile).arg(to));
    Ok(())
}

/// Runs what installs, for at most two minutes: a slow registry is said, and costs its row only.
fn said(command: &mut Command) -> Result<String> {
    let mut limited = Command::new("timeout");
    limited.arg("120").arg(command.get_program()).args(command.get_args());
    let out = limited.output().map_err(|err| format!("{command:?}: {err}"))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&out.stderr).lines().last().unwrap_or("it failed")))
}
