//! The end of a runtime, and what is left when something of it is killed: nothing, at the latest after the next command.

use std::cell::Cell;
use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use crate::common::{Home, Running, eventually, every_caller, everywhere, full};
use rustix::process::{Pid, Signal, kill_process};

/// A runtime `name`, which may have options behind it, with a file in it, whose command waits for its input to end and then prints what it sees.
///
/// Each test has a name of its own: they run side by side, and the number of a mount namespace that has ended goes to the
/// next one, which only the name then tells apart.
fn waiting(home: &Home, name: &str) -> Running {
    let code = "echo x > /spfs/x; echo ready; cat > /dev/null; ls /spfs; cat /spfs/x";
    let mut inside = home.script(&format!("- --runtime-name {name}"), code).stdin_open().spawn();
    inside.wait_for("ready");
    let name = name.split(' ').next().unwrap();
    let record = home.run_dir().join(format!("spfs/runtimes/{name}/record.json"));
    eventually("the monitor has made its note", || {
        std::fs::read_to_string(&record).is_ok_and(|text| text.contains("mnt:["))
    });
    inside
}

/// The processes of ours that are called `name`: `spfs-monitor` or `spfs-server`.
fn ours(home: &Home, name: &str) -> Vec<i32> {
    let called =
        |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == name);
    home.processes().into_iter().map(|(pid, _)| pid).filter(called).collect()
}

fn kill(pid: i32) {
    // One that has just ended is as good.
    let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
}

fn list(home: &Home) -> String {
    home.spfs_line("runtime list").run().ok().text().to_owned()
}

#[test]
fn the_record_goes_with_the_last_process() {
    everywhere(|home| {
        let inside = waiting(home, "last");
        assert_eq!(home.records(), ["last"]);
        assert!(list(home).contains("status=running"), "{}", list(home));
        inside.finish().ok();
        eventually("the record goes", || home.records().is_empty());
        home.wait_for_the_end();
        // One that ends at once goes as well.
        for _ in 0..10 {
            home.spfs_line("run - -- true").run().ok();
        }
        home.wait_for_the_end();
        assert_eq!(home.records(), Vec::<String>::new());
    });
}

#[test]
fn a_child_that_outlives_the_command_keeps_the_runtime() {
    everywhere(|home| {
        let code = "echo x > /spfs/x; (setsid sh -c 'echo $$ > pid; cat fifo; cat /spfs/x > out' >/dev/null 2>&1 </dev/null &)";
        home.sh("mkfifo fifo").run().ok();
        home.script("- --runtime-name child", code).run().ok();
        assert!(list(home).contains("status=running"), "{}", list(home));
        home.spfs_line("join child -- cat /spfs/x").run().ok().stdout_is("x");
        home.sh(": > fifo").run().ok();
        home.wait_for_the_end();
        assert_eq!(std::fs::read_to_string(home.path("out")).unwrap(), "x\n");
        assert_eq!(home.records(), Vec::<String>::new());
    });
}

#[test]
fn a_descriptor_outside_does_not_keep_it() {
    every_caller(|home| {
        // A process outside with a directory of the runtime open: the namespace ends, the record goes with the mount.
        let inside = waiting(home, "open");
        let code = format!("exec 3< /proc/{}/root/spfs/x; echo open; cat; cat <&3", inside.pid());
        let mut outside = home.sh(&code).stdin_open().spawn();
        outside.wait_for("open");
        inside.finish().ok();
        outside.close_stdin();
        outside.finish().ok().stdout_is("open\nx");
        home.wait_for_the_end();
        assert_eq!(home.records(), Vec::<String>::new());
    });
}

#[test]
fn a_killed_monitor_is_noticed_and_forgotten() {
    everywhere(|home| {
        let inside = waiting(home, "killed");
        let monitors = ours(home, "spfs-monitor");
        assert_eq!(monitors.len(), 1, "{:?}", home.processes());
        kill(monitors[0]);
        eventually("it is dead", || ours(home, "spfs-monitor").is_empty());
        if home.caller().is_root() {
            assert!(list(home).contains("status=unmonitored"), "{}", list(home));
        }
        home.spfs_line("join killed -- spfs edit --off").run().code(1).stderr_has("monitor");
        // What is in the upper directory stays readable, whatever happens to the names below it.
        let out = inside.finish();
        assert!(out.stdout.starts_with("ready\n"), "{out}");
        if home.caller().is_root() {
            out.ok().stdout_is("ready\nx\nx");
        }
        home.wait_for_the_end();
        assert_eq!(list(home), "");
        assert_eq!(home.records(), Vec::<String>::new());
        // The name is free again, with or without a look in between.
        let inside = waiting(home, "killed");
        ours(home, "spfs-monitor").into_iter().for_each(kill);
        inside.finish();
        home.wait_for_the_end();
        waiting(home, "killed").finish().ok();
    });
}

/// On a busy machine a monitor may need a while to put its runtime away.
#[test]
fn one_that_is_just_ending_is_waited_for() {
    every_caller(|home| {
        for next in ["runtime rm --remove-durable ending", "run --rerun ending -- true"] {
            let inside = waiting(home, "ending --keep-runtime");
            let monitors = ours(home, "spfs-monitor");
            let send =
                |signal| monitors.iter().for_each(|pid| kill_process(Pid::from_raw(*pid).unwrap(), signal).unwrap());
            send(Signal::STOP);
            inside.finish().ok();
            let next = home.spfs_line(next).spawn();
            std::thread::sleep(Duration::from_millis(700));
            send(Signal::CONT);
            next.finish().ok();
            home.wait_for_the_end();
        }
        home.spfs_line("runtime rm --remove-durable ending").run().ok();
    });
}

#[test]
fn a_killed_server_is_replaced_and_nobody_sees_it() {
    every_caller(|home| {
        let code = "cd /spfs; for d in $(seq 30); do mkdir $d; (cd $d; seq 100 | xargs touch; echo $d > data); done
            spfs commit layer -t many";
        home.script("-", code).run().ok();
        if home.caller().is_root() {
            // Root has a server only where there is no image.
            home.set("XDG_CACHE_HOME", "/proc/no-such-place");
        }
        let code = "echo ready; find /spfs -type f -printf '%s\\n' | wc -l; cat /spfs/*/data | wc -l; sleep 0.01; find /spfs | wc -l";
        let mut killed = 0;
        for round in 1..=3 {
            let mut inside = home.script("many", code).spawn();
            inside.wait_for("ready");
            // After ten deaths the monitor takes its time.
            while inside.is_alive() && killed < 8 * round {
                for server in ours(home, "spfs-server") {
                    kill(server);
                    killed += 1;
                }
                std::thread::sleep(Duration::from_millis(3));
            }
            inside.finish().ok().stdout_is("ready\n3030\n30\n3061").stderr_lacks("find:").stderr_lacks("cat:");
        }
        assert!(killed > 0, "no server was met");
        home.wait_for_the_end();
    });
}

/// At each of its system calls from the first namespace or process that it makes; in the quick run at every eighth, on
/// each host at another one.
#[test]
fn a_launcher_that_is_killed_at_any_moment_leaves_nothing() {
    let (step, start) = (if full() { 1 } else { 8 }, Cell::new(0));
    everywhere(|home| {
        home.script("-", "echo x > /spfs/x; spfs commit layer -t x").run().ok();
        let mut killed = 0;
        // A new environment, and one that is shared.
        for line in ["run -", "run x"] {
            let traced = |options: &str| home.sh(&format!("exec strace -qq -o trace {options} spfs {line} -- true"));
            traced("").run().ok();
            let trace = std::fs::read_to_string(home.path("trace")).unwrap();
            let (mut calls, mut numbers) = (Vec::new(), HashMap::new());
            for name in trace.lines().filter_map(|call| Some(call.split_once('(')?.0)) {
                let number = numbers.entry(name).and_modify(|number| *number += 1).or_insert(1);
                calls.push((name, *number));
            }
            let first = calls.iter().position(|(name, _)| ["unshare", "clone"].contains(name)).unwrap();
            assert!(calls.len() > first + 50, "{trace}");
            // The last ones are those of the command.
            for (name, number) in calls[first..].iter().skip(start.get()).step_by(step) {
                let out = traced(&format!("-e inject={name}:signal=KILL:when={number}")).run();
                killed += usize::from(out.status.signal().is_some());
                if full() {
                    eprintln!("{line}, killed in {name} {number}");
                    home.wait_for_the_end();
                }
            }
        }
        assert!(killed > 20, "only {killed} have been killed");
        start.set((start.get() + 3) % step);
        home.wait_for_the_end();
        eventually("the next command leaves nothing", || {
            assert_eq!(list(home), "");
            home.records().is_empty()
        });
    });
}

#[test]
fn everything_killed_at_once_leaves_nothing() {
    everywhere(|home| {
        let inside = waiting(home, "all");
        let all: Vec<i32> = home.processes().into_iter().map(|(pid, _)| pid).collect();
        all.into_iter().for_each(kill);
        inside.finish();
        home.wait_for_the_end();
        assert_eq!(list(home), "");
        assert_eq!(home.records(), Vec::<String>::new());
    });
}
