//! Damaged, cut and made-up bytes: decoders never panic, and never pass one object off as another.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../../fuzz/checks.rs"]
mod checks;

use spfs_repo::{Encoding, Error, Object, ObjectBody, codec};

/// A small generator of numbers that is the same in every run (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

/// Every target over mutations of every seed, as a fuzzer would do it: bits, interesting bytes, cuts, copies.
#[test]
fn mutated_seeds() {
    let mut random = Random(0x5eed_5eed_5eed_5eed);
    let seeds = checks::seeds();
    for (_, check) in checks::ALL {
        seeds.iter().for_each(|seed| check(seed));
        for _ in 0..20_000 {
            let mut bytes = seeds[random.below(seeds.len())].clone();
            for _ in 0..=random.below(4) {
                mutate(&mut bytes, &mut random);
            }
            check(&bytes);
        }
    }
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    let len = bytes.len();
    let at = random.below(len);
    match random.below(6) {
        _ if len == 0 => bytes.push(random.below(256) as u8),
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = [0, 1, 4, 0x7f, 0x80, 0xff][random.below(6)],
        2 => bytes.truncate(at),
        3 => bytes.insert(at, random.below(256) as u8),
        4 => drop(bytes.remove(at)),
        _ => {
            let (from, n) = (random.below(len), random.below(9));
            let piece = bytes[from..(from + n).min(len)].to_vec();
            bytes.splice(at..(at + n).min(len), piece);
        }
    }
}

/// What `bytes` decode to, if its digest is that of `original`; then it must also be equal.
fn same_or_refused(bytes: &[u8], original: &Object, digest: &spfs_repo::Digest, what: &str) {
    let Ok(object) = codec::decode(bytes) else { return };
    if codec::digest(&object).unwrap() == *digest {
        match (&object.body, &original.body) {
            // The digest of a blob is its payload's, which says nothing about the size that the blob claims.
            (ObjectBody::Blob(one), ObjectBody::Blob(other)) => assert_eq!(one.payload, other.payload, "{what}"),
            (one, other) => assert_eq!(one, other, "{what}"),
        }
    }
}

fn small_objects() -> impl Iterator<Item = (Vec<u8>, Object)> {
    checks::seeds().into_iter().filter_map(|bytes| codec::decode(&bytes).ok().map(|object| (bytes, object)))
}

#[test]
fn every_byte_altered() {
    let mut seen = 0;
    for (bytes, original) in small_objects() {
        seen += 1;
        let digest = codec::digest(&original).unwrap();
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            for value in 0..=255 {
                altered[at] = value;
                same_or_refused(&altered, &original, &digest, &format!("{:?}: {value} at {at}", original.kind()));
            }
        }
    }
    assert_eq!(seen, 11);
}

#[test]
fn every_cut() {
    for (bytes, original) in small_objects() {
        let digest = codec::digest(&original).unwrap();
        for len in 0..bytes.len() {
            match original.format.encoding {
                // Nothing in the legacy encoding can be left out.
                Encoding::Legacy => {
                    assert!(codec::decode(&bytes[..len]).is_err(), "{:?} cut to {len}", original.kind())
                }
                Encoding::FlatBuffers => same_or_refused(&bytes[..len], &original, &digest, &format!("cut to {len}")),
            }
        }
    }
}

#[test]
fn headers_of_other_versions() {
    let bytes = codec::encode(&Object::new(spfs_repo::Manifest::default())).unwrap();
    let with = |at: usize, value: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        codec::decode(&bytes).map(drop)
    };
    assert!(matches!(with(0, b'+'), Err(Error::Corrupt { .. })));
    assert!(matches!(with(9, 2), Err(Error::Unsupported { .. })), "strategy");
    assert!(matches!(with(10, 2), Err(Error::Unsupported { .. })), "encoding");
    assert!(matches!(with(16, 6), Err(Error::Unsupported { .. })), "kind");
    assert!(matches!(with(16, 4), Err(Error::Corrupt { .. })), "a tree is no object");
    assert!(matches!(with(16, 2), Err(Error::Corrupt { .. })), "header and content disagree");
    assert!(with(13, 0xff).is_ok(), "reserved bytes are ignored");
}

/// A few bytes that claim many items are refused before any room is made for them.
#[test]
fn large_claims() {
    let header = |kind: u8| [codec::MAGIC.as_slice(), &[1, 0, 0, 0, 0, 0, 0, kind]].concat();
    for kind in [1, 3] {
        for count in [1 << 20, 1 << 40, u64::MAX] {
            let bytes = [header(kind), count.to_be_bytes().to_vec(), vec![0; 64]].concat();
            assert!(matches!(codec::decode(&bytes), Err(Error::Corrupt { .. })));
            assert!(codec::tag::decode_stream(&bytes[17..]).is_err());
        }
    }
}
