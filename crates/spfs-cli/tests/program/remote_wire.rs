//! Sharing over the wire: push, pull, and run of what is only behind a server.

use std::sync::Arc;

use spfs_net::server::{Options, Server};
use spfs_repo::Directory;

use crate::common::{Home, every_caller};

/// A server of `origin` in this process, for as long as this process lives; returns its address.
fn serve(home: &Home) -> String {
    let origin = Directory::create(home.path("origin")).unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let server = Server::bind(Arc::new(origin), &[any], Options::default()).unwrap();
    let address = server.addresses()[0];
    std::thread::spawn(move || server.run(std::future::pending()));
    format!("grpc://{address}")
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
