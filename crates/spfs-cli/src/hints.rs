//! What to type next, by the kind of error; only the program knows this, never the library.

use std::error::Error as StdError;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use spfs::failure::FailureKind;
use spfs::{mount, repo, runtime};

use crate::errors::chain;
use crate::output::StdoutError;

/// The local repository, once it was opened.
static LOCAL: OnceLock<PathBuf> = OnceLock::new();

/// Says where the local repository is: what is denied in another is no matter of where things are kept here.
pub fn local_is(root: &Path) {
    let _ = LOCAL.set(root.to_owned());
}

/// The hints for an error: looked for along the whole chain of causes, the first kind that has any.
pub fn of(error: &(dyn StdError + 'static)) -> Vec<String> {
    // What has nothing to do with where we keep things: a command that cannot be run, an output that takes no more.
    let foreign = |error: &(dyn StdError + 'static)| {
        matches!(error.downcast_ref(), Some(spfs::Error::Exec { .. }))
            || error
                .downcast_ref::<std::io::Error>()
                .and_then(|e| e.get_ref())
                .is_some_and(|inner| inner.is::<StdoutError>())
    };
    if chain(error).any(foreign) {
        return Vec::new();
    }
    chain(error).map(of_one).find(|hints| !hints.is_empty()).unwrap_or_default()
}

fn of_one(error: &(dyn StdError + 'static)) -> Vec<String> {
    if let Some(error) = error.downcast_ref::<spfs::Error>() {
        of_verb(error)
    } else if let Some(error) = error.downcast_ref::<repo::Error>() {
        of_repository(error)
    } else if let Some(error) = error.downcast_ref::<mount::Error>() {
        of_mount(error)
    } else if let Some(error) = error.downcast_ref::<std::io::Error>() {
        of_system(error.kind())
    } else {
        Vec::new()
    }
}

fn of_verb(error: &spfs::Error) -> Vec<String> {
    use spfs::Error;
    match error {
        // Transparent: the chain goes on behind them.
        Error::Repo(error) => of_repository(error),
        Error::Mount(error) => of_mount(error),
        Error::Within { source, .. } => of_verb(source),
        Error::Records(_) => one(RECORDS),
        Error::NoRuntime => one("this works inside an environment: `spfs shell -` enters an empty one"),
        Error::UnknownRuntime { similar, .. } => with_similar(similar, "`spfs runtime list` lists the runtimes"),
        Error::NothingToCommit { .. } => one(NOTHING_TO_COMMIT),
        Error::Monitor(failure) => of_monitor(failure.kind),
        Error::Config { .. } => {
            vec![
                "`spfs help config` says what may be set, and where".to_owned(),
                "`spfs config check` finds all that is wrong".to_owned(),
            ]
        }
        Error::Invalid { what: "remote", .. } => {
            one("`spfs remote list` lists the remotes, `spfs remote add` makes one known")
        }
        Error::SpecFile { what: runtime::RECORD, .. } => {
            one("`spfs runtime rm --remove-durable NAME` removes it with its changes, which are in `upper` beside it")
        }
        Error::SpecFile { what: "annotation", .. } => Vec::new(),
        Error::SpecFile { .. } => one("`spfs help layers` shows what such a file looks like"),
        _ => Vec::new(),
    }
}

const NOTHING_TO_COMMIT: &str = "`spfs info` lists the active changes, `spfs edit` allows new ones";
const BUSY: &str = "`fuser -vm /spfs` lists the processes that have files open; close the file and try again";
const DENIED: &str = "`spfs config --origin` shows where things are kept; SPFS_STORAGE_ROOT=DIR keeps them elsewhere";
const DENIED_ELSEWHERE: &str =
    "whoever owns that decides who may use it; `spfs remote test` shows what works in each remote";
const FULL: &str = "`spfs clean` empties caches; SPFS_STORAGE_ROOT=DIR keeps things elsewhere, and \
                    SPFS_FILESYSTEM_TMPFS_SIZE gives changes in /spfs more memory";

/// Where the records of live runtimes cannot be kept.
pub const RECORDS: &str = "set XDG_RUNTIME_DIR to a directory of yours with mode 0700";
const DOCTOR: &str = "`spfs doctor` tries everything that environments need here";
/// Where overlayfs is missing.
pub const NO_OVERLAY: &str = "as root: modprobe overlay; ordinary users may mount it since Linux 5.11. Without it, \
                              environments can be entered read-only: not with --edit, and not the empty one";
/// Where `/dev/fuse` is there but not for us.
pub const FUSE_DENIED: &str =
    "as root: chmod 666 /dev/fuse (or install the package fuse3, which does it at every start)";
/// Where `/dev/fuse` is missing or unusable.
pub const FUSE_MISSING: &str = "as root: modprobe fuse; in a container: give it --device /dev/fuse";
/// What a container needs for namespaces and mounts.
pub const CONTAINER: &str = "in a container, start it with --security-opt seccomp=unconfined --security-opt \
                             apparmor=unconfined --device /dev/fuse";

/// What went wrong in the runtime's monitor, by the kind that it sends.
fn of_monitor(kind: FailureKind) -> Vec<String> {
    match kind {
        FailureKind::NothingToCommit => one(NOTHING_TO_COMMIT),
        FailureKind::Busy => one(BUSY),
        FailureKind::OutOfSpace => one(FULL),
        FailureKind::Denied => one(DENIED),
        FailureKind::NoOverlay => one(NO_OVERLAY),
        FailureKind::NotInside => {
            one("SPFS_RUNTIME names a runtime that this process is not in; `spfs join` enters it")
        }
        FailureKind::Uncommittable => one("`spfs info` lists the active changes; remove the file, or `spfs reset` it"),
        FailureKind::Interrupted | FailureKind::Other => Vec::new(),
    }
}

fn of_repository(error: &repo::Error) -> Vec<String> {
    use repo::Error;
    match error {
        Error::UnknownReference { similar, .. } => {
            with_similar(similar, "`spfs tags` lists the tags that there are, `spfs search TERM` looks for one")
        }
        Error::AmbiguousReference { candidates, .. } => {
            let mut hint = "it could be any of these; type more of the one you mean:".to_owned();
            for digest in candidates {
                hint.push_str(&format!("\n    {digest}"));
            }
            vec![hint]
        }
        Error::Corrupt { .. } | Error::UnknownObject(_) | Error::MissingPayload(_) => {
            one("`spfs check` finds everything that is damaged, and what it belongs to")
        }
        Error::Io { path, source, .. }
            if is_denied(source.kind()) && LOCAL.get().is_some_and(|local| !path.starts_with(local)) =>
        {
            one(DENIED_ELSEWHERE)
        }
        Error::Unreachable { trouble, .. } => of_network(*trouble),
        Error::Denied { unauthenticated: true, .. } => {
            one("a token opens it: remote.NAME.token_file = \"FILE\" in the configuration names the file that holds it")
        }
        Error::Denied { .. } => {
            one("whoever runs that server decides who may do this; its configuration names the tokens")
        }
        _ => Vec::new(),
    }
}

/// What to look at when a remote does not answer.
fn of_network(trouble: repo::NetTrouble) -> Vec<String> {
    use repo::NetTrouble;
    match trouble {
        NetTrouble::Unresolved => one("is the host's name right? `spfs config` shows the addresses of the remotes"),
        NetTrouble::Refused | NetTrouble::NoRoute => {
            one("is the server running, and the port right? `spfs config` shows the addresses of the remotes")
        }
        NetTrouble::TimedOut | NetTrouble::Lost => one("type it again: it goes on where it stopped"),
        NetTrouble::Tls => one("`?ca=FILE` at the end of the address names the certificates to trust"),
        NetTrouble::Protocol => {
            one("is this the port of an spfs server? it says at its start where it listens; grpcs:// is for TLS")
        }
        _ => Vec::new(),
    }
}

fn of_mount(error: &mount::Error) -> Vec<String> {
    use mount::Error;
    match error {
        Error::UserNamespaceForbidden { .. } => {
            vec![user_namespaces_here(), DOCTOR.to_owned()]
        }
        Error::NamespaceLimit { .. } => {
            one("leave some environments, or as root raise the limit: sysctl -w user.max_user_namespaces=15000")
        }
        Error::NoFuse { source } if source.kind() == ErrorKind::PermissionDenied => {
            vec![FUSE_DENIED.to_owned(), DOCTOR.to_owned()]
        }
        Error::NoFuse { .. } => vec![FUSE_MISSING.to_owned(), DOCTOR.to_owned()],
        Error::Busy => one(BUSY),
        Error::Backend { source, .. } => {
            of_mount(source).into_iter().chain(one("without --backend, spfs takes the best way that works")).collect()
        }
        Error::NoBackend { source, .. } => of_mount(source),
        Error::Repository(error) => of_repository(error),
        Error::NoOverlay { .. } => vec![NO_OVERLAY.to_owned(), DOCTOR.to_owned()],
        Error::KernelTooOld { .. } => {
            one("`spfs doctor` shows what this kernel can do, and docs/install.md what is needed")
        }
        _ => Vec::new(),
    }
}

fn of_system(kind: ErrorKind) -> Vec<String> {
    match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => one(FULL),
        kind if is_denied(kind) => one(DENIED),
        _ => Vec::new(),
    }
}

fn is_denied(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied)
}

/// What forbids user namespaces on this machine, and how to allow them.
pub fn user_namespaces_here() -> String {
    user_namespaces(|path| std::fs::read_to_string(path).ok(), |path| Path::new(path).exists())
}

/// What forbids user namespaces here, and how to allow them: by the settings that distributions use.
fn user_namespaces(read: impl Fn(&str) -> Option<String>, exists: impl Fn(&str) -> bool) -> String {
    let is = |path: &str, value: &str| read(path).is_some_and(|text| text.trim() == value);
    if is("/proc/sys/user/max_user_namespaces", "0") {
        return "as root: sysctl -w user.max_user_namespaces=15000".to_owned();
    }
    if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        return "as root: sysctl -w kernel.unprivileged_userns_clone=1".to_owned();
    }
    if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        return "AppArmor forbids them; as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, \
                or give spfs the profile in docs/install.md"
            .to_owned();
    }
    // The line says how many filters this process is under: 0 none, 2 at least one.
    let filtered = read("/proc/self/status").is_some_and(|text| text.contains("\nSeccomp:\t2"));
    if filtered || exists("/.dockerenv") || exists("/run/.containerenv") {
        return CONTAINER.to_owned();
    }
    "docs/install.md lists what forbids them: a sysctl, AppArmor, SELinux, a container's seccomp filter; \
     root needs none"
        .to_owned()
}

fn one(hint: &str) -> Vec<String> {
    vec![hint.to_owned()]
}

fn with_similar(similar: &[String], hint: &str) -> Vec<String> {
    let near = (!similar.is_empty()).then(|| format!("did you mean {}?", either(similar)));
    near.into_iter().chain([hint.to_owned()]).collect()
}

/// `a`, `a or b`, `a, b or c`, each in backquotes.
pub fn either(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_forbids_user_namespaces_is_named() {
        let table = [
            ("/proc/sys/user/max_user_namespaces", "0\n", "user.max_user_namespaces=15000"),
            ("/proc/sys/kernel/unprivileged_userns_clone", "0\n", "unprivileged_userns_clone=1"),
            (
                "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
                "1\n",
                "apparmor_restrict_unprivileged_userns=0",
            ),
            ("/.dockerenv", "", "seccomp=unconfined"),
            ("/proc/self/status", "Name:\tspfs\nSeccomp:\t2\nSeccomp_filters:\t1\n", "seccomp=unconfined"),
            ("/proc/self/status", "Name:\tspfs\nSeccomp:\t0\n", "docs/install.md"),
            ("/nothing", "", "docs/install.md"),
        ];
        for (file, content, hint) in table {
            let said = user_namespaces(|path| (path == file).then(|| content.to_owned()), |path| path == file);
            assert!(said.contains(hint), "{file}: {said}");
        }
    }

    #[test]
    fn lists_of_names_read_well() {
        let names = ["a", "b", "c"].map(str::to_owned);
        assert_eq!(
            [either(&names[..1]), either(&names[..2]), either(&names)],
            ["`a`", "`a` or `b`", "`a`, `b` or `c`"]
        );
    }
}
