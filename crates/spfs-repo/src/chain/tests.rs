//! Tests of chains: which repository answers, what a fallback repairs.
#![allow(clippy::unwrap_used)]
use std::sync::Mutex;

use jiff::Timestamp;

use super::*;
use crate::directory::Directory;
use crate::manifest::{Dir, Manifest, Node};
use crate::object::{Blob, Layer, Platform};

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        // In memory: what is durable is the directory's matter.
        Place(tempfile::tempdir_in("/dev/shm").unwrap())
    }

    fn repository(&self, name: &str) -> Arc<Directory> {
        Arc::new(Directory::create(self.0.path().join(name)).unwrap())
    }
}

fn tag(name: &str, target: Digest) -> Tag {
    let time = Timestamp::from_second(1_000_000_000).unwrap();
    Tag { name: name.parse().unwrap(), target, parent: Digest::NULL, user: "me@host".to_owned(), time }
}

/// Stores a platform of one layer of two files, and returns the platform's and one file's digest.
fn store(repository: &dyn Repository, seed: &str) -> (Digest, Digest) {
    let batch = repository.begin().unwrap();
    let mut dir = Dir::default();
    let mut last = Digest::NULL;
    for name in ["a", "b"] {
        let content = format!("{seed} {name}");
        let (payload, size) = batch.add_payload(&mut content.as_bytes(), None).unwrap();
        last = batch.add_object(&Object::new(Blob { payload, size })).unwrap();
        dir.entries.insert(name.to_owned(), Node::Blob { digest: last, mode: 0o100644, size });
    }
    let manifest = batch.add_object(&Object::new(Manifest::from_dir(&dir))).unwrap();
    let layer = batch.add_object(&Object::new(Layer { manifest: Some(manifest), annotations: Vec::new() })).unwrap();
    let platform = batch.add_object(&Object::new(Platform { stack: vec![layer] })).unwrap();
    batch.finish().unwrap();
    (platform, last)
}

fn read(repository: &dyn Repository, digest: &Digest) -> Vec<u8> {
    let mut content = Vec::new();
    repository.open_payload(digest).unwrap().read_to_end(&mut content).unwrap();
    content
}

/// The number of objects that `top` consists of, all of them read from `repository`.
fn walk(repository: &dyn Repository, top: Digest) -> usize {
    let mut waiting = vec![top];
    let mut seen = BTreeSet::new();
    while let Some(digest) = waiting.pop() {
        let object = repository.read_object(&digest).unwrap();
        waiting.extend(object.children());
        seen.insert(digest);
    }
    seen.len()
}

#[test]
fn chains_conform() {
    let place = Place::new();
    let mut count = 0;
    let mut make = |repair: bool, deep: bool| -> Box<dyn Repository> {
        count += 1;
        let repository = |name: &str| -> Arc<dyn Repository> { place.repository(&format!("{count}/{name}")) };
        let mut chain = Chain::new(repository("a"), vec![repository("b"), repository("c")]);
        if deep {
            let second = Chain::new(repository("d"), vec![repository("e")]);
            chain = Chain::new(Arc::new(chain), vec![Arc::new(second)]);
        }
        Box::new(if repair { chain.repairing(|_| ()) } else { chain })
    };
    crate::conformance::run(&mut || make(false, false));
    crate::conformance::run(&mut || make(true, true));
}

#[test]
fn what_the_primary_lacks_comes_from_behind() {
    let place = Place::new();
    let (a, b, c) = (place.repository("a"), place.repository("b"), place.repository("c"));
    let (top, file) = store(&*c, "far");
    let inner = Chain::new(b.clone(), vec![c.clone()]);
    let chain = Chain::new(a.clone(), vec![Arc::new(inner)]);
    assert_eq!(walk(&chain, top), 5);
    assert_eq!(read(&chain, &file), b"far b");
    let nowhere = Digest::of(b"nowhere");
    assert_eq!(chain.missing(&[top, nowhere, file]).unwrap(), [nowhere]);
    assert_eq!(chain.missing_payloads(&[nowhere, file]).unwrap(), [nowhere]);
    assert_eq!(chain.find(&DigestPrefix::any()).unwrap(), [], "prefixes concern the primary");
    assert!(matches!(chain.read_object(&nowhere), Err(Error::UnknownObject(d)) if d == nowhere));
    assert!(a.objects().unwrap().is_empty() && b.objects().unwrap().is_empty(), "a plain chain copies nothing");
    chain.remove_object(&top).unwrap();
    c.read_object(&top).unwrap();
}

#[test]
fn what_is_added_brings_along_what_it_refers_to() {
    let place = Place::new();
    let (a, b) = (place.repository("a"), place.repository("b"));
    let (top, file) = store(&*b, "behind");
    let chain = Chain::new(a.clone(), vec![b]);
    let batch = chain.begin().unwrap();
    let own = batch.add_object(&Object::new(Manifest::default())).unwrap();
    let layer = batch.add_object(&Object::new(Layer { manifest: Some(own), annotations: Vec::new() })).unwrap();
    let platform = batch.add_object(&Object::new(Platform { stack: vec![top, layer] })).unwrap();
    batch.finish().unwrap();
    assert_eq!(walk(&*a, platform), 8);
    assert_eq!(read(&*a, &file), b"behind b");
}

#[test]
fn a_repairing_chain_copies_and_says_so() {
    let place = Place::new();
    let (a, b) = (place.repository("a"), place.repository("b"));
    let (top, file) = store(&*b, "kept");
    store(&*a, "kept");
    a.remove_payload(&file).unwrap();
    a.remove_object(&top).unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let sink = heard.clone();
    let chain = Chain::new(a.clone(), vec![b.clone()]).repairing(move |repair| {
        assert!(repair.error.is_none(), "{:?}", repair.error);
        sink.lock().unwrap().push((repair.digest, repair.is_payload, repair.from.clone()));
    });
    assert_eq!(read(&chain, &file), b"kept b");
    chain.read_object(&top).unwrap();
    assert_eq!(*heard.lock().unwrap(), [(file, true, b.address()), (top, false, b.address())]);
    assert_eq!(walk(&*a, top), 5);
    assert_eq!(read(&*a, &file), b"kept b");
    assert!(chain.address().starts_with("fallback:?primary=file:///"), "{}", chain.address());
}

#[test]
fn a_damaged_payload_is_not_copied() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    let (a, b, c) = (place.repository("a"), place.repository("b"), place.repository("c"));
    let (_, file) = store(&*b, "x");
    store(&*c, "x");
    let path = b.payload_path(&file);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(&path, "y b").unwrap();
    let chain = Chain::new(a.clone(), vec![b.clone(), c]).repairing(|_| ());
    assert_eq!(read(&chain, &file), b"x b", "the next one has it undamaged");
    a.remove_payload(&file).unwrap();
    let said = Arc::new(Mutex::new(String::new()));
    let sink = said.clone();
    let chain = Chain::new(a.clone(), vec![b])
        .repairing(move |repair| *sink.lock().unwrap() = repair.error.as_ref().unwrap().to_string());
    let _ = chain.open_payload(&file).unwrap();
    assert!(said.lock().unwrap().contains("damaged"), "{}", said.lock().unwrap());
    assert!(a.payloads().unwrap().is_empty());
}

#[test]
fn tags_of_all_are_shown_and_those_of_the_first_win() {
    let place = Place::new();
    let (a, b) = (place.repository("a"), place.repository("b"));
    let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
    a.push_tag(&tag("both", one)).unwrap();
    for name in ["both", "o/behind"] {
        b.push_tag(&tag(name, two)).unwrap();
    }
    let names = |chain: &Chain| chain.tag_names().unwrap().iter().map(|n| n.to_string()).collect::<Vec<_>>();
    let chain = Chain::new(a.clone(), vec![b.clone()]);
    assert_eq!(names(&chain), ["both", "o/behind"]);
    assert_eq!(chain.list_tags("").unwrap(), [TagListing::Folder("o".to_owned()), TagListing::Tag("both".to_owned())]);
    let target = |name: &str| chain.history(&name.parse().unwrap()).unwrap()[0].target;
    assert_eq!((target("both"), target("o/behind")), (one, two));
    let hidden = Chain::new(a.clone(), vec![b]).with_secondary_tags(false);
    assert_eq!(names(&hidden), ["both"]);
    assert_eq!(hidden.list_tags("o").unwrap(), []);
    assert_eq!(hidden.history(&"o/behind".parse().unwrap()).unwrap().len(), 1, "by name it is found");
    hidden.push_tag(&tag("o/behind", one)).unwrap();
    assert_eq!(a.history(&"o/behind".parse().unwrap()).unwrap()[0].target, one, "written to the first");
}

#[test]
fn a_secondary_in_trouble_matters_only_when_nobody_else_knows() {
    let place = Place::new();
    let (a, b, c) = (place.repository("a"), place.repository("b"), place.repository("c"));
    let (top, file) = store(&*c, "x");
    let (path, name) = (b.object_path(&top), "t".parse().unwrap());
    // Damaged in one: the answer is elsewhere.
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "--SPFS--\n").unwrap();
    std::fs::write(b.root().join("tags/t.tag"), "no tag").unwrap();
    let chain = Chain::new(a.clone(), vec![b.clone(), c.clone()]);
    chain.read_object(&top).unwrap();
    c.push_tag(&tag("t", top)).unwrap();
    assert_eq!(chain.history(&name).unwrap().len(), 1);
    // The only one that could know.
    let chain = Chain::new(a, vec![b]);
    assert!(matches!(chain.read_object(&top), Err(Error::Corrupt { .. })));
    assert!(matches!(chain.history(&name), Err(Error::Corrupt { .. })));
    assert!(matches!(chain.read_object(&file), Err(Error::UnknownObject(_))));
}

#[test]
fn an_address_holds_its_parts() {
    let place = Place::new();
    let spaced = Arc::new(place.repository("b").as_ref().clone().with_namespace(Some("space")).unwrap());
    let chain = Chain::new(place.repository("a"), vec![spaced]).with_secondary_tags(false);
    let root = place.0.path().canonicalize().unwrap();
    let root = root.display();
    assert_eq!(
        chain.address(),
        format!(
            "proxy:?primary=file://{root}/a/&secondary[0]=file://{root}/b/%3Ftag_namespace%3Dspace&include_secondary_tags=false"
        )
    );
}
