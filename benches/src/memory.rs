//! How much memory a runtime's monitor has for itself.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use crate::bench::{Bench, Result};
use crate::report::Row;

/// The monitor of a runtime with the largest tree, after everything in it has been looked at.
pub fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let tree = bench.largest_tree()?;
    bench.output(bench.spfs("memory", &format!("commit --path {} --tag tree", tree.path.display())))?;
    let mut command = bench.spfs("memory", "run tree --");
    command
        .args(["sh", "-c", "find /spfs -type f -size +0 | wc -l; read line"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|err| format!("{command:?}: {err}"))?;
    let mut walked = String::new();
    let stdout = child.stdout.take().ok_or("no output")?;
    BufReader::new(stdout).read_line(&mut walked).map_err(|err| format!("{command:?}: {err}"))?;
    let measured = monitors(&bench.home("memory"), child.id());
    drop(child.stdin.take());
    let _ = child.wait();
    let monitors = measured?;
    if monitors.is_empty() {
        return Err("no monitor was found".into());
    }
    let own: u64 = monitors.iter().map(|memory| memory.pss - memory.file).sum();
    let pss: u64 = monitors.iter().map(|memory| memory.pss).sum();
    let work = format!("memory of the monitor, {} files", tree.files);
    let detail =
        format!("PSS {:.1} MB in {} processes, of which {:.1} MB are not file pages", mb(pss), monitors.len(), mb(own));
    Ok(vec![Row::new(bench.who(), work, mb(own), "MB", Some(10.0), detail)])
}

/// One process, in kB.
struct Memory {
    pss: u64,
    file: u64,
}

/// The memory of every process with that HOME, but for the command's own session.
fn monitors(home: &Path, command: u32) -> Result<Vec<Memory>> {
    let mark = format!("HOME={}", home.display());
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").map_err(|err| format!("/proc: {err}"))?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(environ) = fs::read(entry.path().join("environ")) else { continue };
        let ours = environ.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes());
        if !ours || pid == command {
            continue;
        }
        let Ok(rollup) = fs::read_to_string(entry.path().join("smaps_rollup")) else { continue };
        let field = |name: &str| {
            let line = rollup.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_whitespace().nth(1)).and_then(|kb| kb.parse().ok()).unwrap_or(0)
        };
        found.push(Memory { pss: field("Pss:"), file: field("Pss_File:") });
    }
    Ok(found)
}

fn mb(kb: u64) -> f64 {
    kb as f64 / 1024.0
}
