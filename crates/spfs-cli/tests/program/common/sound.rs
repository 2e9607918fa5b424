//! What must be true after bad luck: the repository is sound, and nothing is left in it; and ways to damage things.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Home, eventually, holds_within, leaks};

/// Ways in which a file goes bad.
pub const DAMAGES: [Damage; 5] = [Damage::Cut, Damage::Empty, Damage::Zeroed, Damage::Altered, Damage::Longer];

/// A way in which a file goes bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Only its first half is there.
    Cut,
    /// Nothing of it is there.
    Empty,
    /// All its bytes are zero.
    Zeroed,
    /// Every byte of its second half has one bit turned.
    Altered,
    /// Something was added.
    Longer,
}

impl Damage {
    /// Damages a file in place, whatever its mode.
    pub fn to(self, file: &Path) {
        let mut bytes = fs::read(file).unwrap();
        let half = bytes.len() / 2;
        match self {
            Damage::Cut => bytes.truncate(half),
            Damage::Empty => bytes.clear(),
            Damage::Zeroed => bytes.fill(0),
            Damage::Altered => bytes[half..].iter_mut().for_each(|byte| *byte ^= 0x10),
            Damage::Longer => bytes.extend_from_slice(b"\xff more"),
        }
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(file, bytes).unwrap();
    }
}

impl Home {
    /// The repository is sound, and no work file, lock or record is in it or beside it. A killed writer's leftovers
    /// are the next writer's to remove, so this writes something first.
    #[track_caller]
    pub fn is_sound(&self) {
        self.wait_for_the_end();
        // A killed process may still be on its way out when it shows nothing of itself any more.
        let mut number = 0;
        let clean = || {
            // Another content each time: a tag that does not move takes no lock, and so clears nothing away.
            number += 1;
            self.spfs_line("write --tag sound").stdin(number.to_string()).run().ok();
            leaks::unfinished(&self.repository()).is_empty()
        };
        if !holds_within(Duration::from_secs(60), clean) {
            panic!("unfinished in the repository: {:?}", leaks::unfinished(&self.repository()));
        }
        eventually("no record of a runtime is left", || {
            self.spfs_line("runtime list").run().ok().stderr_is("");
            self.records().is_empty()
        });
        self.spfs_line("check").run().ok().stdout_has("No issues found");
    }

    /// Where an object or a payload (`store`) of the repository is.
    pub fn stored(&self, store: &str, digest: &str) -> PathBuf {
        self.repository().join(store).join(&digest[..2]).join(&digest[2..])
    }

    /// Commits the directory `tree` under a tag; its digest.
    #[track_caller]
    pub fn commit(&self, tree: &str, tag: &str) -> String {
        let done = self.spfs(["commit", "-q", "--path", tree, "--tag", tag]).run();
        done.ok().text().lines().next().unwrap().to_owned()
    }
}
