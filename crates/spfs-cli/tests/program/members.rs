//! Whose a process is: a runtime's record holds the number of a mount namespace, and its name, and the kernel gives that
//! number to another namespace when all has ended, in which there may be another runtime of the same name.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::common::{Caller, Home, Running, eventually, every_caller, every_strategy, is_root};
use crate::leftovers::kill_monitors;

/// A runtime `same` of this environment, which says what it sees when its input ends.
fn alive(home: &Home, reference: &str) -> Running {
    let mut running =
        home.script(&format!("{reference} --runtime-name same"), "echo ready; cat; ls /spfs").stdin_open().spawn();
    running.wait_for("ready");
    running
}

/// The number of the mount namespace of a process.
fn namespace(pid: u32) -> u64 {
    fs::metadata(format!("/proc/{pid}/ns/mnt")).unwrap().ino()
}

/// The record of the runtime `same`, once its monitor has noted where it lives.
fn noted(home: &Home) -> String {
    let path = home.run_dir().join("spfs/runtimes/same/record.json");
    let read = || fs::read_to_string(&path).unwrap_or_default();
    eventually("the record says where", || read().contains("mnt:["));
    read()
}

/// The same with another number.
fn with_namespace(record: &str, number: u64) -> String {
    let (before, rest) = record.split_once("mnt:[").unwrap();
    format!("{before}mnt:[{number}]{}", rest.split_once(']').unwrap().1)
}

/// As a program wrote it before there were marks.
fn without_mark(record: &str) -> String {
    let is_other = |line: &&str| !line.contains("\"mark\"");
    assert_eq!(record.lines().filter(is_other).count() + 1, record.lines().count(), "{record}");
    record.lines().filter(is_other).collect::<Vec<_>>().join("\n")
}

/// Puts the record of the runtime `same` there, of which nothing lives.
fn forge(home: &Home, record: &str) {
    home.sh("mkdir -p -m 700 $XDG_RUNTIME_DIR/spfs/runtimes/same").run().ok();
    let path = home.run_dir().join("spfs/runtimes/same/record.json");
    fs::write(&path, record).unwrap();
    home.own(&path, 0o644);
}

/// Nothing that `home` does with its dead runtime `same` reaches the `stranger`, whose namespace has its number now.
fn let_alone(home: &Home, records: &[String], stranger: &mut Running) {
    let join_it = format!("join --pid {} -- touch /spfs/touched", stranger.pid());
    for record in records {
        let record = with_namespace(record, namespace(stranger.pid()));
        for line in ["join same -- touch /spfs/touched", &join_it, "runtime list", "runtime prune --from-before-boot"] {
            forge(home, &record);
            let out = home.spfs_line(line).run();
            assert_eq!(out.status.success(), line.starts_with("runtime"), "{out}");
            out.stdout_is("");
        }
        assert_eq!(home.records(), Vec::<String>::new());
        for line in ["runtime rm --force same", "runtime rm same", "run - --runtime-name same -- true"] {
            forge(home, &record);
            home.spfs_line(line).run().ok();
            eventually("the record goes", || home.records().is_empty());
        }
    }
    assert!(stranger.is_alive());
}

/// The record that a runtime `same` had, and the same without its mark.
fn of_the_dead(home: &Home) -> [String; 2] {
    let running = alive(home, "-");
    let record = noted(home);
    running.finish().ok();
    home.wait_for_the_end();
    [without_mark(&record), record]
}

#[test]
fn who_has_the_number_of_a_dead_runtime_now_is_let_alone() {
    every_strategy(|home| {
        let records = of_the_dead(home);
        let other = Home::new(home.caller().clone());
        for (name, value) in home.environment().into_iter().filter(|(name, _)| name.starts_with("SPFS_")) {
            other.set(&name, value);
        }
        other.sh("mkdir t; echo x > t/x; spfs commit --path t -t x").run().ok();
        // One with a top of its own, and one that shares its overlay where that can be.
        for reference in ["x --edit", "x"] {
            let mut stranger = alive(&other, reference);
            let_alone(home, &records, &mut stranger);
            assert!(noted(&other).contains("mnt:["), "its own record is as it was");
            stranger.finish().ok().stdout_is("ready\nx");
            other.wait_for_the_end();
        }
    });
}

/// Root may kill everybody, and joins everybody.
#[test]
fn the_stranger_may_be_another_user() {
    if !is_root() {
        return;
    }
    let (home, other) = (Home::new(Caller::Root), Home::new(Caller::user()));
    let mut stranger = alive(&other, "-");
    let_alone(&home, &of_the_dead(&home), &mut stranger);
    stranger.finish().ok().stdout_is("ready");
}

/// The changes of a durable runtime are not in use because a stranger has its number.
#[test]
fn a_durable_runtime_runs_again_whoever_has_its_number() {
    every_caller(|home| {
        let other = Home::new(home.caller().clone());
        let stranger = alive(&other, "-");
        home.script("- --keep-runtime --runtime-name same", "touch /spfs/kept").run().ok();
        home.wait_for_the_end();
        // As a monitor leaves it that was killed.
        let path = home.repository().join("durable_edits/same/record.json");
        let record = fs::read_to_string(&path).unwrap();
        let place = format!("\"mount_namespace\": \"mnt:[{}]\"", namespace(stranger.pid()));
        let left = record.replace("\"mount_namespace\": null", &place);
        assert_ne!(left, record);
        for lost in [false, true] {
            fs::write(&path, if lost { without_mark(&left) } else { left.clone() }).unwrap();
            home.spfs_line("run --rerun same -- ls /spfs").run().ok().stdout_is("kept");
            home.wait_for_the_end();
        }
        home.spfs_line("runtime rm --remove-durable same").run().ok();
        stranger.finish().ok();
    });
}

/// However it is mounted, and mounted anew, its own are found: by name, by number, and when they are to be ended.
#[test]
fn its_own_processes_are_found() {
    every_strategy(|home| {
        home.sh("mkdir t; echo x > t/x; spfs commit --path t -t x").run().ok();
        for (reference, before) in [("x --edit", "true"), ("x", "true"), ("x", "spfs edit"), ("x --edit", "spfs reset")]
        {
            let code = format!(
                "{before} 2>/dev/null; awk '/ spfs:same/ {{print $(NF-1)}}' /proc/self/mountinfo; echo ready; cat"
            );
            let mut running = home.script(&format!("{reference} --runtime-name same"), &code).stdin_open().spawn();
            running.wait_for("ready");
            let record = noted(home);
            let mark = record.split_once("\"mark\": \"").unwrap().1.split_once('"').unwrap().0;
            assert_eq!(mark.len(), 12, "{record}");
            let sources: Vec<String> = running.stdout().lines().map(str::to_owned).collect();
            assert!(sources.len() > 1 && sources[0] == format!("spfs:same/{mark}"), "{sources:?}");
            home.spfs_line("join same -- cat /spfs/x").run().ok().stdout_is("x");
            home.spfs_line(&format!("join --pid {} -- cat /spfs/x", running.pid())).run().ok().stdout_is("x");
            home.spfs_line("runtime rm same").run().code(1).stderr_has("it is running");
            kill_monitors(home);
            eventually("it is known", || home.spfs_line("runtime list").run().stdout.contains("unmonitored"));
            home.spfs_line("join same -- cat /spfs/x").run().ok().stdout_is("x");
            home.spfs_line("runtime rm --force same").run().ok();
            eventually("it is ended", || !running.is_alive());
            assert_eq!(home.records(), Vec::<String>::new());
            home.wait_for_the_end();
        }
    });
}

/// What a program mounted that knew no marks: its own processes and those of another of that name look the same.
#[test]
fn those_of_an_earlier_program_are_kept_and_not_killed() {
    every_caller(|home| {
        let [record, _] = of_the_dead(home);
        let unshare = match home.caller() {
            Caller::Root => "unshare --mount",
            Caller::User(_) => "unshare --user --map-current-user --keep-caps --mount",
        };
        let mut old = home
            .sh(&format!("exec {unshare} sh -c 'mount -t tmpfs spfs:same /mnt && echo ready && exec cat'"))
            .stdin_open()
            .spawn();
        old.wait_for("ready");
        let record = with_namespace(&record, namespace(old.pid()));
        forge(home, &record);
        home.spfs_line("runtime list").run().ok().stdout_has("status=unmonitored");
        for line in ["join same -- true", "runtime rm --force same"] {
            home.spfs_line(line).run().code(1).stderr_has("earlier spfs");
        }
        home.spfs_line(&format!("join --pid {} -- true", old.pid())).run().code(1).stderr_has("no runtime of yours");
        assert!(old.is_alive());
        old.finish().ok();
        home.spfs_line("runtime rm same").run().ok();
    });
}
