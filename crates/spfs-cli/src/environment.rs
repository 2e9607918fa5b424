//! The options that `run` and `shell` have in common: how an environment is entered.

use std::path::PathBuf;

use clap::builder::{FalseyValueParser, PossibleValue, PossibleValuesParser, TypedValueParser};
use spfs::config::Backend;

use crate::complete;
use crate::transfer::Transfer;

// Plain comments on these structs: clap would take a doc comment for the help of the command itself.

// How an environment is entered.
#[derive(clap::Args)]
pub struct Environment {
    /// The environment: references joined by `+`, the bottom first; `-` is an empty one
    #[arg(value_name = "REF", required_unless_present = "rerun", conflicts_with = "rerun", add = complete::env_spec())]
    pub reference: Option<String>,
    /// Allow changes to /spfs; an empty environment allows them anyway
    #[arg(short, long, overrides_with_all = ["edit", "no_edit"])]
    edit: bool,
    /// Forbid changes to /spfs
    #[arg(long, overrides_with_all = ["edit", "no_edit"])]
    no_edit: bool,
    /// Name the runtime, instead of a name made up for it
    #[arg(long, value_name = "NAME", conflicts_with = "rerun")]
    pub runtime_name: Option<String>,
    /// Keep the runtime and its changes on disk when its last process has gone
    #[arg(short, long, env = "SPFS_KEEP_RUNTIME", value_parser = FalseyValueParser::new(), hide_env_values = true)]
    pub keep_runtime: bool,
    /// Go on with a kept runtime, instead of REF
    #[arg(long, value_name = "NAME", add = complete::runtime())]
    pub rerun: Option<String>,
    /// With --rerun: even if it seems to be in use on another machine
    #[arg(long, requires = "rerun", conflicts_with = "reference")]
    pub force: bool,
    /// Annotate the environment: KEY=VALUE, KEY:VALUE, or a map like '{a: b, c: d}'; may be repeated
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "rerun")]
    pub annotation: Vec<String>,
    /// Annotate it with a YAML or JSON map from a file, `-` for standard input; may be repeated
    #[arg(long, value_name = "FILE", conflicts_with = "rerun")]
    pub annotation_file: Vec<PathBuf>,
    /// How /spfs is shown; without it the best way that works
    #[arg(long, value_name = "NAME", ignore_case = true, value_parser = backends())]
    pub backend: Option<Backend>,
    #[command(flatten)]
    pub transfer: Transfer,
    /// Fetch each file of a remote only when it is first opened
    #[arg(long, overrides_with_all = ["lazy", "no_lazy"], conflicts_with_all = ["check", "resync", "rerun"])]
    lazy: bool,
    /// Fetch everything before it starts, whatever is configured
    #[arg(long, overrides_with_all = ["lazy", "no_lazy"])]
    no_lazy: bool,
    /// Look only in this remote, and fetch from it what is not here
    #[arg(short, long, value_name = "NAME_OR_ADDRESS")]
    pub remote: Option<String>,
}

impl Environment {
    /// Whether files of a remote are to be fetched when they are first opened; `None` is as configured.
    pub fn lazy(&self) -> Option<bool> {
        match (self.lazy, self.no_lazy) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        }
    }

    /// What was said about changes: `None` is the default.
    pub fn editable(&self) -> Option<bool> {
        match (self.edit, self.no_edit) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        }
    }
}

/// The names of backends. Those of the existing program are taken, and not shown.
fn backends() -> impl TypedValueParser<Value = Backend> {
    let about = |name: &str| match name {
        "auto" => Some("The best that works here; what cannot be used is told"),
        "image" => Some("Names from an image that the kernel mounts, data from the store; for root"),
        "server" => Some("Names from a server, data from the store"),
        "render" => Some("Plain directories of links, made once for each environment and kept in the store"),
        "fuse" => Some("Names and data from a server: slower, and works nearly everywhere"),
        _ => None,
    };
    let value = |(name, _): &(&'static str, Backend)| match about(name) {
        Some(help) => PossibleValue::new(*name).help(help),
        None => PossibleValue::new(*name).hide(true),
    };
    let names = PossibleValuesParser::new(Backend::NAMES.iter().map(value));
    names.map(|name| Backend::of(&name).unwrap_or_default())
}
