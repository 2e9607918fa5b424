//! What a client does while there is no room in its budget.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use spfs_repo::{Dir, Directory, Manifest, Node, Object, Repository};

use super::{Client, Options};
use crate::server::{self, Server};

/// A large answer that there is no room for is given up and asked for again; a large upload waits before it begins.
#[test]
fn what_is_large_waits_for_its_share() {
    let place = tempfile::tempdir().unwrap();
    let directory = Directory::create(place.path()).unwrap();
    let server = Server::bind(Arc::new(directory), &["127.0.0.1:0".parse().unwrap()], server::Options::default());
    let server = server.unwrap();
    let client = Client::new(&format!("grpc://{}", server.addresses()[0]), Options::default()).unwrap();
    std::thread::spawn(move || server.run(std::future::pending()));
    let entries = (0..15_000).map(|n| (format!("a-rather-long-name-of-a-mask-{n}"), Node::Mask { mode: 0 })).collect();
    let large = Object::new(Manifest::from_dir(&Dir { entries }));
    let small = Object::new(Manifest::default());

    // Does `work` while there is no room, for as long as a small question takes.
    let waits = |work: &(dyn Fn() + Sync)| {
        let all = client.connection.budget.try_take(usize::MAX).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                work();
                done.store(true, Ordering::SeqCst);
            });
            std::thread::sleep(Duration::from_millis(200));
            assert!(client.tag_names().unwrap().is_empty(), "what is small goes on");
            assert!(!done.load(Ordering::SeqCst), "it did not wait");
            drop(all);
            thread.join().unwrap();
        });
        assert!(client.connection.budget.try_take(usize::MAX).is_some(), "all of it was given back");
    };
    let batch = client.begin().unwrap();
    let few = batch.add_object(&small).unwrap();
    waits(&|| assert!(batch.add_object(&large).is_ok()));
    let many = batch.add_object(&large).unwrap();
    batch.finish().unwrap();
    waits(&|| assert_eq!(client.read_object(&many).unwrap(), large));
    waits(&|| client.read_encoded(&[few, many], &mut |_, _| Ok(())).unwrap());
}
