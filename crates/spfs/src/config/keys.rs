//! Every configuration key: its name, what it holds, and its one default.

use super::Backend;

/// What a key holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holds {
    /// Any text.
    Text,
    /// A path; `~` at its start is the home directory.
    Path,
    /// `true` or `false` (`yes`, `on`, `1`… in texts).
    Bool,
    /// A whole number, at least this.
    Count(u64),
    /// A number of bytes: `8G`, `512M`, `1048576`; 0 for nothing.
    Size,
    /// The size of an in-memory file system: bytes as above, not 0, or a part of the memory: `50%`.
    TmpfsSize,
    /// A list of texts; in one text they are separated by commas.
    List,
    /// One of these, whatever the case.
    Choice(&'static [&'static str]),
}

/// One configuration key.
#[derive(Debug)]
pub struct Key {
    /// Its name: tables and key joined by dots.
    pub name: &'static str,
    /// What it holds.
    pub holds: Holds,
    /// Its default as text; empty where there is none, or where it depends on the surroundings.
    pub default: &'static str,
    /// What it is for, in one line.
    pub about: &'static str,
}

const fn key(name: &'static str, holds: Holds, default: &'static str, about: &'static str) -> Key {
    Key { name, holds, default, about }
}

/// All keys but those of remotes, sorted. Keys marked "accepted" stand in files of the existing program and have
/// nothing to act on here.
pub const KEYS: &[Key] = &[
    key("cache.max_size", Holds::Size, "", "how large the caches may grow; by default a tenth of the disk, at most 8G"),
    key("environment.variable_names_to_preserve", Holds::List, "", "accepted: every variable is preserved"),
    key("filesystem.annotation_size_limit", Holds::Count(0), "16384", "longer annotation values become blobs (bytes)"),
    key(
        "filesystem.backend",
        Holds::Choice(Backend::CHOICES),
        "Auto",
        "how /spfs is shown; Auto takes the best that works",
    ),
    key(
        "filesystem.fetch_ahead",
        Holds::Bool,
        "true",
        "with filesystem.lazy, small files near one that was opened are fetched behind it",
    ),
    key("filesystem.lazy", Holds::Bool, "false", "files of a remote are fetched when they are first opened"),
    key("filesystem.overlayfs_options.break_hardlinks", Holds::Bool, "true", "accepted: always so"),
    key("filesystem.overlayfs_options.metadata_copy_up", Holds::Bool, "true", "accepted: never so"),
    key(
        "filesystem.overlayfs_options.redirect_dir",
        Holds::Choice(&["On", "Follow", "NoFollow", "Off"]),
        "Follow",
        "accepted: always NoFollow",
    ),
    key(
        "filesystem.secondary_repositories",
        Holds::List,
        "origin",
        "remotes that are asked after the local repository",
    ),
    key("filesystem.share", Holds::Bool, "true", "runtimes that nobody may change share one mount of their view"),
    key("filesystem.tmpfs_size", Holds::TmpfsSize, "", "limit of the changes that a runtime keeps in memory"),
    key("filesystem.use_mount_syscalls", Holds::Bool, "true", "accepted: always so"),
    key(
        "filesystem.warm_seconds",
        Holds::Count(0),
        "60",
        "how long a view is kept for its next runtime; 0: not at all",
    ),
    key("fuse.enable_heartbeat", Holds::Bool, "false", "accepted: the kernel tells when a runtime ends"),
    key("fuse.heartbeat_grace_period_seconds", Holds::Count(1), "300", "accepted: there is no heartbeat"),
    key("fuse.heartbeat_interval_seconds", Holds::Count(1), "60", "accepted: there is no heartbeat"),
    key("fuse.include_secondary_tags", Holds::Bool, "true", "accepted: no tags are looked up while mounted"),
    key("fuse.max_blocking_threads", Holds::Count(1), "512", "accepted: the server needs no thread pool"),
    key("fuse.worker_threads", Holds::Count(1), "8", "accepted: the server needs no thread pool"),
    key("monitor.max_blocking_threads", Holds::Count(1), "2", "accepted: the monitor has one thread"),
    key("monitor.worker_threads", Holds::Count(1), "2", "accepted: the monitor has one thread"),
    key("sentry.dsn", Holds::Text, "", "accepted: nothing is ever reported"),
    key("sentry.email_domain", Holds::Text, "", "accepted: nothing is ever reported"),
    key("sentry.environment", Holds::Text, "", "accepted: nothing is ever reported"),
    key("sentry.username_override_var", Holds::Text, "", "accepted: nothing is ever reported"),
    key("storage.allow_payload_sharing_between_users", Holds::Bool, "false", "accepted: payloads are always shared"),
    key(
        "storage.digest_strategy",
        Holds::Choice(&["Legacy", "WithKindAndSalt"]),
        "WithKindAndSalt",
        "what the digests of new objects are made of",
    ),
    key("storage.durable_dir", Holds::Path, "", "where durable runtimes keep their changes"),
    key(
        "storage.encoding_format",
        Holds::Choice(&["Legacy", "FlatBuffers"]),
        "FlatBuffers",
        "how new objects are written",
    ),
    key("storage.root", Holds::Path, "", "where the local repository is"),
    key("storage.tag_namespace", Holds::Text, "", "the tag namespace of the local repository"),
    key("user.domain", Holds::Text, "", "who makes tags: what follows the @"),
    key("user.name", Holds::Text, "", "who makes tags: what stands before the @"),
];

/// The keys below `remote.<name>.`, sorted; they depend on its scheme.
pub const REMOTE_KEYS: &[Key] = &[
    key("address", Holds::Text, "", "where the remote is, as a URL; instead of scheme and the rest"),
    key("ca", Holds::Path, "", "grpcs: certificates to trust instead of those of this system"),
    key("compress", Holds::Bool, "", "grpc, ssh: make what is sent smaller; by default unless it is this machine"),
    key("create", Holds::Bool, "", "fs: make the repository if it is not there"),
    key("include_secondary_tags", Holds::Bool, "", "proxy, fallback: show the tags of the secondaries too"),
    key("lazy", Holds::Bool, "", "fs, grpc: connect when first used"),
    key("max_decode_message_size_bytes", Holds::Count(1), "", "grpc: largest message that is read"),
    key("max_encode_message_size_bytes", Holds::Count(1), "", "grpc: largest message that is sent"),
    key("path", Holds::Path, "", "fs, tar: where the repository is"),
    key("primary", Holds::Text, "", "proxy, fallback: the name or address of the first repository"),
    key("program", Holds::Text, "", "ssh: the spfs on the other side, if it is not on the PATH there"),
    key("scheme", Holds::Choice(&["fs", "tar", "grpc", "proxy", "fallback"]), "", "the kind of the remote"),
    key("secondary", Holds::List, "", "proxy, fallback: names or addresses of the others"),
    key("tag_namespace", Holds::Text, "", "the tag namespace of the remote"),
    key("timeout_ms", Holds::Count(1), "", "grpc: how long an answer may take"),
    key("token_file", Holds::Path, "", "grpc, grpcs: the file that holds the token for the server"),
    key("when", Holds::Text, "", "show the remote as it was at that time: ~2weeks, @2020-06-15"),
];

/// Variables that begin with `SPFS_` and are no configuration; the last part of those that end in `*` is free.
pub const OTHER_VARIABLES: &[&str] = &[
    "SPFS_CLEAN_MAX_*",
    "SPFS_COMMIT_MAX_CONCURRENT_*",
    "SPFS_COMPLETE",
    "SPFS_DEBUG",
    "SPFS_FUSE_LOG_FOREGROUND",
    "SPFS_KEEP_RUNTIME",
    "SPFS_LOG",
    "SPFS_LOG_FILE",
    "SPFS_LOG_TIMESTAMP",
    "SPFS_METRICS_*",
    "SPFS_MONITOR_FOREGROUND_LOGGING",
    "SPFS_MONITOR_NO_CHDIR",
    "SPFS_MONITOR_NO_CLOSE",
    "SPFS_ORIGINAL_HOME",
    "SPFS_RENDER_MAX_CONCURRENT_*",
    "SPFS_RUNTIME",
    "SPFS_SHELL_MESSAGE",
    "SPFS_SSH_COMMAND",
    "SPFS_SUPPRESS_OVERLAYFS_PARAMS_WARNING",
    "SPFS_SYNC_MAX_CONCURRENT_*",
    "SPFS_TEST_*",
    "SPFS_WINFSP_LISTEN_ADDRESS",
];

/// The key with this full name, `remote.<name>.<key>` included.
pub fn find(name: &str) -> Option<&'static Key> {
    if let Some(rest) = name.strip_prefix("remote.") {
        let (_, last) = rest.rsplit_once('.')?;
        return by_name(REMOTE_KEYS, last);
    }
    by_name(KEYS, name)
}

fn by_name(keys: &'static [Key], name: &str) -> Option<&'static Key> {
    keys.binary_search_by(|key| key.name.cmp(name)).ok().map(|at| &keys[at])
}

/// Whether `variable` is one of [`OTHER_VARIABLES`].
pub fn is_other_variable(variable: &str) -> bool {
    OTHER_VARIABLES.iter().any(|known| match known.strip_suffix('*') {
        Some(start) => variable.starts_with(start),
        None => variable == *known,
    })
}

/// The two variables that set a key: with `__` between levels, and with `_`.
pub fn variables(name: &str) -> [String; 2] {
    let upper = name.to_ascii_uppercase().replace('-', "_");
    ["__", "_"].map(|separator| format!("SPFS_{}", upper.replace('.', separator)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::value::Value;

    #[test]
    fn tables_are_sorted_and_every_default_is_valid() {
        assert!(KEYS.is_sorted_by_key(|key| key.name));
        assert!(REMOTE_KEYS.is_sorted_by_key(|key| key.name));
        assert!(OTHER_VARIABLES.is_sorted());
        for key in KEYS.iter().filter(|key| !key.default.is_empty()) {
            Value::from_text(key, key.default).unwrap();
        }
    }

    #[test]
    fn no_two_keys_share_a_variable() {
        let mut seen = std::collections::BTreeMap::new();
        for key in KEYS {
            for variable in variables(key.name) {
                assert!(!is_other_variable(&variable), "{variable}");
                let before = seen.insert(variable.clone(), key.name);
                assert!(before.is_none_or(|name| name == key.name), "{variable}");
            }
        }
    }

    #[test]
    fn names_are_found() {
        assert_eq!(find("storage.root").unwrap().holds, Holds::Path);
        assert_eq!(find("remote.my.site.address").unwrap().name, "address");
        assert!(find("remote.address").is_none());
        assert!(find("storage").is_none());
    }
}
