//! What is known of lazy environments is cleaned away when no runtime can use it any more, and never sooner.

use std::fs;

use crate::common::{Home, every_caller};
use crate::lazy::{lazily, with_origin};
use crate::leftovers::kill_monitors;

/// What is here in part: the layer and its manifest.
const COUNT: &str = "find ~/.local/share/spfs/partial/objects -type f | wc -l";

/// Forgets what the origin's tags meant, which keeps what is here for when the origin is away.
fn forget_tags(home: &Home) {
    home.sh("rm -rf ~/.local/share/spfs/tracking").run().ok();
}

/// Cleans, as somebody who sees this home's records and as somebody who does not.
fn clean_and_find(home: &Home, kept: u32) {
    for runtime_dir in ["$XDG_RUNTIME_DIR", "$PWD/other-run"] {
        let code = format!(
            "mkdir -p -m 700 other-run; export XDG_RUNTIME_DIR={runtime_dir}; spfs clean --dry-run; spfs clean"
        );
        let out = home.sh(&code).run();
        out.ok().stdout_has("lazy environments: 0 objects that nothing uses, 0.0 B; ");
        out.stdout_has("payloads visited [     0 that nothing needs");
        out.stdout_has(&format!("lazy environments: 0 objects removed, 0.0 B; {kept} kept"));
    }
    home.sh(COUNT).run().ok().stdout_is(&kept.to_string());
}

#[test]
fn what_a_lazy_runtime_shows_stays_until_it_has_ended() {
    every_caller(|home| {
        with_origin(home);
        let code = "echo ready; read l; rm -r ~/.cache/spfs; spfs diff; cat /spfs/message";
        let mut inside = home.spfs(["run", "--lazy", "--edit", "tree", "--", "sh", "-c", code]).stdin_open().spawn();
        inside.wait_for("ready");
        forget_tags(home);
        clean_and_find(home, 2);
        kill_monitors(home);
        clean_and_find(home, 2);
        // One that was started by a version that notes nothing.
        home.sh("rm -r ~/.local/share/spfs/partial/uses; spfs clean")
            .run()
            .ok()
            .stdout_has("0 objects removed, 0.0 B; 2 kept");
        inside.send("go\n");
        inside.finish().stdout_has("hello");
        home.wait_for_the_end();
        home.spfs_line("clean --dry-run").run().ok().stdout_has("lazy environments: 2 objects that nothing uses");
        home.sh(COUNT).run().ok().stdout_is("2");
        let json: serde_json::Value = serde_json::from_str(&home.spfs_line("clean --json").run().ok().stdout).unwrap();
        assert_eq!((&json["partial"]["objects"], &json["partial"]["kept"]), (&2.into(), &0.into()), "{json}");
        home.sh(&format!("{COUNT}; ls -A ~/.local/share/spfs/partial/uses 2>/dev/null")).run().stdout_is("0");
        lazily(home, "cat /spfs/other").run().ok().stdout_is("other");
        home.wait_for_the_end();
        home.sh("ls -A ~/.local/share/spfs/partial/uses").run().ok().stdout_is("");
        home.is_sound();
    });
}

#[test]
fn what_a_kept_lazy_runtime_shows_stays() {
    every_caller(|home| {
        with_origin(home);
        let code = "cat /spfs/message";
        home.spfs(["run", "--lazy", "--edit", "-k", "--runtime-name", "work", "tree", "--", "sh", "-c", code])
            .run()
            .ok();
        home.wait_for_the_end();
        forget_tags(home);
        clean_and_find(home, 2);
        let rerun = || home.spfs(["run", "--rerun", "work", "--", "sh", "-c", "spfs diff; cat /spfs/other"]).run();
        home.sh("rm -r ~/.cache/spfs").run().ok();
        rerun().ok().stdout_has("other");
        home.wait_for_the_end();
        clean_and_find(home, 2);
        // What somebody has removed by hand comes again.
        home.sh("rm -r ~/.cache/spfs ~/.local/share/spfs/partial").run().ok();
        rerun().ok().stdout_has("other");
        home.wait_for_the_end();
        home.spfs_line("runtime rm --remove-durable work").run().ok();
        home.spfs_line("clean").run().ok().stdout_has("lazy environments: 2 objects removed");
        home.sh("ls -A ~/.local/share/spfs/partial/uses").run().ok().stdout_is("");
    });
}

#[test]
fn what_a_tag_meant_stays_until_it_means_something_else() {
    every_caller(|home| {
        with_origin(home);
        lazily(home, "cat /spfs/message").run().ok();
        home.wait_for_the_end();
        clean_and_find(home, 2);
        fs::rename(home.path("origin"), home.path("away")).unwrap();
        lazily(home, "cat /spfs/message").run().ok().stdout_is("hello");
        home.wait_for_the_end();
        fs::rename(home.path("away"), home.path("origin")).unwrap();
        let again =
            "export XDG_DATA_HOME=$PWD/maker; echo new > tree/message; spfs commit --path tree -t tree; spfs push tree";
        home.sh(again).run().ok();
        lazily(home, "cat /spfs/message").run().ok().stdout_is("new");
        home.wait_for_the_end();
        home.spfs_line("clean").run().ok().stdout_has("lazy environments: 2 objects removed").stdout_has("; 2 kept");
        // What has become whole is in the repository itself.
        home.spfs_line("pull tree").run().ok();
        home.spfs_line("clean").run().ok().stdout_has("lazy environments: 2 objects removed").stdout_has("; 0 kept");
        home.script("tree", "cat /spfs/message").run().ok().stdout_is("new");
        home.is_sound();
    });
}

#[test]
fn cleaning_beside_starts_and_killed_takes_nothing_away() {
    every_caller(|home| {
        with_origin(home);
        let code = "for i in 1 2 3 4 5 6; do
            for j in 1 2; do
                spfs run --lazy tree -- sh -c 'cat /spfs/message; rm -rf ~/.local/share/spfs/tracking; ls /spfs | wc -l' & runs=\"$runs $!\"
                spfs clean > /dev/null 2>&1 & cleans=\"$cleans $!\"; sleep 0.0$i
                spfs clean > /dev/null 2>&1 & cleans=\"$cleans $!\"
            done
            sleep 0.0$i; kill -9 $! 2> /dev/null; wait
        done; rm -rf ~/.local/share/spfs/tracking; spfs clean";
        let out = home.sh(code).run();
        assert_eq!(out.ok().lines().iter().filter(|line| **line == "hello").count(), 12, "{out}");
        assert_eq!(out.lines().iter().filter(|line| **line == "7").count(), 12, "{out}");
        out.stdout_has("; 0 kept").stderr_lacks("error");
        home.sh(COUNT).run().ok().stdout_is("0");
        home.wait_for_the_end();
        home.is_sound();
    });
}
