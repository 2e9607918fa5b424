//! `--lazy` from every kind of remote: the first open fetches, what came stays, and what cannot be had is an error of its
//! file and a line in the log, until the remote is back.

use std::cell::RefCell;
use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use crate::common::{Caller, Home, Running, binary, eventually, every_caller};
use crate::lazy::{here, server, with_origin};
use crate::remote_ssh::Sshd;
use crate::server::tls::certificates;

/// Runs the tree from `remote`, which is `away` for a while in the middle of it.
fn heals(home: &Home, remote: &str, away: &dyn Fn(), back: &dyn Fn()) {
    home.sh("rm -rf ~/.local/share/spfs ~/.cache/spfs").run().ok();
    let code = "cat /spfs/message; echo ready; read l; cat /spfs/message; cat /spfs/other; echo $?; read l
        cat /spfs/other; cmp /spfs/big tree/big && echo same";
    let run = ["run", "--lazy", "-r", remote, "--runtime-name", "work", "tree", "--", "sh", "-c", code];
    let mut inside = home.spfs(run).stdin_open().spawn();
    inside.wait_for("hello\nready");
    assert_eq!(here(home), 2, "{remote}: the symlink's target, and what was opened");
    away();
    inside.send("\n");
    inside.wait_for("hello\n1\n");
    let log = fs::read_to_string(home.run_dir().join("spfs/runtimes/work/log")).unwrap();
    assert!(log.contains("could not fetch /spfs/other (payload "), "{remote}: {log}");
    assert!(!log.contains("/spfs/message"), "{remote}: {log}");
    back();
    inside.send("\n");
    inside.finish().ok().stdout_is("hello\nready\nhello\n1\nother\nsame").stderr_has("Input/output error");
    eventually("the runtime has ended", || home.records().is_empty());
    home.spfs_line("check").run().ok();
}

/// Pushes the tree to another remote.
fn push(home: &Home, remote: &str) {
    home.spfs(["push", "tree", "-r", remote]).env("XDG_DATA_HOME", home.path("maker").to_str().unwrap()).run().ok();
}

/// Servers that are killed and started again.
struct Servers<'a> {
    start: &'a dyn Fn(u16) -> (Running, u16),
    running: RefCell<Option<Running>>,
    port: u16,
}

impl<'a> Servers<'a> {
    fn new(start: &'a dyn Fn(u16) -> (Running, u16)) -> Self {
        let (running, port) = start(0);
        Servers { start, running: RefCell::new(Some(running)), port }
    }

    fn end(&self, signal: Signal) {
        let running = self.running.take().unwrap();
        running.signal(signal);
        running.finish();
    }

    fn again(&self) {
        *self.running.borrow_mut() = Some((self.start)(self.port).0);
    }
}

#[test]
fn directories_and_archives() {
    every_caller(|home| {
        with_origin(home);
        // A relative path: the monitor is somewhere else. It has the directory open, so only what is in it can go.
        let shards = |from: &str, to: &str| {
            home.sh(&format!("mkdir -p {to}; mv {from}/?? {to}")).run().ok();
        };
        heals(home, "./origin", &|| shards("origin/payloads", "was"), &|| shards("was", "origin/payloads"));
        push(home, "tar:./tree.tar");
        let rename = |from: &str, to: &str| fs::rename(home.path(from), home.path(to)).unwrap();
        heals(home, "tar:./tree.tar", &|| rename("tree.tar", "was.tar"), &|| rename("was.tar", "tree.tar"));
    });
}

#[test]
fn servers_behind_tls_with_a_token() {
    every_caller(|home| {
        with_origin(home);
        certificates(home, "one");
        let token = "spfs server token reader --allow read > tokens.toml 2> said
            grep -oE '[A-Za-z0-9_-]{40,}' said | head -1 > token; chmod 600 token";
        home.sh(token).run().ok();
        home.write("server.toml", "tls_cert = \"one.pem\"\ntls_key = \"one.key\"\ntokens = \"tokens.toml\"\n");
        let start = |port| {
            let line = format!("server -r ./origin --listen 127.0.0.1:{port} --config server.toml");
            let mut running = home.spfs_line(&line).spawn();
            running.wait_for("listening on: ");
            running.wait_for("\n");
            let port = running.stdout().trim().rsplit(':').next().unwrap().parse().unwrap();
            (running, port)
        };
        let servers = Servers::new(&start);
        let bare = format!("grpcs://localhost:{}?ca=one-ca.pem", servers.port);
        home.spfs(["run", "--lazy", "-r", &bare, "tree", "--", "true"]).run().fails().stderr_has("token");
        let remote = format!("{bare}&token_file=token");
        heals(home, &remote, &|| servers.end(Signal::KILL), &|| servers.again());
        servers.end(Signal::TERM);
    });
}

#[test]
fn chains() {
    every_caller(|home| {
        with_origin(home);
        home.sh("spfs init repo $PWD/empty").run().ok();
        let start = |port| server(home, port);
        let servers = Servers::new(&start);
        let remote = format!("proxy:?primary=file:./empty&secondary[0]=grpc://127.0.0.1:{}", servers.port);
        heals(home, &remote, &|| servers.end(Signal::KILL), &|| servers.again());
        servers.end(Signal::TERM);
    });
}

#[test]
fn ssh() {
    let home = &Home::new(Caller::user());
    with_origin(home);
    let sshd = Sshd::start(home);
    let origin = home.path("origin");
    let remote = sshd.address(origin.to_str().unwrap(), binary().to_str().unwrap());
    let away = || {
        fs::rename(&origin, home.path("was")).unwrap();
        let clients = || home.processes().into_iter().filter(|(_, line)| line.contains("StrictHostKeyChecking"));
        assert!(clients().count() > 0);
        clients().for_each(|(pid, _)| kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap());
    };
    heals(home, &remote, &away, &|| fs::rename(home.path("was"), &origin).unwrap());
    sshd.stop();
}
