//! Measures spfs against its peers, all in one run, and prints the table of docs/performance.md.
//!
//! `cargo run --release -p spfs-bench -- [--full] [--write] [--only WORD] [--dir DIR] [--spfs PROGRAM] [--rounds N]`
//!
//! As root everything is measured as root and, by a second process, as the user `spfs-test` (`./test setup` makes it).

mod bench;
mod commit;
mod first;
mod floor;
mod machine;
mod measure;
mod memory;
mod reading;
mod report;
mod share;
mod start;
mod tree;
mod walker;

use std::path::PathBuf;
use std::process::ExitCode;

use bench::{Bench, Result};
use report::Row;

/// What the command line asks for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Also the tree of a million files.
    pub full: bool,
    /// Put the table into docs/performance.md.
    pub write: bool,
    /// Only sections whose name contains this.
    pub only: String,
    /// Where trees and repositories go; on the disk that is measured.
    pub dir: PathBuf,
    /// The program to measure; built when not given.
    pub spfs: Option<PathBuf>,
    /// How often each quick thing is measured.
    pub rounds: usize,
    /// This is the second process: print rows, not a document.
    pub rows_only: bool,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = match words.first().map(String::as_str) {
        // Hidden modes: small programs that are measured themselves, or measure inside a mount namespace.
        Some("floor") => floor::run(&words[1..]),
        Some("walker") => walker::run(&words[1..]),
        Some("two-files") => commit::two_files_each(&words[1..]),
        _ => options(&words).and_then(|options| run(&options)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("spfs-bench: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn options(words: &[String]) -> Result<Options> {
    let mut options = Options {
        full: false,
        write: false,
        only: String::new(),
        dir: PathBuf::from("/var/tmp/spfs-bench"),
        spfs: None,
        rounds: 100,
        rows_only: false,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().cloned().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--full" => options.full = true,
            "--write" => options.write = true,
            "--rows-only" => options.rows_only = true,
            "--only" => options.only = value()?,
            "--dir" => options.dir = value()?.into(),
            "--spfs" => options.spfs = Some(value()?.into()),
            "--rounds" => options.rounds = value()?.parse().map_err(|err| format!("--rounds: {err}"))?,
            other => return Err(format!("unknown argument {other}; see the head of benches/src/main.rs")),
        }
    }
    Ok(options)
}

fn run(options: &Options) -> Result<()> {
    let bench = Bench::prepare(options)?;
    let mut rows = Vec::new();
    type Section = (&'static str, fn(&Bench) -> Result<Vec<Row>>);
    let sections: [Section; 6] = [
        ("start", start::rows),
        ("first", first::rows),
        ("commit", commit::rows),
        ("reading", reading::rows),
        ("memory", memory::rows),
        ("share", share::rows),
    ];
    for (name, section) in sections {
        if name.contains(&options.only) {
            bench.say(&format!("measuring: {name}"));
            let found = section(&bench).map_err(|problem| format!("{name}: {problem}"))?;
            for row in &found {
                bench.say(&row.to_string());
            }
            rows.extend(found);
        }
    }
    bench.clean_up();
    if options.rows_only {
        rows.iter().for_each(|row| println!("{}", row.to_line()));
        return Ok(());
    }
    if bench.is_root {
        rows.extend(bench.as_the_user(options)?);
    }
    let document = format!("{}\n{}", machine::describe(&bench)?, report::table(&rows));
    println!("{document}");
    if options.write {
        report::put(&document)?;
    }
    Ok(())
}
