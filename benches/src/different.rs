//! Files of which no two are the same, a million in a full run: what each content costs on the way into a repository,
//! at the first start, and through a server; above all in memory.

use std::fs;
use std::time::Instant;

use crate::bench::{Bench, Result};
use crate::first::first_and_warm;
use crate::measure::{ms, peak, ratio, time};
use crate::report::Row;
use crate::share::server;
use crate::tree::Tree;

/// Bytes on disk for each file of the tree, and for a repository's two: blocks, inodes and names.
const ROOM: (u64, u64) = (4600, 9200);

/// How often nearly the same is committed again, for the first start after it.
const ROUNDS: usize = 3;

/// The first commit, and what is sent, only once: a round is minutes, and 9 GB.
pub fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let tree = bench.different()?;
    // The most at a time: the repository of the commit and the server's, or that one and what was pulled from it.
    let needed = tree.files * 2 * ROOM.1;
    let free = rustix::fs::statvfs(&bench.dir).map_err(|err| format!("{}: {err}", bench.dir.display()))?;
    let free = free.f_bavail * free.f_frsize;
    if free < needed {
        let (work, gib) = (format!("{} different files", tree.files), |bytes: u64| bytes as f64 / f64::from(1 << 30));
        let why = format!("{:.0} GiB are free, {:.0} are needed", gib(free), gib(needed));
        return Ok(vec![Row::not_run(bench.who(), work, why)]);
    }
    let mut rows = first_commit(bench, &tree)?;
    rows.push(first_start(bench, &tree)?);
    rows.extend(served(bench, &tree)?);
    Ok(rows)
}

fn first_commit(bench: &Bench, tree: &Tree) -> Result<Vec<Row>> {
    let sha = "find \"$1\" -type f -print0 | xargs -0 -n 64 -P \"$(nproc)\" sha256sum";
    // It goes first, so that all of them find the tree in memory.
    let sha = time(bench.command("copies", "sh").args(["-c", sha, "sh"]).arg(&tree.path))?;
    rustix::fs::sync();
    let copies = bench.home("copies");
    let script = "cp -a \"$1\" \"$2\" && sync -f \"$2\"";
    let copy = time(bench.command("copies", "sh").args(["-c", script, "sh"]).arg(&tree.path).arg(copies.join("copy")))?;
    fs::remove_dir_all(&copies).map_err(|err| format!("{}: {err}", copies.display()))?;
    bench.home("first");
    rustix::fs::sync();
    let (commit, kb) = peak(bench.spfs("first", &format!("commit --path {} --tag tree", tree.path.display())))?;
    let measured =
        format!("commit {:.0} ms, sha256sum {:.0} ms, cp and sync {:.0} ms, once", ms(commit), ms(sha), ms(copy));
    let work = format!("first commit of {} different files", tree.files);
    let per_file = format!("VmHWM, {} bytes a file", kb * 1024 / tree.files);
    Ok(vec![
        Row::ratio(
            bench.who(),
            format!("{work}, to the slower of sha256sum and cp"),
            ratio(commit, sha.max(copy)),
            Some(2.0),
            measured,
        ),
        Row::new(bench.who(), format!("peak memory of the {work}"), kb as f64 / 1024.0, "MB", None, per_file),
    ])
}

/// The first start after a commit of nearly the same again; and whether the right files are there.
fn first_start(bench: &Bench, tree: &Tree) -> Result<Row> {
    let row = first_and_warm(bench, &tree.path, ROUNDS, "different files", tree.files)?;
    // All names, and the content of one file in a hundred.
    let look = "cd \"$1\" && find . -type f | LC_ALL=C sort | sha256sum
        find . -name '*42.js' -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum";
    let mut plain = bench.command("first", "sh");
    plain.args(["-c", look, "sh"]).arg(&tree.path);
    let mut shown = bench.spfs("first", "run tree -- sh -c");
    shown.args([look, "sh", "/spfs"]);
    let started = Instant::now();
    if bench.output(plain)? != bench.output(shown)? {
        return Err(format!("what was committed of {} is not what is shown", tree.path.display()));
    }
    bench.say(&format!("compared in {:.0} ms", ms(started.elapsed())));
    Ok(row)
}

/// The memory of both ends of a push and of a pull; of two repositories each time, as there may be no room for three.
fn served(bench: &Bench, tree: &Tree) -> Result<Vec<Row>> {
    let served = server(bench, "served")?;
    let (push, pushed) = peak(bench.spfs("first", &format!("push --to grpc://{} tree", served.address)))?;
    let took = served.high_water();
    let first = bench.home("first");
    fs::remove_dir_all(&first).map_err(|err| format!("{}: {err}", first.display()))?;
    let (pull, pulled) = peak(bench.spfs("third", &format!("pull --from grpc://{} tree", served.address)))?;
    let row = |who: &str, kb: u64, measured: String| {
        let work = format!("peak memory of {who}, {} different files, grpc:", tree.files);
        Row::new(bench.who(), work, kb as f64 / 1024.0, "MB", Some(200.0), measured)
    };
    Ok(vec![
        row("a client that pushes", pushed, format!("VmHWM, in {:.0} ms", ms(push))),
        row("a client that pulls", pulled, format!("VmHWM, in {:.0} ms", ms(pull))),
        row("the server of both", served.high_water(), format!("VmHWM; {:.1} MB after the push", took as f64 / 1024.0)),
    ])
}
