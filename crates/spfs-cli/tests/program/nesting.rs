//! Runtimes in runtimes, and joining one that runs.

use crate::common::{Caller, Home, eventually, every_caller, everywhere};

/// The names of the runtimes that `spfs runtime list` shows.
fn listed(home: &Home) -> Vec<String> {
    home.spfs_line("runtime list -q").run().ok().lines().into_iter().map(str::to_owned).collect()
}

#[test]
fn a_run_inside_a_run_is_a_runtime_of_its_own() {
    everywhere(|home| {
        home.script("-", "echo a > /spfs/a; spfs commit layer -t a").run().ok();
        home.script("-", "echo b > /spfs/b; spfs commit layer -t b").run().ok();
        let code = "ls /spfs; spfs run b --runtime-name inner -- sh -c 'ls /spfs; echo $SPFS_RUNTIME; spfs info | sed -n 2p'
            ls /spfs; echo $SPFS_RUNTIME; spfs edit; spfs run b -- touch /spfs/no || spfs run b --edit -- touch /spfs/x; ls /spfs";
        home.script("a --runtime-name outer", code).run().ok().stdout_is("a\nb\ninner\n id: inner\na\nouter\na");
        home.wait_for_the_end();
        assert_eq!(home.records(), Vec::<String>::new());
    });
}

#[test]
fn the_outer_one_ends_when_nothing_is_left_in_it() {
    everywhere(|home| {
        let code = "cd /spfs; exec spfs run - --runtime-name middle -- sh -c \
            'cd /spfs; exec spfs run - --runtime-name inner -- sh -c \"echo hi > /spfs/f; echo ready; cat; spfs diff\"'";
        let mut inside = home.script("- --runtime-name outer", code).stdin_open().spawn();
        inside.wait_for("ready");
        eventually("only the inner one is left", || home.records() == ["inner"]);
        assert_eq!(listed(home), ["inner"]);
        // It is whole: its monitor does not depend on those that have ended.
        inside.close_stdin();
        inside.finish().ok().stdout_is("ready\n+/spfs/f");
    });
}

#[test]
fn outer_and_inner_are_edited_and_committed_apart() {
    every_caller(|home| {
        let code = "echo o > /spfs/o; spfs run - -- sh -c 'echo i > /spfs/i; spfs commit layer -t inner; spfs edit'
            spfs diff; spfs edit --off; spfs run inner -- cat /spfs/i; spfs commit layer -t outer; ls /spfs";
        home.script("-", code).run().ok().stdout_has("+/spfs/o\ni\n").stdout_has("\no\n");
    });
}

#[test]
fn the_depth_has_a_limit_that_is_said() {
    everywhere(|home| {
        // Each level starts the next, until it fails. Root needs no user namespaces, and so has no limit.
        home.write("deeper", "echo $1 >> depth\ntest $1 -ge 40 || exec spfs run - -- sh deeper $(($1 + 1))\n");
        let out = home.sh("exec spfs run - -- sh deeper 1").run();
        let depth = std::fs::read_to_string(home.path("depth")).unwrap().lines().count();
        if home.caller().is_root() {
            out.ok();
            assert_eq!(depth, 40);
        } else {
            out.code(1).stderr_has("nested too deep").stderr_has("hint: ");
            assert!((25..=33).contains(&depth), "{depth}: {out}");
        }
        home.wait_for_the_end();
        assert_eq!(home.records(), Vec::<String>::new());
    });
}

#[test]
fn a_runtime_is_joined_by_name_and_by_pid() {
    everywhere(|home| {
        home.script("-", "echo base > /spfs/base; spfs commit layer -t base").run().ok();
        let code = "echo new > /spfs/new; echo ready; cat >/dev/null; ls /spfs";
        let mut inside = home.script("base --edit --runtime-name work", code).stdin_open().spawn();
        inside.wait_for("ready");
        let pid = inside.pid().to_string();
        for target in [["work", "--"].as_slice(), &["--pid", &pid, "--"]] {
            let join = |words: &[&str]| home.spfs(["join"].iter().chain(target).chain(words)).run();
            join(&["cat", "/spfs/base", "/spfs/new"]).ok().stdout_is("base\nnew");
            join(&["sh", "-c", "echo $SPFS_RUNTIME"]).ok().stdout_is("work");
            join(&["sh", "-c", "exit 42"]).code(42);
            join(&["sh", "-c", "kill -9 $$"]).killed_by(rustix::process::Signal::KILL);
            join(&["sh", "-c", "pwd"]).ok().stdout_is(home.path("").to_str().unwrap().trim_end_matches('/'));
            join(&["sh", "-c", "echo $$; exec sleep 0"]).ok();
            join(&["/no/such/program"]).code(127);
            let caps = join(&["grep", "CapEff", "/proc/self/status"]);
            if !home.caller().is_root() {
                caps.ok().stdout_has("0000000000000000");
            }
        }
        home.spfs_line("join work -- touch /spfs/joined").run().ok();
        home.spfs_line("join work -- spfs diff").run().ok().stdout_is("+/spfs/joined\n+/spfs/new");
        home.set("SHELL", "/bin/sh");
        home.spfs_line("join work").stdin("ls /spfs\nexit 3\n").run().code(3).stdout_has("base\njoined\nnew");
        inside.close_stdin();
        inside.finish().ok().stdout_is("ready\nbase\njoined\nnew");
    });
}

#[test]
fn any_member_will_do_when_the_first_process_is_gone() {
    everywhere(|home| {
        let code = "(echo $$ > first; sleep 1000) >/dev/null 2>&1 </dev/null & echo $! > child; echo x > /spfs/x";
        home.script("- --runtime-name work", code).run().ok();
        home.spfs_line("join work -- cat /spfs/x").run().ok().stdout_is("x");
        let child = std::fs::read_to_string(home.path("child")).unwrap();
        home.spfs(["join", "--pid", child.trim(), "--", "spfs", "diff"]).run().ok().stdout_is("+/spfs/x");
        home.spfs_line("runtime list").run().ok().stdout_has("running=true").stdout_has("status=running");
        // A joined process keeps it when all others are gone.
        let mut joined = home.spfs_line("join work -- sh").stdin_open().spawn();
        joined.send("echo in\n");
        joined.wait_for("in");
        home.sh("pkill -P $(cat child); kill $(cat child)").run().ok();
        joined.send("spfs diff; cat /spfs/x\n");
        joined.close_stdin();
        joined.finish().ok().stdout_is("in\n+/spfs/x\nx");
    });
}

/// The monitor notes where a runtime lives while the command runs already.
#[test]
fn a_runtime_is_joined_in_the_instant_after_its_start() {
    every_caller(|home| {
        for number in 0..20 {
            let start = format!("spfs run - --runtime-name work{number} -- sleep 1000 & command=$!");
            let appears = format!("until test -e $XDG_RUNTIME_DIR/spfs/runtimes/work{number}; do :; done");
            let join = format!("spfs join work{number} -- sh -c 'echo $SPFS_RUNTIME; ls -A /spfs'; kill $command");
            home.sh(&format!("{start}; {appears}; {join}")).run().stdout_is(&format!("work{number}"));
        }
    });
}

#[test]
fn what_cannot_be_joined_is_said() {
    every_caller(|home| {
        home.spfs_line("join nothing").run().code(1).stderr_has("nothing");
        home.spfs(["join", "--pid", "2147483647", "--", "true"]).run().code(1).stderr_has("2147483647");
        home.sh("spfs join --pid $$ -- true").run().code(1).stderr_has("it is in no runtime of yours");
        home.spfs_line("join").run().code(2);
        home.spfs_line("run - --keep-runtime --runtime-name saved -- true").run().ok();
        home.wait_for_the_end();
        home.spfs_line("join saved").run().code(1).stderr_has("not running");
        home.spfs_line("runtime rm --remove-durable saved").run().ok();
    });
}

#[test]
fn somebody_elses_runtime_is_not_joined() {
    for (owner, other) in [(Caller::all().remove(0), Caller::user()), (Caller::user(), Caller::all().remove(0))] {
        if owner == other {
            continue;
        }
        let (theirs, mine) = (Home::new(owner), Home::new(other));
        let mut inside = theirs.script("- --runtime-name work", "echo ready; cat").stdin_open().spawn();
        inside.wait_for("ready");
        mine.spfs_line("join work -- true").run().code(1).stderr_has("work");
        mine.spfs(["join", "--pid", &inside.pid().to_string(), "--", "true"]).run().code(1).stderr_has("error: ");
        inside.finish().ok();
    }
}

#[test]
fn from_inside_another_environment_only_root_joins() {
    every_caller(|home| {
        home.script("-", "echo one > /spfs/x; spfs commit layer -t x").run().ok();
        let mut other = home.script("x --runtime-name other", "echo ready; cat").stdin_open().spawn();
        other.wait_for("ready");
        let out = home.script("-", "spfs join other -- cat /spfs/x").run();
        if home.caller().is_root() {
            out.ok().stdout_is("one");
        } else {
            out.code(1)
                .stderr_has("cannot join runtime \"other\"")
                .stderr_has("leave it first")
                .stderr_lacks("STORAGE");
        }
        // Its own is no other.
        home.script("-", "touch /spfs/own; spfs join $SPFS_RUNTIME -- ls /spfs").run().ok().stdout_is("own");
        other.finish().ok();
    });
}
