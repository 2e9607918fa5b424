//! The metadata images that root mounts: one for each view, made once, in a cache that only root can write.

use std::fs::File;
use std::path::{Path, PathBuf};

use spfs_mount::image;
use spfs_mount::view::View;

use crate::{Spfs, cache};

/// The image of `view`, whose cache key is `key`; made if it is not there, or is from another boot.
///
/// `None` where there is no place that only root can write and that an image can be mounted from, or nothing can be
/// written: the metadata server does as well.
pub fn ensure(spfs: &Spfs, key: &str, view: &View) -> Option<PathBuf> {
    // The directory is checked to be the caller's own and closed to others.
    let directory = spfs.dirs.cache_sub("images").filter(|directory| !is_refused(directory))?;
    let (uid, gid) = (spfs.env.uid, spfs.env.gid);
    let path = directory.join(format!("{key}-{}-{uid}-{gid}.erofs", image::VERSION));
    let made_now = File::open(&path).and_then(|file| image::stamp(&file));
    if made_now.is_ok_and(|stamp| Some(stamp) == spfs.env.boot_id) {
        cache::touch(&path, spfs.env.now());
        return Some(path);
    }
    if path.is_dir() {
        // Nothing of ours; a file cannot take its name.
        let _ = std::fs::remove_dir_all(&path);
    }
    image::create(&path, view, uid, gid, &spfs.env.boot().ok()?).ok()?;
    Some(path)
}

/// Whether the kernel mounts no image from files in `directory`: ENOTBLK, for it reads them through the page cache
/// (`read_folio`), which the files of tmpfs and of overlayfs do not offer. Known without trying, for a start would try
/// every time, and remark upon it.
fn is_refused(directory: &Path) -> bool {
    /// `TMPFS_MAGIC` and `OVERLAYFS_SUPER_MAGIC` (include/uapi/linux/magic.h).
    const REFUSED: [u32; 2] = [0x0102_1994, 0x794c_7630];
    rustix::fs::statfs(directory).is_ok_and(|found| REFUSED.contains(&(found.f_type as u32)))
}
