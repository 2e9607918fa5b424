//! What a first start costs more than a warm one: after a commit, and of a new combination of layers.

use std::fs;
use std::path::PathBuf;
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
        rows.extend(after_commit(bench, tree)?);
        rows.push(new_combination(bench, tree)?);
    }
    Ok(rows)
}

fn after_commit(bench: &Bench, tree: &Tree) -> Result<Vec<Row>> {
    // A copy, because each round must commit something new; hard links, as only names and one file differ.
    let copy = linked(bench, tree)?;
    let (mut first, mut warm) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        fs::write(copy.join("round"), round.to_string()).map_err(|err| format!("{}: {err}", copy.display()))?;
        bench.output(bench.spfs("first", &format!("commit --path {} --tag first", copy.display())))?;
        let once = time(&mut bench.spfs("first", "run first -- true"))?;
        let again = median((0..5).map(|_| time(&mut bench.spfs("first", "run first -- true"))).collect::<Result<_>>()?);
        let seen = bench.output(bench.spfs("first", "run first -- cat /spfs/round"))?;
        if seen != round.to_string() {
            return Err("the new commit was not shown".into());
        }
        if round > 0 {
            first.push(once);
            warm.push(again);
        }
    }
    let _ = fs::remove_dir_all(&copy);
    let (first, warm) = (median(first), median(warm));
    let work = format!("first start after a commit, {} files", tree.files);
    let measured = format!("first {:.2} ms, warm {:.2} ms", ms(first), ms(warm));
    if bench.is_root {
        let target = if tree.files > 500_000 { 1000.0 } else { 60.0 };
        let more = ms(first) - ms(warm);
        Ok(vec![Row::new(bench.who(), work, more, "ms more", Some(target), measured)])
    } else {
        Ok(vec![Row::ratio(bench.who(), work, ratio(first, warm), Some(1.5), measured)])
    }
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
