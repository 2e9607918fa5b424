//! Commands that are not ours: `spfs foo` runs `spfs-foo` from the PATH or from beside this program.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use rustix::fs::{Access, access};
use spfs::mount::sys::process::exec_as_started;

use crate::commands;
use crate::errors::{Failure, Result};
use crate::hints::either;

/// Becomes `spfs-NAME` with all the arguments; returns only if there is none, or it cannot be started.
pub fn run(name: &OsStr, arguments: &[OsString]) -> Result<ExitCode> {
    let Some(program) = find(name) else { return Err(unknown(&name.to_string_lossy())) };
    let failed = exec_as_started(Command::new(&program).args(arguments));
    Err(Failure::new(format!("could not run {}: {failed}", program.display())))
}

fn find(name: &OsStr) -> Option<PathBuf> {
    // A name with a slash would leave the directories that are searched.
    if name.is_empty() || Path::new(name).components().count() != 1 {
        return None;
    }
    let mut file = OsString::from("spfs-");
    file.push(name);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
    let mut places = std::env::split_paths(&path).filter(|place| place.is_absolute()).chain(beside);
    places.find_map(|place| Some(place.join(&file)).filter(|program| is_program(program)))
}

fn is_program(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

fn unknown(name: &str) -> Failure {
    let failure = Failure::new(format!("there is no command {name:?}, and no program spfs-{name} on the PATH"));
    let names = commands::ALL.iter().flat_map(|entry| std::iter::once(&entry.name).chain(entry.aliases)).copied();
    let near = similar(name, names);
    let failure = if near.is_empty() { failure } else { failure.hint(format!("did you mean {}?", either(&near))) };
    failure.hint("`spfs help` lists the commands")
}

/// Those of `names` that look like `name`, the nearest first, at most three.
fn similar(name: &str, names: impl Iterator<Item = &'static str>) -> Vec<String> {
    let likeness = |candidate: &str| strsim::jaro_winkler(name, candidate);
    let mut near: Vec<(usize, &str)> = names
        .map(|candidate| (strsim::osa_distance(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance < 2 || likeness(candidate) > 0.8)
        .collect();
    near.sort_by(|a, b| a.0.cmp(&b.0).then(likeness(b.1).total_cmp(&likeness(a.1))).then(a.1.cmp(b.1)));
    // Beside a very near one, the others are noise.
    let best = near.first().map_or(0, |(distance, _)| *distance);
    near.into_iter()
        .take_while(|(distance, _)| *distance <= best + 1)
        .take(3)
        .map(|(_, name)| name.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names() {
        let near = |name| similar(name, ["run", "commit", "tag", "tags", "untag"].into_iter());
        assert_eq!(near("comit"), ["commit"]);
        assert_eq!(near("rnu"), ["run"]);
        assert_eq!(near("tag"), ["tag", "tags"]);
        assert!(near("xyzzy").is_empty());
    }

    #[test]
    fn a_name_stays_in_the_searched_directories() {
        for name in ["", "..", "a/b", "/bin/sh"] {
            assert_eq!(find(OsStr::new(name)), None, "{name:?}");
        }
    }
}
