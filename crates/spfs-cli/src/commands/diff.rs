//! `spfs diff`.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use spfs::diff::{self, Change, ChangeKind};
use spfs::merged::Merged;

use super::Run;
use crate::context::Context;
use crate::errors::Result;
use crate::output::Output;
use crate::repository::Choice;
use crate::shared::Json;
use crate::{complete, style};

/// Show what was changed in this environment, or what differs between two
#[derive(clap::Args)]
#[command(after_help = "Examples:
  spfs diff                       # what was changed since the last commit
  spfs diff my-layer~1 my-layer   # what that commit changed")]
pub struct Args {
    /// The environment before; the one that you are in by default
    #[arg(add = complete::env_spec())]
    from: Option<String>,
    /// The environment after; by default /spfs as it is now
    #[arg(add = complete::env_spec())]
    to: Option<String>,
    #[command(flatten)]
    repository: Choice,
    #[command(flatten)]
    json: Json,
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        let mut out = context.out();
        let changes = self.changes(context)?;
        if self.json.json {
            out.json(&changes)?;
        } else {
            for change in &changes {
                print(&mut out, change)?;
            }
            if changes.is_empty() {
                context.remark("no changes");
            }
        }
        out.finish()
    }
}

impl Args {
    fn changes(&self, context: &Context) -> Result<Vec<Change>> {
        let spfs = context.spfs()?;
        let bar = context.bar("comparing");
        let Some(from) = &self.from else { return Ok(diff::active(spfs, &bar)?) };
        let repository = self.repository.open(spfs)?;
        let read = |text: &str| -> Result<Merged> {
            Ok(Merged::read(&*repository, &self.repository.layers(spfs, &*repository, text)?)?)
        };
        let to = match &self.to {
            Some(to) => read(to)?,
            None => {
                // Without a runtime /spfs is somebody else's, or nobody's.
                spfs::runtime::active(spfs)?;
                diff::on_disk(Path::new("/spfs"), &bar)?
            }
        };
        Ok(diff::diff(&read(from)?, &to)?)
    }
}

/// One line, coloured by its sign.
fn print(out: &mut Output, change: &Change) -> Result<()> {
    let style = match change.kind {
        ChangeKind::Added => style::ADDED,
        ChangeKind::Removed => style::REMOVED,
        ChangeKind::Changed(_) => style::CHANGED,
    };
    let line = change.to_string();
    let line = out.name(&line).into_owned();
    writeln!(out, "{style}{line}{}", style::END)?;
    Ok(())
}
