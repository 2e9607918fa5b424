//! What must hold for any bytes at all in what `spfs-mount` reads: run by cargo-fuzz (fuzz_targets/) and, over a few
//! thousand mutations, by the ordinary tests (crates/spfs-mount/tests/mutations.rs).

use spfs_mount::server::{Reply, Server};
use spfs_mount::view::{self, View};
use spfs_mount::{BootId, image};
use spfs_repo::Digest;
use spfs_repo::manifest::{Dir, Node};

const BOOT: BootId = [7; 16];
/// Bytes of a view's header, of a node and of a digest (see `view/format.rs`).
const HEADER: usize = 88;
const NODE: usize = 36;
const DIGEST: usize = 32;

/// What follows the header of a view: a trusted file may hold anything. The first byte says how much of it is nodes.
pub fn view(body: &[u8]) {
    let Some((share, body)) = body.split_first() else { return };
    let nodes = (body.len() * usize::from(*share) / 255 / NODE).max(1);
    let Some(rest) = body.len().checked_sub(nodes * NODE) else { return };
    let digests = (rest / DIGEST).min(1);
    let mut bytes = sample()[..HEADER].to_vec();
    for (at, count) in [(64, nodes), (68, digests), (72, rest - digests * DIGEST)] {
        bytes[at..at + 4].copy_from_slice(&(count as u32).to_le_bytes());
    }
    bytes.extend_from_slice(body);
    let view = View::from_bytes(bytes).expect("the header is right");
    let mut count = 0;
    for (path, id) in view.walk() {
        count += 1;
        let _ = (view.resolve(&path), view.path(id), view.target(id), view.digest(id), view.node(id));
    }
    assert!(count < view.len(), "a node has one parent");
    if let Ok(merged) = view::merge(&[&view, &view]) {
        assert!(View::from_bytes(merged).expect("a view").len() <= view.len());
    }
    let _ = image::write(&view, &mut std::io::sink(), 0, 0, &BOOT);
    let mut reply = Reply::with_capacity(1 << 18);
    let server = Server::new(&view, 0, 0);
    for (opcode, node) in (0..60).flat_map(|opcode| (0..4).map(move |node| (opcode, node))) {
        answer(
            &server,
            &request(opcode, node, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0]),
            &mut reply,
        );
    }
}

/// A request to the metadata server: its answer is as long as it says.
pub fn fuse(bytes: &[u8]) {
    let view = View::from_bytes(sample()).expect("a view");
    let mut reply = Reply::with_capacity(1 << 18);
    answer(&Server::new(&view, 1, 2), bytes, &mut reply);
    assert_eq!(reply.capacity(), 1 << 18, "an answer allocated");
}

fn answer(server: &Server<'_>, request: &[u8], reply: &mut Reply) {
    if let Some(answer) = server.answer(request, reply) {
        assert_eq!(answer[..4], (answer.len() as u32).to_ne_bytes());
        assert_eq!(answer[8..16], request[8..16]);
    }
}

/// A request with a right header.
fn request(opcode: u32, node: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = (40 + body.len() as u32).to_ne_bytes().to_vec();
    bytes.extend(opcode.to_ne_bytes());
    bytes.extend(1u64.to_ne_bytes());
    bytes.extend(node.to_ne_bytes());
    bytes.extend([0; 16]);
    bytes.extend(body);
    bytes
}

/// The bytes of a small view with everything in it.
fn sample() -> Vec<u8> {
    let blob = |mode, size| Node::Blob { digest: Digest::of(b"x"), mode, size };
    let dir =
        |entries: Vec<(&str, Node)>| Dir { entries: entries.into_iter().map(|(n, d)| (n.to_owned(), d)).collect() };
    let below = || Node::Dir { mode: 0o40755, dir: dir(vec![("f", blob(0o100644, 1)), ("l", blob(0o120777, 6))]) };
    let root =
        dir(vec![("a", below()), ("b", below()), ("e", blob(0o100644, 0)), ("gone", Node::Mask { mode: 0o20000 })]);
    view::build(&root, |_| Ok(b"target".to_vec())).expect("a view")
}

/// One check.
pub type Check = fn(&[u8]);

/// Every check with the name of its target.
pub const ALL: [(&str, Check); 2] = [("view", view), ("fuse", fuse)];

/// The seeds, for the checks in turn: bodies of views, and one request of every kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let (sample, body) = (View::from_bytes(sample()).expect("a view"), sample()[HEADER..].to_vec());
    let share = (sample.len() as usize * NODE * 255).div_ceil(body.len()) as u8;
    let bodies = (0..10).map(|more| [&[share + more], &body[..]].concat());
    let names = b"\0\x40\0\0\0\0\0\0user.overlay.redirect\0".to_vec();
    let requests = (0..54).map(|opcode| request(opcode, u64::from(opcode % 9), &names));
    bodies.chain(requests).collect()
}
