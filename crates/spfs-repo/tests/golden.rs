//! Golden vectors: digests and bytes that the existing program wrote, checked in both directions.
#![allow(clippy::unwrap_used)]

use spfs_repo::codec;
use spfs_repo::{
    Annotation, AnnotationValue, Blob, Digest, Dir, Encoding, Format, Layer, Manifest, Node, Object, ObjectBody,
    Platform, Strategy, Tag,
};

const F1_BLOB: &str = "QU77SN3CUBW5X5ZCYTV6TXOWNWHWHXNOVF7VEHB6ZQQNU7EXMAQA====";
const F1_MANIFEST: &str = "MIGFM6A22JC7UMNY4S5XGKQC4HICNB357XWHJD3FEVMCDQ5D3SVQ====";
const F1_LAYER: &str = "L2LZ3UZA6YJUHCGLQVRRW34OTW55XT6TWZ5LJGYGZ5XMH52HZ3XA====";
const EMPTY_LAYER: &str = "NBDZ2PLVZ6ZBYW6TDOC4LELMFJAWCIYL64AZE4LR4EG2YRSMRIMA====";

fn d(text: &str) -> Digest {
    text.parse().unwrap()
}

/// Bytes of hex, blanks ignored.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn object(strategy: Strategy, encoding: Encoding, body: impl Into<ObjectBody>) -> Object {
    Object { format: Format { strategy, encoding }, body: body.into() }
}

/// The digest of `body` under strategy 1 and 0; the encodings, where they can hold it, keep it.
fn digests(body: impl Into<ObjectBody>) -> [String; 2] {
    let body = body.into();
    [Strategy::WithKindAndSalt, Strategy::Legacy].map(|strategy| {
        let wanted = codec::digest(&object(strategy, Encoding::FlatBuffers, body.clone())).unwrap();
        for encoding in [Encoding::FlatBuffers, Encoding::Legacy] {
            let object = object(strategy, encoding, body.clone());
            match codec::encode(&object) {
                Ok(bytes) => {
                    let again = codec::decode(&bytes).unwrap();
                    assert_eq!(again, object);
                    assert_eq!(codec::digest(&again).unwrap(), wanted);
                }
                Err(error) => {
                    let annotated = matches!(&body, ObjectBody::Layer(l) if !l.annotations.is_empty());
                    assert!(annotated && encoding == Encoding::Legacy, "{error}");
                }
            }
        }
        wanted.to_string()
    })
}

fn file(content: &[u8], mode: u32) -> Node {
    Node::Blob { digest: Digest::of(content), mode, size: content.len() as u64 }
}

fn dir<const N: usize>(entries: [(&str, Node); N]) -> Dir {
    Dir { entries: entries.into_iter().map(|(name, node)| (name.to_owned(), node)).collect() }
}

fn sub<const N: usize>(entries: [(&str, Node); N]) -> Node {
    Node::Dir { mode: 0o40755, dir: dir(entries) }
}

fn f1() -> Manifest {
    Manifest::from_dir(&dir([("message.txt", file(b"hello, world\n", 0o100644))]))
}

fn f2() -> Dir {
    dir([("a", file(b"x", 0o100755)), ("d", sub([("f", file(b"x", 0o100644))]))])
}

fn f3() -> Dir {
    dir([
        ("bin", sub([("link", file(b"../share/doc/README", 0o120777)), ("tool", file(b"hello\n", 0o100755))])),
        ("empty", sub([])),
        ("share", sub([("doc", sub([("README", file(b"readme", 0o100644))]))])),
        ("zero", file(b"", 0o100600)),
    ])
}

fn layer(manifest: &str) -> Layer {
    Layer { manifest: Some(d(manifest)), annotations: Vec::new() }
}

fn platform(bottom_up: &[&str]) -> Platform {
    Platform { stack: bottom_up.iter().map(|text| d(text)).collect() }
}

#[test]
fn empty_objects() {
    let empty = Manifest::default();
    assert_eq!(empty.trees[0].digest().to_string(), "V5KXB5NBQEFXV54MV5F4OCTGB4G7KHSCXL4R2TPFWIZI3YHIHX6A====");
    let [s1, s0] = digests(empty);
    assert_eq!(s1, "UAFQ5RS7RPWKETARRNCOQMDZH5Y3DJ6XP42KS6GQMK3S2A5C5ULA====");
    assert_eq!(s0, "G5DQR77XOGO5LF46ZB25K3GSFBXW2PHX5QYXUOZFMMVKWKHMG65Q====");
    assert_eq!(digests(layer(&s1))[0], EMPTY_LAYER);
    assert_eq!(digests(layer(&s0))[1], "QH6ESJLB3JLIGL42HTQ5AVU6UEAMO2KJKROTWYSU6EEGUM5XCQJQ====");
    let wanted = [
        "YBC67LH2QKP6E3UGXZ3GEVYMDUAHH3QJGLKVNKOERBHYD5QHRX4A====",
        "V5KXB5NBQEFXV54MV5F4OCTGB4G7KHSCXL4R2TPFWIZI3YHIHX6A====",
    ];
    assert_eq!(digests(Platform::default()), wanted);
}

#[test]
fn one_file() {
    assert_eq!(f1().trees[0].digest(), d("I6SKUAOCBL2ZCAOPNOAPKZRAAKLEEKU7N5UQQZQ6ZFQJMIO4HDSQ===="));
    let old_manifest = "GHUAL6PZC5TATQD3CU33QGS7POM4EUOBRQ77NPNIO3X4ZWW53OAA====";
    assert_eq!(digests(f1()), [F1_MANIFEST, old_manifest]);
    let old_layer = "7D5L35ABOVYOCCOKLR5IJXLRHBZJMKUNPALCFD3BCHBDDF54CQ4Q====";
    assert_eq!(digests(layer(F1_MANIFEST))[0], F1_LAYER);
    assert_eq!(digests(layer(old_manifest))[1], old_layer);
    let old_empty = "QH6ESJLB3JLIGL42HTQ5AVU6UEAMO2KJKROTWYSU6EEGUM5XCQJQ====";
    let cases = [
        (0, &[F1_LAYER][..], "UWMHXJPPKKM25DDYGWCMDYYKUNIAWZAJ3YBIAFCC3KAM7FOCFOTQ===="),
        (1, &[old_layer], "52CY7SSHMBUJZD2QYNKJHZJGVH262LYCJVQF2BUNIL6WEELUEXWA===="),
        (0, &[F1_LAYER, EMPTY_LAYER], "6KYUTGIUHGZTO2ENTMCCIQIYOMJHYMUREDPFLMGYBYIURGGEM3CA===="),
        (1, &[old_layer, old_empty], "KAIXNRZXQ3N2UXHFBXJRAYT3D2FSJVP7ERMMESQHMMMQQJXBSJZA===="),
        (0, &[EMPTY_LAYER, F1_LAYER], "7BKZYBQBVIJHV4GQZ4WBHAAC7OYWDHY5FMMA6KL23RY7HGIOHLCQ===="),
    ];
    for (strategy, stack, wanted) in cases {
        assert_eq!(digests(platform(stack))[strategy], wanted);
    }
}

#[test]
fn directories() {
    let manifest = Manifest::from_dir(&f2());
    assert_eq!(manifest.trees[1].digest(), d("7KFABSMQWUFOPH2SYL2IHXR4YJKULFZCIUWNQWMB57UB3ISYEQJQ===="));
    let s1 = "XDWDCYH3JJTX4GUMNLKF3KRTZKBATFGD43JM5RH7JRM3QHU5H3EA====";
    assert_eq!(digests(manifest), [s1, "KD5VYGZXQCZOGLWGAVZ4IKEKLDJKAE7JRNXAT2EYF2UGBLXKHHWA===="]);
    assert_eq!(digests(layer(s1))[0], "BGRO5N7LY3B5J6I4M4EEWMIEPU4P6A3DOXHMZIZOLFZTIDMQOFKA====");

    let [s1, s0] = digests(Manifest::from_dir(&f3()));
    assert_eq!(s1, "VDVUHTTXDESA43TLHFKHBC6EGQGMSV7QOP243BWPSMINXUEDVADQ====");
    assert_eq!(s0, "JOK4KWZIXJA3S56ZG74HUDN6VDT6YVEY7IRZLNVKJYGPKBZIGWGQ====");
    let (new, old) = (digests(layer(&s1))[0].clone(), digests(layer(&s0))[1].clone());
    assert_eq!(new, "RXSMKROD3WRPCSM3CYFNRF43KE53CCE5ABZBIKLAJOOLNRFUMKLQ====");
    assert_eq!(old, "O7REDSCRR3EO354NRWGSZJPU32F6AUGNJWVZEOA3WB7OCKRKZSBQ====");
    assert_eq!(digests(platform(&[&new]))[0], "5QCXRH6T5HOPDAUB4NX7FSLF6EDXYICXXGV5VNZQR4GRR3DMSL4Q====");
    assert_eq!(digests(platform(&[&old]))[1], "CQW53RVB22PSTEXLYXUYZJ3EZAXHDQ27LOKO4NOEOT4QC2BVML7A====");
    let both = platform(&[&new, F1_LAYER]);
    assert_eq!(digests(both)[0], "Z5RYLSIHX3MU7HO5HCQMNLBIS3QYXMTXRDDX57Z4ADRYLNYUPQFQ====");
}

#[test]
fn tree_order() {
    let manifest = Manifest::from_dir(&f3());
    let names = |i: usize| manifest.trees[i].entries.iter().map(|e| &*e.name).collect::<Vec<_>>();
    assert_eq!(names(0), ["bin", "empty", "share", "zero"]);
    assert_eq!(names(1), ["link", "tool"]);
    assert_eq!(names(2), [""; 0]);
    assert_eq!(names(3), ["doc"]);
    assert_eq!(names(4), ["README"]);
    assert_eq!(manifest.trees.len(), 5);
}

#[test]
fn masks_and_annotations() {
    let mask = Manifest::from_dir(&dir([("gone", Node::Mask { mode: 0o020000 })]));
    assert_eq!(digests(mask)[0], "T7BG3YAUB76MCSRP6D4MZG65CD4VJP7OP6I3GYXJMPDC57UACULQ====");
    let annotated = |manifest: Option<&str>, key: &str, value| Layer {
        manifest: manifest.map(d),
        annotations: vec![Annotation { key: key.to_owned(), value }],
    };
    let text = |text: &str| AnnotationValue::Text(text.to_owned());
    let wanted = [
        "XJH4MQRBTUQ3Y464CRF42KACXPYCMBBSLJWI7OX2N4HNKXKVLBKQ====",
        "JLHQTYSDVDACMSJX3NTPKGQUU2USHKCQN4FP5WQ2SKNHPSQLEYQQ====",
    ];
    assert_eq!(digests(annotated(None, "k", text("v"))), wanted);
    let blob = annotated(None, "k", AnnotationValue::Blob(Digest::of(b"v")));
    assert_eq!(digests(blob)[0], "Y2WYQFDECLTG6B7PUP5KGGG6OP4VT52QKGVL7L5UCKZTJ5TEIMWA====");
    let both = annotated(Some(F1_MANIFEST), "key", text("value"));
    assert_eq!(digests(both)[0], "UETVHAFO6CFFUXELYITM6ZVYA2OQGMHJZ3CQ5WK26MZUIVSLLV7Q====");
}

fn f1_objects(encoding: Encoding) -> [Object; 4] {
    let strategy = Strategy::WithKindAndSalt;
    [
        object(strategy, encoding, f1()),
        object(strategy, encoding, layer(F1_MANIFEST)),
        object(strategy, encoding, platform(&[F1_LAYER])),
        object(strategy, encoding, Blob { payload: d(F1_BLOB), size: 13 }),
    ]
}

#[test]
fn legacy_bytes() {
    let files = [
        "2d2d535046532d2d0a 01 00 0000000000 01 0000000000000001
         853ff93762a06ddbf722c4ebe9ddd66d8f63ddaea97f521c3ecc20da7c976020 66696c6500 00000000000081a4
         000000000000000d 6d6573736167652e74787400 0000000000000000",
        "2d2d535046532d2d0a 01 00 0000000000 02
         620c56781ad245fa31b8e4bb732a02e1d026877dfdec748f65255821c3a3dcab",
        "2d2d535046532d2d0a 01 00 0000000000 03 0000000000000001
         5e979dd320f6134388cb85631b6f8e9dbbdbcfd3b67ab49b06cf6ec3f747ceee",
        "2d2d535046532d2d0a 01 00 0000000000 00
         853ff93762a06ddbf722c4ebe9ddd66d8f63ddaea97f521c3ecc20da7c976020 000000000000000d",
    ];
    for (text, object) in files.into_iter().zip(f1_objects(Encoding::Legacy)) {
        assert_eq!(codec::encode(&object).unwrap(), hex(text));
        assert_eq!(codec::decode(&hex(text)).unwrap(), object);
    }
}

/// Files of the existing program. Ours need not be the same bytes, but must be read as the same objects.
#[test]
fn flatbuffers_bytes() {
    let files = [
        "2d2d535046532d2d0a 01 01 0000000000 01
         10000000 00000000 0800 0c00 0700 0800 08000000 000000 03 04000000 eeffffff
         04000000 01000000 0c000000 0000 0600 0800 0400 06000000 04000000 01000000 14000000
         0000 0e00 3400 0000 0400 2400 2c00 2800 0e000000
         853ff93762a06ddbf722c4ebe9ddd66d8f63ddaea97f521c3ecc20da7c976020 a4810000 0c000000 0d00000000000000
         0b000000 6d6573736167652e74787400",
        "2d2d535046532d2d0a 01 01 0000000000 02
         0c000000 0800 0c00 0700 0800 08000000 000000 02 0c000000 0800 2800 0400 2400 08000000
         620c56781ad245fa31b8e4bb732a02e1d026877dfdec748f65255821c3a3dcab 04000000 00000000",
        "2d2d535046532d2d0a 01 01 0000000000 03
         0c000000 0800 0e00 0700 0800 08000000 000000 01 0c000000
         0000 0600 0800 0400 06000000 04000000 01000000
         5e979dd320f6134388cb85631b6f8e9dbbdbcfd3b67ab49b06cf6ec3f747ceee",
        "2d2d535046532d2d0a 01 01 0000000000 00
         10000000 00000000 0800 0c00 0700 0800 08000000 000000 04 0c000000 0800 2c00 2400 0400 08000000
         853ff93762a06ddbf722c4ebe9ddd66d8f63ddaea97f521c3ecc20da7c976020 0d00000000000000",
    ];
    for (text, object) in files.into_iter().zip(f1_objects(Encoding::FlatBuffers)) {
        assert_eq!(codec::decode(&hex(text)).unwrap(), object);
        let ours = codec::encode(&object).unwrap();
        assert_eq!(ours[..17], hex(text)[..17]);
        assert_eq!(codec::decode(&ours).unwrap(), object);
    }
}

#[test]
fn tag_records() {
    let first = Tag {
        name: "vfx/2019".parse().unwrap(),
        target: Digest::NULL,
        parent: Digest::NULL,
        user: "me@host".to_owned(),
        time: "2020-01-02T03:04:05.123456Z".parse().unwrap(),
    };
    let zeros = "00".repeat(32);
    let text = format!(
        "76667800 3230313900 {zeros} 6d6540686f737400
         323032302d30312d30325430333a30343a30352e3132333435362b30303a303000 {zeros}"
    );
    assert_eq!(codec::tag::encode(&first), hex(&text));
    assert_eq!(codec::tag::encode(&first).len(), 114);
    assert_eq!(codec::tag::decode(&hex(&text)).unwrap(), first);
    let digest = codec::tag::digest(&first);
    assert_eq!(digest, d("ZUMNUYKC6PVPXLCIQBJEP4AOHU7XZUHI3JEOXL3CZKAHENLFNAFQ===="));

    let second =
        Tag { target: Digest::of(b""), parent: digest, time: "2020-01-02T03:04:06Z".parse().unwrap(), ..first.clone() };
    assert_eq!(codec::tag::digest(&second), d("3554D6XWW77FJ74S34KICWPWNSVPSN35PCKU2K4KAV5UV6JO7LCA===="));
    let mut stream = hex("0000000000000072");
    stream.extend(codec::tag::encode(&first));
    stream.extend(hex("000000000000006b"));
    stream.extend(codec::tag::encode(&second));
    let tags = [first, second];
    assert_eq!(codec::tag::encode_stream(&tags), stream);
    assert_eq!(codec::tag::decode_stream(&stream).unwrap(), tags);
}
