//! What does not hold, where, and why: the table that `docs/semantics.md` shows.

use super::CHECKS;

/// A check that does not hold in some places.
pub struct Exception {
    pub check: &'static str,
    pub places: &'static [&'static str],
    pub why: &'static str,
}

/// The places that are compared, as root and as an ordinary user: a plain directory, a plain overlay over it, and every
/// backend.
pub const PLACES: &[&str] = &[
    "directory",
    "directory, user",
    "overlay",
    "overlay, user",
    "image",
    "server",
    "server, user",
    "render",
    "render, user",
    "fuse",
    "fuse, user",
];

/// Every place where overlayfs is.
const OVERLAYS: &[&str] =
    &["overlay", "overlay, user", "image", "server", "server, user", "render", "render, user", "fuse", "fuse, user"];

/// Every render: files of the same content and mode are links of one file.
const RENDERS: &[&str] = &["render", "render, user"];

/// What does not hold, where, and why.
pub const EXCEPTIONS: &[Exception] = &[
    Exception {
        check: "the documented time",
        places: &["directory", "directory, user", "overlay", "overlay, user", "render", "render, user"],
        why: "A plain tree has the times of when it was made. In a render, files of mode 444 are the stored payloads \
              themselves and have their times; everything else has the documented one.",
    },
    Exception {
        check: "the documented time for access and change",
        places: &["directory", "directory, user", "overlay", "overlay, user", "render", "render, user"],
        why: "The same; and a render is a plain tree whose modification times are set.",
    },
    Exception {
        check: "link counts",
        places: RENDERS,
        why: "Files of the same content and mode are links of one file: that is what makes a render cheap.",
    },
    Exception {
        check: "an inode for each entry",
        places: RENDERS,
        why: "The same. `tar`, `rsync -H` and `du` take them for hard links.",
    },
    Exception {
        check: "the same file after a change",
        places: RENDERS,
        why: "Overlayfs gives a changed file with several links below the number of the copy.",
    },
    Exception { check: "inodes of renamed files", places: RENDERS, why: "The same: the number changes with the copy." },
    Exception { check: "holes", places: &["fuse", "fuse, user"], why: "The full server does not tell where they are." },
    Exception {
        check: "huge files",
        places: &["fuse", "fuse, user"],
        why: "So the first change of a sparse file writes its holes out.",
    },
    Exception {
        check: "renamed directories from below",
        places: OVERLAYS,
        why: "Overlayfs without `redirect_dir`: `rename` gives `EXDEV`, and programs copy instead, as `mv` does.",
    },
    Exception {
        check: "early mappings",
        places: OVERLAYS,
        why: "Overlayfs: a mapping made before the first change of a file from below keeps the old content.",
    },
    Exception {
        check: "link counts of removed files",
        places: OVERLAYS,
        why: "Overlayfs: an open file from below that was never changed keeps its link count when it is removed.",
    },
    Exception {
        check: "inodes of hard links to files from below",
        places: &["overlay, user", "server, user", "fuse, user"],
        why: "Overlayfs finds the inode number below through a file handle, which takes a privilege of the initial \
              user namespace; without it the new name shows the number of the copy.",
    },
    Exception {
        check: "renames between hard links to files from below",
        places: &["overlay, user", "server, user", "fuse, user"],
        why: "Overlayfs, for the same reason, takes them for two files: `ESTALE`.",
    },
    Exception {
        check: "access control lists",
        places: &["image"],
        why: "Overlayfs asks the file system below whether it knows ACLs before it copies up, and EROFS without any \
              does not. On new and changed files they work.",
    },
];

/// The exceptions as the documentation shows them.
pub fn table() -> String {
    let mut lines = vec![format!("| does not hold | {} |", PLACES.join(" | ")), "|---".repeat(PLACES.len() + 1) + "|"];
    for known in EXCEPTIONS {
        let cells = PLACES.iter().map(|place| if known.places.contains(place) { "x" } else { "" });
        lines.push(format!("| {} | {} |", known.check, cells.collect::<Vec<_>>().join(" | ")));
    }
    lines.push(String::new());
    lines.extend(EXCEPTIONS.iter().map(|known| format!("* **{}**: {}", known.check, known.why)));
    lines.join("\n")
}

/// The names of all checks as the documentation lists them.
pub fn list() -> String {
    let group = |title: &str, edits: bool| {
        let names = CHECKS.iter().filter(|check| check.edits == edits).map(|check| check.name);
        format!("* {title}: {}.", names.collect::<Vec<_>>().join("; "))
    };
    [group("Reading", false), group("Editing", true)].join("\n")
}
