//! Merges the views of a stack's layers, as overlayfs would show them.
//!
//! Breadth first: every directory of the result knows which layers contribute to it, and the children of all of them
//! are sorted together. Among the entries of one name the topmost decides: a mask removes it, a file or symlink hides
//! whatever is below, a directory takes in the directories below it down to the first thing that is none. The mode of a
//! directory is the topmost one's. The cost is linear in the entries of all layers, times the logarithm that sorting
//! the contributors of a directory costs; the number of layers itself does not matter.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::ops::Range;

use super::build::Builder;
use super::{NodeId, NodeKind, ROOT, View};
use crate::error::Result;

/// The bytes of the view of `layers`, bottom first. Masks have done their work and are dropped.
///
/// Fails only if the result exceeds what a view can hold.
pub fn merge(layers: &[&View]) -> Result<Vec<u8>> {
    let mut merger = Merger { layers, builder: Builder::new(), queue: VecDeque::new(), sources: VecDeque::new() };
    let roots = (0..layers.len()).map(|layer| Source { layer: layer as u32, node: ROOT });
    merger.sources.extend(roots);
    merger.queue.push_back((ROOT, layers.len()));
    let mut candidates = Vec::new();
    while let Some((directory, count)) = merger.queue.pop_front() {
        merger.directory(directory, count, &mut candidates)?;
    }
    Ok(merger.builder.finish())
}

/// A node of one of the layers.
#[derive(Clone, Copy)]
struct Source {
    /// Position in the stack, 0 at the bottom.
    layer: u32,
    node: NodeId,
}

/// A source that wants to stand in a directory under `name`.
struct Candidate<'a> {
    name: &'a [u8],
    source: Source,
}

struct Merger<'a> {
    layers: &'a [&'a View],
    builder: Builder,
    /// Directories of the result that still wait for their children, with the number of their sources.
    queue: VecDeque<(NodeId, usize)>,
    /// The sources of those directories, one after the other, each group bottom first.
    sources: VecDeque<Source>,
}

impl<'a> Merger<'a> {
    /// Fills `directory`, whose `count` sources are next in line.
    fn directory(&mut self, directory: NodeId, count: usize, candidates: &mut Vec<Candidate<'a>>) -> Result<()> {
        candidates.clear();
        for source in self.sources.drain(..count) {
            let Some(view) = self.layers.get(source.layer as usize).copied() else { continue };
            candidates.extend(view.children(source.node).filter_map(|node| {
                // Directories that claim each other's children are nonsense, and could go on for ever.
                let raw = view.raw(node).filter(|raw| raw.parent == source.node)?;
                let name = view.name_of(&raw)?;
                Some(Candidate { name, source: Source { layer: source.layer, node } })
            }));
        }
        if count > 1 {
            // Stable, so that equal names stay bottom first; quick, because each layer's names are a sorted run.
            candidates.sort_by(|a, b| a.name.cmp(b.name));
        }
        self.builder.open(directory);
        let mut rest = &candidates[..];
        while let Some(first) = rest.first() {
            let same = rest.iter().take_while(|c| c.name.cmp(first.name) == Ordering::Equal).count();
            self.entry(&rest[..same])?;
            rest = &rest[same..];
        }
        Ok(())
    }

    /// Adds what `candidates`, all of one name and bottom first, make together.
    fn entry(&mut self, candidates: &[Candidate<'a>]) -> Result<()> {
        let Some(&Candidate { name, source: Source { layer, node: id } }) = candidates.last() else { return Ok(()) };
        let Some(view) = self.layers.get(layer as usize).copied() else { return Ok(()) };
        let Some(node) = view.node(id) else { return Ok(()) };
        match (node.kind, view.digest(id), view.target(id)) {
            (NodeKind::Directory { .. }, ..) => {
                let merged = self.merged_directories(candidates);
                let id = self.builder.directory(name, node.mode)?;
                self.queue.push_back((id, merged.len()));
                self.sources.extend(candidates[merged].iter().map(|c| c.source));
            }
            (NodeKind::File, Some(digest), _) => self.builder.file(name, node.mode, node.size, &digest)?,
            (NodeKind::Symlink, Some(digest), Some(target)) => {
                self.builder.symlink(name, node.mode, target, &digest)?;
            }
            // A mask; or nonsense, which is better left out than shown.
            _ => {}
        }
        Ok(())
    }

    /// Those of `candidates` that merge with the topmost one, a directory: the unbroken run of directories below it.
    fn merged_directories(&self, candidates: &[Candidate<'a>]) -> Range<usize> {
        let is_directory = |c: &Candidate<'a>| {
            let node = self.layers.get(c.source.layer as usize).and_then(|view| view.node(c.source.node));
            node.is_some_and(|node| node.is_directory())
        };
        let run = candidates.iter().rev().take_while(|c| is_directory(c)).count();
        candidates.len() - run..candidates.len()
    }
}
