//! Runtimes of one view that nobody may change share one mount of it, and each ends for itself all the same.

use crate::common::{Home, eventually, every_caller, everywhere};

/// The device number tells one mount's superblock from another's.
const DEVICE: &str = "stat -c %d /spfs";

fn shared(home: &Home, seconds: &str) {
    home.set("SPFS_FILESYSTEM_SHARE", "true");
    home.set("SPFS_FILESYSTEM_WARM_SECONDS", seconds);
    home.script("-", "echo base > /spfs/file; mkdir /spfs/dir; spfs commit layer -t base").run().ok();
}

/// A runtime that lives until its input is closed, and the device it shows.
fn alive(home: &Home) -> (crate::common::Running, String) {
    let mut running = home.script("base", "stat -c %d /spfs; read line; cat /spfs/file").stdin_open().spawn();
    running.wait_for("\n");
    let device = running.stdout().trim().to_owned();
    (running, device)
}

#[test]
fn runtimes_at_the_same_time_share_one_mount_and_editable_ones_do_not() {
    everywhere(|home| {
        shared(home, "0");
        let (mut first, device) = alive(home);
        home.script("base", DEVICE).run().ok().stdout_is(&device);
        let (mut second, same) = alive(home);
        assert_eq!(same, device);
        assert_ne!(home.script("base --edit", DEVICE).run().ok().text(), device);
        // The one that made the mount may go first.
        first.close_stdin();
        first.finish().ok();
        eventually("the first one's record goes", || home.records().len() == 1);
        home.script("base", DEVICE).run().ok().stdout_is(&device);
        second.close_stdin();
        second.finish().ok().stdout_has("base");
    });
}

#[test]
fn edit_gives_a_top_of_its_own_and_says_so() {
    everywhere(|home| {
        shared(home, "0");
        let (mut other, _) = alive(home);
        let code = r#"set -e; cd /spfs/dir
            spfs edit
            ! touch here 2>/dev/null
            cd .; touch here; echo changed > /spfs/file
            spfs edit --off; ! touch there 2>/dev/null; spfs edit
            spfs info | tail -n 2; spfs commit layer -t next >/dev/null"#;
        let out = home.script("base", code).run();
        out.ok().stdout_is(" + /dir/here\n ~ /file").stderr_has("mounted anew");
        home.script("next", "cat /spfs/file").run().ok();
        other.close_stdin();
        other.finish().ok().stdout_has("base").stdout_lacks("changed");
        home.script("base", "spfs reset; cat /spfs/file; spfs commit platform -t same").run().ok().stdout_has("base");
    });
}

/// A shell that is typed as the command is one that people sit in.
#[test]
fn a_shell_has_a_top_from_the_start() {
    every_caller(|home| {
        shared(home, "0");
        let lines = "cd /spfs/dir\nspfs edit\ntouch here && ls\n";
        let out = home.spfs_line("run base -- bash --norc").stdin(lines).run();
        out.ok().stdout_is("here").stderr_is("edit mode enabled");
    });
}

#[test]
fn what_is_kept_warm_is_used_again_and_given_up_when_asked() {
    every_caller(|home| {
        shared(home, "600");
        let device = home.script("base", DEVICE).run().ok().text().to_owned();
        eventually("the record goes although the view is kept", || home.records().is_empty());
        home.script("base", DEVICE).run().ok().stdout_is(&device);
        eventually("the second record goes too", || home.records().is_empty());
        assert!(!home.processes().is_empty(), "somebody keeps it");
        home.spfs_line("runtime list").run().ok().stdout_is("");
        home.spfs_line("runtime prune --from-before-boot").run().ok();
        home.wait_for_the_end();
    });
}

#[test]
fn a_new_repository_in_the_old_ones_place_is_not_taken_for_it() {
    every_caller(|home| {
        shared(home, "600");
        home.script("base", "cat /spfs/file").run().ok().stdout_is("base");
        std::fs::remove_dir_all(home.repository()).unwrap();
        home.script("-", "echo base > /spfs/file; mkdir /spfs/dir; spfs commit layer -t base").run().ok();
        home.script("base", "cat /spfs/file").run().ok().stdout_is("base");
        home.spfs_line("runtime prune --from-before-boot").run().ok();
        home.wait_for_the_end();
    });
}

#[test]
fn killed_keepers_and_servers_are_not_missed() {
    every_caller(|home| {
        shared(home, "600");
        let (mut first, _) = alive(home);
        let (mut second, _) = alive(home);
        for (pid, _) in home.processes() {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if name.trim() == "spfs-monitor"
                && let Some(pid) = rustix::process::Pid::from_raw(pid)
            {
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            }
        }
        second.close_stdin();
        second.finish().ok().stdout_has("base");
        home.script("base", "cat /spfs/file").run().ok().stdout_is("base");
        first.close_stdin();
        first.finish().ok().stdout_has("base");
        home.spfs_line("runtime list").run().ok();
        home.spfs_line("runtime prune --from-before-boot").run().ok();
        home.wait_for_the_end();
    });
}
