//! Bad luck: a full disk, two at one tag, a graph that is not whole, bytes that are not what they say.

use std::sync::Barrier;

use spfs::repo::{Digest, Layer, Object, ObjectBody, Repository, Tag};

use super::{Server, call, digest, message, post};
use crate::common::every_caller;

#[test]
fn a_full_disk_is_said_and_nothing_breaks() {
    every_caller(|home| {
        let user = if home.caller().uid() == 0 { "" } else { "--user --map-root-user" };
        let line = format!(
            "mkdir -p served && exec unshare {user} --mount sh -c 'mount -t tmpfs -o size=2m none served && \
             spfs init repo ./served && exec spfs server -r ./served --listen 127.0.0.1:0'"
        );
        let server = Server::from(home.sh(&line).spawn());
        let at = server.address();
        assert!(post(at, None, b"small").starts_with("HTTP/1.1 200"));
        let full = post(at, None, &vec![7; 8 << 20]);
        assert!(full.starts_with("HTTP/1.1 507") && full.contains("No space left"), "{full}");
        // What it had taken for that is free again.
        assert!(post(at, None, &vec![8; 1 << 20]).starts_with("HTTP/1.1 200"));
        assert_eq!(server.client().payloads().unwrap().len(), 2);
        server.stop();
    });
}

#[test]
fn a_repository_that_is_moved_away_is_missed() {
    every_caller(|home| {
        let server = Server::start(home, "");
        let remote = format!("grpc://{}", server.address());
        home.sh("mkdir tree; echo a > tree/a; spfs commit --path tree -t x; spfs tag x y").run().ok();
        let push = |tag: &str| home.spfs(["push", "-r", &remote, tag]).run();
        let missed = |reason: &str| {
            home.spfs(["tags", "-r", &remote]).run().fails().stdout_is("").stderr_has(reason);
            push("y").fails().stderr_has(reason);
        };
        push("x").ok();
        home.sh("mv served away").run().ok();
        missed("No such file");
        // As where it was unmounted; and nothing was made there.
        home.sh("mkdir served").run().ok();
        missed("No such file");
        home.sh("rmdir served; spfs init repo $PWD/served").run().ok();
        missed("another repository stands there");
        home.sh("rm -r served; mv away served").run().ok();
        push("y").ok();
        home.spfs(["tags", "-r", &remote]).run().ok().stdout_is("x\ny");
        home.spfs_line("check -r ./served").run().ok();
        home.sh("rm -r served").run().ok();
        missed("No such file");
        server.stop();
    });
}

#[test]
fn two_at_one_tag_are_both_kept() {
    every_caller(|home| {
        let server = Server::start(home, "");
        let barrier = Barrier::new(8);
        std::thread::scope(|scope| {
            for number in 0..8u8 {
                let (server, barrier) = (&server, &barrier);
                scope.spawn(move || {
                    let client = server.client();
                    let tag = Tag {
                        name: "same".parse().unwrap(),
                        target: Digest::of(&[number]),
                        parent: Digest::NULL,
                        user: format!("{number}@host"),
                        time: "2020-01-01T00:00:00Z".parse().unwrap(),
                    };
                    barrier.wait();
                    client.push_tag(&tag).unwrap();
                });
            }
        });
        let history = server.client().history(&"same".parse().unwrap()).unwrap();
        let mut targets: Vec<Digest> = history.iter().map(|tag| tag.target).collect();
        targets.sort_unstable();
        targets.dedup();
        assert_eq!(targets.len(), 8);
        server.stop();
    });
}

#[test]
fn graphs_that_are_not_whole_do_not_get_in() {
    every_caller(|home| {
        let server = Server::start(home, "");
        let at = server.address();
        let client = server.client();
        let absent = Digest::of(b"absent");
        // The manifest of this layer is nowhere, nor is the layer of this platform.
        let layer: ObjectBody = Layer { manifest: Some(absent), annotations: Vec::new() }.into();
        let wire = spfs::repo::codec::encode_wire(&Object::new(layer)).unwrap();
        let object = message(&[(1, &message(&[(7, &wire)]))]);
        let (code, answer) = call(at, None, "/spfs.DatabaseService/WriteObject", &object);
        assert!(code == 0 && answer.contains(&absent.to_string()), "{answer}");
        let platform = message(&[(1, &message(&[(1, &message(&[(1, &digest(&absent))]))]))]);
        let (_, answer) = call(at, None, "/spfs.DatabaseService/WriteObject", &platform);
        assert!(answer.contains(&absent.to_string()), "{answer}");
        // A blob without its payload, and one that lies about its size.
        post(at, None, b"content");
        for (of, size) in [(&b"absent"[..], 6), (&b"content"[..], 6)] {
            let blob = [message(&[(1, &digest(&Digest::of(of)))]), vec![0x10, size]].concat();
            let blob = message(&[(1, &message(&[(5, &blob)]))]);
            let (_, answer) = call(at, None, "/spfs.DatabaseService/WriteObject", &blob);
            assert!(answer.contains(&Digest::of(of).to_string()), "{answer}");
        }
        assert!(client.find(&spfs::repo::DigestPrefix::any()).unwrap().is_empty());
        // Bytes that make no sense: of calls, of messages, of frames.
        for (method, bytes) in [
            ("Exchange/PutPack", &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 1][..]),
            ("Exchange/PutPack", &[0x08, 1]),
            ("Exchange/Missing", &[0x0a, 3, 1, 2, 3]),
            ("DatabaseService/HasObject", &[0x0a, 0]),
            ("DatabaseService/FindDigests", &[]),
            ("TagService/InsertTag", &[0xff; 100]),
            ("TagService/LsTags", &message(&[(2, b"../..")])),
            ("TagService/LsTags", &message(&[(2, b"a/b")])),
            ("TagService/ReadTag", &message(&[(1, b"../../etc/passwd")])),
            ("TagService/ReadTag", &message(&[(1, "ä".as_bytes())])),
        ] {
            let (code, answer) = call(at, None, &format!("/spfs.{method}"), bytes);
            assert!(code == 3 || code == 0, "{method}: {answer}");
        }
        server.stop();
        home.spfs_line("check -r ./served").run().ok();
    });
}
