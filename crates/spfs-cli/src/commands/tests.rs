//! The command line as a whole: every command helps, and says what it means by its options.
#![allow(clippy::unwrap_used)]

use clap::{ArgMatches, FromArgMatches};

use super::*;
use crate::cli;
use crate::environment::Environment;

/// Every command and subcommand with its whole name, built.
fn every_command() -> Vec<(String, Command)> {
    fn add(name: String, command: &Command, all: &mut Vec<(String, Command)>) {
        for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
            add(format!("{name} {}", below.get_name()), below, all);
        }
        all.push((name, command.clone()));
    }
    let mut all = Vec::new();
    for entry in ALL {
        let mut command = entry.built();
        command.build();
        add(entry.name.to_owned(), &command, &mut all);
    }
    all
}

#[test]
fn clap_accepts_every_command() {
    cli::command().debug_assert();
    for (_, command) in every_command() {
        command.debug_assert();
    }
}

#[test]
fn every_command_has_a_text_and_an_example_of_itself() {
    for (name, command) in every_command() {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        assert!(!about.is_empty() && !about.ends_with('.'), "{name}: {about:?}");
        let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let shown = |alias: &str| examples.contains(&format!("spfs {alias}"));
        let short: Vec<&str> = name.split(' ').collect();
        let named = std::iter::once(name.clone())
            .chain(command.get_visible_aliases().map(|alias| [&short[..short.len() - 1], &[alias]].concat().join(" ")));
        let known = find(&name).map_or(&[][..], |entry| entry.aliases);
        assert!(
            named.chain(known.iter().map(|&alias| alias.to_owned())).any(|name| shown(&name)),
            "{name}: no example"
        );
        assert!(examples.starts_with("Example"), "{name}: {examples}");
    }
}

#[test]
fn every_option_that_is_shown_is_explained() {
    for (name, command) in every_command() {
        for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
            assert!(arg.get_help().is_some(), "{name}: {} has no help", arg.get_id());
        }
    }
}

#[test]
fn the_overview_shows_every_command_on_one_screen() {
    let overview = anstream::adapter::strip_str(&help::overview()).to_string();
    let words: Vec<&str> = overview.split_whitespace().collect();
    for entry in ALL.iter().filter(|entry| entry.place != Place::Hidden) {
        assert!(words.contains(&entry.name), "{} is not in the overview", entry.name);
    }
    let (lines, width) = (overview.lines().count(), overview.lines().map(str::len).max().unwrap());
    assert!(lines <= 34 && width <= 110, "{lines} lines, {width} columns:\n{overview}");
}

#[test]
fn every_topic_is_a_text_of_its_own() {
    for (topic, text) in help::TOPICS {
        assert!(text.lines().count() > 5 && text.lines().all(|line| line.len() <= 120), "{topic}");
    }
}

#[test]
fn names_and_aliases_are_unique() {
    let mut names: Vec<&str> =
        ALL.iter().flat_map(|entry| std::iter::once(&entry.name).chain(entry.aliases)).copied().collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

/// The arguments of a command line, as its command reads them.
fn matches(line: &str) -> Result<ArgMatches, clap::Error> {
    let mut matches =
        cli::command().try_get_matches_from(line.split(' ').map(|word| if word == "''" { "" } else { word }))?;
    Ok(matches.remove_subcommand().unwrap().1)
}

fn environment(line: &str) -> Environment {
    Environment::from_arg_matches(&matches(line).unwrap()).unwrap()
}

#[test]
fn the_last_word_on_editing_wins() {
    for (options, editable) in [
        ("", None),
        (" --edit", Some(true)),
        (" -e", Some(true)),
        (" --no-edit", Some(false)),
        (" --edit --no-edit", Some(false)),
        (" --no-edit --edit", Some(true)),
        (" --edit --no-edit -e", Some(true)),
    ] {
        assert_eq!(environment(&format!("spfs shell base{options}")).editable(), editable, "{options}");
        assert_eq!(environment(&format!("spfs run{options} base -- true")).editable(), editable, "{options}");
    }
}

#[test]
fn environments_and_their_options() {
    let reference = |line: &str| environment(line).reference;
    assert_eq!(reference("spfs shell -").as_deref(), Some("-"));
    assert_eq!(reference("spfs shell ''").as_deref(), Some(""));
    assert_eq!(reference("spfs run a+b -- ls -l --edit").as_deref(), Some("a+b"));
    assert_eq!(reference("spfs run --rerun work -- ls"), None);
    let all = environment("spfs shell a -k --runtime-name n --annotation k=v --annotation k:v --annotation-file f");
    assert!(all.keep_runtime);
    assert_eq!((all.runtime_name.as_deref(), all.annotation.len(), all.annotation_file.len()), (Some("n"), 2, 1));
    // What scripts say about remotes is accepted.
    environment("spfs run --sync --check --resync -r origin a -- true");
}

#[test]
fn lines_that_make_no_sense_are_refused() {
    for line in [
        "spfs run a",
        "spfs run a b",
        "spfs run -- ls",
        "spfs run a --rerun b -- ls",
        "spfs shell",
        "spfs shell a b",
        "spfs shell a --force",
        "spfs edit --off --keep-runtime",
        "spfs commit",
        "spfs commit nonsense",
        "spfs commit layer --tag a/",
        "spfs reset --keep-changes",
        "spfs join",
        "spfs join --pid 0",
        "spfs join work --pid 1",
        "spfs runtime",
        "spfs runtime rm",
        "spfs init repo",
        "spfs version now",
    ] {
        let error = matches(line).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line}: {error}");
    }
}
