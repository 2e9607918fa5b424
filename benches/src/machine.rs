//! On what machine the numbers were measured.

use std::fs;
use std::process::Command;

use crate::bench::{Bench, Result};

/// A paragraph about the machine, its load, and the trees.
pub fn describe(bench: &Bench) -> Result<String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = field(&read("/proc/cpuinfo"), "model name");
    let memory: f64 = field(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0.0);
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = said("uname", &["-sr"]);
    let disk = said("df", &["--output=fstype", bench.dir.to_str().unwrap_or("/")]);
    let disk = disk.lines().last().unwrap_or_default();
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default();
    let date = said("date", &["-u", "+%Y-%m-%d"]);
    let size = fs::metadata(&bench.spfs).map_err(|err| format!("{}: {err}", bench.spfs.display()))?.len();
    let mut text = format!(
        "{date}; {kernel}; {cpus} CPUs ({cpu}); {:.0} GiB; {disk}; load {load} at the end; {} rounds; the program has {:.1} MB.\n\n\
         | tree | files | directories | MB | mean file |\n|---|---|---|---|---|\n",
        memory / 1048576.0,
        bench.rounds,
        size as f64 / 1e6
    );
    for tree in bench.trees()? {
        let (name, files, mean) = (&tree.name, tree.files, tree.mean());
        text += &format!("| {name} | {files} | {} | {} | {mean} B |\n", tree.directories, tree.bytes / 1_000_000);
    }
    Ok(text)
}

fn field(text: &str, name: &str) -> String {
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split(':').nth(1).unwrap_or_default().trim().to_owned()
}

fn said(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output();
    out.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned()).unwrap_or_default()
}
