//! The suite of every repository, run against our server over real sockets.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use spfs_net::client::{Client, Options};
use spfs_net::server::{self, Server};
use spfs_repo::{Directory, Repository, conformance};

/// A server of an empty repository, on any free port; its address.
fn serve(place: &tempfile::TempDir, count: usize) -> String {
    let directory = Directory::create(place.path().join(count.to_string())).unwrap();
    let address = "127.0.0.1:0".parse().unwrap();
    let server = Server::bind(Arc::new(directory), &[address], server::Options::default()).unwrap();
    let address = server.addresses()[0];
    std::thread::spawn(move || server.run(std::future::pending()));
    format!("grpc://{address}")
}

/// What makes clients of new, empty repositories.
fn clients(query: &str) -> impl FnMut() -> Box<dyn Repository> {
    let place = tempfile::tempdir().unwrap();
    let mut count = 0;
    move || {
        count += 1;
        Box::new(Client::new(&(serve(&place, count) + query), Options::default()).unwrap())
    }
}

#[test]
fn a_client_of_our_server_conforms() {
    conformance::run(&mut clients(""));
}

#[test]
fn it_conforms_where_content_is_compressed() {
    conformance::run_content(&mut clients("?compress=true"));
}

/// What the protocol of existing servers cannot promise. It has no batches: each payload is there when it has arrived.
/// And it inserts records as they are given: of two pushes at one instant both are kept, as children of the same.
const OLD_WAY: &[&str] = &["a batch that is dropped leaves nothing", "no concurrent push is lost"];

#[test]
fn it_conforms_by_the_protocol_of_existing_servers_alone() {
    conformance::run_without(OLD_WAY, &mut clients("?exchange=false"));
}
