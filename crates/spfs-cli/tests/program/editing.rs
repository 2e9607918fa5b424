//! Read-only and editable: the default, the options, and the flip in place under everything that is in use.

use crate::common::{Home, every_caller, everywhere};

/// Says whether /spfs can be written, as seen by the process itself and as the program says.
const PROBE: &str = "if touch /spfs/probe 2>/dev/null; then rm /spfs/probe; echo yes; else echo no; fi
    spfs info | grep -c 'editable: true'";

fn with_base(home: &Home) {
    home.script("-", "echo base > /spfs/file; mkdir /spfs/dir; spfs commit layer -t base").run().ok();
}

/// As an interactive shell has it: what shares its mount with others gets a new one (`sharing.rs`).
fn with_a_top(home: &Home) {
    home.set("SPFS_FILESYSTEM_SHARE", "false");
}

#[test]
fn what_exists_is_read_only_and_what_is_empty_is_not() {
    everywhere(|home| {
        with_base(home);
        for (reference, editable) in [
            ("base", false),
            ("-", true),
            ("base --edit", true),
            ("- --no-edit", false),
            ("base --no-edit", false),
            ("base --edit --no-edit", false),
            ("base --no-edit --edit", true),
            ("base+base", false),
        ] {
            let expected = if editable { "yes\n1" } else { "no\n0" };
            let out = home.script(reference, PROBE).run();
            assert_eq!(out.text(), expected, "{reference}: {out}");
        }
        home.spfs(["run", "", "--", "touch", "/spfs/probe"]).run().ok();
    });
}

#[test]
fn the_flip_is_made_in_place_under_open_files_and_working_directories() {
    everywhere(|home| {
        with_base(home);
        with_a_top(home);
        let code = r#"set -e; cd /spfs/dir; exec 3< /spfs/file; before=$(stat -c %d:%i /spfs /spfs/file)
            ! touch here 2>/dev/null
            spfs edit
            touch here; echo changed > ../file; cat <&3
            test "$(stat -c %d:%i /spfs /spfs/file)" = "$before"
            spfs edit --off
            ! touch there 2>/dev/null; ls; cat ../file; spfs info | tail -n 2"#;
        home.script("base", code)
            .run()
            .ok()
            .stdout_is("changed\nhere\nchanged\n + /dir/here\n ~ /file")
            .stderr_is("edit mode enabled\nedit mode disabled");
    });
}

#[test]
fn another_process_that_is_inside_already_can_write_at_once() {
    every_caller(|home| {
        with_base(home);
        with_a_top(home);
        let code = r#"cd /spfs/dir; while read line; do $line && echo ok || echo failed; done"#;
        let mut inside = home.script("base", code).stdin_open().spawn();
        inside.send("touch a\n");
        inside.wait_for("failed\n");
        inside.send("spfs edit\ntouch a\nls\n");
        inside.wait_for("a\nok\n");
        inside.finish().ok().stdout_is("failed\nok\nok\na\nok");
    });
}

#[test]
fn a_file_that_is_open_for_writing_forbids_read_only() {
    every_caller(|home| {
        let code =
            "exec 3> /spfs/busy; spfs edit --off; echo $?; echo more >&3; exec 3>&-; spfs edit --off; cat /spfs/busy";
        home.script("-", code).run().ok().stdout_is("1\nmore").stderr_has("open for writing").stderr_lacks("os error");
    });
}

#[test]
fn deleted_files_stay_deleted_when_changes_are_forbidden() {
    every_caller(|home| {
        with_base(home);
        let code = "rm /spfs/file; spfs edit --off; ls -A /spfs; spfs edit --off; spfs edit; ls -A /spfs";
        home.script("base --edit", code).run().ok().stdout_is("dir\ndir");
    });
}

#[test]
fn outside_of_a_runtime_there_is_nothing_to_edit() {
    every_caller(|home| {
        for command in ["edit", "edit --off", "commit layer", "reset", "edit --keep-runtime"] {
            home.spfs_line(command).run().code(1).stderr_has("no active runtime").stderr_has("hint: ");
        }
        // A variable that was carried out of a runtime is not enough.
        home.spfs_line("edit").env("SPFS_RUNTIME", "no-such-runtime").run().code(1).stderr_has("no active runtime");
        let mut inside = home.script("- --runtime-name mine", "echo ready; cat").stdin_open().spawn();
        inside.wait_for("ready");
        home.spfs_line("edit --off").env("SPFS_RUNTIME", "mine").run().code(1);
        inside.finish().ok();
    });
}

#[test]
fn a_size_in_the_configuration_limits_what_is_kept_in_memory() {
    every_caller(|home| {
        let code = "head -c 8388608 /dev/zero > /spfs/big";
        home.script("-", code).env("SPFS_FILESYSTEM_TMPFS_SIZE", "4M").run().fails().stderr_has("No space left");
        home.script("-", code).env("SPFS_FILESYSTEM_TMPFS_SIZE", "64M").run().ok();
    });
}
