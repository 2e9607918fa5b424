//! What a shell completes to that only a repository knows. Runs only when a shell asks.

use std::ffi::OsStr;

use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use spfs::repo::Repository;
use spfs::{Config, Env, Spfs};

/// For an argument that is one reference: tags.
pub fn reference() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| candidates("", &typed.to_string_lossy()))
}

/// For an argument that is an environment spec: a tag behind each `+`.
pub fn env_spec() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let typed = typed.to_string_lossy();
        let (before, last) =
            typed.rsplit_once('+').map_or(("", &*typed), |(_, last)| typed.split_at(typed.len() - last.len()));
        candidates(before, last)
    })
}

/// For an argument that is the name of a runtime.
pub fn runtime() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let all = spfs().and_then(|spfs| spfs::runtime::list(&spfs).ok()).unwrap_or_default();
        let names = all.into_iter().map(|found| found.record.name);
        names.filter(|name| name.starts_with(&*typed.to_string_lossy())).map(CompletionCandidate::new).collect()
    })
}

/// For an argument that is the name of a remote.
pub fn remote() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let config = Config::load(&Env::from_process()).ok();
        let names = config.into_iter().flat_map(|config| config.remotes.into_keys());
        names.filter(|name| name.starts_with(&*typed.to_string_lossy())).map(CompletionCandidate::new).collect()
    })
}

fn candidates(before: &str, typed: &str) -> Vec<CompletionCandidate> {
    let names = spfs().and_then(|spfs| spfs.local.tag_names().ok()).unwrap_or_default();
    let names = names.into_iter().map(|name| name.to_string()).filter(|name| name.starts_with(typed));
    names.map(|name| CompletionCandidate::new(format!("{before}{name}"))).collect()
}

/// Whatever goes wrong, a completion says nothing: it would end up in the middle of somebody's command line.
fn spfs() -> Option<Spfs> {
    let env = Env::from_process();
    let config = Config::load(&env).ok()?;
    Spfs::open(env, config).ok()
}
