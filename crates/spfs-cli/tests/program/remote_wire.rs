//! Sharing over the wire: push, pull, and run of what is only behind a server.

use std::path::Path;
use std::sync::Arc;

use spfs_net::server::{Options, Server};
use spfs_repo::Directory;

use rustix::process::Signal;

use crate::common::{Gate, Home, Running, eventually, every_caller};

/// A server of `origin` in this process, for as long as this process lives; returns its address.
pub fn serve(home: &Home) -> String {
    let origin = Directory::create(home.path("origin")).unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let server = Server::bind(Arc::new(origin), &[any], Options::default()).unwrap();
    let address = server.addresses()[0];
    std::thread::spawn(move || server.run(std::future::pending()));
    format!("grpc://{address}")
}

/// Serves the origin from now on, behind a gate.
pub fn gated(home: &Home) -> Arc<Gate> {
    let gate = Gate::to(&serve(home));
    home.set("SPFS_REMOTE_ORIGIN_ADDRESS", gate.address());
    gate
}

/// Another person's home that shares `origin` with this one: another local repository.
fn elsewhere(home: &Home) {
    home.set("XDG_DATA_HOME", home.path("other-data").to_str().unwrap());
}

fn commit(home: &Home) {
    home.script("-", "echo 'hello, world' > /spfs/message.txt; spfs commit layer --tag my-layer").run().ok();
    let more = "head -c 3000000 /dev/urandom > /spfs/large; spfs commit platform --tag my-platform";
    home.script("my-layer --edit", more).run().ok();
    home.wait_for_the_end();
}

#[test]
fn the_guide_on_sharing_over_grpc() {
    every_caller(|home| {
        home.set("SPFS_REMOTE_ORIGIN_ADDRESS", serve(home));
        commit(home);
        home.spfs_line("push my-platform").run().ok().stdout_has("synced:\n\t1 tags (0 skipped)");
        home.spfs_line("tags -r origin").run().ok().stdout_is("my-platform");
        home.spfs_line("push my-layer").run().ok().stdout_has("0 payloads (0 skipped)");
        elsewhere(home);
        let look = "cat /spfs/message.txt; wc -c < /spfs/large";
        home.script("my-platform", look).run().ok().stdout_is("hello, world\n3000000");
        home.wait_for_the_end();
        home.spfs_line("tags").run().ok().stdout_is("");
        home.spfs_line("ls -r origin my-platform").run().ok().stdout_is("large\nmessage.txt");
        home.spfs_line("pull my-layer").run().ok().stdout_has("1 tags (0 skipped)");
        home.spfs_line("check").run().ok();
        // The origin is away: what was run once runs again.
        home.set("SPFS_REMOTE_ORIGIN_ADDRESS", "grpc://127.0.0.1:1");
        home.script("my-platform", look).run().ok().stdout_has("3000000").stderr_has("cannot be asked");
        home.spfs_line("pull other").run().fails().stderr_has("refused").stderr_has("is the server running");
        home.wait_for_the_end();
    });
}

/// A real server of `origin`, on this port; gives the port.
fn server(home: &Home, port: u16) -> (Running, u16) {
    let mut running = home.spfs_line(&format!("server -r origin --listen 127.0.0.1:{port}")).spawn();
    running.wait_for("listening on: ");
    running.wait_for("\n");
    let port = running.stdout().trim().rsplit_once(':').unwrap().1.parse().unwrap();
    (running, port)
}

/// Bytes of the largest file below `path`.
fn largest(path: &Path) -> u64 {
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => largest(&entry.path()),
        metadata => metadata.map_or(0, |metadata| metadata.len()),
    };
    std::fs::read_dir(path).into_iter().flatten().flatten().map(size).max().unwrap_or(0)
}

/// A push goes on by itself, whatever it was at when the server died: to one of ours, and as to an existing one.
#[test]
fn a_server_that_is_killed_and_started_again() {
    every_caller(|home| {
        let files = "for n in $(seq 300); do head -c 20000 /dev/urandom > /spfs/f$n; done; \
                     head -c 40000000 /dev/urandom > /spfs/large; spfs commit layer --tag big";
        home.script("-", files).run().ok();
        home.wait_for_the_end();
        for (round, query) in ["", "?exchange=false"].into_iter().enumerate() {
            let origin = home.path(&format!("origin-{round}"));
            home.spfs(["init", "repo", &origin.display().to_string()]).run().ok();
            home.set("SPFS_REMOTE_ORIGIN_ADDRESS", format!("file:{}", origin.display()));
            let (first, port) = server(home, 0);
            let remote = format!("grpc://127.0.0.1:{port}{query}");
            let push = home.spfs(["push", "big", "--remote", &remote]).spawn();
            eventually("it is in the midst of it, or through", || {
                largest(&origin.join("payloads/work")) > 4_000_000 || origin.join("tags/big.tag").exists()
            });
            first.signal(Signal::KILL);
            first.finish();
            let (second, _) = server(home, port);
            push.finish().ok();
            home.set("XDG_DATA_HOME", home.path(&format!("other-data-{round}")).to_str().unwrap());
            home.spfs(["pull", "big", "--from", &remote]).run().ok();
            home.spfs_line("check").run().ok();
            home.set("XDG_DATA_HOME", home.home_dir().join(".local/share").to_str().unwrap());
            second.signal(Signal::TERM);
            second.finish().ok();
        }
    });
}
