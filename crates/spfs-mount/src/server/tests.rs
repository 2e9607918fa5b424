//! Requests and answers byte by byte, and requests that no kernel would send.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use spfs_repo::Digest;
use spfs_repo::manifest::{Dir, Node as Entry};

use super::*;
use crate::MTIME;
use crate::view::build;

const UNIQUE: u64 = 1 << 63 | 42;

/// A tree with a bit of everything. Nodes: 1 root, 2 `dir`, 3 `empty`, 4 `file`, 5 `gone` (mask), 6 `link`, 7 `dir/x`.
fn view() -> View {
    let blob = |mode, text: &str| Entry::Blob { digest: Digest::of(text.as_bytes()), mode, size: text.len() as u64 };
    let entries = [
        ("dir", Entry::Dir { mode: 0o040_700, dir: Dir { entries: [("x".to_owned(), blob(0o100_755, "x"))].into() } }),
        ("empty", blob(0o100_644, "")),
        ("file", blob(0o100_644, &"y".repeat(1000))),
        ("gone", Entry::Mask { mode: 0o020_000 }),
        ("link", blob(0o120_777, "dir/x")),
    ];
    let root = Dir { entries: entries.into_iter().map(|(name, node)| (name.to_owned(), node)).collect() };
    View::from_bytes(build(&root, |_| Ok(b"dir/x".to_vec())).unwrap()).unwrap()
}

fn request(opcode: u32, node: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend((40 + body.len() as u32).to_ne_bytes());
    bytes.extend(opcode.to_ne_bytes());
    bytes.extend(UNIQUE.to_ne_bytes());
    bytes.extend(node.to_ne_bytes());
    bytes.extend([0; 16]);
    bytes.extend(body);
    bytes
}

/// The whole answer to a request.
fn answer(request: &[u8]) -> Option<Vec<u8>> {
    let view = view();
    let mut reply = Reply::with_capacity(REPLY_MAX);
    Server::new(&view, 7, 8).answer(request, &mut reply).map(<[u8]>::to_vec)
}

/// The answer without its header, or its error.
fn ask(opcode: u32, node: u64, body: &[u8]) -> Result<Vec<u8>, Errno> {
    let answer = answer(&request(opcode, node, body)).expect("an answer");
    let field = |at: usize| i32::from_ne_bytes(answer[at..at + 4].try_into().unwrap());
    assert_eq!(field(0) as usize, answer.len());
    assert_eq!(u64::from_ne_bytes(answer[8..16].try_into().unwrap()), UNIQUE);
    match field(4) {
        0 => Ok(answer[16..].to_vec()),
        error => {
            assert_eq!(answer.len(), 16, "an error has no body");
            Err(Errno::from_raw_os_error(-error))
        }
    }
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

/// `struct fuse_attr` of a node.
fn attr(node: u64, size: u64, mode: u32, links: u32) -> Vec<u8> {
    let mut bytes: Vec<u8> = [node, size, size.div_ceil(512), MTIME, MTIME, MTIME].map(u64::to_ne_bytes).concat();
    bytes.extend(words(&[0, 0, 0, mode, links, 7, 8, 0, 4096, 0]));
    bytes
}

/// `struct fuse_entry_out` of a node.
fn entry(node: u64, attr: &[u8]) -> Vec<u8> {
    let head = [node, 0, 1 << 40, 1 << 40, 0].map(u64::to_ne_bytes).concat();
    [&head, attr].concat()
}

/// `struct fuse_dirent`.
fn dirent(node: u64, next: u64, kind: u32, name: &str) -> Vec<u8> {
    let mut bytes = [node, next].map(u64::to_ne_bytes).concat();
    bytes.extend(words(&[name.len() as u32, kind]));
    bytes.extend(name.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// `struct fuse_read_in` as READDIR uses it.
fn piece(offset: u64, size: u32) -> Vec<u8> {
    [&0u64.to_ne_bytes()[..], &offset.to_ne_bytes(), &words(&[size, 0, 0, 0, 0, 0])].concat()
}

fn xattr(room: u32, name: &str) -> Vec<u8> {
    [&words(&[room, 0]), name.as_bytes(), b"\0"].concat()
}

#[test]
fn names_and_attributes() {
    let file = attr(4, 1000, 0o100_644, 1);
    assert_eq!(ask(1, 1, b"file\0").unwrap(), entry(4, &file));
    assert_eq!(ask(1, 2, b"x\0").unwrap(), entry(7, &attr(7, 1, 0o100_755, 1)));
    assert_eq!(ask(1, 1, b"dir\0").unwrap(), entry(2, &attr(2, 0, 0o040_700, 2)));
    let missing = [&[0, 0, 1 << 40].map(u64::to_ne_bytes).concat()[..], &[0; 104]].concat();
    assert_eq!(ask(1, 1, b"nothing\0").unwrap(), missing, "a missing name is an answer that is kept");
    assert_eq!(ask(1, 1, b"gone\0").unwrap(), missing);
    assert_eq!(ask(1, 4, b"x\0"), Err(Errno::NOTDIR));
    assert_eq!(ask(1, 99, b"x\0"), Err(Errno::NOENT));
    let valid = [1u64 << 40, 0].map(u64::to_ne_bytes).concat();
    assert_eq!(ask(3, 4, &[0; 16]).unwrap(), [&valid[..], &file].concat());
    assert_eq!(ask(3, 1, &[0; 16]).unwrap()[16..], attr(1, 0, 0o040_755, 3));
    assert_eq!(ask(3, 5, &[0; 16]), Err(Errno::NOENT), "a mask is not there");
    assert_eq!(ask(5, 6, b"").unwrap(), b"dir/x");
    assert_eq!(ask(5, 4, b""), Err(Errno::INVAL));
}

#[test]
fn statx_knows_no_birth() {
    let out = ask(52, 4, &[0; 24]).unwrap();
    assert_eq!(out.len(), 32 + 256);
    assert_eq!(out[32..40], words(&[0x7ff, 4096])[..]);
    assert_eq!(out[48..60], words(&[1, 7, 8])[..]);
    assert_eq!(out[60..62], 0o100_644u16.to_ne_bytes());
    assert_eq!(out[64..88], [4u64, 1000, 2].map(u64::to_ne_bytes).concat()[..]);
    let times: Vec<u64> =
        (0..4).map(|i| u64::from_ne_bytes(out[96 + 16 * i..104 + 16 * i].try_into().unwrap())).collect();
    assert_eq!(times, [MTIME, 0, MTIME, MTIME]);
}

#[test]
fn listings() {
    let all = [
        dirent(1, 1, 4, "."),
        dirent(1, 2, 4, ".."),
        dirent(2, 3, 4, "dir"),
        dirent(3, 4, 8, "empty"),
        dirent(4, 5, 8, "file"),
        dirent(6, 7, 10, "link"),
    ];
    assert_eq!(ask(28, 1, &piece(0, 4096)).unwrap(), all.concat(), "without the mask");
    assert_eq!(ask(28, 1, &piece(3, 4096)).unwrap(), all[3..].concat());
    assert_eq!(ask(28, 1, &piece(5, 4096)).unwrap(), all[5], "from a mask on");
    assert_eq!(ask(28, 1, &piece(7, 4096)).unwrap(), b"");
    assert_eq!(ask(28, 1, &piece(u64::MAX, 4096)).unwrap(), b"");
    assert_eq!(ask(28, 1, &piece(0, 64)).unwrap(), all[..2].concat(), "no more than there is room for");
    assert_eq!(ask(28, 1, &piece(0, 8)), Err(Errno::INVAL), "nothing at all would be the end");
    assert_eq!(ask(28, 4, &piece(0, 4096)), Err(Errno::NOTDIR));
    let plus = ask(44, 1, &piece(0, 4096)).unwrap();
    let expected = [
        vec![0; 128],
        all[0].clone(),
        vec![0; 128],
        all[1].clone(),
        entry(2, &attr(2, 0, 0o040_700, 2)),
        all[2].clone(),
        entry(3, &attr(3, 0, 0o100_644, 1)),
        all[3].clone(),
        entry(4, &attr(4, 1000, 0o100_644, 1)),
        all[4].clone(),
        entry(6, &attr(6, 5, 0o120_777, 1)),
        all[5].clone(),
    ];
    assert_eq!(plus, expected.concat());
}

#[test]
fn where_the_data_is() {
    let text = Digest::of(&[b'y'; 1000]).to_string();
    let place = format!("/{}/{}", &text[..2], &text[2..]);
    let names = b"user.overlay.metacopy\0user.overlay.redirect\0";
    assert_eq!(ask(22, 4, &xattr(0, "user.overlay.redirect")).unwrap(), words(&[58, 0]));
    assert_eq!(ask(22, 4, &xattr(58, "user.overlay.redirect")).unwrap(), place.as_bytes());
    assert_eq!(ask(22, 4, &xattr(57, "user.overlay.redirect")), Err(Errno::RANGE));
    assert_eq!(ask(22, 4, &xattr(0, "user.overlay.metacopy")).unwrap(), words(&[0, 0]));
    assert_eq!(ask(22, 4, &xattr(9, "user.overlay.metacopy")).unwrap(), b"");
    assert_eq!(ask(22, 4, &xattr(9, "security.capability")), Err(Errno::NODATA));
    assert_eq!(ask(23, 4, &words(&[0, 0])).unwrap(), words(&[names.len() as u32, 0]));
    assert_eq!(ask(23, 4, &words(&[100, 0])).unwrap(), names);
    assert_eq!(ask(23, 4, &words(&[43, 0])), Err(Errno::RANGE));
    for node in [1, 3, 6] {
        assert_eq!(ask(22, node, &xattr(99, "user.overlay.redirect")), Err(Errno::NODATA), "node {node}");
        assert_eq!(ask(23, node, &words(&[100, 0])).unwrap(), b"");
    }
    assert_eq!(ask(15, 3, &piece(0, 4096)).unwrap(), b"", "an empty file can be read");
    assert_eq!(ask(15, 4, &piece(0, 4096)), Err(Errno::IO));
    assert_eq!(ask(15, 1, &piece(0, 4096)), Err(Errno::ISDIR));
}

#[test]
fn the_handshake() {
    let offer = words(&[7, 44, 131_072, u32::MAX, u32::MAX]);
    let flags = 1 | 1 << 13 | 1 << 17 | 1 << 18 | 1 << 22 | 1 << 23 | 1 << 24 | 1 << 30;
    let mut expected = words(&[7, 40, 131_072, flags, 0, 4096, 1, 32, 0]);
    expected.resize(64, 0);
    assert_eq!(ask(26, 0, &offer).unwrap(), expected);
    let modest = ask(26, 0, &words(&[7, 31, 0, 1 << 13])).unwrap();
    assert_eq!(modest[..16], words(&[7, 31, 0, 1 << 13])[..], "no more than was offered");
    assert_eq!(ask(26, 0, &words(&[8, 0])).unwrap()[..8], words(&[7, 40])[..]);
    assert_eq!(ask(26, 0, &words(&[6, 0])), Err(Errno::PROTO));
}

#[test]
fn what_is_refused_and_what_is_not_answered() {
    for opcode in [4, 6, 8, 9, 10, 11, 12, 13, 16, 21, 24, 35, 43, 45, 47, 51] {
        assert_eq!(ask(opcode, 4, &[0; 64]), Err(Errno::ROFS), "opcode {opcode}");
    }
    for opcode in [14, 20, 25, 27, 30, 34, 37, 39, 40, 46, 48, 49, 50, 53, 4096, u32::MAX] {
        assert_eq!(ask(opcode, 4, &[0; 64]), Err(Errno::NOSYS), "opcode {opcode}");
    }
    for opcode in [2, 36, 41, 42] {
        assert_eq!(answer(&request(opcode, 4, &[0; 64])), None, "opcode {opcode}");
    }
    for opcode in [18, 29, 38] {
        assert_eq!(ask(opcode, 4, &[0; 64]).unwrap(), b"", "opcode {opcode}");
    }
    assert_eq!(ask(17, 1, b"").unwrap()[..40], [1u64, 0, 0, 7, 0].map(u64::to_ne_bytes).concat()[..]);
    assert_eq!(ask(17, 1, b"").unwrap().len(), 80);
}

#[test]
fn requests_that_are_cut_short() {
    assert_eq!(answer(&[]), None);
    assert_eq!(answer(&request(3, 1, b"")[..39]), None, "nobody to answer to");
    for (opcode, body) in [(1, &b"no end"[..]), (1, b""), (22, &[0; 8]), (22, &[0; 3]), (23, b""), (28, &[0; 19])] {
        assert_eq!(ask(opcode, 1, body), Err(Errno::INVAL), "opcode {opcode}");
    }
    let mut longer = request(3, 1, &[0; 16]);
    longer.push(0);
    assert_eq!(answer(&longer).unwrap()[4..8], (-22i32).to_ne_bytes(), "its length is not what it says");
}

#[test]
fn resending_is_a_bare_notification() {
    assert_eq!(reply::notification(protocol::NOTIFY_RESEND)[..], words(&[16, 7, 0, 0]));
}

proptest! {
    /// Whatever comes, the answer is well-formed, in its bounds, and made without allocating.
    #[test]
    fn any_request_is_survived(opcode in 0u32..60, node in 0u64..10, body in prop::collection::vec(any::<u8>(), 0..80), cut in 0usize..120) {
        let mut bytes = request(opcode, node, &body);
        bytes.truncate(cut.max(bytes.len().saturating_sub(cut)));
        let view = view();
        let mut reply = Reply::with_capacity(REPLY_MAX);
        let server = Server::new(&view, 7, 8);
        if let Some(answer) = server.answer(&bytes, &mut reply) {
            prop_assert!(answer.len() >= 16 && answer.len() <= REPLY_MAX);
            prop_assert_eq!(u32::from_ne_bytes(answer[..4].try_into().unwrap()) as usize, answer.len());
        }
        prop_assert!(reply.capacity() == REPLY_MAX);
    }

    /// A listing read in pieces of any size is the same listing.
    #[test]
    fn pieces_of_a_listing_fit_together(sizes in prop::collection::vec(24u32..400, 1..20), plus in any::<bool>()) {
        let opcode = if plus { 44 } else { 28 };
        let (mut names, mut offset) = (Vec::new(), 0);
        for size in sizes.into_iter().cycle().take(200) {
            let Ok(piece) = ask(opcode, 1, &piece(offset, size)) else { continue };
            prop_assert!(piece.len() <= size as usize);
            let mut rest = &piece[..];
            while !rest.is_empty() {
                rest = &rest[if plus { 128 } else { 0 }..];
                let length = u32::from_ne_bytes(rest[16..20].try_into().unwrap()) as usize;
                offset = u64::from_ne_bytes(rest[8..16].try_into().unwrap());
                names.push(String::from_utf8(rest[24..24 + length].to_vec()).unwrap());
                rest = &rest[(24 + length).next_multiple_of(8)..];
            }
        }
        let all = [".", "..", "dir", "empty", "file", "link"];
        prop_assert!(names.iter().map(String::as_str).eq(all.into_iter().take(names.len())));
    }
}
