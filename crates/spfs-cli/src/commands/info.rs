//! `spfs info`.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use spfs::info::{self, ActiveRuntime, Description, Note, ObjectContent, Source};
use spfs::merged::{self, Merged};
use spfs::names::{Named, Names};
use spfs::repo::{Digest, Repository};
use spfs::{Spfs, diff};

use super::Run;
use crate::context::Context;
use crate::errors::{Result, chain, warn};
use crate::output::Output;
use crate::repository::{self, Choice};
use crate::shared::Json;
use crate::{complete, format, style};

/// Show this environment and its changes, or what a reference is and holds
///
/// Digests are shown short, with the tags that point to them behind `->`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  spfs info                       # this environment and its changes
  spfs info my-platform
  spfs info /spfs/message.txt     # which layer a file comes from")]
pub struct Args {
    /// Tags or digests, or paths that begin with /spfs
    #[arg(value_name = "REF", add = complete::reference())]
    references: Vec<String>,
    /// Show sizes for people, also of the layers of this environment
    #[arg(short = 'H', long)]
    human_readable: bool,
    /// Show whole digests
    #[arg(long, conflicts_with_all = ["short", "tags"])]
    full: bool,
    // Digests are short and tags are shown anyway.
    #[arg(long, hide = true)]
    short: bool,
    #[arg(long, hide = true)]
    tags: bool,
    /// Show also the objects that it refers to
    #[arg(long)]
    follow: bool,
    /// Show only the value of this annotation; may be repeated
    #[arg(long, value_name = "KEY", alias = "annotation")]
    get: Vec<String>,
    /// Show all annotations, as YAML
    #[arg(long, alias = "all-annotations", conflicts_with = "get")]
    get_all: bool,
    #[command(flatten)]
    repository: Choice,
    #[command(flatten)]
    json: Json,
}

/// One thing that was asked about.
#[derive(serde::Serialize)]
#[serde(untagged)]
enum Answer {
    Object(Vec<Description>),
    Path { path: String, changed: Option<diff::Change>, sources: Vec<Source> },
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        let spfs = context.spfs()?;
        let mut out = context.out();
        if self.get_all || !self.get.is_empty() {
            self.annotations(&mut out, spfs)?;
        } else if self.references.is_empty() {
            self.runtime(context, &mut out, spfs)?;
        } else {
            self.objects(context, &mut out, spfs)?;
        }
        out.finish()
    }
}

impl Args {
    fn objects(&self, context: &Context, out: &mut Output, spfs: &Spfs) -> Result<()> {
        let repository = self.open(spfs)?;
        let names = Names::load(&*repository)?;
        let limit = match context.verbose {
            _ if self.json.json => usize::MAX,
            0 => 10,
            1 => 50,
            _ => usize::MAX,
        };
        let mut answers = Vec::new();
        for (number, reference) in self.references.iter().enumerate() {
            let answer = if reference == "/spfs" || reference.starts_with("/spfs/") {
                sources(context, &names, spfs, reference)?
            } else {
                let digest = repository::resolve(&*repository, reference)?.digest;
                Answer::Object(match self.follow {
                    true => info::describe_below(&names, &digest, limit)?,
                    false => vec![info::describe(&names, &digest, limit)?],
                })
            };
            if self.json.json {
                answers.push(answer);
                continue;
            }
            if number > 0 {
                writeln!(out)?;
            }
            match answer {
                Answer::Object(found) => found.iter().try_for_each(|found| self.object(out, found))?,
                Answer::Path { path, changed, sources } => {
                    self.path(out, context.verbose > 0, &path, changed.as_ref(), &sources)?;
                }
            }
        }
        if self.json.json {
            let flat: Vec<serde_json::Value> = answers.iter().map(serde_json::to_value).collect::<Result<_, _>>()?;
            let flat = flat.into_iter().flat_map(|answer| match answer {
                serde_json::Value::Array(objects) => objects,
                one => vec![one],
            });
            out.json(&flat.collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Prints what an object is.
    fn object(&self, out: &mut Output, found: &Description) -> Result<()> {
        let kind = match &found.content {
            ObjectContent::Platform { .. } => "platform",
            ObjectContent::Layer { .. } => "layer",
            ObjectContent::Manifest { .. } => "manifest",
            ObjectContent::Blob { .. } => "blob",
        };
        writeln!(out, "{}{kind}:{}", style::HEADING, style::END)?;
        writeln!(out, " refs: {}", self.name(&found.names))?;
        match &found.content {
            ObjectContent::Platform { stack } => {
                writeln!(out, " stack:")?;
                for item in stack {
                    writeln!(out, "  - {}", self.name(item))?;
                }
            }
            ObjectContent::Layer { manifest, annotations } => {
                let manifest = manifest.as_ref().map_or_else(|| "none".to_owned(), |manifest| self.name(manifest));
                writeln!(out, " manifest: {manifest}")?;
                self.notes(out, annotations)?;
            }
            ObjectContent::Manifest { entries, total, size } => {
                writeln!(out, " size: {}", format::size(*size, self.human_readable))?;
                for entry in entries {
                    let (path, digest) = (out.name(&entry.path).into_owned(), self.digest(&entry.digest));
                    writeln!(out, " {:06o} {} {digest} /spfs/{path}", entry.mode, entry.kind)?;
                }
                if (entries.len() as u64) < *total {
                    writeln!(out, "   ...[{} more] use -vv for all", total - entries.len() as u64)?;
                }
            }
            ObjectContent::Blob { size } => writeln!(out, " size: {}", format::size(*size, self.human_readable))?,
        }
        Ok(())
    }

    fn notes(&self, out: &mut Output, notes: &[Note]) -> Result<()> {
        if notes.is_empty() {
            writeln!(out, " annotations: none")?;
            return Ok(());
        }
        writeln!(out, " annotations:")?;
        for note in notes {
            writeln!(out, "  key: {}", out.name(&note.key).into_owned())?;
            let value = match (&note.value, &note.blob) {
                (Some(text), _) => out.name(text).into_owned(),
                (None, Some(blob)) => format!("in the blob {}", self.name(blob)),
                (None, None) => String::new(),
            };
            writeln!(out, "  value: {value}")?;
        }
        Ok(())
    }

    /// Prints where a file comes from.
    fn path(
        &self,
        out: &mut Output,
        all: bool,
        path: &str,
        changed: Option<&diff::Change>,
        sources: &[Source],
    ) -> Result<()> {
        let shown = format!("/spfs/{}", out.name(path));
        if let Some(change) = changed {
            writeln!(out, "{shown}: an active change")?;
            writeln!(out, " {} /{}", change.kind.sign(), out.name(path).into_owned())?;
        }
        let Some(first) = sources.first() else {
            if changed.is_none() {
                writeln!(out, "{shown}: not found\n - not found in current /spfs runtime")?;
            }
            return Ok(());
        };
        let hidden = if all || sources.len() == 1 { "" } else { ", topmost 1 shown, use -v to see all" };
        writeln!(out, "{shown}: {} (in {}{hidden})", first.entry.kind, format::count(sources.len() as u64, "layer"))?;
        for source in sources.iter().take(if all { usize::MAX } else { 1 }) {
            if let Some(platform) = &source.platform {
                writeln!(out, " platform: {}", self.name(platform))?;
            }
            writeln!(out, " layer: {}", self.name(&source.layer))?;
            let (entry, size) = (&source.entry, format::size(source.entry.size, self.human_readable));
            let (mode, digest) = (format::mode(entry.mode), self.digest(&entry.digest));
            writeln!(out, "  {mode} {} {digest} {size} {shown}", entry.kind)?;
        }
        Ok(())
    }

    /// Prints the runtime around us.
    fn runtime(&self, context: &Context, out: &mut Output, spfs: &Spfs) -> Result<()> {
        let mut active = info::active(spfs)?;
        match diff::active(spfs, &context.bar("comparing")) {
            Ok(changes) => active.changes = Some(changes),
            Err(error) => {
                let causes: Vec<String> = chain(&error).map(ToString::to_string).collect();
                warn(&format!("the active changes are not known: {}", causes.join(": ")));
            }
        }
        if self.json.json {
            return out.json(&active);
        }
        self.stack(out, spfs, &active)?;
        let Some(changes) = active.changes else { return Ok(()) };
        if changes.is_empty() {
            writeln!(out, "\nNo Active Changes")?;
            return Ok(());
        }
        writeln!(out, "\n{}Active Changes:{}", style::HEADING, style::END)?;
        for change in &changes {
            writeln!(out, " {} /{}", change.kind.sign(), out.name(&change.path).into_owned())?;
        }
        Ok(())
    }

    fn stack(&self, out: &mut Output, spfs: &Spfs, active: &ActiveRuntime) -> Result<()> {
        writeln!(out, "{}Active Runtime:{}", style::HEADING, style::END)?;
        writeln!(out, " id: {}\n editable: {}", active.name, active.editable)?;
        writeln!(out, "stack (top-down):")?;
        let repository = spfs.shown()?;
        let names = Names::load(&*repository)?;
        for item in &active.stack {
            let size = if self.human_readable { format!(", Size: {}", size_of(spfs, item)?) } else { String::new() };
            writeln!(out, "  - {}{size}", self.name(&names.name(item)?))?;
        }
        Ok(())
    }

    /// Where objects are looked up: what the runtime shows may be here only in part.
    fn open(&self, spfs: &Spfs) -> Result<Arc<dyn Repository>> {
        match self.repository.remote {
            Some(_) => self.repository.open(spfs),
            None => Ok(spfs.shown()?),
        }
    }

    fn annotations(&self, out: &mut Output, spfs: &Spfs) -> Result<()> {
        let repository = self.open(spfs)?;
        let stack = match self.references.is_empty() {
            true => info::active(spfs)?.stack.into_iter().rev().collect(),
            false => {
                let mut stack = Vec::new();
                for reference in &self.references {
                    spfs::stack::push(&mut stack, repository::resolve(&*repository, reference)?.digest);
                }
                stack
            }
        };
        let all = info::annotations(&*repository, &stack)?;
        if self.get_all || self.json.json {
            let wanted = all.into_iter().filter(|(key, _)| self.get.is_empty() || self.get.contains(key));
            let map: serde_json::Map<_, _> = wanted.map(|(key, value)| (key, value.into())).collect();
            if self.json.json {
                return out.json(&map);
            }
            for (key, value) in &map {
                // JSON texts are YAML texts too, whatever is in them.
                writeln!(out, "{}: {value}", serde_json::Value::from(key.as_str()))?;
            }
            return Ok(());
        }
        for key in &self.get {
            let value = all.iter().find(|(found, _)| found == key).map(|(_, value)| value.as_str());
            if value.is_none() {
                warn(&format!("there is no annotation {key:?}"));
            }
            writeln!(out, "{}", value.unwrap_or_default())?;
        }
        Ok(())
    }

    fn name(&self, object: &Named) -> String {
        let digest = if self.full { object.digest.to_string() } else { object.short.clone() };
        format::with_tags(&digest, &object.tags)
    }

    fn digest(&self, digest: &Digest) -> String {
        if self.full { digest.to_string() } else { digest.short(8) }
    }
}

/// Where a path of the runtime around us comes from.
fn sources(context: &Context, names: &Names<'_>, spfs: &Spfs, reference: &str) -> Result<Answer> {
    let active = info::active(spfs)?;
    let path = merged::relative(reference)?;
    let sources = info::sources(names, &active.stack, &path)?;
    let changes = diff::active(spfs, &context.bar("comparing"))?;
    let changed = changes.into_iter().find(|change| change.path == path);
    Ok(Answer::Path { path, changed, sources })
}

/// The bytes of all files of a stack's item, for people.
fn size_of(spfs: &Spfs, item: &Digest) -> Result<String> {
    let repository = spfs.shown()?;
    let layers = spfs::stack::expand(&*repository, &[*item])?;
    Ok(format::human(Merged::read(&*repository, &layers)?.root().size()?))
}
