//! Made-up views and requests: nothing panics, hangs or leaves its bounds. The checks are those of the fuzz targets.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../../fuzz/mount_checks.rs"]
mod checks;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;

/// One change of some bytes: a value put somewhere, or everything from there on cut off.
type Change = (Index, Option<u8>);

fn changed(seed: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for (at, value) in changes.iter().filter(|_| !seed.is_empty()) {
        match value {
            Some(value) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            _ => bytes.truncate(at.index(seed.len())),
        }
    }
    bytes
}

#[test]
fn mutated_seeds() {
    let seeds = checks::seeds();
    let value = prop_oneof![any::<u8>(), prop::sample::select(vec![0, 1, 4, 0x40, 0x7f, 0x80, 0xa0, 0xff])];
    let change = (any::<Index>(), prop::option::weighted(0.95, value));
    let input = (any::<Index>(), prop::collection::vec(change, 0..8));
    for (name, check) in checks::ALL {
        let mut runner = TestRunner::new(ProptestConfig::with_cases(4_000));
        let outcome = runner.run(&input, |(seed, changes)| {
            check(&changed(&seeds[seed.index(seeds.len())], &changes));
            Ok(())
        });
        outcome.unwrap_or_else(|failure| panic!("{name}: {failure}"));
    }
}
