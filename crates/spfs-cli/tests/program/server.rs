//! `spfs server` as a process of its own, on loopback.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::process::Signal;

use crate::common::{Home, Running, every_caller};

/// A server that has said where it listens.
struct Server {
    running: Running,
    addresses: Vec<SocketAddr>,
}

impl Server {
    /// Starts `spfs server` with these words behind it; unless they say where, it listens on any free port.
    #[track_caller]
    fn start(home: &Home, words: &str) -> Server {
        let listen = if words.contains("127.0.0.1") { "" } else { "--listen 127.0.0.1:0" };
        Server::from(home.spfs_line(&format!("server {listen} {words}")).spawn())
    }

    #[track_caller]
    fn from(mut running: Running) -> Server {
        running.wait_for("listening on: ");
        running.wait_for("\n");
        let line = running.stdout();
        let addresses = line.trim_start_matches("listening on: ").trim();
        let addresses = addresses.split(", ").map(|address| address.parse().unwrap()).collect();
        Server { running, addresses }
    }

    fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Ends it with a signal, as it should end.
    #[track_caller]
    fn stop(self) {
        self.running.signal(Signal::TERM);
        self.running.finish().ok();
    }
}

/// A connection that does not wait for ever.
fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Sends a request of HTTP/1.1 and returns the whole answer as text.
fn http(address: SocketAddr, request: &str) -> String {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(address: SocketAddr, path: &str) -> String {
    http(address, &format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"))
}

#[test]
fn it_says_where_it_listens_and_stops_when_told_to() {
    every_caller(|home| {
        for signal in [Signal::TERM, Signal::INT] {
            let server = Server::start(home, "");
            assert_ne!(server.address().port(), 0);
            assert!(get(server.address(), "/healthz").ends_with("ok\n"));
            server.running.signal(signal);
            server.running.finish().ok().stderr_has("only this machine can connect");
        }
        // As existing scripts start it, on two ports, and those are what it is asked for.
        let server = Server::start(home, "127.0.0.1:0 127.0.0.1:0");
        assert_eq!(server.addresses.len(), 2);
        assert!(server.addresses.iter().all(|address| get(*address, "/healthz").starts_with("HTTP/1.1 200")));
        let taken = server.address().to_string();
        home.spfs(["server", "--listen", &taken]).run().fails().stderr_has("in use").stderr_has("hint:");
        home.spfs_line("server /some/where").run().fails().stderr_has("`spfs server -r /some/where`");
        server.stop();
    });
}
