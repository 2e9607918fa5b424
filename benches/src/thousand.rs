//! A thousand runtimes of one view at once: what each of them takes of the memory, and how long one more takes to start.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use crate::bench::{Bench, Result};
use crate::measure::{median, ms, ratio, time};
use crate::report::Row;

/// How many are alive.
const COUNT: usize = 1000;

/// How many starts are timed before the first and beside the last.
const TIMED: usize = 30;

/// Runtimes with an overlay of their own each, and runtimes that share one. What the command itself takes, and what the
/// kernel has for any process, is measured apart and taken off.
pub fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let tree = bench.trees()?.into_iter().next().ok_or("there are no trees")?;
    bench.output(bench.spfs("thousand", &format!("commit --path {} --tag tree", tree.path.display())))?;
    let commands = Crowd::gather(|| bench.command("thousand", "sh"))?.memory;
    let mut rows = Vec::new();
    for (how, start) in [("alone", Bench::spfs as fn(&Bench, &str, &str) -> Command), ("shared", Bench::sharing)] {
        let timed = || -> Result<Duration> {
            let one = || time(&mut start(bench, "thousand", "run tree -- true"));
            median_of(one)
        };
        let first = timed()?;
        let mut crowd = Crowd::gather(|| {
            let mut command = start(bench, "thousand", "run tree --");
            command.arg("sh");
            command
        })?;
        let last = timed()?;
        crowd.end()?;
        let each = crowd.memory.saturating_sub(commands) as f64 / COUNT as f64 / 1024.0;
        let measured = format!("{} MB for {COUNT}, {} MB of them their commands", crowd.memory / 1024, commands / 1024);
        let work = format!("memory of each of {COUNT} runtimes of a view, {how}");
        rows.push(Row::new(bench.who(), work, each, "MB", Some(3.0), measured));
        let measured = format!("first {:.2} ms, thousandth {:.2} ms", ms(first), ms(last));
        let work = format!("start of the thousandth runtime of a view, {how}, to the first");
        rows.push(Row::ratio(bench.who(), work, ratio(last, first), Some(1.5), measured));
    }
    Ok(rows)
}

fn median_of(once: impl Fn() -> Result<Duration>) -> Result<Duration> {
    (0..TIMED).map(|_| once()).collect::<Result<Vec<_>>>().map(median)
}

/// Many shells that wait until they are told to end.
struct Crowd {
    members: Vec<(Child, ChildStdin)>,
    /// What they took of the memory that was available, in kB.
    memory: u64,
}

impl Crowd {
    /// Starts `COUNT` of what ends in a shell.
    fn gather(command: impl Fn() -> Command) -> Result<Crowd> {
        let before = available()?;
        let mut crowd = Crowd { members: Vec::new(), memory: 0 };
        for _ in 0..COUNT {
            let mut command = command();
            command.args(["-c", "echo here; read line"]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn().map_err(|err| format!("{command:?}: {err}"))?;
            let (stdin, stdout) = child.stdin.take().zip(child.stdout.take()).ok_or("no pipes")?;
            let mut said = String::new();
            BufReader::new(stdout).read_line(&mut said).map_err(|err| format!("{command:?}: {err}"))?;
            crowd.members.push((child, stdin));
            if said != "here\n" {
                return Err(format!("{command:?}: it did not start"));
            }
        }
        crowd.memory = before.saturating_sub(available()?);
        Ok(crowd)
    }

    fn end(&mut self) -> Result<()> {
        for (mut child, stdin) in self.members.drain(..) {
            drop(stdin);
            child.wait().map_err(|err| format!("waiting for a runtime: {err}"))?;
        }
        Ok(())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// Available memory, in kB.
fn available() -> Result<u64> {
    let path = "/proc/meminfo";
    let text = fs::read_to_string(path).map_err(|err| format!("{path}: {err}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).ok_or(format!("{path}: no MemAvailable"))
}
