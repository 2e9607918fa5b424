//! Stat, listing and reading of everything in /spfs the second time, against plain overlayfs over a plain copy.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::bench::{Bench, Result};
use crate::measure::{Contender, Pinned, interleaved, ms, ratio};
use crate::report::Row;
use crate::tree::Tree;

/// The second and later passes over the toolchain with its documents and, in a full run, over a million files.
pub fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for tree in bench.trees()?.iter().filter(|tree| tree.files > 20_000) {
        rows.extend(of_tree(bench, tree)?);
    }
    Ok(rows)
}

fn of_tree(bench: &Bench, tree: &Tree) -> Result<Vec<Row>> {
    bench.output(bench.spfs("reading", &format!("commit --path {} --tag tree", tree.path.display())))?;
    let mut inside = bench.spfs("reading", "run tree --");
    inside.arg(&bench.own).args(["walker", "/spfs"]);
    let mut inside = Walker::start(inside, tree)?;
    let mut overlay = Walker::start(plain_overlay(bench, tree), tree)?;
    let mut plain = bench.command("reading", &bench.own);
    plain.arg("walker").arg(&tree.path);
    let mut plain = Walker::start(plain, tree)?;

    // One CPU for all: who runs where decides more than who is faster.
    let _pinned = Pinned::new()?;
    let rounds = (bench.rounds / 10).clamp(3, 10);
    let mut rows = Vec::new();
    for (word, what) in [("list", "listing"), ("stat", "stat"), ("read", "read")] {
        // Round 0 of `interleaved` is the first pass, which does not count.
        let times = interleaved(
            rounds,
            vec![
                Contender::timed("spfs", |_| inside.pass(word)),
                Contender::timed("overlayfs", |_| overlay.pass(word)),
                Contender::timed("plain", |_| plain.pass(word)),
            ],
        )?;
        let [spfs, overlay, plain] = times[..] else { unreachable!("as many times as contenders") };
        let measured = format!("spfs {:.1} ms, overlayfs {:.1} ms, plain {:.1} ms", ms(spfs), ms(overlay), ms(plain));
        let work = format!("second {what} of everything, {} files", tree.files);
        rows.push(Row::ratio(
            bench.who(),
            format!("{work}, to plain overlayfs"),
            ratio(spfs, overlay),
            Some(1.1),
            &measured,
        ));
        rows.push(Row::ratio(bench.who(), format!("{work}, to the plain tree"), ratio(spfs, plain), None, measured));
    }
    Ok(rows)
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

/// A walker that waits for requests.
struct Walker {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Walker {
    fn start(mut command: Command, tree: &Tree) -> Result<Walker> {
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

    fn pass(&mut self, word: &str) -> Result<Duration> {
        let stdin = self.child.stdin.as_mut().ok_or("no input")?;
        writeln!(stdin, "{word}").map_err(|err| format!("walker: {err}"))?;
        self.answer()?.parse().map(Duration::from_nanos).map_err(|err| format!("walker: {err}"))
    }
}

impl Drop for Walker {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
