//! How long a warm start takes: any number of files, any number of layers.

use std::fs;

use crate::bench::{Bench, Result};
use crate::measure::{Contender, interleaved, ms, ratio};
use crate::report::Row;

/// `spfs run TAG -- true` against bubblewrap and against the floor, for trees and for stacks.
pub fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let mut cases = Vec::new();
    for tree in bench.trees()? {
        let tag = format!("bench/{}", tree.name.replace('+', "-"));
        bench.output(bench.spfs("start", &format!("commit --path {} --tag {tag}", tree.path.display())))?;
        cases.push((format!("{} files, 1 layer", tree.files), tag));
    }
    for layers in [10, 100, 500] {
        cases.push((format!("{layers} layers"), stack(bench, layers)?));
    }
    let mut rows = Vec::new();
    for (what, tag) in cases {
        // Once before: makes what is made at a first start.
        bench.output(bench.spfs("start", &format!("run {tag} -- true")))?;
        let mut bubblewrap = bench.command("start", "bwrap");
        bubblewrap.args(["--dev-bind", "/", "/", "true"]);
        let mut floor = bench.command("start", &bench.own);
        floor.args(["floor", "true"]);
        let contenders = vec![
            Contender::command("spfs run", bench.spfs("start", &format!("run {tag} -- true"))),
            Contender::command("bwrap", bubblewrap),
            Contender::command("floor", floor),
            Contender::command("true", bench.command("start", "true")),
        ];
        let times = interleaved(bench.rounds, contenders)?;
        let [spfs, bwrap, floor, bare] = times[..] else { unreachable!("as many times as contenders") };
        let measured = format!(
            "spfs {:.2} ms, bwrap {:.2} ms, floor {:.2} ms, `true` alone {:.2} ms",
            ms(spfs),
            ms(bwrap),
            ms(floor),
            ms(bare)
        );
        rows.push(Row::ratio(
            bench.who(),
            format!("warm start, {what}, to bwrap"),
            ratio(spfs, bwrap),
            Some(1.5),
            &measured,
        ));
        rows.push(Row::ratio(
            bench.who(),
            format!("warm start, {what}, to the floor"),
            ratio(spfs, floor),
            None,
            measured,
        ));
    }
    Ok(rows)
}

/// A platform of that many layers, each with one file and a directory that all of them share; returns its tag.
fn stack(bench: &Bench, layers: usize) -> Result<String> {
    let mut digests = Vec::new();
    for number in 0..layers {
        let tree = bench.dir.join("layer");
        let _ = fs::remove_dir_all(&tree);
        fs::create_dir_all(tree.join("shared")).map_err(|err| format!("{}: {err}", tree.display()))?;
        let file = tree.join(format!("shared/file-{number:03}"));
        fs::write(&file, format!("layer {number}")).map_err(|err| format!("{}: {err}", file.display()))?;
        let tag = format!("bench/layer-{number:03}");
        bench.output(bench.spfs("start", &format!("commit --path {} --tag {tag}", tree.display())))?;
        digests.push(tag);
    }
    let tag = format!("bench/stack-{layers}");
    bench.output(bench.spfs("start", &format!("commit --ref {} --tag {tag}", digests.join("+"))))?;
    let seen = bench.output(bench.spfs("start", &format!("run {tag} -- ls /spfs/shared")))?;
    if seen.lines().count() == layers {
        Ok(tag)
    } else {
        Err(format!("{tag} does not show the files of {layers} layers"))
    }
}
