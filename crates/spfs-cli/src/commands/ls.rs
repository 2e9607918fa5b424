//! `spfs ls`.

use std::io::Write;
use std::process::ExitCode;

use jiff::tz::TimeZone;
use spfs::files::{self, FileKind, Listed, Listing};
use spfs::merged::{self, Merged};
use spfs::repo::{Repository, Tag};

use super::Run;
use crate::complete;
use crate::context::Context;
use crate::errors::Result;
use crate::format;
use crate::output::Output;
use crate::repository::Choice;
use crate::shared::Json;

/// List a directory of a layer or platform, without entering it
#[derive(clap::Args)]
#[command(after_help = "Examples:
  spfs ls my-platform
  spfs ls -lH my-platform bin")]
pub struct Args {
    /// The layer, platform or manifest; several may be joined with `+`
    #[arg(add = complete::env_spec())]
    reference: String,
    /// The directory in it
    #[arg(default_value = "/spfs")]
    path: String,
    /// List also everything below it
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Show modes, sizes, and who tagged it when
    #[arg(short, long)]
    long: bool,
    /// Show sizes for people
    #[arg(short = 'H', long)]
    human_readable: bool,
    #[command(flatten)]
    repository: Choice,
    #[command(flatten)]
    json: Json,
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        let path = merged::relative(&self.path)?;
        let spfs = context.spfs()?;
        let repository = self.repository.open(spfs)?;
        let layers = self.repository.layers(spfs, &*repository, &self.reference)?;
        let merged = Merged::read(&*repository, &layers)?;
        let mut out = context.out();
        let sizes = self.long || self.json.json;
        let record = if self.long && !self.json.json { record(&*repository, &self.reference)? } else { None };
        if self.recursive {
            let mut listings = Vec::new();
            let mut failed = Ok(());
            files::list_below(&merged, &path, sizes, |listing| {
                if self.json.json {
                    listings.push(listing);
                } else if failed.is_ok() {
                    failed = self.print_block(&mut out, &listing, record.as_ref());
                }
                Ok(())
            })?;
            failed?;
            if self.json.json {
                out.json(&listings)?;
            }
        } else {
            let listing = files::list(&merged, &path, sizes)?;
            if self.json.json {
                out.json(&listing)?;
            } else {
                self.print(&mut out, &listing, record.as_ref(), "\n")?;
            }
        }
        out.finish()
    }
}

impl Args {
    /// One directory of a recursive listing: its path, its names on one line, and an empty line.
    fn print_block(&self, out: &mut Output, listing: &Listing, record: Option<&Tag>) -> Result<()> {
        let path = out.name(&listing.path).into_owned();
        writeln!(out, "/spfs{}{path}:", if path.is_empty() { "" } else { "/" })?;
        self.print(out, listing, record, "  ")?;
        writeln!(out)?;
        Ok(())
    }

    fn print(&self, out: &mut Output, listing: &Listing, record: Option<&Tag>, between: &str) -> Result<()> {
        if self.long {
            return self.print_long(out, listing, record);
        }
        let names: Vec<String> = listing.entries.iter().map(|entry| printed_name(out, entry)).collect();
        if !names.is_empty() {
            writeln!(out, "{}", names.join(between))?;
        }
        Ok(())
    }

    fn print_long(&self, out: &mut Output, listing: &Listing, record: Option<&Tag>) -> Result<()> {
        let sizes: Vec<String> =
            listing.entries.iter().map(|entry| format::size(entry.size, self.human_readable)).collect();
        let width = sizes.iter().map(String::len).max().unwrap_or(0);
        let user = record.map_or_else(String::new, |tag| format!("{} ", out.name(&tag.user)));
        let time = record.map_or_else(String::new, |tag| {
            format!("{} ", tag.time.to_zoned(TimeZone::system()).strftime("%b %e %H:%M"))
        });
        for (entry, size) in listing.entries.iter().zip(sizes) {
            let name = printed_name(out, entry);
            writeln!(out, "{} {user}{size:>width$} {time}{name}", format::mode(entry.mode))?;
        }
        Ok(())
    }
}

fn printed_name(out: &Output, entry: &Listed) -> String {
    let slash = if entry.kind == FileKind::Directory { "/" } else { "" };
    format!("{}{slash}", out.name(&entry.name))
}

/// The record of the tag that `reference` is, if it is one: what a tree itself does not know is who made it when.
fn record(repository: &dyn Repository, reference: &str) -> Result<Option<Tag>> {
    let Ok(spec) = reference.parse::<spfs::repo::TagSpec>() else { return Ok(None) };
    let history = repository.history(&spec.name)?;
    Ok(usize::try_from(spec.version).ok().and_then(|version| history.into_iter().nth(version)))
}
