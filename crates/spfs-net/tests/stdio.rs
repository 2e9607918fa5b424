//! The suite of every repository over standard streams, as behind ssh. This program is also the server: it writes nothing
//! else to its standard output, which the harness of tests would.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use spfs_net::client::{Client, Options};
use spfs_net::server;
use spfs_repo::{Directory, Repository, conformance};

fn main() {
    let words: Vec<String> = std::env::args().collect();
    // What ssh hands to the shell over there: `spfs serve --stdio PATH`.
    if let Some((_, path)) = words.last().and_then(|line| line.split_once(" serve --stdio ")) {
        let repository = Arc::new(Directory::open(path).unwrap());
        // The client hangs up when it has what it wanted.
        let _ = server::serve_stdio(repository, server::Options::default());
        return;
    }
    if words.iter().any(|word| word == "--list") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let mut count = 0;
    let mut make = || {
        count += 1;
        let root = place.path().join(count.to_string());
        Directory::create(&root).unwrap();
        let options = Options { ssh_command: Some(words[0].clone()), ..Options::default() };
        Box::new(Client::new(&format!("ssh://host{}", root.display()), options).unwrap()) as Box<dyn Repository>
    };
    conformance::run(&mut make);
}
