//! Tests of the test harness itself: a check that cannot fail would prove nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::common::{Caller, Home, Host, eventually, every_caller, everywhere};

#[test]
fn a_command_runs_as_its_caller_with_a_clean_environment() {
    everywhere(|home| {
        home.sh("id -u").run().ok().stdout_is(&home.caller().uid().to_string());
        home.sh("pwd").run().ok().stdout_is(home.path("").to_str().unwrap().trim_end_matches('/'));
        home.sh("env | grep -v ^SPFS_FILESYSTEM_ | grep -c ^SPFS_ || true").run().ok().stdout_is("0");
        home.sh("touch $HOME/mine $XDG_RUNTIME_DIR/mine && command -v spfs").run().ok().stdout_has("/spfs");
        home.sh("test -d /spfs").run().code(if home.host().has_spfs() { 0 } else { 1 });
        home.sh("cat; echo err >&2").stdin("in").run().ok().stdout_is("in").stderr_is("err");
    });
}

#[test]
fn the_ordinary_user_has_a_supplementary_group_and_no_capability() {
    let home = Home::new(Caller::user());
    let groups = home.sh("id -G | wc -w").run().text().trim().parse::<u32>().unwrap();
    assert!(groups >= 2, "the test user has no supplementary group: run `./test setup` as root");
    home.sh("grep CapEff /proc/self/status").run().stdout_has("0000000000000000");
}

#[test]
fn user_namespaces_can_be_made_on_every_host() {
    for host in Host::all() {
        let home = Home::on(Caller::user(), host);
        home.sh("unshare --user --map-current-user --mount true").run().ok();
    }
}

#[test]
fn fuse_is_open_to_everyone() {
    every_caller(|home| {
        let out = home.sh("test -r /dev/fuse -a -w /dev/fuse").run();
        assert!(out.status.success(), "/dev/fuse is not open to {}: run `./test setup` as root", home.caller());
    });
}

#[test]
fn what_is_left_running_fails_a_test() {
    every_caller(|home| {
        let left = Home::new(home.caller().clone());
        left.impatient();
        left.sh("setsid sleep 1000 >/dev/null 2>&1 </dev/null &").run().ok();
        eventually("the process shows", || left.processes().iter().any(|(_, line)| line.contains("sleep")));
        let message = catch_unwind(AssertUnwindSafe(|| drop(left))).unwrap_err();
        let message = message.downcast_ref::<String>().unwrap().clone();
        assert!(message.contains("sleep 1000"), "{message}");
    });
}

#[test]
fn a_record_or_a_lock_that_is_left_fails_a_test() {
    for path in ["$XDG_RUNTIME_DIR/spfs/runtimes/forgotten", "$XDG_DATA_HOME/spfs/tags/a.tag.lock"] {
        let home = Home::new(Caller::user());
        home.impatient();
        home.sh(&format!("mkdir -p {path}")).run().ok();
        let found = catch_unwind(AssertUnwindSafe(|| drop(home))).is_err();
        assert_eq!(found, path.contains("forgotten"), "a directory is no lock, a record is a record");
    }
    let home = Home::new(Caller::user());
    home.sh("mkdir -p $XDG_DATA_HOME/spfs/tags && touch $XDG_DATA_HOME/spfs/tags/a.tag.lock").run().ok();
    assert!(catch_unwind(AssertUnwindSafe(|| drop(home))).is_err());
}

#[test]
fn a_command_that_takes_too_long_is_killed_with_its_children() {
    let home = Home::new(Caller::user());
    let slow = home.sh("sleep 1000 | sleep 1000").limit(Duration::from_millis(300));
    assert!(catch_unwind(AssertUnwindSafe(|| slow.run())).is_err());
    home.wait_for_the_end();
}

#[test]
fn output_that_somebody_keeps_open_fails_a_test() {
    let home = Home::new(Caller::user());
    home.allow_processes();
    let held = home.sh("setsid sleep 1000 &").limit(Duration::from_secs(3));
    assert!(catch_unwind(AssertUnwindSafe(|| held.run())).is_err());
}

#[test]
fn a_terminal_is_a_terminal() {
    everywhere(|home| {
        let mut shell = home.command(vec!["sh".into(), "-i".into()]).on_a_terminal();
        shell.line("test -t 0 && test -t 2 && echo ter''minal; trap 'echo caught' INT");
        shell.expect("terminal");
        shell.line("sleep 1000");
        shell.expect("sleep 1000");
        // The shell hands the terminal over before it starts the program; only then does Ctrl-C reach it.
        eventually("the program runs", || home.processes().iter().any(|(_, line)| line.contains("] sleep")));
        shell.keys("\x03");
        shell.line("echo be''fore; exit 7");
        shell.expect("before");
        assert_eq!(shell.finish().0.code(), Some(7));
    });
}
