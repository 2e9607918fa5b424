//! How long a warm start takes: any number of files, any number of layers, with `/spfs` on the host and without.

use std::fs;

use crate::bench::{Bench, Result};
use crate::measure::{Contender, interleaved, ms, ratio};
use crate::report::Row;

/// `spfs run TAG -- true` against bubblewrap and against the floor, for trees and for stacks.
pub fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let mut cases = Vec::new();
    let mut trees = bench.trees()?;
    trees.sort_by_key(|tree| tree.files);
    // The size makes no difference, which the largest shows; everywhere else the smallest is enough.
    let largest = trees.last().cloned().filter(|_| !bench.no_spfs);
    for tree in trees.into_iter().take(1).chain(largest) {
        let tag = format!("bench/{}", tree.name.replace('+', "-"));
        bench.output(bench.spfs("start", &format!("commit --path {} --tag {tag}", tree.path.display())))?;
        cases.push((format!("{} files, 1 layer", tree.files), tag));
    }
    if !bench.no_spfs {
        for layers in [10, 500] {
            cases.push((format!("{layers} layers"), stack(bench, layers)?));
        }
    }
    let mut rows = Vec::new();
    for (what, tag) in cases {
        rows.extend(of_tag(bench, &what, &tag)?);
    }
    Ok(rows)
}

fn of_tag(bench: &Bench, what: &str, tag: &str) -> Result<Vec<Row>> {
    let line = format!("run {tag} -- true");
    // Once before: makes what is made at a first start.
    bench.output(bench.spfs("start", &line))?;
    let mut bubblewrap = bench.command("start", "bwrap");
    bubblewrap.args(["--dev-bind", "/", "/", "true"]);
    let mut floor = bench.command("start", &bench.own);
    floor.args(["floor", "true"]);
    let contenders = vec![
        Contender::command("spfs run", bench.spfs("start", &line)),
        Contender::command("spfs run, shared", bench.sharing("start", &line)),
        Contender::command("bwrap", bubblewrap),
        Contender::command("floor", floor),
        Contender::command("true", bench.command("start", "true")),
    ];
    let times = interleaved(bench.rounds, contenders)?;
    let [spfs, shared, bwrap, floor, bare] = times[..] else { unreachable!("as many times as contenders") };
    let measured = format!(
        "spfs {:.2} ms, shared {:.2} ms, bwrap {:.2} ms, floor {:.2} ms, `true` alone {:.2} ms",
        ms(spfs),
        ms(shared),
        ms(bwrap),
        ms(floor),
        ms(bare)
    );
    let (host, target) = if bench.no_spfs { (", no /spfs on the host", 1.2) } else { ("", 1.0) };
    let row = |how: &str, time| {
        let work = format!("warm start{how}, {what}{host}, to bwrap");
        Row::ratio(bench.who(), work, ratio(time, bwrap), Some(target), &measured)
    };
    let floor = Row::ratio(
        bench.who(),
        format!("warm start, shared, {what}{host}, to the floor"),
        ratio(shared, floor),
        None,
        &measured,
    );
    Ok(vec![row(", alone", spfs), row(", shared", shared), floor])
}

/// A platform of that many layers, each with one file and a directory that all of them share; returns its tag.
pub fn stack(bench: &Bench, layers: usize) -> Result<String> {
    let numbers: Vec<usize> = (0..layers).collect();
    // Each commit waits for the disk: a few at once.
    let parts = numbers.chunks(layers.div_ceil(8));
    let made: Vec<Result<Vec<String>>> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            parts.map(|part| scope.spawn(move || part.iter().map(|number| layer(bench, *number)).collect())).collect();
        let gone = |_| Err("a thread that committed layers has ended".to_owned());
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(gone)).collect()
    });
    let tags = made.into_iter().collect::<Result<Vec<_>>>()?.concat();
    let tag = format!("bench/stack-{layers}");
    bench.output(bench.spfs("start", &format!("commit --ref {} --tag {tag}", tags.join("+"))))?;
    let seen = bench.output(bench.spfs("start", &format!("run {tag} -- ls /spfs/shared")))?;
    if seen.lines().count() == layers {
        Ok(tag)
    } else {
        Err(format!("{tag} does not show the files of {layers} layers"))
    }
}

/// One of the layers; returns its tag.
fn layer(bench: &Bench, number: usize) -> Result<String> {
    let tree = bench.dir.join(format!("layer-{number}"));
    fs::create_dir_all(tree.join("shared")).map_err(|err| format!("{}: {err}", tree.display()))?;
    let file = tree.join(format!("shared/file-{number:04}"));
    fs::write(&file, format!("layer {number}")).map_err(|err| format!("{}: {err}", file.display()))?;
    let tag = format!("bench/layer-{number:04}");
    bench.output(bench.spfs("start", &format!("commit --path {} --tag {tag}", tree.display())))?;
    let _ = fs::remove_dir_all(&tree);
    Ok(tag)
}
