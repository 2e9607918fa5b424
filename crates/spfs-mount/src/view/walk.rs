//! Paths: from a path to a node, from a node to its path, and all of them in order.

use super::{NodeId, ROOT, View};

impl View {
    /// The node at `path`, relative to the root: `a/b`. A leading or trailing `/` does not matter; `""` is the root.
    ///
    /// Symlinks are not followed, and `.` and `..` mean nothing here.
    pub fn resolve(&self, path: &str) -> Option<NodeId> {
        let mut names = path.split('/').filter(|name| !name.is_empty());
        names.try_fold(ROOT, |id, name| self.lookup(id, name.as_bytes()))
    }

    /// The path of `id` below the root, without a leading `/`; empty for the root.
    pub fn path(&self, id: NodeId) -> String {
        let mut names = Vec::new();
        let mut at = id;
        // Parents have smaller numbers; anything else is nonsense, and ends here.
        while let Some(node) = self.node(at).filter(|node| node.parent < at) {
            names.push(self.name(at));
            at = node.parent;
        }
        names.reverse();
        String::from_utf8_lossy(&names.join(&b'/')).into_owned()
    }

    /// All nodes but the root with their paths: a directory before what it holds, names in ascending byte order.
    pub fn walk(&self) -> Walk<'_> {
        self.walk_from(ROOT)
    }

    /// All nodes below directory `id` with their paths relative to it, in the order of [`View::walk`].
    pub fn walk_from(&self, id: NodeId) -> Walk<'_> {
        let start = Level { directory: id, children: self.children(id), prefix: 0 };
        Walk { view: self, levels: vec![start], path: Vec::new() }
    }
}

/// An iterator over a view, see [`View::walk`].
pub struct Walk<'a> {
    view: &'a View,
    levels: Vec<Level>,
    path: Vec<u8>,
}

/// A directory on the way to the current node.
struct Level {
    directory: NodeId,
    children: std::ops::Range<NodeId>,
    /// How much of the path names this directory, the `/` after it included.
    prefix: usize,
}

impl Iterator for Walk<'_> {
    type Item = (String, NodeId);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let level = self.levels.last_mut()?;
            let Some(id) = level.children.next() else {
                self.levels.pop();
                continue;
            };
            // A node has one parent. Directories that claim each other's children are nonsense.
            let Some(node) = self.view.node(id).filter(|node| node.parent == level.directory) else { continue };
            self.path.truncate(level.prefix);
            self.path.extend_from_slice(self.view.name(id));
            let path = String::from_utf8_lossy(&self.path).into_owned();
            if node.is_directory() {
                self.path.push(b'/');
                let children = self.view.children(id);
                self.levels.push(Level { directory: id, children, prefix: self.path.len() });
            }
            return Some((path, id));
        }
    }
}
