//! The first stat of every file of a tree that nobody has listed: in a fresh runtime, and in a second one of its view.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::bench::{Bench, Result};
use crate::measure::{Contender, interleaved, ms, ratio};
use crate::report::Row;
use crate::tree::Tree;
use crate::walker::Walker;

/// The tree of fifty thousand files. Before each walk that counts the kernel forgets all names and inodes; blocks
/// of the disk stay in memory.
pub fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for tree in bench.trees()?.iter().filter(|tree| (20_000..60_000).contains(&tree.files)) {
        rows.extend(of_tree(bench, tree)?);
    }
    Ok(rows)
}

fn of_tree(bench: &Bench, tree: &Tree) -> Result<Vec<Row>> {
    bench.output(bench.spfs("touch", &format!("commit --path {} --tag tree", tree.path.display())))?;
    let names = names(bench, tree)?;
    let best = bench.best_backend();
    let fresh = |backend: &str| {
        let command = bench.spfs("touch", &format!("run --backend {backend} tree --"));
        walk(bench, tree, inside(bench, command, &names))
    };
    let backends = [best, "render", "fuse"];
    let mut contenders = vec![Contender::timed("plain tree", |_| {
        let mut command = bench.command("touch", &bench.own);
        command.arg("walker").arg(&tree.path).arg(&names);
        walk(bench, tree, command)
    })];
    for backend in &backends {
        contenders.push(Contender::timed(backend, move |_| fresh(backend)));
    }
    contenders.push(Contender::timed("second runtime", |_| {
        bench.drop_inodes()?;
        let command = || inside(bench, bench.sharing("touch", "run tree --"), &names);
        Walker::start(command(), tree)?.pass("stat")?;
        Walker::start(command(), tree)?.pass("stat")
    }));
    let times = interleaved((bench.rounds / 10).clamp(1, 3), contenders)?;
    let (plain, second) = (times[0], times[times.len() - 1]);
    let mut rows = Vec::new();
    for (backend, time) in backends.iter().zip(&times[1..]) {
        let target = match *backend {
            "image" => Some(4.0),
            "server" => Some(6.0),
            _ => None,
        };
        rows.push(row(bench, tree, &format!("first stat of everything, {backend}"), (*time, plain), target));
    }
    let work = format!("first stat in a second runtime of the view, shared, {best}");
    rows.push(row(bench, tree, &work, (second, plain), Some(2.5)));
    Ok(rows)
}

fn row(bench: &Bench, tree: &Tree, work: &str, (time, plain): (Duration, Duration), target: Option<f64>) -> Row {
    let work = format!("{work}, {} files, to the plain tree", tree.files);
    let measured = format!("spfs {:.0} ms, plain {:.0} ms", ms(time), ms(plain));
    Row::ratio(bench.who(), work, ratio(time, plain), target, measured)
}

/// The first pass of a walker that starts now, the kernel having forgotten everything.
fn walk(bench: &Bench, tree: &Tree, command: Command) -> Result<Duration> {
    bench.drop_inodes()?;
    Walker::start(command, tree)?.pass("stat")
}

/// The walker in the runtime that `command` starts.
fn inside(bench: &Bench, mut command: Command, names: &Path) -> Command {
    command.arg(&bench.own).args(["walker", "/spfs"]).arg(names);
    command
}

/// A file with the names of all files of the tree, in order.
fn names(bench: &Bench, tree: &Tree) -> Result<PathBuf> {
    let list = bench.output({
        let mut find = bench.command("touch", "find");
        find.arg(&tree.path).args(["-type", "f", "-printf", "%P\\n"]);
        find
    })?;
    let mut names: Vec<&str> = list.lines().collect();
    names.sort_unstable();
    let path = bench.dir.join("names");
    fs::write(&path, names.join("\n")).map_err(|err| format!("{}: {err}", path.display()))?;
    Ok(path)
}
