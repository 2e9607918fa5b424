//! The metadata images that root mounts: one for each view, made once, in a cache that only root can write.

use std::fs::File;
use std::path::PathBuf;

use spfs_mount::image;
use spfs_mount::view::View;

use crate::{Spfs, cache};

/// The image of `view`, whose cache key is `key`; made if it is not there, or is from another boot.
///
/// `None` where there is no place that only root can write, or nothing can be written: the metadata server does as well.
pub fn ensure(spfs: &Spfs, key: &str, view: &View) -> Option<PathBuf> {
    // The directory is checked to be the caller's own and closed to others.
    let directory = spfs.dirs.cache_sub("images")?;
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
