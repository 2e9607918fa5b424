//! `--lazy` fetches small files near one that was opened behind it: many at a time, and in nobody's way.

use std::fs;

use rustix::process::Signal;

use crate::common::{Cmd, Home, eventually, every_caller};
use crate::lazy::{here, server, with_origin};
use crate::remote_wire::gated;

/// At the origin: `many` with a hundred small files in a directory, and a few in others.
fn with_many(home: &Home) {
    with_origin(home);
    home.set("SPFS_FILESYSTEM_FETCH_AHEAD", "true");
    let code = "export XDG_DATA_HOME=$PWD/maker; mkdir -p t/many t/z/a t/z/b
        for i in $(seq 100 199); do echo file $i > t/many/$i; done; for i in 1 2 3; do echo a $i > t/z/a/$i; echo b $i > t/z/b/$i; done
        head -c 70000 /dev/zero > t/many/200big; spfs commit --path t -t many; spfs push many; rm -rf ~/.cache/spfs";
    home.sh(code).run().ok();
}

fn lazily(home: &Home, code: &str) -> Cmd {
    home.spfs(["run", "--lazy", "--runtime-name", "work", "many", "--", "sh", "-c", code])
}

/// Begins anew, with nothing here.
fn forget(home: &Home) {
    home.wait_for_the_end();
    home.sh("rm -rf ~/.local/share/spfs").run().ok();
}

#[test]
fn who_reads_on_waits_for_few_batches() {
    every_caller(|home| {
        with_many(home);
        let gate = gated(home);
        let sum = home.sh("cd t; cat many/* z/*/* | sha256sum").run().ok().text().to_owned();
        forget(home);
        let before = gate.asked();
        lazily(home, "cd /spfs; cat many/* z/*/* | sha256sum").run().ok().stdout_is(&sum);
        home.wait_for_the_end();
        assert_eq!(here(home), 107);
        // One by one, each file takes two messages at least.
        let asked = gate.asked() - before;
        assert!(asked < 107, "{asked} messages");
        home.is_sound();
    });
}

#[test]
fn one_open_fetches_a_bounded_number() {
    every_caller(|home| {
        with_many(home);
        let mut inside = lazily(home, "cat /spfs/many/150; echo ready; read l").stdin_open().spawn();
        inside.wait_for("file 150\nready");
        eventually("the batch is here", || here(home) == 33);
        inside.send("\n");
        inside.finish().ok();
        home.wait_for_the_end();
        assert_eq!(here(home), 33);
        home.spfs_line("check").run().ok();
        // A runtime that ends at once gives up what is on its way.
        for file in ["many/100", "z/a/1", "many/199"] {
            forget(home);
            lazily(home, &format!("cat /spfs/{file} > /dev/null")).run().ok();
            home.wait_for_the_end();
            home.spfs_line("check").run().ok();
        }
        home.is_sound();
    });
}

#[test]
fn what_nobody_waits_for_is_no_error() {
    every_caller(|home| {
        with_many(home);
        let (first, port) = server(home, 0);
        home.set("SPFS_REMOTE_ORIGIN_ADDRESS", format!("grpc://127.0.0.1:{port}"));
        let code = "cat /spfs/many/150; echo ready; read l; cat /spfs/z/a/1; echo $?; read l; cat /spfs/many/* /spfs/z/a/* | wc -l";
        let mut inside = lazily(home, code).stdin_open().spawn();
        inside.wait_for("file 150\nready");
        first.signal(Signal::KILL);
        first.finish().killed_by(Signal::KILL);
        inside.send("\n");
        inside.wait_for("ready\n1\n");
        let log = fs::read_to_string(home.run_dir().join("spfs/runtimes/work/log")).unwrap();
        assert!(!log.is_empty() && log.lines().all(|line| line.contains("could not fetch /spfs/z/a/1 ")), "{log}");
        let (second, _) = server(home, port);
        inside.send("\n");
        inside.finish().ok().stdout_is("file 150\nready\n1\n103");
        second.signal(Signal::TERM);
        second.finish().ok();
        home.wait_for_the_end();
        home.spfs_line("check").run().ok();
    });
}
