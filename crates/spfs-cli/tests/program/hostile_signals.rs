//! Interrupted and killed in the middle: the store stays sound, the next command works, nothing is left locked.

use std::fs;
use std::time::Duration;

use crate::common::{Caller, Home, Running, eventually, every_caller};
use rustix::process::{Pid, Signal, kill_process};

/// Enough zeros that hashing them takes longer than any test.
const ENDLESS: &str = "truncate -s 8T";

/// Waits until the monitor has heard that nobody waits for its commit any more, and has allowed changes again.
const EDITABLE: &str = "until touch /spfs/probe 2>/dev/null; do sleep 0.01; done; rm /spfs/probe";

/// Whether a batch is at work in a store of the repository.
fn at_work(home: &Home) -> bool {
    ["objects", "payloads"].into_iter().any(|store| {
        fs::read_dir(home.repository().join(store).join("work")).is_ok_and(|mut entries| entries.next().is_some())
    })
}

fn wait_for_work(home: &Home) {
    eventually("something is being stored", || at_work(home));
}

/// Sends `signal` to `running` and makes sure that it ends by it.
fn end(running: Running, signal: Signal) {
    running.signal(signal);
    running.finish().killed_by(signal);
}

const SIGNALS: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::KILL];

#[test]
fn a_commit_of_a_directory() {
    every_caller(|home| {
        home.write("tree/a", "a");
        home.commit("tree", "before");
        home.sh(&format!("mkdir big; {ENDLESS} big/file; cp tree/a big")).run().ok();
        for signal in SIGNALS {
            let running = home.spfs_line("commit --path big -t after").spawn();
            wait_for_work(home);
            end(running, signal);
            home.spfs_line("check").run().ok();
            // What was left is removed by the next that stores something.
            home.write("tree/b", format!("{signal:?}"));
            home.commit("tree", "after");
            assert!(!at_work(home), "after {signal:?}");
            home.spfs_line("untag --all after").run().ok();
        }
        home.is_sound();
    });
}

#[test]
fn writing_a_file() {
    every_caller(|home| {
        for signal in SIGNALS {
            let mut running = home.spfs_line("write -t written").stdin_open().spawn();
            running.send(&"content ".repeat(100_000));
            wait_for_work(home);
            end(running, signal);
            home.spfs_line("tags").run().ok().stdout_lacks("written");
        }
        home.is_sound();
    });
}

/// The pid of the living process of this home whose command line contains `words`, and no other's.
fn process(home: &Home, words: &str) -> Pid {
    let mut found = None;
    eventually(words, || {
        let all = home.processes().into_iter().filter(|(_, line)| line.contains(words) && !line.contains("sh -c"));
        found = all.map(|(pid, _)| pid).next();
        found.is_some()
    });
    Pid::from_raw(found.unwrap()).unwrap()
}

#[test]
fn a_commit_in_a_runtime() {
    every_caller(|home| {
        for signal in SIGNALS {
            let code = format!(
                "echo small > /spfs/small; {ENDLESS} /spfs/big; spfs commit layer -t x; echo first $?
                 read line; spfs info | tail -2; {EDITABLE}; rm /spfs/big; spfs commit layer -q -t x > /dev/null; echo second $?"
            );
            let mut running = home.script("-", &code).stdin_open().spawn();
            wait_for_work(home);
            kill_process(process(home, "spfs commit layer"), signal).unwrap();
            running.wait_for("first");
            running.send("go on\n");
            running.finish().ok().stdout_has(" + /big\n + /small\nsecond 0");
            home.spfs_line("ls x").run().ok().stdout_is("small");
            home.is_sound();
        }
    });
}

/// Ctrl-C reaches the shell, the commit, and not the monitor.
#[test]
fn ctrl_c_in_a_runtime() {
    every_caller(|home| {
        let code = format!(
            "trap 'echo shell' INT; {ENDLESS} /spfs/big; spfs commit layer -t x; echo code $?; {EDITABLE}; rm /spfs/big; echo y > /spfs/y; spfs commit layer -q -t y >/dev/null; echo then $?"
        );
        let mut running = home.script("-", &code).spawn();
        wait_for_work(home);
        running.signal_group(Signal::INT);
        running.wait_for("code");
        running.finish().ok().stdout_has("code 130").stdout_has("then 0");
        home.spfs_line("tags").run().ok().stdout_is("y");
        home.is_sound();
    });
}

/// The whole runtime, its monitor and the one that commits for it, all at once.
#[test]
fn everything_of_a_runtime_in_a_commit() {
    every_caller(|home| {
        let running = home.script("-", &format!("{ENDLESS} /spfs/big; spfs commit layer -t x")).spawn();
        wait_for_work(home);
        let mut left = home.processes();
        while !left.is_empty() {
            for (pid, _) in left {
                let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
            }
            left = home.processes();
        }
        running.finish().killed_by(Signal::KILL);
        home.spfs_line("tags").run().ok().stdout_is("");
        home.is_sound();
    });
}

#[test]
fn a_check() {
    let home = Home::new(Caller::user());
    home.write("tree/a", "a");
    home.commit("tree", "one");
    let stray = home.stored("payloads", &("A".repeat(52) + "===="));
    for signal in SIGNALS {
        home.sh(&format!("mkdir -p {0}; {ENDLESS} {1}", stray.parent().unwrap().display(), stray.display())).run().ok();
        let running = home.spfs_line("check").spawn();
        eventually("the payload is being read", || {
            let fds = fs::read_dir(format!("/proc/{}/fd", running.pid()));
            fds.is_ok_and(|fds| fds.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|path| path == stray)))
        });
        end(running, signal);
        fs::remove_file(&stray).unwrap();
    }
    home.is_sound();
}

/// What is too quick to be caught in the act is killed at many moments.
#[test]
fn short_work_at_any_moment() {
    every_caller(|home| {
        home.sh("mkdir tree; for i in $(seq 300); do echo $i > tree/$i; done").run().ok();
        home.write("more/x", "x");
        home.commit("tree", "tree");
        home.commit("more", "more");
        let lines = [
            "commit --no-cache --path tree -t new",
            "render tree",
            "clean",
            "run tree+more -- true",
            "tag tree new",
            "untag --all new",
        ];
        for (number, line) in lines.into_iter().cycle().take(60).enumerate() {
            let running = home.spfs_line(line).spawn();
            std::thread::sleep(Duration::from_micros(400 * (number as u64 / 6)));
            let _ = kill_process(
                Pid::from_raw(running.pid() as i32).unwrap(),
                if number % 2 == 0 { Signal::KILL } else { Signal::INT },
            );
            running.finish();
        }
        home.spfs_line("tag tree new").run().ok();
        home.spfs_line("render tree out").run().ok();
        home.sh("diff -r tree out").run().ok();
        home.script("tree+more", "ls /spfs | wc -l").run().ok().stdout_is("301");
        home.is_sound();
    });
}

/// Killed between being forked and being entered, at many moments: no record, no mount and no process stays.
#[test]
fn a_start_at_any_moment() {
    every_caller(|home| {
        home.write("tree/a", "a");
        home.commit("tree", "one");
        for number in 0..40u64 {
            let line = if number % 4 == 3 { "run -k --runtime-name kept one -- true" } else { "run one -- true" };
            let running = home.spfs_line(line).spawn();
            std::thread::sleep(Duration::from_micros(300 * number));
            let _ = kill_process(Pid::from_raw(running.pid() as i32).unwrap(), Signal::KILL);
            running.finish();
            if number % 4 == 3 {
                home.wait_for_the_end();
                home.spfs_line("runtime list").run().ok().stderr_is("");
                // If it came so far it is there. The lock of a tag that it had is broken by the next that takes it.
                let _ = home.spfs_line("runtime rm --remove-durable kept").run();
                home.spfs_line("run -k --runtime-name kept one -- true").run().ok();
                home.wait_for_the_end();
                home.spfs_line("runtime rm --remove-durable kept").run().ok();
            }
        }
        home.wait_for_the_end();
        home.is_sound();
    });
}
