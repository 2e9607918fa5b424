//! Measures spfs against its peers, all in one run, and prints the table of docs/performance.md.
//!
//! `cargo run --release -p spfs-bench -- [--full] [--write] [--only WORD] [--dir DIR] [--spfs PROGRAM] [--rounds N]`
//!
//! As root everything is measured as root and, by a second process, as the user `spfs-test` (`./test setup` makes it).

mod bench;
mod commit;
mod different;
mod first;
mod floor;
mod host;
mod machine;
mod measure;
mod memory;
mod programs;
mod reading;
mod report;
mod scale;
mod share;
mod start;
mod thousand;
mod touch;
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
    /// This is another process of the benchmark: print rows, not a document.
    pub rows_only: bool,
    /// This process is on a host without `/spfs`: only starts.
    pub no_spfs: bool,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = match words.first().map(String::as_str) {
        // Hidden modes: small programs that are measured themselves, or measure inside a mount namespace.
        Some("floor") => floor::run(&words[1..]),
        Some("without-spfs") => host::run(&words[1..]),
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
        no_spfs: false,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().cloned().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--full" => options.full = true,
            "--write" => options.write = true,
            "--rows-only" => options.rows_only = true,
            "--no-spfs" => options.no_spfs = true,
            "--only" => options.only = value()?,
            "--dir" => options.dir = value()?.into(),
            "--spfs" => options.spfs = Some(value()?.into()),
            "--rounds" => options.rounds = value()?.parse().map_err(|err| format!("--rounds: {err}"))?,
            other => return Err(format!("unknown argument {other}; see the head of benches/src/main.rs")),
        }
    }
    Ok(options)
}

/// A name, what measures, and the trees that it wants (`tree.rs`): others are not made for it.
type Section = (&'static str, fn(&Bench) -> Result<Vec<Row>>, &'static [&'static str]);

const SECTIONS: [Section; 14] = [
    ("start", start::rows, &["toolchain", "node_modules"]),
    ("scale", scale::rows, &[]),
    ("first", first::rows, &tree::NAMES),
    ("commit", commit::rows, &tree::NAMES),
    ("different", different::rows, &[]),
    ("touch", touch::rows, &["toolchain+docs"]),
    ("reading", reading::rows, &["toolchain+docs"]),
    ("programs", programs::rows, &["toolchain"]),
    ("memory", memory::rows, &tree::NAMES),
    ("thousand", thousand::rows, &["toolchain"]),
    ("share-directory", share::directory, &tree::NAMES),
    ("share-server", share::served, &tree::NAMES),
    ("share-large", share::large, &[]),
    ("share-again", share::again, &tree::NAMES),
];

fn sections(options: &Options) -> impl Iterator<Item = Section> {
    SECTIONS.into_iter().filter(|(name, ..)| name.contains(&options.only) && (!options.no_spfs || *name == "start"))
}

fn run(options: &Options) -> Result<()> {
    let trees: Vec<&str> = sections(options).flat_map(|(.., trees)| trees).copied().collect();
    let bench = Bench::prepare(options, &trees)?;
    let mut rows = Vec::new();
    for (name, section, _) in sections(options) {
        bench.say(&format!("measuring: {name}"));
        let found = section(&bench).map_err(|problem| format!("{name}: {problem}"))?;
        for row in &found {
            bench.say(&row.to_string());
        }
        rows.extend(found);
    }
    bench.clean_up();
    if options.rows_only {
        rows.iter().for_each(|row| println!("{}", row.to_line()));
        return Ok(());
    }
    if bench.is_root {
        rows.extend(bench.elsewhere(options, true, false)?);
        if "start".contains(&options.only) {
            rows.extend(bench.elsewhere(options, false, true)?);
            rows.extend(bench.elsewhere(options, true, true)?);
        }
    }
    let document = format!("{}\n{}", machine::describe(&bench)?, report::table(&rows));
    println!("{document}");
    if options.write {
        report::put(&document)?;
    }
    Ok(())
}
