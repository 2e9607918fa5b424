//! Properties of encodings and of the nested form, over made-up objects.
#![allow(clippy::unwrap_used)]

use jiff::Timestamp;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use spfs_repo::manifest::Index;
use spfs_repo::{
    Annotation, AnnotationValue, Blob, Digest, Dir, Encoding, Format, Layer, Manifest, Node, Object, ObjectBody,
    Platform, Strategy as Hashing, Tag, codec,
};

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest::from_bytes)
}

fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9 ._~é\u{1F600}-]{1,12}".prop_filter("no name", |name| name != "." && name != "..")
}

fn node() -> impl Strategy<Value = Node> {
    let modes = prop_oneof![Just(0o100644), Just(0o100755), Just(0o120777), Just(0o104755), Just(0o600)];
    let leaf = prop_oneof![
        4 => (digest(), modes, any::<u64>()).prop_map(|(digest, mode, size)| Node::Blob { digest, mode, size }),
        1 => any::<u32>().prop_map(|mode| Node::Mask { mode }),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        let mode = prop_oneof![Just(0o40755), Just(0o41777), Just(0o700)];
        (mode, btree_map(name(), inner, 0..6)).prop_map(|(mode, entries)| Node::Dir { mode, dir: Dir { entries } })
    })
}

fn dir() -> impl Strategy<Value = Dir> {
    btree_map(name(), node(), 0..6).prop_map(|entries| Dir { entries })
}

fn layer() -> impl Strategy<Value = Layer> {
    let text = "[^\\x00]{0,20}";
    let value = prop_oneof![text.prop_map(AnnotationValue::Text), digest().prop_map(AnnotationValue::Blob)];
    let annotation = (text, value).prop_map(|(key, value)| Annotation { key, value });
    (proptest::option::of(digest()), vec(annotation, 0..4))
        .prop_map(|(manifest, annotations)| Layer { manifest, annotations })
        .prop_filter("empty", |layer| layer.manifest.is_some() || !layer.annotations.is_empty())
}

fn body() -> impl Strategy<Value = ObjectBody> {
    prop_oneof![
        (digest(), any::<u64>()).prop_map(|(payload, size)| ObjectBody::Blob(Blob { payload, size })),
        layer().prop_map(ObjectBody::Layer),
        vec(digest(), 0..9).prop_map(|stack| ObjectBody::Platform(Platform { stack })),
        dir().prop_map(|dir| ObjectBody::Manifest(Manifest::from_dir(&dir))),
    ]
}

fn tag() -> impl Strategy<Value = Tag> {
    let fraction = prop_oneof![Just(1), Just(1_000), Just(1_000_000), Just(1_000_000_000)];
    let seconds = -62_135_596_800_i64..253_402_207_200;
    let time = (seconds, 0..1_000_000_000_i32, fraction)
        .prop_map(|(second, nano, unit)| Timestamp::new(second, nano / unit * unit).unwrap());
    ("[a-z0-9._-]{1,6}x(/[a-z]{1,5}){0,3}", digest(), digest(), "[^\\x00]{0,12}", time)
        .prop_map(|(name, target, parent, user, time)| Tag { name: name.parse().unwrap(), target, parent, user, time })
}

proptest! {
    #[test]
    fn encodings_keep_objects_and_digests(body in body(), old in any::<bool>()) {
        let strategy = if old { Hashing::Legacy } else { Hashing::WithKindAndSalt };
        let annotated = matches!(&body, ObjectBody::Layer(l) if !l.annotations.is_empty());
        for encoding in [Encoding::FlatBuffers, Encoding::Legacy] {
            let object = Object { format: Format { strategy, encoding }, body: body.clone() };
            let bytes = match codec::encode(&object) {
                Err(_) if annotated && encoding == Encoding::Legacy => continue,
                other => other.unwrap(),
            };
            let again = codec::decode(&bytes).unwrap();
            prop_assert_eq!(&again, &object);
            let flat = Object { format: Format { strategy, encoding: Encoding::FlatBuffers }, body: body.clone() };
            prop_assert_eq!(codec::digest(&again).unwrap(), codec::digest(&flat).unwrap());
        }
    }

    #[test]
    fn nested_form_and_manifest_are_the_same(dir in dir()) {
        let manifest = Manifest::from_dir(&dir);
        let again = manifest.to_dir().unwrap();
        prop_assert_eq!(&again, &dir);
        prop_assert_eq!(Manifest::from_dir(&again), manifest.clone());
        let index = Index::new(&manifest);
        prop_assert_eq!(index.paths().count(), dir.count());
        for (path, entry) in index.paths() {
            prop_assert_eq!(dir.get(&path).unwrap().mode(), entry.mode);
            prop_assert_eq!(manifest.lookup(&format!("/{path}")), Some(entry));
        }
    }

    #[test]
    fn tag_streams_round_trip(tags in vec(tag(), 0..5)) {
        let bytes = codec::tag::encode_stream(&tags);
        prop_assert_eq!(codec::tag::decode_stream(&bytes).unwrap(), tags);
    }
}
