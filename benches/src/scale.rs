//! Whether a start depends on the size of what is shown.

use std::fs;
use std::process::Command;

use crate::bench::{Bench, Result};
use crate::measure::{Contender, interleaved, ms, ratio};
use crate::report::Row;
use crate::start::stack;
use crate::tree;

/// One file against a million, and one layer against two thousand.
pub fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let small = stack(bench, 1)?;
    let many = tree::million(bench.shm())?;
    let committed = bench.output(bench.spfs("start", &format!("commit --path {} --tag million", many.display())));
    let _ = fs::remove_dir_all(bench.shm());
    committed?;
    let mut rows = Vec::new();
    for (what, tag) in [("1,000,000 files to 1", "million".to_owned()), ("2,000 layers to 1", stack(bench, 2000)?)] {
        for (how, start) in [("alone", Bench::spfs as fn(&Bench, &str, &str) -> Command), ("shared", Bench::sharing)] {
            let run = |tag: &str| start(bench, "start", &format!("run {tag} -- true"));
            bench.output(run(&tag))?;
            let contenders = vec![Contender::command("large", run(&tag)), Contender::command("small", run(&small))];
            let times = interleaved(bench.rounds.min(50), contenders)?;
            let measured = format!("{:.2} ms and {:.2} ms", ms(times[0]), ms(times[1]));
            let work = format!("warm start, {how}, {what}");
            rows.push(Row::ratio(bench.who(), work, ratio(times[0], times[1]), Some(1.2), measured));
        }
    }
    Ok(rows)
}
