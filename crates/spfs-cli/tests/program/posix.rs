//! pjdfstest, the POSIX test suite for file systems, in an editable runtime. Only with `SPFS_TEST_FULL=1`, as it takes a
//! minute to build; the small one that stands for it is [`super::semantics`].

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::common::{Caller, Cmd, Home, every_strategy, full, is_root};

/// What it may ask for on Linux; a nap between changes longer than the clock of file times ticks.
const CONFIGURATION: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}

[settings]
naptime = 0.02

[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"], ["bin", "bin"]]
"#;

/// What fails for root, `::char` of each. The suite makes character devices with the number 0:0; in an overlay that is
/// the mark of a deletion (the kernel's overlayfs.rst, "whiteouts and opaque directories"), which nobody may make.
const WHITEOUTS: [&str; 41] = [
    "chmod::change_perm",
    "chmod::enotdir_component",
    "chmod::failed_chmod_unchanged_ctime",
    "chmod::update_ctime",
    "chown::enotdir_component",
    "chown::lchown::enotdir_component",
    "link::changed_ctime_success",
    "link::eexist_dest_exists",
    "link::enotdir_component_either",
    "link::remove_link",
    "link::share_metadata",
    "link::unchanged_ctime_fails",
    "mkdir::eexist_file_exists",
    "mkdir::enotdir_component",
    "mkfifo::eexist_file_exists",
    "mkfifo::enotdir_component",
    "mknod::eexist_file_exists",
    "mknod::enotdir_comp_char_block",
    "mknod::enotdir_component",
    "mknod::privileged::eexist_file_exists",
    "open::eexist_file_exists",
    "rename::changed_ctime_success",
    "rename::eexist_enotempty_to_non_empty",
    "rename::eisdir_to_dir_from_not_dir",
    "rename::enotdir_component_either",
    "rename::enotdir_from_dir_to_not_dir",
    "rename::preserve_metadata",
    "rename::to_multiply_linked",
    "rename::unchanged_ctime_failed",
    "rmdir::eexist_enotempty_non_empty_dir",
    "rmdir::enotdir_component",
    "symlink::create_symlink",
    "symlink::eexist_file_exists",
    "symlink::enotdir_component",
    "truncate::enotdir_component",
    "unlink::enotdir_component",
    "unlink::remove_type",
    "unlink::unchanged_ctime_failed",
    "unlink::update_ctime_success",
    "unlink::update_mtime_ctime_success_folder",
    "utimensat::changes_timestamps",
];

#[test]
fn a_posix_suite_finds_what_a_plain_overlay_has_and_no_more() {
    if !full() {
        return;
    }
    let program = installed();
    every_strategy(|home| {
        fs::copy(&program, home.path("pjdfstest")).unwrap();
        home.own(&home.path("pjdfstest"), 0o755);
        home.write("pjdfstest.toml", CONFIGURATION);
        let suite = |at: &str| {
            let here = home.path("");
            let here = here.to_str().unwrap().trim_end_matches('/');
            format!("mkdir -m 777 {at}/t && {here}/pjdfstest -c {here}/pjdfstest.toml -s /var/tmp -p {at}/t")
        };
        let runtimes = [("- --edit", "in memory"), ("- --edit --keep-runtime --runtime-name kept", "on disk")];
        for (reference, kind) in runtimes {
            let found = failures(home.script(reference, &suite("/spfs")), home);
            assert_eq!(found, expected(home), "with the changes {kind}");
        }
        home.wait_for_the_end();
        home.spfs_line("runtime rm --remove-durable kept").run().ok();
    });
}

#[test]
fn the_posix_suite_finds_the_same_in_a_plain_overlay_and_nothing_in_a_plain_directory() {
    if !full() || !is_root() {
        return;
    }
    let (program, home) = (installed(), Home::new(Caller::Root));
    home.write("pjdfstest.toml", CONFIGURATION);
    let mounts = "mount -t tmpfs none /mnt && mkdir /mnt/t /mnt/u /mnt/w /mnt/l /mnt/m && chmod 777 /mnt/t &&
        mount -t overlay -o userxattr,lowerdir=/mnt/l,upperdir=/mnt/u,workdir=/mnt/w none /mnt/m && mkdir -m 777 /mnt/m/t";
    for (at, wanted) in [("/mnt/t", BTreeSet::new()), ("/mnt/m/t", expected(&home))] {
        let code = format!("{mounts} && {} -c $PWD/pjdfstest.toml -s /var/tmp -p {at}", program.display());
        let found = failures(home.command(["unshare", "--mount", "sh", "-c", &code].map(String::from).to_vec()), &home);
        assert_eq!(found, wanted, "at {at}");
    }
}

/// Runs the suite, and gives the names of the tests that failed.
#[track_caller]
fn failures(command: Cmd, home: &Home) -> BTreeSet<String> {
    let output = command.limit(Duration::from_secs(300)).run();
    let mut failed = BTreeSet::new();
    for line in output.stdout.lines() {
        let mut words = line.split_whitespace();
        if let (Some(name), Some("FAILED")) = (words.next(), words.next().map(uncoloured).as_deref()) {
            failed.insert(uncoloured(name));
        }
    }
    let summary = output.stdout.lines().map(uncoloured).find(|line| line.starts_with("Summary: ")).unwrap_or_default();
    let passed = summary.split(", ").find_map(|part| part.strip_suffix(" passed")?.parse::<usize>().ok());
    // As an ordinary user it leaves out what takes root; then there are fewer, and none may be missing.
    let least = if home.caller().is_root() { 343 } else { 254 };
    assert!(passed.is_some_and(|passed| passed >= least), "{summary:?}: {output}");
    failed
}

/// Text without the escape sequences of a terminal.
fn uncoloured(text: &str) -> String {
    let mut parts = text.split('\x1b');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| all + part.split_once('m').map_or("", |(_, rest)| rest))
}

/// The tests that fail for root; an ordinary user may not make devices anywhere, and none is tried.
fn expected(home: &Home) -> BTreeSet<String> {
    let root = home.caller().is_root();
    WHITEOUTS.iter().filter(|_| root).map(|name| format!("{name}::char")).collect()
}

/// The suite's program: `pjdfstest` of the PATH, or built below target/ once.
fn installed() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("pjdfstest");
    let program = root.join("bin/pjdfstest");
    if !program.exists() {
        let mut cargo = Command::new("cargo");
        cargo.args(["install", "--quiet", "--locked", "pjdfstest@0.2.2", "--root"]).arg(&root);
        assert!(cargo.status().unwrap().success(), "pjdfstest cannot be installed from crates.io");
    }
    program
}
