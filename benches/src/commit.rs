//! Commits: the first of a tree, against hashing and against copying it; and the next, unchanged, against `find`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::bench::{Bench, Result};
use crate::measure::{Contender, interleaved, ms, ratio, time};
use crate::report::Row;
use crate::tree::Tree;

/// Rounds of a first commit: each writes the tree four times.
const ROUNDS: usize = 3;

/// First and repeated commits of every tree.
pub fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for tree in bench.trees()? {
        rows.extend(first(bench, &tree)?);
        rows.push(again(bench, &tree)?);
        bench.clean_up();
    }
    Ok(rows)
}

fn first(bench: &Bench, tree: &Tree) -> Result<Vec<Row>> {
    let path = tree.path.display().to_string();
    // Every round gets a new repository and new copies; they are deleted when the clock has stopped for all.
    let copies = bench.home("copies");
    let sha = "find \"$1\" -type f -print0 | xargs -0 -n 64 -P \"$(nproc)\" sha256sum";
    let contenders = vec![
        Contender::timed("spfs commit", |round| {
            // What others have written is theirs to pay.
            rustix::fs::sync();
            let home = format!("commit-{round}");
            bench.home(&home);
            time(&mut bench.spfs(&home, &format!("commit --path {path} --tag tree")))
        }),
        Contender::timed("sha256sum", |_| time(bench.command("copies", "sh").args(["-c", sha, "sh", &path]))),
        Contender::timed("cp -a; sync -f", |round| {
            rustix::fs::sync();
            let to = copies.join(format!("copy-{round}"));
            let script = "cp -a \"$1\" \"$2\" && sync -f \"$2\"";
            time(bench.command("copies", "sh").args(["-c", script, "sh", &path]).arg(to))
        }),
        Contender::timed("two files each", |round| {
            rustix::fs::sync();
            let to = copies.join(format!("pair-{round}"));
            time(bench.command("copies", &bench.own).args(["two-files", &path]).arg(to))
        }),
    ];
    let times = interleaved(ROUNDS, contenders)?;
    let [commit, sha, copy, pair] = times[..] else { unreachable!("as many times as contenders") };
    let measured = format!(
        "commit {:.0} ms, sha256sum {:.0} ms, cp and sync {:.0} ms, two files each {:.0} ms",
        ms(commit),
        ms(sha),
        ms(copy),
        ms(pair)
    );
    let slower = sha.max(copy);
    let target = if tree.mean() > 65536 { 1.3 } else { 2.0 };
    let work = format!("first commit of {} ({} files, mean {} KiB)", tree.name, tree.files, tree.mean() / 1024);
    Ok(vec![
        Row::ratio(
            bench.who(),
            format!("{work}, to the slower of sha256sum and cp"),
            ratio(commit, slower),
            Some(target),
            &measured,
        ),
        Row::ratio(bench.who(), format!("{work}, to two files each"), ratio(commit, pair.max(sha)), None, measured),
    ])
}

fn again(bench: &Bench, tree: &Tree) -> Result<Row> {
    let line = format!("commit --path {} --tag again", tree.path.display());
    bench.output(bench.spfs("again", &line))?;
    // Files that are as young as the commit are rightly not believed; so the cache is full only after a second one.
    std::thread::sleep(std::time::Duration::from_millis(50));
    bench.output(bench.spfs("again", &line))?;
    let before = bench.output(bench.spfs("again", "tags --target"))?;
    let mut find = bench.command("again", "find");
    find.arg(&tree.path).args(["-type", "f", "-printf", "%p %s %T@\\n"]);
    let rounds = (bench.rounds / 10).clamp(3, 15);
    let times = interleaved(
        rounds,
        vec![Contender::command("spfs commit", bench.spfs("again", &line)), Contender::command("find", find)],
    )?;
    if bench.output(bench.spfs("again", "tags --target"))? != before {
        return Err(format!("{} was committed again unchanged, and its digest changed", tree.name));
    }
    let measured = format!("commit {:.1} ms, find {:.1} ms", ms(times[0]), ms(times[1]));
    let work = format!("commit of {} again, unchanged ({} files), to find", tree.name, tree.files);
    Ok(Row::ratio(bench.who(), work, ratio(times[0], times[1]), Some(3.0), measured))
}

/// `two-files FROM TO`: copies every file, writes a second one of 100 bytes beside it, and syncs the file system.
pub fn two_files_each(words: &[String]) -> Result<()> {
    let [from, to] = words else { return Err("two-files: FROM TO".into()) };
    let (payloads, objects) = (Path::new(to).join("payloads"), Path::new(to).join("objects"));
    let mut number = 0u64;
    let mut directories = vec![PathBuf::from(from)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).map_err(|err| format!("{}: {err}", directory.display()))?.flatten() {
            let path = entry.path();
            let kind = entry.file_type().map_err(|err| format!("{}: {err}", path.display()))?;
            if kind.is_dir() {
                directories.push(path);
            } else if kind.is_file() {
                let name = format!("{:02x}/{number}", number % 256);
                for parent in [&payloads, &objects].iter().filter(|_| number < 256) {
                    fs::create_dir_all(parent.join(format!("{:02x}", number % 256)))
                        .map_err(|err| format!("{to}: {err}"))?;
                }
                fs::copy(&path, payloads.join(&name)).map_err(|err| format!("{}: {err}", path.display()))?;
                fs::write(objects.join(&name), [0; 100]).map_err(|err| format!("{to}: {err}"))?;
                number += 1;
            }
        }
    }
    let root = File::open(to).map_err(|err| format!("{to}: {err}"))?;
    rustix::fs::syncfs(&root).map_err(|err| format!("{to}: {err}"))
}
