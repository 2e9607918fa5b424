//! Stat, listing, reading and starting of what is in /spfs the second time, against plain overlayfs over a plain copy.

use std::process::Command;
use std::time::Duration;

use crate::bench::{Bench, Result};
use crate::measure::{Contender, Pinned, interleaved, ms, ratio};
use crate::report::Row;
use crate::tree::Tree;
use crate::walker::Walker;

/// What is asked of the walkers, and its name; the last only where there is such a program.
const WORK: [(&str, &str); 4] = [
    ("list", "second listing of everything"),
    ("stat", "second stat of everything"),
    ("read", "second read of everything"),
    ("exec bin/cargo", "ten starts of a program of 40 MB"),
];

/// The second and later passes over the trees of many files.
pub fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for tree in bench.trees()?.iter().filter(|tree| tree.files > 20_000) {
        rows.extend(of_tree(bench, tree)?);
    }
    Ok(rows)
}

fn of_tree(bench: &Bench, tree: &Tree) -> Result<Vec<Row>> {
    bench.output(bench.spfs("reading", &format!("commit --path {} --tag tree", tree.path.display())))?;
    let mut plain = bench.command("reading", &bench.own);
    plain.arg("walker").arg(&tree.path);
    let (plain, overlay) = (Walker::start(plain, tree)?, Walker::start(plain_overlay(bench, tree), tree)?);
    let mut walkers = vec![("plain", plain), ("overlayfs", overlay)];
    let best = bench.best_backend();
    for backend in [best, "render", "fuse"] {
        let command = bench.spfs("reading", &format!("run --backend {backend} tree --"));
        walkers.push((backend, inside(bench, command, tree)?));
    }
    walkers.push(("shared", inside(bench, bench.sharing("reading", "run tree --"), tree)?));

    // One CPU for all: who runs where decides more than who is faster.
    let _pinned = Pinned::new()?;
    let rounds = (bench.rounds / 10).clamp(1, 5);
    let mut rows = Vec::new();
    for (request, what) in WORK {
        if request.split_once(' ').is_some_and(|(_, name)| !tree.path.join(name).exists()) {
            continue;
        }
        // Round 0 of `interleaved` is the first pass, which does not count.
        let contenders = walkers.iter_mut().map(|(name, walker)| Contender::timed(name, |_| walker.pass(request)));
        let times = interleaved(rounds, contenders.collect())?;
        let names: Vec<&str> = walkers.iter().map(|(name, _)| *name).collect();
        rows.extend(compared(bench, &format!("{what}, {} files", tree.files), &names, &times));
    }
    Ok(rows)
}

fn inside(bench: &Bench, mut command: Command, tree: &Tree) -> Result<Walker> {
    command.arg(&bench.own).args(["walker", "/spfs"]);
    Walker::start(command, tree)
}

/// Every way of showing the view against overlayfs; the plain tree comes first, overlayfs second.
fn compared(bench: &Bench, work: &str, names: &[&str], times: &[Duration]) -> Vec<Row> {
    let (plain, overlay) = (times[0], times[1]);
    let of = |(name, time): (&&str, &Duration)| {
        let measured = format!("spfs {:.1} ms, overlayfs {:.1} ms, plain {:.1} ms", ms(*time), ms(overlay), ms(plain));
        let work = format!("{work}, {name}, to plain overlayfs");
        Row::ratio(bench.who(), work, ratio(*time, overlay), Some(1.1), measured)
    };
    names.iter().zip(times).skip(2).map(of).collect()
}

/// A walker over overlayfs with the tree as its only lower layer and an empty top on tmpfs, as the runtime has one.
fn plain_overlay(bench: &Bench, tree: &Tree) -> Command {
    let script = "mount -t tmpfs tmpfs /mnt && mkdir /mnt/upper /mnt/work /mnt/merged && \
                  mount -t overlay overlay -o \"lowerdir=$1,upperdir=/mnt/upper,workdir=/mnt/work$4\" /mnt/merged && \
                  exec \"$2\" \"$3\" /mnt/merged";
    let mut command = bench.command("reading", "unshare");
    if bench.is_root {
        command.arg("--mount");
    } else {
        command.args(["--user", "--map-root-user", "--mount"]);
    }
    command.args(["sh", "-c", script, "sh"]).arg(&tree.path).arg(&bench.own).arg("walker");
    command.arg(if bench.is_root { "" } else { ",userxattr" });
    command
}
