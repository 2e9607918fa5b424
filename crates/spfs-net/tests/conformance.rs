//! The suite of every repository, run against our server over real sockets.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use spfs_net::client::{Client, Options};
use spfs_net::server::{self, Server};
use spfs_repo::{Directory, conformance};

/// What a batch over the wire cannot promise: each pack is visible on its own.
const EXCEPT: &[&str] = &["a batch that is dropped leaves nothing"];

#[test]
fn a_client_of_our_server_conforms() {
    let place = tempfile::tempdir().unwrap();
    let mut count = 0;
    conformance::run_without(EXCEPT, &mut || {
        count += 1;
        let directory = Directory::create(place.path().join(count.to_string())).unwrap();
        let address = "127.0.0.1:0".parse().unwrap();
        let server = Server::bind(Arc::new(directory), &[address], server::Options::default()).unwrap();
        let address = server.addresses()[0];
        std::thread::spawn(move || server.run(std::future::pending()));
        Box::new(Client::new(&format!("grpc://{address}"), Options::default()).unwrap())
    });
}
