//! What is likely to be wanted next: small files near one that somebody had to wait for.
//!
//! A program opens many files of a directory one after another, and each would cost the whole way to the remote and back. So
//! once a file that was waited for has come, the small files of its directory are fetched behind it, in one batch that
//! nobody waits for: [`FIRST`] of them, those that follow it first. Whoever reads on waits for the first file behind the
//! batch, and the next one is twice as large, up to [`MOST`], and goes beyond the directory in the order in which trees
//! are walked. A batch that took long halves the next one; a pause begins anew. So what is fetched in vain is bounded, and
//! a single file that is opened waits for nothing but itself.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use spfs_repo::Digest;

use super::Wanted;
use crate::view::{NodeId, NodeKind, ROOT, View};

/// Files in a first batch.
const FIRST: usize = 32;
/// Files in a batch, at most and at least.
const MOST: usize = 512;
const LEAST: usize = 8;
/// Larger files are left until they are opened.
const SMALL: u64 = 64 << 10;
/// Bytes in a batch, for each of its files: 4 MiB at most.
const BYTES: u64 = 8 << 10;
/// Nodes that are looked at, for each file of a batch: most of what is near may be here already.
const LOOKED_AT: usize = 16;
/// Who has to wait again as soon after a batch is reading on.
const READING_ON: Duration = Duration::from_secs(1);
/// A batch that came in this time may be followed by a larger one; one that took longer than [`SLOW`] by a smaller one.
const QUICK: Duration = Duration::from_millis(300);
const SLOW: Duration = Duration::from_secs(1);

/// How much is fetched ahead, by how it went so far.
#[derive(Default)]
pub(super) struct Pace {
    /// When the last batch was through, how long it took, and how many files it could have had.
    last: Option<(Instant, Duration, usize)>,
}

impl Pace {
    /// How many files the next batch may have, if somebody has to wait at `now`.
    pub fn next(&self, now: Instant) -> usize {
        match self.last {
            Some((end, ..)) if now.saturating_duration_since(end) > READING_ON => FIRST,
            Some((_, took, files)) if took < QUICK => (files * 2).min(MOST),
            Some((_, took, files)) if took > SLOW => (files / 2).max(LEAST),
            Some((.., files)) => files,
            None => FIRST,
        }
    }

    /// A batch of at most `files` that was begun at `begin` is through.
    pub fn done(&mut self, begin: Instant, now: Instant, files: usize) {
        self.last = Some((now, now.saturating_duration_since(begin), files));
    }
}

/// At most `files` small files near `file` that are not here yet.
pub(super) fn near(view: &View, file: NodeId, files: usize, is_here: &dyn Fn(&Digest) -> bool) -> Vec<Wanted> {
    let Some(directory) = view.node(file).map(|node| node.parent) else { return Vec::new() };
    let mut batch = Batch {
        view,
        is_here,
        files,
        bytes: BYTES * files as u64,
        looks: LOOKED_AT * files,
        seen: view.digest(file).into_iter().collect(),
        found: Vec::new(),
    };
    let siblings = view.children(directory);
    batch.take((file + 1..siblings.end).chain(siblings.start..file));
    if files > FIRST {
        batch.beyond(directory);
    }
    batch.found
}

/// A batch that is being put together.
struct Batch<'a> {
    view: &'a View,
    is_here: &'a dyn Fn(&Digest) -> bool,
    files: usize,
    bytes: u64,
    looks: usize,
    seen: HashSet<Digest>,
    found: Vec<Wanted>,
}

impl Batch<'_> {
    fn is_full(&self) -> bool {
        self.files == 0 || self.bytes == 0 || self.looks == 0
    }

    /// What is below `directory`, then what follows it, as a walk over the tree goes on.
    fn beyond(&mut self, directory: NodeId) {
        let view = self.view;
        let is_directory = |id: &NodeId| view.node(*id).is_some_and(|node| node.is_directory());
        view.children(directory).filter(is_directory).for_each(|below| self.tree(below));
        let mut at = directory;
        // Parents have smaller numbers; anything else is nonsense.
        while let Some(parent) = view.node(at).map(|node| node.parent).filter(|parent| at != ROOT && *parent < at) {
            let following = at + 1..view.children(parent).end;
            following.filter(is_directory).for_each(|next| self.tree(next));
            if self.is_full() {
                return;
            }
            at = parent;
        }
    }

    fn tree(&mut self, directory: NodeId) {
        if !self.is_full() {
            let view = self.view;
            self.take(view.walk_from(directory).map(|(_, id)| id));
        }
    }

    fn take(&mut self, ids: impl Iterator<Item = NodeId>) {
        for id in ids {
            if self.is_full() {
                return;
            }
            self.looks -= 1;
            let Some(node) = self.view.node(id).filter(|node| node.kind == NodeKind::File) else { continue };
            let Some(digest) = self.view.digest(id).filter(|_| (1..=SMALL.min(self.bytes)).contains(&node.size)) else {
                continue;
            };
            if self.seen.insert(digest) && !(self.is_here)(&digest) {
                self.files -= 1;
                self.bytes -= node.size;
                self.found.push(Wanted { digest, size: node.size, path: self.view.path(id) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use spfs_repo::manifest::{Dir, Node};

    use super::*;
    use crate::view::build;

    /// Directories a and c with forty small files each, and one in each that is too large; d with one file and e/f below it.
    fn view() -> View {
        let blob = |size: u64, text: String| Node::Blob { digest: Digest::of(text.as_bytes()), mode: 0o100_644, size };
        let dir = |dir: Dir| Node::Dir { mode: 0o040_755, dir };
        let many = |name: &str| {
            let small = (10..50).map(|n| (format!("{n}"), blob(10, format!("{name}{n}"))));
            Dir { entries: small.chain([("20big".to_owned(), blob(SMALL + 1, format!("{name} big")))]).collect() }
        };
        let one = |name: &str, node| Dir { entries: [(name.to_owned(), node)].into() };
        let mut d = one("1", blob(10, "d1".to_owned()));
        d.entries.insert("e".to_owned(), dir(one("f", blob(10, "f".to_owned()))));
        let root = [("a", dir(many("a"))), ("c", dir(many("c"))), ("d", dir(d)), ("z", blob(10, "z".to_owned()))];
        let root = Dir { entries: root.into_iter().map(|(name, node)| (name.to_owned(), node)).collect() };
        View::from_bytes(build(&root, |_| Ok(Vec::new())).unwrap()).unwrap()
    }

    fn paths(view: &View, file: &str, files: usize) -> Vec<String> {
        let here = Digest::of(b"a12");
        let found = near(view, view.resolve(file).unwrap(), files, &|digest| *digest == here);
        found.into_iter().map(|wanted| wanted.path).collect()
    }

    #[test]
    fn the_small_files_of_the_directory_come_first() {
        let view = view();
        let found = paths(&view, "a/45", FIRST);
        assert_eq!(found.len(), FIRST);
        assert_eq!(found[..6], ["a/46", "a/47", "a/48", "a/49", "a/10", "a/11"]);
        assert!(!found.iter().any(|path| path == "a/12" || path == "a/20big" || path == "a/45"), "{found:?}");
        assert_eq!(paths(&view, "z", FIRST), Vec::<String>::new(), "there is no other file beside it");
    }

    #[test]
    fn who_reads_on_gets_what_follows() {
        let view = view();
        let found = paths(&view, "a/45", MOST);
        assert_eq!(found.len(), 38 + 40 + 2);
        assert_eq!(found[38..40], ["c/10", "c/11"]);
        assert_eq!(found[78..], ["d/1", "d/e/f"]);
        assert_eq!(paths(&view, "d/1", MOST), ["d/e/f"]);
        let found = paths(&view, "z", MOST);
        assert_eq!((found.len(), &*found[0]), (81, "a/10"));
    }

    #[test]
    fn a_batch_is_bounded() {
        let sized = |size: u64| {
            let blob = |n: u32| Node::Blob { digest: Digest::of(&n.to_ne_bytes()), mode: 0o100_644, size };
            let root = Dir { entries: (1000..9000).map(|n| (n.to_string(), blob(n))).collect() };
            View::from_bytes(build(&root, |_| Ok(Vec::new())).unwrap()).unwrap()
        };
        let bytes = |found: &[Wanted]| found.iter().map(|wanted| wanted.size).sum::<u64>();
        let (small, large) = (sized(1), sized(SMALL));
        assert_eq!(near(&small, 1, MOST, &|_| false).len(), MOST);
        assert_eq!(bytes(&near(&large, 1, MOST, &|_| false)), BYTES * MOST as u64);
        let looks = std::cell::Cell::new(0);
        let all_here = |_: &Digest| {
            looks.set(looks.get() + 1);
            true
        };
        assert_eq!(near(&small, 1, FIRST, &all_here).len(), 0);
        assert_eq!(looks.get(), LOOKED_AT * FIRST);
    }

    #[test]
    fn batches_grow_while_they_are_quick_and_somebody_reads_on() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        let mut batch = |pause: u64, took: u64| {
            now += Duration::from_millis(pause);
            let files = pace.next(now);
            let begin = now;
            now += Duration::from_millis(took);
            pace.done(begin, now, files);
            files
        };
        assert_eq!([batch(0, 10), batch(10, 10), batch(10, 10)], [FIRST, 2 * FIRST, 4 * FIRST]);
        assert_eq!([batch(10, 500), batch(10, 2000), batch(10, 10)], [8 * FIRST, 8 * FIRST, 4 * FIRST]);
        assert_eq!([batch(10, 10), batch(10, 10)], [8 * FIRST, MOST]);
        assert_eq!(batch(10, 10), MOST);
        assert_eq!(batch(1100, 10), FIRST);
    }
}
