//! `spfs help`: the overview, the help of a command, or a text on a topic.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use super::{ALL, Place, Run, find};
use crate::cli;
use crate::context::Context;
use crate::errors::{Failure, Result};
use crate::style::{END, HEADING, LITERAL};

/// Print help on a command or a topic
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  spfs help run\n  spfs help environments")]
pub struct Args {
    /// A command, or a topic: environments, references, editing, durable, layers, config, shells
    name: Option<String>,
}

/// The topics with their texts.
pub const TOPICS: &[(&str, &str)] = &[
    ("environments", include_str!("../topics/environments.txt")),
    ("references", include_str!("../topics/references.txt")),
    ("editing", include_str!("../topics/editing.txt")),
    ("durable", include_str!("../topics/durable.txt")),
    ("layers", include_str!("../topics/layers.txt")),
    ("config", include_str!("../topics/config.txt")),
    ("shells", include_str!("../topics/shells.txt")),
];

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        let text = match self.name.as_deref() {
            None => overview(),
            Some(name) => of(name)?,
        };
        let mut out = context.out();
        out.write_all(text.as_bytes())?;
        out.finish()
    }
}

/// The help of a command, then the text on a topic: a name may be both.
fn of(name: &str) -> Result<String> {
    let command = find(name).map(|entry| {
        let mut all = cli::command();
        all.build();
        let command = all.find_subcommand_mut(entry.name);
        command.map(|command| command.render_long_help().ansi().to_string()).unwrap_or_default()
    });
    let topic = TOPICS.iter().find(|(topic, _)| *topic == name).map(|(_, text)| (*text).to_owned());
    let texts: Vec<String> = command.into_iter().chain(topic).collect();
    if texts.is_empty() {
        let topics: Vec<&str> = TOPICS.iter().map(|(topic, _)| *topic).collect();
        let names = ALL.iter().map(|entry| entry.name).chain(topics.iter().copied());
        let near =
            spfs::similar::nearest(name, names).map_or_else(String::new, |near| format!("; did you mean {near}?"));
        return Err(Failure::new(format!("no command and no topic is called {name:?}{near}"))
            .hint(format!("the topics are {}; `spfs help` lists the commands", topics.join(", "))));
    }
    Ok(texts.join("\n"))
}

/// What `spfs` has to offer, on one screen.
pub fn overview() -> String {
    let mut text = format!(
        "Isolate, capture and recall software environments under /spfs\n\n{HEADING}Usage:{END} spfs [-v] COMMAND …\n"
    );
    for heading in headings(|place| if let Place::Front(heading) = place { Some(heading) } else { None }) {
        let _ = writeln!(text, "\n{HEADING}{heading}{END}");
        for entry in ALL.iter().filter(|entry| entry.place == Place::Front(heading)) {
            let about = entry.built().get_about().map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, "  {LITERAL}{:<9}{END} {about}", entry.name);
        }
    }
    let _ = writeln!(text, "\n{HEADING}More{END}");
    for heading in headings(|place| if let Place::More(heading) = place { Some(heading) } else { None }) {
        let names = ALL.iter().filter(|entry| entry.place == Place::More(heading)).map(|entry| entry.name);
        let _ = writeln!(text, "  {heading:<9} {LITERAL}{}{END}", names.collect::<Vec<_>>().join(" "));
    }
    let topics: Vec<&str> = TOPICS.iter().map(|(topic, _)| *topic).collect();
    let _ = writeln!(text, "\nspfs help COMMAND, or spfs help TOPIC: {}", topics.join(", "));
    text
}

/// The headings that `of` finds in the table of commands, in its order, each once.
fn headings(of: impl Fn(Place) -> Option<&'static str>) -> Vec<&'static str> {
    let mut headings: Vec<&str> = ALL.iter().filter_map(|entry| of(entry.place)).collect();
    let mut seen = Vec::new();
    headings.retain(|heading| {
        !seen.contains(heading) && {
            seen.push(*heading);
            true
        }
    });
    headings
}
