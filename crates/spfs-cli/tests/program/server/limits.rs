//! What a server bears: clients that are too slow, too large or too many.

use std::io::Write;
use std::time::{Duration, Instant};

use super::{Server, call, connect, get, head, message, post, rest, send, status};
use crate::common::{eventually, every_caller};

const RESOURCE_EXHAUSTED: u32 = 8;

#[test]
fn slow_clients_do_not_stay() {
    every_caller(|home| {
        let limits = "[limits]\nbegin_seconds = 0.4\nstall_seconds = 0.4\nidle_seconds = 0.4\n";
        let server = Server::with(home, limits);
        let at = server.address();
        let large = vec![b'x'; 40_000_000];
        let name = spfs::repo::Digest::of(&large);
        assert!(post(at, None, &large).starts_with("HTTP/1.1 200"));

        let began = Instant::now();
        // Nothing; half a head; half a head of HTTP/2; half a message; half a payload; one that drips.
        let mut all: Vec<_> = (0..6).map(|_| connect(at)).collect();
        all[1].write_all(b"GET /healthz HTTP/1.1\r\nHost:").unwrap();
        all[2].write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let call =
            head("POST", "/spfs.TagService/LsTags", None, "Content-Type: application/grpc\r\nContent-Length: 500\r\n");
        all[3].write_all(call.as_bytes()).unwrap();
        all[3].write_all(&[0, 0, 0]).unwrap();
        all[4].write_all(head("POST", "/", None, "Content-Length: 500\r\n").as_bytes()).unwrap();
        all[5].write_all(head("POST", "/", None, "Content-Length: 500\r\n").as_bytes()).unwrap();
        let mut drip = all[5].try_clone().unwrap();
        std::thread::spawn(move || {
            while drip.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        // One that asks for much and takes nothing, and one that asks, is answered, and stays.
        let mut deaf = connect(at);
        deaf.write_all(head("GET", &format!("/{name}"), None, "").as_bytes()).unwrap();
        let mut idle = connect(at);
        idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();

        let answers: Vec<String> = all.into_iter().map(rest).collect();
        assert!(answers[3].contains("grpc-status: 4"), "{answers:?}");
        assert!(answers[4].starts_with("HTTP/1.1 408") && answers[5].starts_with("HTTP/1.1 408"), "{answers:?}");
        assert!(rest(idle).contains("ok\n"));
        assert!(began.elapsed() < Duration::from_secs(50), "{:?}", began.elapsed());
        let cut = format!("{} takes or sends too little", deaf.local_addr().unwrap());
        eventually("the deaf one is cut", || server.running.stderr().contains(&cut));
        assert!(rest(deaf).len() < large.len());
        eventually("all are gone", || get(at, "/metrics").contains("\nspfs_server_connections 1\n"));
        server.stop();
    });
}

#[test]
fn what_is_too_large_is_refused() {
    every_caller(|home| {
        let server = Server::with(home, "[limits]\nmessage_bytes = 4096\npayload_bytes = 1000\nheader_bytes = 1024\n");
        let at = server.address();
        let (code, answer) = call(at, None, "/spfs.Exchange/PutPack", &[0; 5000]);
        assert!(code == RESOURCE_EXHAUSTED && answer.contains("5000 bytes; 4096"), "{answer}");
        // It need not come: the promise is enough.
        let more = "Content-Type: application/grpc\r\n";
        let promise = send(
            at,
            &head("POST", "/spfs.Exchange/PutPack", None, &format!("{more}Content-Length: 5\r\n")),
            &[0, 255, 255, 255, 255],
        );
        assert!(promise.contains("grpc-status: 8"), "{promise}");

        assert!(post(at, None, &[0; 1000]).starts_with("HTTP/1.1 200"));
        assert!(post(at, None, &[1; 1001]).starts_with("HTTP/1.1 413"));
        // Ten megabytes in 45 bytes.
        let bomb = home.sh("head -c 10000000 /dev/zero | bzip2 -9 | od -An -v -tu1").run().ok().stdout.clone();
        let bomb: Vec<u8> = bomb.split_whitespace().map(|byte| byte.parse().unwrap()).collect();
        let more = format!("Content-Type: application/x-bzip2\r\nContent-Length: {}\r\n", bomb.len());
        assert!(send(at, &head("POST", "/", None, &more), &bomb).starts_with("HTTP/1.1 413"));

        let long = format!("X-Long: {}\r\n", "x".repeat(2000));
        assert!(send(at, &head("GET", "/", None, &long), b"").starts_with("HTTP/1.1 431"));
        let many = "X: y\r\n".repeat(200);
        assert!(send(at, &head("GET", "/", None, &many), b"").starts_with("HTTP/1.1 431"));
        server.stop();
        home.spfs_line("check -r ./served").run().ok();
    });
}

/// The most memory that a process has had, in bytes.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn a_few_bytes_do_not_become_a_great_many() {
    every_caller(|home| {
        let server = Server::start(home, "");
        let at = server.address();
        let before = peak(server.running.pid());
        // A manifest whose trees have three million entries without anything in them, in its structured form; the same
        // of a platform; a pack of as many empty payloads.
        let entries = message(&[(1, &[0x0a, 0].repeat(1_500_000))]);
        let trees = message(&[(3, &message(&[(1, &entries), (2, &entries)]))]);
        let stack = message(&[(1, &message(&[(1, &[0x0a, 0].repeat(3_000_000))]))]);
        let pack = [0x0a, 0].repeat(3_000_000);
        for (method, bytes) in [
            ("DatabaseService/WriteObject", message(&[(1, &trees)])),
            ("DatabaseService/WriteObject", stack),
            ("Exchange/PutPack", pack),
        ] {
            let (code, answer) = call(at, None, &format!("/spfs.{method}"), &bytes);
            assert!(code == RESOURCE_EXHAUSTED || code == 0, "{method}: {answer}");
        }
        let grown = peak(server.running.pid()) - before;
        assert!(grown < 100 << 20, "{} MB for three messages of 6 MB", grown >> 20);
        server.stop();
    });
}

#[test]
fn there_is_room_for_so_many_and_it_can_be_changed() {
    every_caller(|home| {
        let server = Server::with(home, "[limits]\nconnections = 2\nbegin_seconds = 60\n");
        let at = server.address();
        let (first, second) = (connect(at), connect(at));
        let mut third = connect(at);
        third.write_all(head("GET", "/healthz", None, "").as_bytes()).unwrap();
        third.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        assert_eq!(status(&mut third), "", "it waits");
        drop(first);
        third.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        assert!(rest(third).ends_with("ok\n"));

        home.write("server.toml", "[limits]\nconnections = 20\n");
        server.reload("read the configuration again");
        let _more: Vec<_> = (0..5).map(|_| connect(at)).collect();
        assert!(get(at, "/healthz").ends_with("ok\n"));
        home.write("server.toml", "[limits]\nconnection = 20\n");
        server.reload("the configuration stays as it was");
        assert!(server.running.stderr().contains("unknown field `connection`"), "{}", server.running.stderr());
        drop(second);
        server.stop();
        for (settings, reason) in [
            ("[limits]\nconnections = 0\n", "limits.connections is a number from 1"),
            ("[limits]\nstall_seconds = -1\n", "limits.stall_seconds is a time"),
            ("listen = [\"localhost\"]\n", "line 1"),
            ("tls_cert = \"cert.pem\"\n", "tls_cert and tls_key go together"),
        ] {
            home.write("server.toml", settings);
            home.spfs_line("server --config server.toml").run().fails().stderr_has(reason);
        }
    });
}
