//! What happens when the network or the other end does not behave.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use spfs_net::client::{Client, Options};
use spfs_net::server::{self, Server};
use spfs_repo::{Blob, Digest, Directory, Error, Manifest, NetTrouble, Object, Repository};

fn serve(directory: Directory) -> SocketAddr {
    serve_as(directory, server::Options::default())
}

fn serve_as(directory: Directory, options: server::Options) -> SocketAddr {
    let server = Server::bind(Arc::new(directory), &["127.0.0.1:0".parse().unwrap()], options);
    let server = server.unwrap();
    let address = server.addresses()[0];
    std::thread::spawn(move || server.run(std::future::pending()));
    address
}

fn client(address: SocketAddr, query: &str) -> Client {
    Client::new(&format!("grpc://{address}{query}"), Options::default()).unwrap()
}

/// Stands before `server` and cuts every connection after so many bytes; returns its address and the number of cuts.
fn cutting(server: SocketAddr, bytes: i64) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let cuts = Arc::<AtomicUsize>::default();
    let count = cuts.clone();
    std::thread::spawn(move || {
        for near in listener.incoming() {
            let (near, left) = (near.unwrap(), Arc::new(AtomicI64::new(bytes)));
            let far = TcpStream::connect(server).unwrap();
            for (mut from, mut to) in [
                (near.try_clone().unwrap(), far.try_clone().unwrap()),
                (far.try_clone().unwrap(), near.try_clone().unwrap()),
            ] {
                let (left, cuts) = (left.clone(), count.clone());
                std::thread::spawn(move || {
                    let mut buffer = [0; 8192];
                    while let Ok(n @ 1..) = from.read(&mut buffer) {
                        if left.fetch_sub(n as i64, Ordering::Relaxed) < n as i64 {
                            cuts.fetch_add(1, Ordering::Relaxed);
                            break;
                        }
                        if to.write_all(&buffer[..n]).is_err() {
                            break;
                        }
                    }
                    let _ = from.shutdown(Shutdown::Both);
                    let _ = to.shutdown(Shutdown::Both);
                });
            }
        }
    });
    (address, cuts)
}

/// Bytes that do not get smaller, the same for the same seed.
fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..size).map(next).collect()
}

fn add(batch: &dyn spfs_repo::Batch, content: &[u8]) -> Digest {
    let (payload, size) = batch.add_payload(&mut &content[..], None).unwrap();
    batch.add_object(&Object::new(Blob { payload, size })).unwrap()
}

#[test]
fn a_proxy_that_cuts_every_connection_after_a_megabyte() {
    for query in ["", "?compress=true"] {
        let place = tempfile::tempdir().unwrap();
        let (address, cuts) = cutting(serve(Directory::create(place.path().join("r")).unwrap()), 1 << 20);
        let client = client(address, query);
        let mut contents: Vec<Vec<u8>> = (0..120).map(|n| noise(20_000, n)).collect();
        contents.push(noise(5 << 20, 1000));
        let batch = client.begin().unwrap();
        let digests: Vec<Digest> = contents.iter().map(|content| add(&*batch, content)).collect();
        // An object of more than a megabyte, too.
        let mut tree = spfs_repo::Dir::default();
        for n in 0..20_000 {
            let node = spfs_repo::Node::Blob { digest: digests[n % 120], mode: 0o100644, size: 20_000 };
            tree.entries.insert(format!("a-rather-long-name-of-a-file-{n}"), node);
        }
        let manifest = Object::new(Manifest::from_dir(&tree));
        let large = batch.add_object(&manifest).unwrap();
        assert!(client.missing(&[large]).unwrap() == [large], "nothing is visible before the end");
        batch.finish().unwrap();
        let written = cuts.load(Ordering::Relaxed);
        assert!(written > 5, "{written} cuts");

        assert_eq!(client.missing(&digests).unwrap(), []);
        assert_eq!(client.read_object(&large).unwrap(), manifest);
        let mut seen = 0;
        let read = client.read_encoded(&digests, &mut |digest, object| {
            assert_eq!(object.digest(), *digest);
            seen += 1;
            Ok(())
        });
        read.unwrap();
        assert_eq!(std::mem::take(&mut seen), digests.len());
        let read = client.read_payloads(&digests, &mut |digest, content| {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes).unwrap();
            assert_eq!(Digest::of(&bytes), *digest);
            seen += 1;
            Ok(())
        });
        read.unwrap();
        assert_eq!(seen, digests.len());
        assert!(cuts.load(Ordering::Relaxed) > written + 5);
    }
}

#[test]
fn a_server_that_is_not_there_or_is_something_else() {
    let trouble = |address: &str| {
        let client = Client::new(address, Options::default()).unwrap();
        match client.missing(&[Digest::of(b"")]) {
            Err(Error::Unreachable { trouble, .. }) => trouble,
            other => panic!("{address}: {other:?}"),
        }
    };
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(trouble(&format!("grpc://{closed}")), NetTrouble::Refused);
    assert_eq!(trouble("grpc://no-such-host.invalid:7737"), NetTrouble::Unresolved);

    // Something that speaks HTTP/1.1 only, as many things do.
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = web.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in web.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1000]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = stream.shutdown(Shutdown::Write);
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    assert_eq!(trouble(&format!("grpc://{address}")), NetTrouble::Protocol);
    assert_eq!(trouble(&format!("grpcs://{address}")), NetTrouble::Tls);

    // Something that takes a connection and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let began = Instant::now();
    assert_eq!(trouble(&format!("grpc://{address}?timeout_ms=300")), NetTrouble::TimedOut);
    assert!(began.elapsed() < Duration::from_secs(60));
    drop(silent);
}

#[test]
fn a_server_that_answers_with_other_content_than_asked_for() {
    let place = tempfile::tempdir().unwrap();
    let directory = Directory::create(place.path().join("r")).unwrap();
    let batch = directory.begin().unwrap();
    let (first, second) = (add(&*batch, &noise(10, 1)), add(&*batch, &noise(10, 2)));
    batch.finish().unwrap();
    let replace = |path: std::path::PathBuf, by: &[u8]| {
        std::fs::remove_file(&path).unwrap();
        std::fs::write(path, by).unwrap();
    };
    let other = std::fs::read(directory.object_path(&second)).unwrap();
    replace(directory.object_path(&first), &other);
    replace(directory.payload_path(&second), b"other bytes");
    let address = serve(directory);
    for query in ["", "?exchange=false"] {
        let client = client(address, query);
        // Noticed here, or by the server itself.
        for result in [client.read_object(&first).map(drop), client.read_encoded(&[second, first], &mut |_, _| Ok(()))]
        {
            assert!(matches!(result, Err(Error::Corrupt { .. } | Error::Remote { .. })), "{result:?}");
        }
        let here = Directory::create(place.path().join(format!("here{}", query.len()))).unwrap();
        let batch = here.begin().unwrap();
        let result = client
            .read_payloads(&[first, second], &mut |digest, content| batch.add_payload(content, Some(digest)).map(drop));
        assert!(matches!(result, Err(Error::Corrupt { .. })), "{result:?}");
    }
}

/// Answers every request with `head`, and then with `more` as long as that is taken.
fn answering(head: &'static str, more: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let mut sent = stream.write_all(head.as_bytes());
                while sent.is_ok() && !more.is_empty() {
                    sent = stream.write_all(more);
                }
            });
        }
    });
    address
}

#[test]
fn payloads_from_something_that_is_no_server_or_never_ends() {
    let place = tempfile::tempdir().unwrap();
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (head, more, foreign) in [
        (CHUNKED, &b"8\r\nendless!\r\n"[..], false),
        ("HTTP/1.1 200 OK\r\n", b"header: and one more\r\n", true),
        ("SSH-2.0-OpenSSH_9.6\r\n", b"", true),
    ] {
        let directory = Directory::create(place.path().join("r")).unwrap();
        let batch = directory.begin().unwrap();
        let payload = add(&*batch, b"content");
        batch.finish().unwrap();
        let payloads_root = Some(format!("http://{}/", answering(head, more)));
        let address = serve_as(directory, server::Options { payloads_root, ..server::Options::default() });
        let client = client(address, "?exchange=false");
        let started = Instant::now();
        let result = client.open_payload(&payload);
        assert!(started.elapsed() < Duration::from_secs(30), "it is not tried again and again");
        if foreign {
            let found = matches!(result, Err(Error::Unreachable { trouble: NetTrouble::Protocol, .. }));
            assert!(found, "{head}: {:?}", result.err());
            continue;
        }
        // Whoever stores it knows how long it is.
        let here = Directory::create(place.path().join("here")).unwrap();
        let batch = here.begin().unwrap();
        let read = client.read_payloads(&[payload], &mut |digest, content| {
            batch.add_payload(&mut content.take(1 << 20), Some(digest)).map(drop)
        });
        assert!(matches!(read, Err(Error::Corrupt { .. })), "{read:?}");
    }
}

#[test]
fn messages_are_as_large_as_was_agreed() {
    let place = tempfile::tempdir().unwrap();
    let address = serve(Directory::create(place.path().join("r")).unwrap());
    let mut tree = spfs_repo::Dir::default();
    // More than the four megabytes of existing servers.
    for n in 0..60_000 {
        tree.entries.insert(format!("directory-{n:07}"), spfs_repo::Node::Mask { mode: 0o020_000 });
    }
    let manifest = Object::new(Manifest::from_dir(&tree));
    for query in ["", "?exchange=false"] {
        let client = client(address, query);
        let batch = client.begin().unwrap();
        let digest = batch.add_object(&manifest).unwrap();
        batch.finish().unwrap();
        assert_eq!(client.read_object(&digest).unwrap(), manifest);
        client.remove_object(&digest).unwrap();
        let batch = client.begin().unwrap();
        batch.add_object(&manifest).unwrap();
        batch.finish().unwrap();
        let small = self::client(address, "?max_decode_message_size_bytes=4194304&exchange=false");
        let error = small.read_object(&digest).unwrap_err().to_string();
        assert!(error.contains("max_decode_message_size_bytes"), "{error}");
        client.remove_object(&digest).unwrap();
    }
}
