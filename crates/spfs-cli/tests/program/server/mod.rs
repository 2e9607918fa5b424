//! `spfs server` as a process of its own, on loopback; its clients here are sockets, so that they can misbehave.

mod life;
mod limits;
mod luck;
mod rights;
pub mod tls;

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::process::Signal;
use spfs::repo::Digest;

use crate::common::{Home, Output, Running};

/// A server that has said where it listens.
struct Server {
    running: Running,
    addresses: Vec<SocketAddr>,
}

impl Server {
    /// Starts `spfs server` with these words behind it, for the repository `served`; unless the words say where, it
    /// listens on any free port.
    #[track_caller]
    fn start(home: &Home, words: &str) -> Server {
        let listen = if words.contains("127.0.0.1") { "" } else { "--listen 127.0.0.1:0" };
        home.spfs(["init", "repo", home.path("served").to_str().unwrap()]).run().ok();
        Server::from(home.spfs_line(&format!("server -r ./served {listen} {words}")).spawn())
    }

    /// The same, with a file of settings.
    #[track_caller]
    fn with(home: &Home, settings: &str) -> Server {
        home.write("server.toml", settings);
        Server::start(home, "--config server.toml")
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

    fn client(&self) -> spfs_net::Client {
        spfs_net::Client::new(&format!("grpc://{}", self.address()), spfs_net::client::Options::default()).unwrap()
    }

    /// Has it read its settings again, and waits until it says `what` about that, once more than before.
    #[track_caller]
    fn reload(&self, what: &str) {
        let count = |text: &str| text.matches(what).count();
        let before = count(&self.running.stderr());
        self.running.signal(Signal::HUP);
        crate::common::eventually(what, || count(&self.running.stderr()) > before);
    }

    /// Ends it with a signal, as it should end.
    #[track_caller]
    fn stop(self) -> Output {
        self.running.signal(Signal::TERM);
        let output = self.running.finish();
        output.ok();
        output
    }
}

/// A connection that does not wait for ever.
fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// What comes until the other end closes.
fn rest(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// The first line of the next answer on a connection.
fn status(stream: &mut TcpStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        line.push(byte[0]);
    }
    String::from_utf8_lossy(&line).trim().to_owned()
}

/// A request of HTTP/1.1 with a token, if it has one.
fn head(method: &str, path: &str, token: Option<&str>, more: &str) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{more}");
    if let Some(token) = token {
        write!(head, "Authorization: Bearer {token}\r\n").unwrap();
    }
    head + "\r\n"
}

fn send(address: SocketAddr, head: &str, body: &[u8]) -> String {
    let mut stream = connect(address);
    // It may refuse before it has read everything.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    rest(stream)
}

fn get(address: SocketAddr, path: &str) -> String {
    send(address, &head("GET", path, None, ""), b"")
}

fn post(address: SocketAddr, token: Option<&str>, content: &[u8]) -> String {
    send(address, &head("POST", "/", token, &format!("Content-Length: {}\r\n", content.len())), content)
}

/// Fields of messages, each of bytes: number, length, content.
fn message(fields: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, content) in fields {
        out.push(number << 3 | 2);
        let mut len = content.len();
        while len >= 0x80 {
            out.push(len as u8 | 0x80);
            len >>= 7;
        }
        out.push(len as u8);
        out.extend_from_slice(content);
    }
    out
}

fn digest(of: &Digest) -> Vec<u8> {
    message(&[(1, of.as_bytes())])
}

/// The message of a tag record, as `InsertTag` and `RemoveTag` take it.
fn tag(name: &str, namespace: &str) -> Vec<u8> {
    let (org, name) = name.rsplit_once('/').unwrap_or(("", name));
    let target = digest(&Digest::of(b""));
    let time = message(&[(1, b"2020-01-02 03:04:05.123456 UTC")]);
    let record = [(1, org.as_bytes()), (2, name.as_bytes()), (3, &*target), (5, b"me@host"), (6, &*time)];
    message(&[(1, &message(&record)), (2, namespace.as_bytes())])
}

/// Makes a call and returns its gRPC status, and everything that was answered. It goes over HTTP/1.1, whose trailers
/// we do not ask for: a call without a status in its head went well.
fn call(address: SocketAddr, token: Option<&str>, path: &str, message: &[u8]) -> (u32, String) {
    let mut body = vec![0];
    body.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend_from_slice(message);
    let more = format!("Content-Type: application/grpc\r\nContent-Length: {}\r\n", body.len());
    let answer = send(address, &head("POST", path, token, &more), &body);
    assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    let status = answer.split("grpc-status: ").nth(1).and_then(|rest| rest.split('\r').next());
    (status.map_or(0, |number| number.parse().unwrap()), answer)
}
