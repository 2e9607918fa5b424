//! What every repository must do: one suite, run over each kind.
//!
//! ```text
//! #[test]
//! fn conforms() {
//!     spfs_repo::conformance::run(&mut || Box::new(new_empty_repository()));
//! }
//! ```
//!
//! Every case gets an empty repository of its own, and panics where the contract of [`Repository`] is broken.
#![allow(clippy::unwrap_used)]

mod tags;

use std::collections::HashSet;
use std::io::Read;

use crate::codec;
use crate::digest::{Digest, DigestPrefix};
use crate::error::Error;
use crate::manifest::{Dir, Manifest, Node};
use crate::object::{
    Annotation, AnnotationValue, Blob, Encoding, Format, Layer, Object, ObjectBody, Platform, Strategy,
};
use crate::repository::{Batch, Repository};

/// One case of the suite.
type Case = fn(&dyn Repository);

/// The cases about objects, payloads and batches.
const CONTENT: &[(&str, Case)] = &[
    ("an empty repository has nothing", empty),
    ("payloads come back as they went in", payloads),
    ("every kind of object in every format comes back as it went in", objects),
    ("content is verified on its way in", verification),
    ("a batch that is dropped leaves nothing", dropped_batch),
    ("an object without its children is refused", present_means_complete),
    ("the order of a batch is free as long as children come first", deep_batch),
    ("adding again changes nothing", idempotent),
    ("what is missing is told in the given order", missing),
    ("many objects and payloads are read at once", many_at_once),
    ("a payload is read from any offset", offsets),
    ("prefixes find every match and only matches", find),
    ("what is removed is gone", removal),
    ("many threads fill one batch", threads_in_a_batch),
    ("two batches may hold the same content", two_batches),
    ("a reader that fails leaves the batch usable", failing_reader),
];

/// Runs the whole suite; `make` makes an empty repository each time.
pub fn run(make: &mut dyn FnMut() -> Box<dyn Repository>) {
    run_content(make);
    run_cases(tags::CASES, make);
}

/// Runs only the part about objects and payloads: for repositories whose tags cannot be changed.
pub fn run_content(make: &mut dyn FnMut() -> Box<dyn Repository>) {
    run_cases(CONTENT, make);
}

/// Runs the suite but for the cases with these names, which a repository cannot satisfy by its nature.
pub fn run_without(except: &[&str], make: &mut dyn FnMut() -> Box<dyn Repository>) {
    let all = || CONTENT.iter().chain(tags::CASES).copied();
    assert!(except.iter().all(|name| all().any(|(known, _)| known == *name)), "there is no such case");
    let cases: Vec<(&str, Case)> = all().filter(|(name, _)| !except.contains(name)).collect();
    run_cases(&cases, make);
}

fn run_cases(cases: &[(&str, Case)], make: &mut dyn FnMut() -> Box<dyn Repository>) {
    for (name, case) in cases {
        // Shown by the test harness if the case panics.
        println!("conformance: {name}");
        case(&*make());
    }
}

fn empty(repository: &dyn Repository) {
    let digest = Digest::of(b"nothing");
    assert!(matches!(repository.read_object(&digest), Err(Error::UnknownObject(d)) if d == digest));
    assert!(matches!(repository.open_payload(&digest).err(), Some(Error::MissingPayload(d)) if d == digest));
    assert_eq!(repository.missing(&[digest]).unwrap(), [digest]);
    assert_eq!(repository.missing_payloads(&[digest]).unwrap(), [digest]);
    assert_eq!(repository.find(&DigestPrefix::any()).unwrap(), []);
    assert_eq!(repository.payloads().unwrap(), []);
    assert!(!repository.address().is_empty());
    repository.begin().unwrap().finish().unwrap();
}

fn payloads(repository: &dyn Repository) {
    // Around the sizes at which implementations change their ways.
    let sizes = [0, 1, 4095, 256 * 1024 - 1, 256 * 1024, 256 * 1024 + 1, 3 << 20];
    let contents: Vec<Vec<u8>> = sizes.iter().map(|size| noise(*size)).collect();
    let mut with_hole = noise(300 * 1024);
    with_hole.resize(2 << 20, 0);
    let all: Vec<&Vec<u8>> = contents.iter().chain([&with_hole]).collect();
    let batch = repository.begin().unwrap();
    for content in &all {
        let added = batch.add_payload(&mut &content[..], None).unwrap();
        assert_eq!(added, (Digest::of(content), content.len() as u64));
        add_blob(&*batch, added);
    }
    batch.finish().unwrap();
    for content in &all {
        assert_eq!(read_payload(repository, &Digest::of(content)), **content);
    }
    let mut sorted: Vec<Digest> = all.iter().map(|content| Digest::of(content)).collect();
    sorted.sort();
    assert_eq!(repository.payloads().unwrap(), sorted);
}

fn objects(repository: &dyn Repository) {
    for strategy in [Strategy::WithKindAndSalt, Strategy::Legacy] {
        for encoding in [Encoding::FlatBuffers, Encoding::Legacy] {
            let format = Format { strategy, encoding };
            let object = |body: ObjectBody| Object { format, body };
            let batch = repository.begin().unwrap();
            let (payload, size) = add_payload(&*batch, format!("{format:?}").as_bytes());
            let blob = object(Blob { payload, size }.into());
            let tree = Dir {
                entries: [
                    ("file".to_owned(), Node::Blob { digest: payload, mode: 0o100644, size }),
                    ("gone".to_owned(), Node::Mask { mode: 0o020000 }),
                    ("sub".to_owned(), Node::Dir { mode: 0o040755, dir: Dir::default() }),
                ]
                .into(),
            };
            let manifest = object(Manifest::from_dir(&tree).into());
            let annotations = vec![
                Annotation { key: "k".to_owned(), value: AnnotationValue::Text("v".to_owned()) },
                Annotation { key: "long".to_owned(), value: AnnotationValue::Blob(payload) },
            ];
            let annotations = if encoding == Encoding::Legacy { Vec::new() } else { annotations };
            let layer = object(Layer { manifest: Some(codec::digest(&manifest).unwrap()), annotations }.into());
            let digest = codec::digest(&layer).unwrap();
            let platform = object(Platform { stack: vec![digest] }.into());
            let all = [blob, manifest, layer, platform];
            let digests: Vec<Digest> = all.iter().map(|object| batch.add_object(object).unwrap()).collect();
            assert_eq!(repository.missing(&digests).unwrap(), digests, "nothing is visible before the end");
            batch.finish().unwrap();
            for (object, digest) in all.iter().zip(&digests) {
                assert_eq!(codec::digest(object).unwrap(), *digest);
                assert_eq!(repository.read_object(digest).unwrap(), *object);
            }
        }
    }
}

fn verification(repository: &dyn Repository) {
    let batch = repository.begin().unwrap();
    for size in [5, 600 * 1024] {
        let (good, bad) = (noise(size), noise(size + 1));
        let digest = Digest::of(&good);
        let error = batch.add_payload(&mut &bad[..], Some(&digest)).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
        assert!(error.to_string().contains(&digest.to_string()), "{error}");
    }
    // The batch is as good as before.
    let content = noise(7);
    let added = batch.add_payload(&mut &content[..], Some(&Digest::of(&content))).unwrap();
    add_blob(&*batch, added);
    batch.finish().unwrap();
    assert_eq!(repository.payloads().unwrap(), [Digest::of(&content)], "what was refused is not kept");
}

fn dropped_batch(repository: &dyn Repository) {
    let batch = repository.begin().unwrap();
    let small = add_payload(&*batch, b"small");
    add_blob(&*batch, small);
    add_payload(&*batch, &noise(600 * 1024));
    drop(batch);
    assert_eq!(repository.payloads().unwrap(), []);
    assert_eq!(repository.find(&DigestPrefix::any()).unwrap(), []);
}

fn present_means_complete(repository: &dyn Repository) {
    let absent = Digest::of(b"absent");
    let batch = repository.begin().unwrap();
    let tree = Dir { entries: [("f".to_owned(), Node::Blob { digest: absent, mode: 0o100644, size: 6 })].into() };
    let refused: [ObjectBody; 5] = [
        Blob { payload: absent, size: 6 }.into(),
        Manifest::from_dir(&tree).into(),
        Layer { manifest: Some(absent), annotations: Vec::new() }.into(),
        Layer {
            manifest: None,
            annotations: vec![Annotation { key: "k".to_owned(), value: AnnotationValue::Blob(absent) }],
        }
        .into(),
        Platform { stack: vec![absent] }.into(),
    ];
    for body in refused {
        let error = batch.add_object(&Object::new(body)).unwrap_err();
        assert!(error.is_unknown() && error.to_string().contains(&absent.to_string()), "{error:?}");
    }
    batch.finish().unwrap();
    assert_eq!(repository.find(&DigestPrefix::any()).unwrap(), []);
}

fn deep_batch(repository: &dyn Repository) {
    let batch = repository.begin().unwrap();
    let mut below = batch.add_object(&Object::new(Manifest::default())).unwrap();
    below = batch.add_object(&Object::new(Layer { manifest: Some(below), annotations: Vec::new() })).unwrap();
    for _ in 0..5 {
        below = batch.add_object(&Object::new(Platform { stack: vec![below] })).unwrap();
    }
    batch.finish().unwrap();
    // Children of a later batch may be in the repository already.
    let batch = repository.begin().unwrap();
    let top = batch.add_object(&Object::new(Platform { stack: vec![below, below] })).unwrap();
    batch.finish().unwrap();
    let mut walk = vec![top];
    let mut seen = HashSet::new();
    while let Some(digest) = walk.pop() {
        seen.insert(digest);
        walk.extend(repository.read_object(&digest).unwrap().children());
    }
    assert_eq!(seen.len(), 8);
}

fn idempotent(repository: &dyn Repository) {
    let add = || {
        let batch = repository.begin().unwrap();
        let added = add_payload(&*batch, b"again");
        assert_eq!(add_payload(&*batch, b"again"), added);
        add_blob(&*batch, added);
        add_blob(&*batch, added);
        batch.finish().unwrap();
        added.0
    };
    let digest = add();
    assert_eq!(add(), digest);
    assert_eq!(repository.payloads().unwrap(), [digest]);
    assert_eq!(repository.find(&DigestPrefix::any()).unwrap(), [digest]);
    assert_eq!(read_payload(repository, &digest), b"again");
}

fn missing(repository: &dyn Repository) {
    let here = store_many(repository, 40);
    // Few and many, because implementations may ask differently.
    for count in [3usize, 2500] {
        let absent: Vec<Digest> = (0..count).map(|n| Digest::of(format!("absent {n}").as_bytes())).collect();
        let mut asked = absent.clone();
        for (n, digest) in here.iter().enumerate() {
            asked.insert((n * 2).min(asked.len()), *digest);
        }
        assert_eq!(repository.missing(&asked).unwrap(), absent);
        assert_eq!(repository.missing_payloads(&asked).unwrap(), absent);
    }
    assert_eq!(repository.missing(&[]).unwrap(), []);
    assert_eq!(repository.missing(&here).unwrap(), []);
}

fn many_at_once(repository: &dyn Repository) {
    let mut here = store_many(repository, 250);
    let large = noise(3 << 20);
    let batch = repository.begin().unwrap();
    add_blob(&*batch, add_payload(&*batch, &large));
    add_blob(&*batch, add_payload(&*batch, b""));
    batch.finish().unwrap();
    here.insert(3, Digest::of(&large));
    here.insert(5, Digest::of(b""));
    let encoded = |wanted: &[Digest]| {
        let mut seen = Vec::new();
        let result = repository.read_encoded(wanted, &mut |digest, object| {
            assert_eq!(object.digest(), *digest);
            assert_eq!(codec::digest(&object.object().unwrap()).unwrap(), *digest);
            seen.push(*digest);
            Ok(())
        });
        (seen, result)
    };
    assert_eq!(encoded(&here).0, here, "in the given order");
    let read = |wanted: &[Digest], most: u64| {
        let mut seen = Vec::new();
        let result = repository.read_payloads(wanted, &mut |digest, content| {
            let mut bytes = Vec::new();
            content.take(most).read_to_end(&mut bytes).unwrap();
            assert!(most < u64::MAX || Digest::of(&bytes) == *digest);
            seen.push(*digest);
            Ok(())
        });
        (seen, result)
    };
    assert_eq!(read(&here, u64::MAX).0, here);
    // Readers that are left in the middle.
    assert_eq!(read(&here, 3).0, here);
    let absent = Digest::of(b"absent");
    here.insert(10, absent);
    let (seen, result) = encoded(&here);
    assert!(matches!(result, Err(Error::UnknownObject(d)) if d == absent), "{result:?}");
    assert_eq!(seen, here[..10]);
    let (seen, result) = read(&here, u64::MAX);
    assert!(matches!(result, Err(Error::MissingPayload(d)) if d == absent));
    assert_eq!(seen, here[..10]);
    let mut calls = 0;
    let result = repository.read_payloads(&here, &mut |_, _| {
        calls += 1;
        Err(Error::Interrupted)
    });
    assert!(matches!(result, Err(Error::Interrupted)));
    assert_eq!(calls, 1, "an error of the caller ends it");
    repository.read_payloads(&[], &mut |_, _| Err(Error::Interrupted)).unwrap();
    repository.read_encoded(&[], &mut |_, _| Err(Error::Interrupted)).unwrap();
}

fn offsets(repository: &dyn Repository) {
    let content = noise(700 * 1024);
    let digest = Digest::of(&content);
    let batch = repository.begin().unwrap();
    add_blob(&*batch, add_payload(&*batch, &content));
    batch.finish().unwrap();
    for offset in [0, 1, 300 * 1024, content.len() - 1, content.len(), content.len() + 5] {
        let mut rest = Vec::new();
        repository.open_payload_at(&digest, offset as u64).unwrap().read_to_end(&mut rest).unwrap();
        assert_eq!(rest, content.get(offset..).unwrap_or_default(), "from {offset}");
    }
    let absent = Digest::of(b"absent");
    assert!(matches!(repository.open_payload_at(&absent, 5).err(), Some(Error::MissingPayload(d)) if d == absent));
}

fn find(repository: &dyn Repository) {
    let mut here = store_many(repository, 60);
    here.sort();
    assert_eq!(repository.find(&DigestPrefix::any()).unwrap(), here);
    for length in [1, 2, 3, 10, 52] {
        let text = here[7].short(length);
        let prefix: DigestPrefix = text.parse().unwrap();
        let expected: Vec<Digest> = here.iter().copied().filter(|d| d.to_string().starts_with(&text)).collect();
        assert_eq!(repository.find(&prefix).unwrap(), expected, "{text}");
    }
    let absent = Digest::of(b"absent").short(20).parse().unwrap();
    assert_eq!(repository.find(&absent).unwrap(), []);
}

fn removal(repository: &dyn Repository) {
    let here = store_many(repository, 2);
    repository.remove_object(&here[0]).unwrap();
    assert!(matches!(repository.read_object(&here[0]), Err(Error::UnknownObject(_))));
    assert_eq!(read_payload(repository, &here[0]), b"many 0", "the payload stays");
    repository.remove_payload(&here[0]).unwrap();
    assert!(matches!(repository.open_payload(&here[0]).err(), Some(Error::MissingPayload(_))));
    repository.remove_object(&here[0]).unwrap();
    repository.remove_payload(&here[0]).unwrap();
    assert_eq!(repository.payloads().unwrap(), [here[1]]);
    store_many(repository, 2);
    assert_eq!(read_payload(repository, &here[0]), b"many 0", "it can come again");
}

fn threads_in_a_batch(repository: &dyn Repository) {
    let batch = repository.begin().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let batch = &*batch;
            scope.spawn(move || {
                for n in 0..50 {
                    // Every thread adds half of the others' content too.
                    let added = add_payload(batch, format!("{} {n}", thread * (n % 2)).as_bytes());
                    add_blob(batch, added);
                }
                let added = add_payload(batch, &noise(600 * 1024));
                add_blob(batch, added);
            });
        }
    });
    batch.finish().unwrap();
    let here = repository.payloads().unwrap();
    assert_eq!(here.len(), 4 * 25 + 25 + 1);
    assert_eq!(repository.find(&DigestPrefix::any()).unwrap(), here);
    for digest in here {
        assert_eq!(Digest::of(&read_payload(repository, &digest)), digest);
    }
}

fn two_batches(repository: &dyn Repository) {
    let (first, second) = (repository.begin().unwrap(), repository.begin().unwrap());
    for batch in [&first, &second] {
        let added = add_payload(&**batch, b"shared");
        add_blob(&**batch, added);
    }
    second.finish().unwrap();
    assert_eq!(read_payload(repository, &Digest::of(b"shared")), b"shared");
    first.finish().unwrap();
    assert_eq!(read_payload(repository, &Digest::of(b"shared")), b"shared");
    assert_eq!(repository.payloads().unwrap().len(), 1);
}

fn failing_reader(repository: &dyn Repository) {
    struct Broken(usize);
    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.0 == 0 {
                return Err(std::io::Error::other("cut"));
            }
            let n = buffer.len().min(self.0);
            self.0 -= n;
            Ok(n)
        }
    }
    let batch = repository.begin().unwrap();
    for length in [10, 700 * 1024] {
        assert!(matches!(batch.add_payload(&mut Broken(length), None), Err(Error::Io { .. })));
    }
    let added = add_payload(&*batch, b"good");
    add_blob(&*batch, added);
    batch.finish().unwrap();
    assert_eq!(repository.payloads().unwrap(), [added.0]);
}

/// Stores `count` small payloads with their blobs.
fn store_many(repository: &dyn Repository, count: usize) -> Vec<Digest> {
    let batch = repository.begin().unwrap();
    let add = |n| {
        let added = add_payload(&*batch, format!("many {n}").as_bytes());
        add_blob(&*batch, added);
        added.0
    };
    let digests = (0..count).map(add).collect();
    batch.finish().unwrap();
    digests
}

fn add_payload(batch: &dyn Batch, content: &[u8]) -> (Digest, u64) {
    let mut content = content;
    batch.add_payload(&mut content, None).unwrap()
}

fn add_blob(batch: &dyn Batch, (payload, size): (Digest, u64)) {
    assert_eq!(batch.add_object(&Object::new(Blob { payload, size })).unwrap(), payload);
}

fn read_payload(repository: &dyn Repository, digest: &Digest) -> Vec<u8> {
    let mut content = Vec::new();
    repository.open_payload(digest).unwrap().read_to_end(&mut content).unwrap();
    content
}

/// Bytes without a pattern, the same for the same size.
fn noise(size: usize) -> Vec<u8> {
    let mut state = size as u64 + 0x9E37_79B9_7F4A_7C15;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..size).map(next).collect()
}
