//! A server's life: it starts and says where, serves, is told things by signals, and stops without breaking anything.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use spfs::repo::{Digest, Repository};

use super::{Server, call, connect, get, head, message, post, rest, send};
use crate::common::{eventually, every_caller};

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
        // As existing scripts start it, on two ports.
        let server = Server::start(home, "127.0.0.1:0 127.0.0.1:0");
        assert_eq!(server.addresses.len(), 2);
        assert!(server.addresses.iter().all(|address| get(*address, "/healthz").starts_with("HTTP/1.1 200")));
        assert_eq!(call(server.addresses[1], None, "/spfs.Repository/Ping", b"").0, 12, "payloads alone");
        let (_, answer) = call(server.addresses[0], None, "/spfs.PayloadService/WritePayload", b"");
        assert!(answer.contains(&format!("http://{}/", server.addresses[1])), "{answer}");
        let taken = server.address().to_string();
        home.spfs(["server", "--listen", &taken]).run().fails().stderr_has("in use").stderr_has("hint:");
        home.spfs_line("server /some/where").run().fails().stderr_has("`spfs server -r /some/where`");
        home.spfs_line("server localhost:1").run().fails().stderr_has("write IP:PORT");
        for root in ["ftp://host/", "host:80", "https://"] {
            let said = home.spfs(["server", "--listen", "127.0.0.1:0", "--payloads-root", root]).run();
            said.fails().stdout_is("").stderr_has("write http://HOST:PORT/");
        }
        server.stop();
    });
}

/// Nothing that it is told to read or write to makes it wait, or use up the memory.
#[test]
fn files_that_are_none_are_said_at_the_start() {
    every_caller(|home| {
        home.sh("mkfifo fifo").run().ok();
        for file in ["fifo", "/dev/zero"] {
            for options in ["--tokens FILE", "--config FILE", "--tls-cert FILE --tls-key FILE"] {
                let line = format!("server --listen 127.0.0.1:0 {}", options.replace("FILE", file));
                home.spfs_line(&line).run().code(1).stdout_is("").stderr_has("it is not a regular file");
            }
            let remote = |parameter: &str| format!("tags -r grpcs://127.0.0.1:1?{parameter}={file}");
            home.spfs_line(&remote("token_file")).run().code(1).stderr_has("it is not a regular file");
        }
        home.spfs_line("server --listen 127.0.0.1:0 --access-log fifo").run().code(1).stderr_has("No such device");
        let server = Server::start(home, "");
        let remote = format!("grpcs://{}?ca=/dev/zero", server.address());
        home.spfs(["tags", "-r", &remote]).run().code(1).stderr_has("it is not a regular file");
        server.stop();
    });
}

#[test]
fn payloads_come_and_go_as_existing_clients_send_them() {
    every_caller(|home| {
        let server = Server::start(home, "");
        let at = server.address();
        let answer = post(at, None, b"content");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let name = Digest::of(b"content");
        // The absolute form, and no host.
        let old =
            format!("GET http://{at}/{name} HTTP/1.1\r\nAccept: application/octet-stream\r\nConnection: close\r\n\r\n");
        let mut stream = connect(at);
        stream.write_all(old.as_bytes()).unwrap();
        let answer = rest(stream);
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("content"), "{answer}");
        let zipped = send(at, &head("GET", &format!("/{name}"), None, "Accept: application/x-bzip2\r\n"), b"");
        assert!(zipped.contains("application/x-bzip2") && zipped.contains("BZh"), "{zipped}");
        assert!(get(at, &format!("/{}", Digest::of(b"other"))).starts_with("HTTP/1.1 404"));
        assert!(get(at, "/nonsense").starts_with("HTTP/1.1 400"));
        let wrong = send(at, &head("POST", "/", None, "Content-Type: image/png\r\nContent-Length: 0\r\n"), b"");
        assert!(wrong.starts_with("HTTP/1.1 415"), "{wrong}");
        assert!(send(at, &head("PATCH", "/", None, ""), b"").starts_with("HTTP/1.1 405"));
        // What cannot be read is the client's fault; a range that no file reaches is none.
        let zipped = "Content-Type: application/x-bzip2\r\nContent-Length: 5\r\n";
        let chunked = "Transfer-Encoding: chunked\r\n";
        for (more, body) in [(zipped, &b"BZhhh"[..]), (chunked, b"zz\r\n"), (chunked, b"3\r\nabcd\r\n0\r\n\r\n")] {
            let wrong = send(at, &head("POST", "/", None, more), body);
            assert!(wrong.starts_with("HTTP/1.1 400") && wrong.contains("cannot be read"), "{wrong}");
        }
        for range in ["18446744073709551615-", "0-,1-", "-5", "5-2"] {
            let whole = send(at, &head("GET", &format!("/{name}"), None, &format!("Range: bytes={range}\r\n")), b"");
            assert!(whole.starts_with("HTTP/1.1 200") && whole.contains("content"), "{range}: {whole}");
        }
        server.stop();
    });
}

/// Existing clients send the scheme of the repository's address, and neither of these is one of HTTP.
#[test]
fn calls_come_as_existing_clients_send_them() {
    let field = |name: &str, value: &str| {
        let [name, value] = [name, value].map(|text| [&[text.len() as u8], text.as_bytes()].concat());
        [vec![0], name, value].concat()
    };
    let frame = |kind: u8, flags: u8, stream: u8, content: &[u8]| {
        let head = [0, 0, content.len() as u8, kind, flags, 0, 0, 0, stream];
        [&head[..], content].concat()
    };
    every_caller(|home| {
        let server = Server::start(home, "");
        let at = server.address().to_string();
        for scheme in ["grpc", "http2"] {
            let fields =
                [(":method", "POST"), (":scheme", scheme), (":path", "/spfs.Repository/Ping"), (":authority", &at)];
            let more = [("te", "trailers"), ("content-type", "application/grpc"), ("user-agent", "tonic/0.13.1")];
            let head: Vec<u8> = fields.iter().chain(&more).flat_map(|(name, value)| field(name, value)).collect();
            let mut stream = connect(server.address());
            stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
            let request = [frame(4, 0, 0, b""), frame(1, 4, 1, &head), frame(0, 1, 1, &[0; 5])];
            stream.write_all(&request.concat()).unwrap();
            // An answer of no bytes, in a frame of its own.
            let (answer, mut got, mut buffer) = (frame(0, 0, 1, &[0; 5]), Vec::new(), [0; 1024]);
            while !got.windows(answer.len()).any(|part| part == answer) {
                let count = stream.read(&mut buffer).unwrap();
                assert!(count > 0, "{scheme}: {got:?}");
                got.extend_from_slice(&buffer[..count]);
            }
        }
        server.stop();
    });
}

/// Begins to post the first half of something.
fn half(server: &Server, content: &[u8]) -> TcpStream {
    let mut stream = connect(server.address());
    let more = format!("Content-Length: {}\r\n", content.len() * 2);
    stream.write_all(head("POST", "/", None, &more).as_bytes()).unwrap();
    stream.write_all(content).unwrap();
    let metric = |line: &str| line.starts_with("spfs_server_requests_in_flight 2");
    eventually("the upload has begun", || get(server.address(), "/metrics").lines().any(metric));
    stream
}

#[test]
fn a_transfer_ends_after_the_first_signal_and_is_cut_by_the_second() {
    every_caller(|home| {
        let server = Server::start(home, "");
        let content = vec![7; 300_000];
        let mut upload = half(&server, &content);
        server.running.signal(Signal::TERM);
        eventually("it takes no more", || TcpStream::connect(server.address()).is_err());
        upload.write_all(&content).unwrap();
        assert!(rest(upload).starts_with("HTTP/1.1 200"));
        server.running.finish().ok().stderr_has("stopping; 1 requests");

        let server = Server::start(home, "");
        let whole = [&content[..], &content].concat();
        let mut got = vec![0; 1000];
        let mut download = connect(server.address());
        download.write_all(head("GET", &format!("/{}", Digest::of(&whole)), None, "").as_bytes()).unwrap();
        download.read_exact(&mut got).unwrap();
        server.running.signal(Signal::TERM);
        eventually("it takes no more", || TcpStream::connect(server.address()).is_err());
        assert!(rest(download).len() > 600_000 - 1000);
        server.running.finish().ok();

        let mut server = Server::start(home, "");
        let upload = half(&server, &content);
        server.running.signal(Signal::TERM);
        eventually("it takes no more", || TcpStream::connect(server.address()).is_err());
        std::thread::sleep(Duration::from_millis(50));
        assert!(server.running.is_alive());
        let second = Instant::now();
        server.running.signal(Signal::INT);
        server.running.finish().ok();
        assert!(second.elapsed() < Duration::from_secs(25), "the grace is longer");
        assert!(!rest(upload).contains("200"));

        let server = Server::start(home, "--grace 1");
        let _upload = half(&server, &content);
        server.stop().stderr_has("the time is over");
        home.spfs_line("check -r ./served").run().ok();
    });
}

#[test]
fn killed_in_a_transfer_it_leaves_nothing_half_written() {
    every_caller(|home| {
        let server = Server::start(home, "");
        let content = vec![7; 3_000_000];
        let _upload = half(&server, &content);
        server.running.signal(Signal::KILL);
        server.running.finish().killed_by(Signal::KILL);
        let server = Server::start(home, "");
        let client = server.client();
        assert!(client.payloads().unwrap().is_empty());
        let whole = [&content[..], &content].concat();
        assert!(post(server.address(), None, &whole).starts_with("HTTP/1.1 200"));
        assert_eq!(client.payloads().unwrap(), [Digest::of(&whole)]);
        server.stop();
        home.spfs_line("check -r ./served").run().ok();
    });
}

#[test]
fn it_counts_and_logs_every_request() {
    every_caller(|home| {
        let server = Server::start(home, "--access-log access.log");
        let at = server.address();
        post(at, None, b"content");
        get(at, &format!("/{}", Digest::of(b"content")));
        get(at, &format!("/{}", Digest::of(b"other")));
        call(at, None, "/spfs.TagService/InsertTag", &super::tag("vfx/a", ""));
        call(at, None, "/spfs.TagService/ReadTag", &message(&[(1, b"vfx/none")]));
        call(at, None, "/spfs.Nonsense/\"}", b"");
        let metrics = get(at, "/metrics");
        for line in [
            "spfs_server_requests_total{method=\"POST payload\",status=\"200\"} 1",
            "spfs_server_requests_total{method=\"GET payload\",status=\"404\"} 1",
            "spfs_server_requests_total{method=\"/spfs.TagService/InsertTag\",status=\"OK\"} 1",
            "spfs_server_requests_total{method=\"unknown\",status=\"UNIMPLEMENTED\"} 1",
            "spfs_server_request_seconds_bucket{method=\"POST payload\",le=\"+Inf\"} 1",
            "spfs_server_request_seconds_count{method=\"/spfs.TagService/ReadTag\"} 1",
            "spfs_server_requests_in_flight 1",
            "# TYPE spfs_server_request_seconds histogram",
        ] {
            assert!(metrics.contains(line), "{line}\n{metrics}");
        }
        let received = metrics.lines().find_map(|line| line.strip_prefix("spfs_server_received_bytes_total "));
        assert!(received.unwrap().parse::<u64>().unwrap() > 500, "{metrics}");

        // Moved away, as logrotate does it, and opened again.
        let log = home.path("access.log");
        eventually("the log is complete", || fs::read_to_string(&log).unwrap().lines().count() == 7);
        fs::rename(&log, home.path("access.log.1")).unwrap();
        server.reload("read the configuration again");
        get(at, "/healthz");
        eventually("the new log has a line", || fs::read_to_string(&log).is_ok_and(|text| text.lines().count() == 1));
        server.stop();
        let lines = fs::read_to_string(home.path("access.log.1")).unwrap();
        let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["method"], "POST payload");
        assert_eq!(lines[0]["received"], 7);
        assert_eq!(lines[1]["sent"], 7);
        assert_eq!(lines[3]["tag"], "vfx/a");
        assert_eq!(lines[3]["status"], "OK");
        assert!(lines[3]["peer"].as_str().unwrap().starts_with("127.0.0.1:") && lines[3]["ms"].is_u64());
    });
}
