//! What a first start costs more than a warm one: after a commit, and of a new combination of layers.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::bench::{Bench, Result};
use crate::measure::{median, ms, ratio, time};
use crate::report::Row;
use crate::tree::Tree;

/// How often; each needs a new commit of the whole tree.
const ROUNDS: usize = 7;

/// The first start after a commit, and after layers have been combined anew, for the two largest trees.
pub fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let mut trees = bench.trees()?;
    trees.sort_by_key(|tree| tree.files);
    let from = trees.len().saturating_sub(if bench.full { 2 } else { 1 });
    let mut rows = Vec::new();
    for tree in &trees[from..] {
        rows.push(after_commit(bench, tree)?);
        rows.push(new_combination(bench, tree)?);
    }
    Ok(rows)
}

fn after_commit(bench: &Bench, tree: &Tree) -> Result<Row> {
    // A copy, because each round must commit something new; hard links, as only names and one file differ.
    let copy = linked(bench, tree)?;
    let row = first_and_warm(bench, &copy, ROUNDS, "files", tree.files);
    let _ = fs::remove_dir_all(&copy);
    row
}

/// The first start after a commit to a warm one: of the tree at `path`, one file of which is new in each round. `what` are
/// its `count` files. The very first round, which finds nothing in memory, is not counted.
pub fn first_and_warm(bench: &Bench, path: &Path, rounds: usize, what: &str, count: u64) -> Result<Row> {
    let (mut first, mut warm) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        fs::write(path.join("round"), round.to_string()).map_err(|err| format!("{}: {err}", path.display()))?;
        bench.output(bench.spfs("first", &format!("commit --path {} --tag tree", path.display())))?;
        let once = time(&mut bench.spfs("first", "run tree -- true"))?;
        let again = median((0..5).map(|_| time(&mut bench.spfs("first", "run tree -- true"))).collect::<Result<_>>()?);
        let seen = bench.output(bench.spfs("first", "run tree -- cat /spfs/round"))?;
        if seen != round.to_string() {
            return Err("the new commit was not shown".into());
        }
        if round > 0 {
            first.push(once);
            warm.push(again);
        }
    }
    let (first, warm) = (median(first), median(warm));
    let work = format!("first start after a commit, {count} {what}");
    let measured = format!("first {:.2} ms, warm {:.2} ms", ms(first), ms(warm));
    Ok(match bench.is_root {
        true => {
            let target = if count > 500_000 { 1000.0 } else { 60.0 };
            Row::new(bench.who(), work, ms(first) - ms(warm), "ms more", Some(target), measured)
        }
        false => Row::ratio(bench.who(), work, ratio(first, warm), Some(1.5), measured),
    })
}

fn new_combination(bench: &Bench, tree: &Tree) -> Result<Row> {
    bench.output(bench.spfs("first", &format!("commit --path {} --tag below", tree.path.display())))?;
    bench.output(bench.spfs("first", "run below -- true"))?;
    let (mut first, mut warm) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let above = bench.dir.join("above");
        fs::create_dir_all(&above).map_err(|err| format!("{}: {err}", above.display()))?;
        fs::write(above.join("round"), format!("above {round}"))
            .map_err(|err| format!("{}: {err}", above.display()))?;
        bench.output(bench.spfs("first", &format!("commit --path {} --tag above", above.display())))?;
        first.push(time(&mut bench.spfs("first", "run below+above -- true"))?);
        warm.push(time(&mut bench.spfs("first", "run below+above -- true"))?);
    }
    let (first, warm) = (median(first), median(warm));
    let work = format!("new combination of layers, {} files", tree.files);
    // As root the image is made too, which has a target of its own.
    let image = if bench.is_root { if tree.files > 500_000 { 1000.0 } else { 60.0 } } else { 0.0 };
    let target = image + 500.0 * (tree.files as f64 / 1e6);
    let more = ms(first.saturating_sub(warm));
    let measured = format!("first {:.2} ms, warm {:.2} ms", ms(first), ms(warm));
    Ok(Row::new(bench.who(), work, more, "ms more", Some(target), measured))
}

/// A tree of the same files with directories of its own. By copy where hard links to files of others are forbidden.
fn linked(bench: &Bench, tree: &Tree) -> Result<PathBuf> {
    let copy = bench.dir.join("copy");
    let _ = fs::remove_dir_all(&copy);
    let how = if bench.is_root { "-al" } else { "-a" };
    let mut command = bench.command("first", "cp");
    command.arg(how).arg(&tree.path).arg(&copy);
    let _: Duration = time(&mut command)?;
    Ok(copy)
}
