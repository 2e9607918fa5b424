//! `spfs remote`.

use std::io::Write;
use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;
use spfs::config::{Config, Env, Remote, edit::UserFile};
use spfs::remotes::{self, Part};

use super::Run;
use crate::complete;
use crate::context::{Context, surroundings};
use crate::errors::{Failure, Result};
use crate::shared::Json;
use crate::style;

/// List, add, remove and try the repositories that are pushed to and pulled from
///
/// `origin` is the one that is meant when none is named. They stand in configuration files as `[remote.NAME]`; what is
/// added and removed here stands in your own, whose comments are kept.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  spfs remote add origin file:/net/spfs
  spfs remote test")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// List the remotes with their addresses, and where they are configured
    #[command(visible_alias = "ls", after_help = "Example:\n  spfs remote list")]
    List {
        #[command(flatten)]
        json: Json,
    },
    /// Add a remote to your configuration file
    #[command(after_help = "Examples:
  spfs remote add origin file:/net/spfs
  spfs remote add site 'proxy:?primary=origin&secondary[0]=grpc://spfs.example.org:7737'")]
    Add {
        /// What to call it; `origin` is the default of push, pull and run
        name: String,
        /// Where it is: file:PATH, tar:PATH, grpc://HOST:PORT, ssh://HOST/PATH, proxy:?…, fallback:?…
        address: String,
        /// Replace it, if there is one of this name
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        json: Json,
    },
    /// Remove a remote from your configuration file; what it holds is not touched
    #[command(visible_alias = "rm", after_help = "Example:\n  spfs remote remove site")]
    Remove {
        /// What it is called
        #[arg(add = complete::remote())]
        name: String,
        #[command(flatten)]
        json: Json,
    },
    /// Try remotes: whether they answer, may be read and written, and how fast they are
    ///
    /// The parts of a chain are tried one by one. Nothing is left in them; a server may keep one empty payload.
    #[command(after_help = "Examples:
  spfs remote test
  spfs remote test origin grpc://spfs.example.org:7737")]
    Test {
        /// Which, by name or address; by default all that are configured
        #[arg(value_name = "NAME_OR_ADDRESS", add = complete::remote())]
        names: Vec<String>,
        #[command(flatten)]
        json: Json,
    },
}

/// One remote, as it is listed.
#[derive(Serialize)]
struct Listed {
    name: String,
    address: String,
    origin: String,
}

/// What was tried of one remote.
#[derive(Serialize)]
struct Tested {
    name: String,
    #[serde(flatten)]
    part: Part,
}

/// What was changed, and where.
#[derive(Serialize)]
struct Changed<'a> {
    name: &'a str,
    address: Option<String>,
    file: String,
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        match self.what {
            What::List { json } => list(context, &json),
            What::Add { name, address, replace, json } => add(context, &name, &address, replace, &json),
            What::Remove { name, json } => remove(context, &name, &json),
            What::Test { names, json } => test(context, names, &json),
        }
    }
}

fn list(context: &Context, json: &Json) -> Result<ExitCode> {
    let (_, config) = surroundings()?;
    let listed: Vec<Listed> = config.remotes.iter().map(|(name, remote)| listed(&config, name, remote)).collect();
    let mut out = context.out();
    if json.json {
        out.json(&listed)?;
        return out.finish();
    }
    let name_width = listed.iter().map(|one| one.name.len()).max().unwrap_or(0);
    let width = listed.iter().map(|one| one.address.len()).max().unwrap_or(0).min(60);
    for Listed { name, address, origin } in &listed {
        writeln!(out, "{name:name_width$}  {address:width$}  {origin}")?;
    }
    out.finish()
}

fn listed(config: &Config, name: &str, remote: &Remote) -> Listed {
    let options = || {
        let options = remote.options.iter().map(|(key, value)| format!("{key}={}", value.to_json()));
        options.collect::<Vec<_>>().join(" ")
    };
    let address = match (&remote.address, &remote.scheme) {
        (Some(address), _) => address.clone(),
        (None, scheme) => format!("{} {}", scheme.as_deref().unwrap_or_default(), options()),
    };
    let origin = config.remote_origin(name).map(ToString::to_string).unwrap_or_default();
    Listed { name: name.to_owned(), address, origin }
}

fn add(context: &Context, name: &str, address: &str, replace: bool, json: &Json) -> Result<ExitCode> {
    check_name(name)?;
    let env = Env::from_process();
    let address = remotes::check_address(address, &env.cwd)?;
    let mut file = UserFile::open(&env)?;
    if file.has_remote(name) && !replace {
        let message = format!("there is a remote {name} in {} already", file.path().display());
        return Err(Failure::new(message).hint(format!("spfs remote add --replace {name} {address}")));
    }
    file.set_remote(name, &address)?;
    file.save()?;
    changed(context, "added", name, Some(address), &file, json)?;
    let (_, config) = surroundings()?;
    if let Some(stronger @ spfs::config::Origin::Variable(_)) = config.remote_origin(name) {
        crate::errors::warn(&format!("{stronger} is set, and stronger than the file"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Names are keys of a file and parts of variables, and are told from addresses by their lack of `:` and `/`.
fn check_name(name: &str) -> Result<()> {
    let valid = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if valid && !name.is_empty() {
        return Ok(());
    }
    Err(spfs::Error::invalid("remote", name, "a name is made of letters, digits, - and _").into())
}

fn remove(context: &Context, name: &str, json: &Json) -> Result<ExitCode> {
    let (env, config) = surroundings()?;
    let mut file = UserFile::open(&env)?;
    if !file.remove_remote(name) {
        let place = file.path().display();
        return Err(match config.remote_origin(name) {
            Some(elsewhere) => Failure::new(format!("the remote {name} is not in {place}, but in {elsewhere}"))
                .hint("remove it there; spfs changes your own spfs.toml only"),
            None => Failure::new(format!("there is no remote {name} in {place}")).hint("`spfs remote list` lists them"),
        });
    }
    file.save()?;
    changed(context, "removed", name, None, &file, json)?;
    Ok(ExitCode::SUCCESS)
}

fn changed(
    context: &Context,
    word: &str,
    name: &str,
    address: Option<String>,
    file: &UserFile,
    json: &Json,
) -> Result<ExitCode> {
    let mut out = context.out();
    let path = file.path().display().to_string();
    match json.json {
        true => out.json(&Changed { name, address, file: path })?,
        false => {
            let address = address.map(|address| format!(" = {address}")).unwrap_or_default();
            writeln!(out, "{word} remote.{name}{address} in {path}")?;
        }
    }
    out.finish()
}

fn test(context: &Context, names: Vec<String>, json: &Json) -> Result<ExitCode> {
    let spfs = context.spfs()?;
    let names = if names.is_empty() { spfs::fetch::order(spfs) } else { names };
    if names.is_empty() {
        return Err(Failure::new("no remote is configured").hint("spfs remote add origin file:PATH"));
    }
    let mut all = Vec::new();
    for name in names {
        let parts = remotes::probe(spfs, &name)?;
        all.extend(parts.into_iter().map(|part| Tested { name: name.clone(), part }));
    }
    let unreachable = all.iter().any(|tested| !tested.part.readable);
    let mut out = context.out();
    match json.json {
        true => out.json(&all)?,
        false => all.iter().try_for_each(|tested| show(&mut out, tested))?,
    }
    out.finish()?;
    Ok(ExitCode::from(u8::from(unreachable)))
}

fn show(out: &mut impl Write, tested: &Tested) -> Result<()> {
    let Tested { name, part } = tested;
    let place = if part.part.is_empty() { String::new() } else { format!(" {} ({})", part.part, part.repository) };
    writeln!(out, "{}{name}{place}{}", style::HEADING, style::END)?;
    if let Some(address) = &part.address {
        writeln!(out, "  address   {address}")?;
    }
    for (word, yes) in [("reachable", part.reachable), ("readable", part.readable), ("writable", part.writable)] {
        writeln!(out, "  {word:9} {}", if yes { "yes" } else { "no" })?;
    }
    if let Some(version) = &part.version {
        writeln!(out, "  version   {version}")?;
    }
    if let Some(latency) = part.latency_ms {
        writeln!(out, "  latency   {latency} ms")?;
    }
    for problem in &part.problems {
        writeln!(out, "  problem   {problem}")?;
    }
    Ok(())
}
